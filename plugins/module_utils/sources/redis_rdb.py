# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The outside of an RDB file: what varies although no key did.

A dump begins with auxiliary fields (time, memory in use, replication ids) and ends with a checksum over all. Both are
kept apart from the body, so that unchanged data gives an unchanged body.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

from ..errors import SourceError

_AUX = 0xFA
_EOF = 0xFF
#: How far into the file the auxiliary fields are looked for.
_HEAD = 1 << 16
_CHECKSUM = 8


class _Short(Exception):
    """The data at hand ends inside a field."""


@dataclass
class Shape:
    """Where the body of an RDB file begins and ends, in bytes; header and footer as they are."""

    header: bytes
    footer: bytes
    size: int

    @property
    def body(self) -> tuple[int, int]:
        return len(self.header), self.size - len(self.footer)


def _length(data: bytes, at: int) -> tuple[int, int, bool]:
    """(value, next position, is a special encoding)."""
    if at >= len(data):
        raise _Short
    first = data[at]
    kind = first >> 6
    if kind == 0:
        return first & 0x3F, at + 1, False
    if kind == 3:
        return first & 0x3F, at + 1, True
    width = 2 if kind == 1 else 5 if first == 0x80 else 9
    if at + width > len(data):
        raise _Short
    if kind == 1:
        return ((first & 0x3F) << 8) | data[at + 1], at + 2, False
    return int.from_bytes(data[at + 1:at + width], "big"), at + width, False


def _skip_string(data: bytes, at: int) -> int:
    value, at, special = _length(data, at)
    if not special:
        at += value
    elif value in (0, 1, 2):
        at += 1 << value
    elif value == 3:
        packed, at, _special = _length(data, at)
        _plain, at, _special = _length(data, at)
        at += packed
    else:
        raise _Short
    if at > len(data):
        raise _Short
    return at


def header_length(data: bytes) -> int:
    """Bytes of the magic and the auxiliary fields at the start of a dump."""
    at = 9
    try:
        while at < len(data) and data[at] == _AUX:
            at = _skip_string(data, _skip_string(data, at + 1))
    except _Short:
        pass  # a field that reaches beyond what is looked at stays in the body
    return at


def shape(descriptor: int, where: str) -> Shape:
    """Look at an open RDB file. Raises SourceError when it is none."""
    size = os.fstat(descriptor).st_size
    head = os.pread(descriptor, _HEAD, 0)
    if size < 9 + 1 + _CHECKSUM or head[:5] != b"REDIS" or not head[5:9].isdigit():
        raise SourceError("this is no RDB file", where, "see the server's log, then run the same command again")
    tail = os.pread(descriptor, _CHECKSUM + 1, size - _CHECKSUM - 1)
    if tail[0] != _EOF:
        raise SourceError("the RDB file has no end mark: it is cut short", where, "see the server's log, then run the same command again")
    return Shape(head[:header_length(head)], tail[1:], size)


class Slice(io.RawIOBase):
    """A part of an open file as a stream, read by position; ``seen`` is called with the bytes read."""

    def __init__(self, descriptor: int, start: int, end: int, seen: Any) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at = start
        self._end = end
        self._seen = seen

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[:max(0, self._end - self._at)]
        if not view:
            return 0
        size = os.preadv(self._descriptor, [view], self._at)
        if size == 0:
            raise SourceError("the RDB file became shorter while it was read", str(self._descriptor), "run the same command again")
        self._at += size
        self._seen(size)
        return size
