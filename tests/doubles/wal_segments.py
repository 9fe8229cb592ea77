# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Segments of a log without a server: pages with the headers of real ones, and bytes that depend on their position."""

from __future__ import annotations

import functools
import pathlib
import random
import struct

PAGE = 8192
SIZE = 1 << 20
SYSTEM = "7000000000000000001"
#: Where timeline 2 leaves timeline 1: inside its third segment.
LEFT = 4 * SIZE + 9000
HISTORY = f"1\t0/{LEFT:X}\tno recovery target specified\n".encode()
STARTS = {1: 2 * SIZE, 2: 4 * SIZE}
ENDS = {1: LEFT, 2: 5 * SIZE + 20_008}
TAIL = "000000020000000000000005.partial"


@functools.lru_cache(maxsize=64)
def segment(timeline: int, start: int, end: int = 0, system: str = SYSTEM) -> bytes:
    """One segment; from position ``end`` on (0: nowhere) it is zeros, as the receiver pads it."""
    end = end or start + SIZE
    pages = []
    for address in range(start, start + SIZE, PAGE):
        first = address == start
        header = struct.pack("=HHIQI4x", 0xD110, 2 if first else 0, timeline, address, 0)
        header += struct.pack("=QII", int(system), SIZE, PAGE) if first else b""
        body = random.Random(f"{timeline} {address}").randbytes(PAGE - len(header))
        pages.append(header + body)
    data = b"".join(pages)
    # the last byte that was written is not zero
    return data if end >= start + SIZE else data[:end - start - 1] + b"\x01" + bytes(SIZE - (end - start))


def fill(folder: pathlib.Path) -> None:
    """A spool: timeline 1 up to where it was left, timeline 2 with its history, one whole segment and a tail."""
    folder.mkdir(parents=True)
    for number in (2, 3):
        (folder / f"00000001000000000000000{number}").write_bytes(segment(1, number * SIZE))
    (folder / "000000010000000000000004.partial").write_bytes(segment(1, 4 * SIZE, LEFT))
    (folder / "00000002.history").write_bytes(HISTORY)
    (folder / "000000020000000000000004").write_bytes(segment(2, 4 * SIZE))
    (folder / TAIL).write_bytes(segment(2, 5 * SIZE, ENDS[2]))
