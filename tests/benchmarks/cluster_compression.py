# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each level of compression costs and saves on the chunks of a cluster: why level 1 is the default for clusters, and why it is not zstd's own.

usage: cluster_compression.py DIRECTORY. Prints measure() of that cluster as JSON. The benchmark runs it as a process of its own: what it
holds in memory would count in the peaks of all others.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Iterator

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 1 << 20
#: Chunks that are looked at.
SAMPLE = 192
LEVELS = (1, 2, 3, 6, 9)


def chunks(directory: Path) -> list[bytes]:
    """Chunks of the cluster's larger relations, evenly picked."""
    def all_of() -> Iterator[tuple[Path, int]]:
        for path in sorted((directory / "base").rglob("[0-9]*")):
            if path.is_file():
                yield from ((path, at) for at in range(0, path.stat().st_size - CHUNK + 1, CHUNK))

    places = list(all_of())
    found = []
    for path, at in places[::max(1, len(places) // SAMPLE)]:
        with path.open("rb") as handle:
            handle.seek(at)
            found.append(handle.read(CHUNK))
    return found


def measure(directory: Path) -> list[dict[str, Any]]:
    """[{"name", "speed": MiB per second of one core, "share": of the content that is stored}]; the best of three passes, which take turns."""
    sys.path.insert(0, str(ROOT / ".dev"))
    import zstandard

    from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.compression import compressor_of

    racers = {"zstd's own 1": zstandard.ZstdCompressor(level=1), **{f"`compression: {level}`": compressor_of(level) for level in LEVELS}}
    data = chunks(directory)
    seconds = dict.fromkeys(racers, float("inf"))
    stored = {}
    for _pass in range(3):
        for name, racer in racers.items():
            begun = time.thread_time()
            stored[name] = sum(len(racer.compress(chunk)) for chunk in data)
            seconds[name] = min(seconds[name], time.thread_time() - begun)
    return [{"name": name, "speed": len(data) / seconds[name], "share": stored[name] / (len(data) * CHUNK)} for name in racers]


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
