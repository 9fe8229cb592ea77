# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the S3 backend moves bytes, beside plain boto3 transfers: same store, same objects, same part size, same number of requests at a time.

usage: make bench-s3 S3_ARGS="..." or s3_bench.py [--rounds N] [--size MIB] [--plain-http]

Both upload and both download in pairs, in turn first and second; the ratio is taken within a pair, and its median is told. Ours conditionally creates
the object, sends and compares a SHA-256 of every part, and reads in chunks of 1 MiB as a restore does; boto3 does what it does by default. What is
read is compared. The store is SeaweedFS on this machine, so both share its two cores with it.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".dev"))

MIB = 1 << 20
#: What is required of uploads and downloads, as a part of boto3's speed.
REQUIRED = 0.8
#: Objects at a time, as the packs of a capture and the files of a restore.
OBJECTS = 2


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="pairs (default 7)")
    parser.add_argument("--size", type=int, default=128, metavar="MIB", help="bytes per upload and download, in two objects (default 128)")
    parser.add_argument("--plain-http", action="store_true", help="without TLS")
    return parser.parse_args(argv)


class Plain:
    """boto3's own transfers."""

    def __init__(self, config: dict[str, Any], part: int, requests: int) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        session = boto3.session.Session()
        session._session.set_config_variable("credentials_file", config["credentials_file"])
        self.api = session.client("s3", endpoint_url=config["endpoint"], region_name="us-east-1", verify=config["ca_file"],
                                  config=Config(max_pool_connections=requests, s3={"addressing_style": "path"}))
        self.bucket = config["url"].split("/")[2]
        self.transfer = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=max(1, requests // OBJECTS))

    def put(self, name: str, data: bytes) -> None:
        self.api.upload_fileobj(io.BytesIO(data), self.bucket, f"plain/{name}", Config=self.transfer)

    def get(self, name: str, size: int) -> bytes:
        into = io.BytesIO()
        self.api.download_fileobj(self.bucket, f"plain/{name}", into, Config=self.transfer)
        return into.getvalue()


class Ours:
    """The backend as captures and restores use it."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def put(self, name: str, data: bytes) -> None:
        new = self.backend.new(name, "pack")
        view = memoryview(data)
        for start in range(0, len(data), MIB):
            new.write(view[start:start + MIB])
        new.commit()

    def get(self, name: str, size: int) -> bytes:
        return b"".join(self.backend.read_range(name, start, min(MIB, size - start)) for start in range(0, size, MIB))


def timed(work: Callable[[int], object], threads: ThreadPoolExecutor) -> float:
    begin = time.perf_counter()
    list(threads.map(work, range(OBJECTS)))
    return time.perf_counter() - begin


def main(argv: list[str]) -> int:
    options = arguments(argv)
    from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import s3, s3_object
    from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed

    data = [random.Random(number).randbytes(options.size * MIB // OBJECTS) for number in range(OBJECTS)]
    ratios: dict[str, list[float]] = {"upload": [], "download": []}
    speeds: dict[tuple[str, str], list[float]] = {}
    with Seaweed() as store, ThreadPoolExecutor(OBJECTS) as threads:
        config = store.config("benchmark", "ours")
        if options.plain_http:
            config.update(endpoint=f"http://127.0.0.1:{store.ports[3]}", ca_file=None)
        s3.S3Backend(config).prepare()
        for number in range(-1, options.rounds):
            # a backend of its own per round, so that nothing is read from its memory
            sides: dict[str, Any] = {"ours": Ours(s3.S3Backend(config)), "boto3": Plain(config, s3_object.PART, s3.CONNECTIONS)}
            for word in ratios:
                seconds = {}
                for side in sorted(sides, reverse=bool(number % 2)):
                    mover, name = sides[side], f"services/bench/{number}"

                    def work(index: int, mover: Any = mover, name: str = name, word: str = word) -> None:
                        if word == "upload":
                            mover.put(f"{name}-{index}", data[index])
                        elif mover.get(f"{name}-{index}", len(data[index])) != data[index]:
                            raise RuntimeError("what was read is not what was written")

                    seconds[side] = timed(work, threads)
                if number >= 0:  # the first pair warms up
                    ratios[word].append(seconds["boto3"] / seconds["ours"])
                    for side, value in seconds.items():
                        speeds.setdefault((word, side), []).append(options.size / value)
    short = 0
    for word, values in ratios.items():
        middle = statistics.median(values)
        short += middle < REQUIRED
        told = ", ".join(f"{side} {statistics.median(speeds[word, side]):.0f} MiB/s" for side in ("ours", "boto3"))
        print(f"{'ok   ' if middle >= REQUIRED else 'SHORT'} S3 {word}: {middle:.2f} of boto3 ({min(values):.2f} to {max(values):.2f}),"
              f" required {REQUIRED}; {told}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
