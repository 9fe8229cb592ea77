# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Positions and files of PostgreSQL's write-ahead log: names, page headers, how far a file that is being filled reaches."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

PAGE = 8192
#: Records begin at multiples of this.
ALIGNMENT = 8
_SEGMENT = re.compile(r"[0-9A-F]{24}\Z")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history\Z")
#: XLogLongPageHeaderData: magic, flags, timeline, address of the page, length of what goes on, (padding), system, segment size, page size
_LONG = struct.Struct("=HHIQI4xQII")
_ADDRESS = struct.Struct("=Q")
_LONG_FLAG = 0x0002


def text(position: int) -> str:
    """A position as PostgreSQL writes it: 16/B374D848."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def parse(position: str) -> int:
    """The other way; ValueError."""
    high, slash, low = position.partition("/")
    if not slash or not high or not low or len(high) > 8 or len(low) > 8:
        raise ValueError(f"not a log position: {position!r}")
    return (int(high, 16) << 32) | int(low, 16)


def segment_name(timeline: int, position: int, size: int) -> str:
    """The file that holds a position."""
    number, per = position // size, 0x100000000 // size
    return f"{timeline:08X}{number // per:08X}{number % per:08X}"


def parse_segment(name: str, size: int) -> tuple[int, int] | None:
    """(timeline, first position) of a segment's file name; None for any other name. All numbers are hexadecimal, the timeline too."""
    if not _SEGMENT.match(name):
        return None
    low = int(name[16:], 16)
    per = 0x100000000 // size
    return (int(name[:8], 16), (int(name[8:16], 16) * per + low) * size) if low < per else None


def parse_history(name: str) -> int | None:
    """The timeline of a history file's name."""
    found = _HISTORY.match(name)
    return int(found.group(1), 16) if found else None


@dataclass
class Header:
    """What the first page of a segment says of it. ``system`` is the cluster's identifier in decimal, as SQL shows it."""

    timeline: int
    start: int
    system: str
    segment_size: int


def header(first: bytes) -> Header | None:
    """The header of a segment; None when these are not the first bytes of one (bytes are in the order of this machine)."""
    if len(first) < _LONG.size:
        return None
    _magic, flags, timeline, address, _rest, system, size, page = _LONG.unpack_from(first)
    if not flags & _LONG_FLAG or page != PAGE or size < 1 << 20 or size & (size - 1) or address % size:
        return None
    return Header(timeline, address, str(system), size)


def paged(data: bytes, address: int) -> int:
    """How many bytes from a page's ``address`` on lie in pages that carry their own address: what was received, to the page."""
    for offset in range(0, len(data), PAGE):
        if len(data) - offset < 16 or _ADDRESS.unpack_from(data, offset + 8)[0] != address + offset:
            return offset
    return len(data)


def filled(data: bytes, address: int, known: int) -> int:
    """How many bytes of ``data``, from a page's ``address`` on in a file that is being received, are certainly written.

    The receiver pads a new file with zeros to its full length, so the length tells nothing. A page that was received carries its own
    address; the first one that does not ends what counts (so does a hole that a power cut left). Inside the last page two lower bounds
    are at hand, and the larger one is taken: ``known``, the position up to which the receiver reported to the server that it wrote (it
    writes before it reports, at most once a second), and the last byte that is not zero, rounded up to 8. The second is never too high:
    log records are aligned to 8 and written in order. It may be too low, by the zeros a record ends with; then the piece ends inside
    that record, the position told as proven lies before its end too, and the next piece goes on there.
    """
    end = paged(data, address)
    last = max(0, end - 1) // PAGE * PAGE
    written = last + -(-len(data[last:end].rstrip(b"\0")) // ALIGNMENT) * ALIGNMENT
    return min(end, max(written, known - address))


def ancestors(history: bytes, timeline: int) -> list[tuple[int, int]]:
    """(timeline, position at which the next one left it) in a history file, oldest first; ValueError when it is none."""
    found = []
    for raw in history.decode("utf-8", "replace").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].isdigit():
            raise ValueError(f"not a line of a history file: {line[:80]!r}")
        found.append((int(words[0]), parse(words[1])))
    numbers = [number for number, _end in found]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= timeline):
        raise ValueError("the timelines of a history file must rise")
    return found
