# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Positions in a write-ahead log, names of its segments, and which timeline descends from which."""

from __future__ import annotations

import re
from dataclasses import dataclass

_POSITION = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")
_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})\Z")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history\Z")
_PARENT = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s+(.*))?\Z")


def parse_position(text: str) -> int:
    """``0/3000028`` as a byte position; ValueError for anything else."""
    found = _POSITION.match(text.strip())
    if not found:
        raise ValueError(f"not a position in the log: {text!r}")
    return int(found.group(1), 16) << 32 | int(found.group(2), 16)


def position_text(position: int) -> str:
    """A byte position as the server writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def parse_timeline(text: str) -> int:
    """A timeline as people write it: ``12``, ``0xC``, or the eight hexadecimal digits of a file name. ValueError otherwise."""
    text = text.strip()
    if re.fullmatch(r"0[xX][0-9A-Fa-f]+|[0-9A-Fa-f]{8}", text):
        number = int(text, 16)
    elif re.fullmatch(r"[0-9]+", text):
        number = int(text)
    else:
        raise ValueError(f"not a timeline: {text!r}")
    if not 0 < number < 1 << 32:
        raise ValueError(f"not a timeline: {text!r}")
    return number


def segment_name(timeline: int, number: int, size: int) -> str:
    """The file name of the segment with this number (position // size)."""
    per = (1 << 32) // size
    return f"{timeline:08X}{number // per:08X}{number % per:08X}"


def parse_segment(name: str, size: int) -> tuple[int, int] | None:
    """(timeline, segment number) of a segment's file name; None for other names."""
    found = _SEGMENT.match(name)
    if not found:
        return None
    timeline, high, low = (int(part, 16) for part in found.groups())
    per = (1 << 32) // size
    return (timeline, high * per + low) if low < per else None


def history_name(timeline: int) -> str:
    """The file name of a timeline's history."""
    return f"{timeline:08X}.history"


def parse_history_name(name: str) -> int | None:
    """The timeline of a history's file name; None for other names."""
    found = _HISTORY.match(name)
    return int(found.group(1), 16) if found else None


@dataclass(frozen=True)
class Piece:
    """One part of the way to the end of a timeline: this timeline's log from ``start`` to ``end`` (None: open)."""

    timeline: int
    start: int
    end: int | None


def parse_history(content: bytes) -> list[tuple[int, int, str]]:
    """[(parent timeline, position at which it was left, reason)] in order. ValueError when it is no history."""
    parents: list[tuple[int, int, str]] = []
    for line in content.decode("utf-8", "replace").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _PARENT.match(line)
        if not found:
            raise ValueError(f"not a line of a timeline's history: {line[:80]!r}")
        parents.append((int(found.group(1)), parse_position(found.group(2)), found.group(3) or ""))
        if len(parents) > 1 and (parents[-1][0] <= parents[-2][0] or parents[-1][1] < parents[-2][1]):
            raise ValueError("the timelines of a history are out of order")
    return parents


def way(timeline: int, histories: dict[int, bytes]) -> list[Piece]:
    """The pieces of log that lead to the end of a timeline, oldest first. KeyError: its history is not known."""
    if timeline == 1:
        return [Piece(1, 0, None)]
    pieces: list[Piece] = []
    start = 0
    for parent, left, _reason in parse_history(histories[timeline]):
        if parent >= timeline:
            raise ValueError("a timeline's history names itself")
        pieces.append(Piece(parent, start, left))
        start = left
    pieces.append(Piece(timeline, start, None))
    return pieces


def on_way(pieces: list[Piece], timeline: int, position: int) -> bool:
    """Whether a point of a timeline lies on the way."""
    return any(piece.timeline == timeline and piece.start <= position and (piece.end is None or position <= piece.end) for piece in pieces)
