# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and positions of a write-ahead log, and how far a file that is being received reaches."""

from __future__ import annotations

import random

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.tests.doubles import wal_segments
from ansible_collections.lifeboat.recovery.tests.doubles.wal_segments import PAGE, SIZE


@pytest.mark.parametrize(("text", "position"), [("0/0", 0), ("16/B374D848", 0x16B374D848), ("FFFFFFFF/FFFFFFFF", (1 << 64) - 1)])
def test_positions(text: str, position: int) -> None:
    assert wal.parse(text) == position and wal.text(position) == text


@pytest.mark.parametrize("text", ["", "1", "/1", "1/", "x/1", "100000000/0", "0/100000000"])
def test_no_position(text: str) -> None:
    with pytest.raises(ValueError):
        wal.parse(text)


@pytest.mark.parametrize(("timeline", "position", "size", "name"), [
    (1, 0x3000028, 16 << 20, "000000010000000000000003"), (26, (1 << 32) - 1, 16 << 20, "0000001A00000000000000FF"),
    (1, 1 << 32, 16 << 20, "000000010000000100000000"), (0x10, 5 << 30, 1 << 30, "000000100000000100000001"), (1, 3 << 20, 1 << 20, "000000010000000000000003"),
])
def test_segment_names(timeline: int, position: int, size: int, name: str) -> None:
    """Hexadecimal, the timeline too, and by segment size."""
    assert wal.segment_name(timeline, position, size) == name
    assert wal.parse_segment(name, size) == (timeline, position // size * size)


@pytest.mark.parametrize("name", ["", "000000010000000000000100", "00000001000000000000000g", "000000010000000000000003.partial", "00000002.history"])
def test_no_segment(name: str) -> None:
    assert wal.parse_segment(name, 16 << 20) is None


def test_histories() -> None:
    assert wal.parse_history("0000001A.history") == 26 and wal.parse_history("1A.history") is None
    content = b"1\t0/3000000\tno recovery target specified\n\n# a remark\n2\t1/A0\tat restore point \"x\"\n"
    assert wal.ancestors(content, 3) == [(1, 0x3000000), (2, 0x1000000A0)]
    for wrong in (b"x\n", b"1\n", b"2\t0/1\n1\t0/2\n", b"3\t0/1\n", b"1\tnothing\n"):
        with pytest.raises(ValueError):
            wal.ancestors(wrong, 3)


def test_header() -> None:
    found = wal.header(wal_segments.segment(2, 7 * SIZE))
    assert found == wal.Header(2, 7 * SIZE, wal_segments.SYSTEM, SIZE)
    assert wal.header(bytes(PAGE)) is None and wal.header(b"") is None


@pytest.mark.parametrize("seed", range(20))
def test_what_is_told_as_filled_was_written(seed: int) -> None:
    """Cut anywhere, continued anywhere: never beyond what was written, and at most the zeros of the last record short of it."""
    dice = random.Random(seed)
    start, size = 5 * SIZE, dice.randrange(8, SIZE - PAGE, 8)
    whole = wal_segments.segment(1, start)
    received = whole[:size] + bytes(SIZE - size)
    count = wal.filled(received, start, 0)
    assert count <= size and whole[count:size].strip(b"\0") == b""
    assert wal.filled(received, start, start + size) == size, "what the receiver reported closes the rest"
    page = dice.randrange(0, size + 1) // PAGE * PAGE
    assert wal.filled(received[page:], start + page, start + size) == size - page


def test_a_hole_ends_what_counts() -> None:
    """After a power cut a later page may be there and an earlier one not."""
    start = 5 * SIZE
    data = bytearray(wal_segments.segment(1, start))
    data[10 * PAGE:11 * PAGE] = bytes(PAGE)
    assert wal.filled(bytes(data), start, start + SIZE) == wal.paged(bytes(data), start) == 10 * PAGE


def test_an_older_file_in_the_same_place_does_not_count() -> None:
    assert wal.filled(wal_segments.segment(1, 4 * SIZE), 5 * SIZE, 6 * SIZE) == 0
