# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A piece of a cluster's file in memory, and what is new of it on its way into chunks."""

from __future__ import annotations

import os
from typing import Any

from ..libraries import need
from .cluster_pages import MARK, PAGE, marks
from .cluster_parent import Piece
from .contract import Writer

#: Bytes read, verified and compared at once: so many that what each step costs beside its work does not count.
BLOCK = 4 << 20
#: About the size of a chunk.
CHUNK = 1 << 20


class Block:
    """Up to 4 MiB of a span in memory. units: how many marks, the last one maybe of fewer bytes; whole: how many complete pages."""

    def __init__(self, offset: int, view: memoryview, buffer: bytearray, unit: int) -> None:
        self.offset = offset
        self.view = view
        self.buffer = buffer
        self.length = len(view)
        self.unit = unit
        self.units = -(-self.length // unit)
        self.whole = self.length // PAGE
        self.marks = b""
        self.patched = False

    def patch(self, key: bytes, page: int) -> None:
        """A page was read again."""
        number = page * PAGE // self.unit
        mark = marks(key, self.view[number * self.unit:(number + 1) * self.unit], self.unit)
        self.marks = self.marks[:number * MARK] + mark + self.marks[(number + 1) * MARK:]
        self.patched = True


class Run:
    """New pages of one job on their way into chunks."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._data = bytearray()
        self._placed: list[tuple[list[Piece], int, int, int]] = []

    def add(self, pieces: list[Piece], at: int, data: memoryview) -> None:
        """Store ``data``, which stands at ``at`` in its file; pieces gets its place at once or when the chunk is full."""
        whole = len(data) // CHUNK * CHUNK
        for start in range(0, whole, CHUNK):
            pieces.append([at + start, self._writer.put(data[start:start + CHUNK]), 0, CHUNK])
        if whole == len(data):
            return
        self._placed.append((pieces, at + whole, len(self._data), len(data) - whole))
        self._data += data[whole:]
        if len(self._data) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Store what has gathered."""
        if not self._data:
            return
        number = self._writer.put(bytes(self._data))
        for pieces, at, offset, length in self._placed:
            pieces.append([at, number, offset, length])
        self._data, self._placed = bytearray(), []


def ranges(units: Any, block: Block) -> list[tuple[int, int]]:
    """Byte ranges of the units that are true, neighbours joined."""
    if units.all():
        return [(0, block.length)]
    if not units.any():
        return []
    numpy = need("numpy")
    edges = numpy.flatnonzero(numpy.diff(units.astype(numpy.int8), prepend=0, append=0))
    return [(int(low) * block.unit, min(int(high) * block.unit, block.length)) for low, high in zip(edges[::2], edges[1::2])]


def read_into(descriptor: int, view: memoryview, at: int) -> None:
    """Fill the view from the file; what lies behind its end (it was cut since) is zeros."""
    done = 0
    while done < len(view):
        got = os.preadv(descriptor, [view[done:]], at + done)
        if got == 0:
            view[done:] = bytes(len(view) - done)
            return
        done += got
