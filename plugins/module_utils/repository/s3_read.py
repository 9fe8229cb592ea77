# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Reading ranges of S3 objects: whole blocks, each fetched once, the next ones fetched ahead while an object is read in order.

A restore asks for chunks of about a MiB one after another; a request per chunk would wait for the network each time.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from ..errors import StorageError
from ..libraries import need
from .s3_client import ATTEMPTS, Client

#: Bytes of a block, blocks kept, blocks fetched ahead of an object that is read in order.
BLOCK = 8 << 20
_KEPT = 8
_AHEAD = 2
#: A range up to this size far from what was read before is asked for alone.
_ALONE = 64 << 10


class Body(NamedTuple):
    """Bytes of a range, and the size of the whole object."""

    data: bytes
    size: int


def fetch(client: Client, name: str, start: int, length: int, version: str = "") -> Body:
    """One range, of the current version or of another; empty beyond the object's end. A body that breaks off is asked for again.

    FileNotFoundError when there is no such object.
    """
    exceptions = need("botocore.exceptions")
    which = {"VersionId": version} if version else {}
    pause = 0.1
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 5.0)
        with client.translated("read", name):
            try:
                answer = client.api.get_object(Bucket=client.bucket, Key=client.key(name), Range=f"bytes={start}-{start + length - 1}", **which)
            except exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 416:
                    raise
                return Body(b"", start)
        size = int(str(answer.get("ContentRange", "")).rpartition("/")[2] or answer["ContentLength"])
        wanted = min(length, max(0, size - start))
        try:
            data = answer["Body"].read()
        except (exceptions.BotoCoreError, OSError):
            continue  # it broke off: botocore does not retry a body
        if len(data) >= wanted:
            return Body(data[:wanted], size)
    raise StorageError(f"the S3 server breaks off in the middle of an object ({ATTEMPTS} attempts)", client.where(name), "check the S3 server and the network",
                       "unreachable")


class Blocks:
    """A bounded cache of blocks, shared by all threads of a run."""

    def __init__(self, client: Client, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._threads = threads
        self._guard = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], Future[Body]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, or fewer when the object ends before."""
        first, last = offset // BLOCK, (offset + max(length, 1) - 1) // BLOCK
        if length <= _ALONE and first == last and not self._near(name, first):
            return fetch(self._client, name, offset, length).data if length else b""
        found = []
        for number in range(first, last + 1):
            body = self._get(name, number, wanted=True)
            found.append(body.data)
            if len(body.data) < BLOCK:
                break
        start = offset - first * BLOCK
        return b"".join(found)[start:start + length] if len(found) > 1 else found[0][start:start + length]

    def _near(self, name: str, number: int) -> bool:
        with self._guard:
            return (name, number) in self._blocks or (name, number - 1) in self._blocks

    def _get(self, name: str, number: int, wanted: bool) -> Body:
        with self._guard:
            ahead = [number + step for step in range(1, _AHEAD + 1)] if number == 0 or (name, number - 1) in self._blocks else []
            future = self._start(name, number)
            for other in ahead:
                if other * BLOCK < self._sizes.get(name, 0):
                    self._start(name, other)
        try:
            body = future.result()
        except BaseException:
            with self._guard:
                self._blocks.pop((name, number), None)
            raise
        with self._guard:
            if len(self._sizes) > 4096:
                self._sizes.clear()
            self._sizes[name] = body.size
        return body

    def _start(self, name: str, number: int) -> Future[Body]:
        key = (name, number)
        future = self._blocks.get(key)
        if future is None:
            future = self._blocks[key] = self._threads.submit(fetch, self._client, name, number * BLOCK, BLOCK)
            while len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(key)
        return future
