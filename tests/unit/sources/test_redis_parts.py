# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the redis source that need no server."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import redis_digest as digest
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.redis_preflight import safe_name
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.redis_rdb import Slice, header_length, shape
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.redis_values import frame

KEY = bytes(range(32))
AUX = b"\xfa\x09redis-ver\x057.0.1" + b"\xfa\x05ctime\xc2\x01\x02\x03\x04" + b"\xfa\x08used-mem\xc1\x01\x02" + b"\xfa\x04bits\xc0\x40"


def test_header_ends_behind_the_last_auxiliary_field() -> None:
    data = b"REDIS0010" + AUX + b"\xfe\x00\xfb\x01\x00\x00\x01k\x01v\xff" + b"checksum"
    assert header_length(data) == 9 + len(AUX)
    packed = b"\xfa\x03lua\xc3\x04\x40\x80abcd"
    assert header_length(b"REDIS0010" + packed + b"\xff") == 9 + len(packed)
    assert header_length(b"REDIS0010\xff") == 9
    assert header_length(b"REDIS0010\xfa\x05") == 9, "a field that is cut short belongs to the body"
    long = b"\xfa\x01k\x80\x00\x00\x01\x00" + b"v" * 256
    assert header_length(b"REDIS0010" + long + b"\xff") == 9 + len(long)


def _file(tmp_path, data: bytes) -> int:
    path = tmp_path / "dump.rdb"
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def test_parts_make_the_file_again(tmp_path) -> None:
    data = b"REDIS0010" + AUX + b"\xfe\x00" + b"body" * 1000 + b"\xff" + b"checksum"
    descriptor = _file(tmp_path, data)
    found = shape(descriptor, "dump")
    seen: list[int] = []
    body = Slice(descriptor, *found.body, seen.append).read()
    os.close(descriptor)
    assert found.header + body + found.footer == data
    assert sum(seen) == len(body)
    assert body.startswith(b"\xfe\x00") and body.endswith(b"\xff")


@pytest.mark.parametrize("data", [b"", b"REDIS0010", b"NOTRDB0010" + b"x" * 50, b"REDIS0010" + AUX + b"\xfe\x00cut"])
def test_what_is_no_whole_dump_is_refused(tmp_path, data: bytes) -> None:
    descriptor = _file(tmp_path, data)
    with pytest.raises(SourceError):
        shape(descriptor, "dump")
    os.close(descriptor)


def test_a_shrinking_file_is_noticed(tmp_path) -> None:
    descriptor = _file(tmp_path, b"x" * 100)
    stream = Slice(descriptor, 0, 200, lambda size: None)
    with pytest.raises(SourceError, match="shorter"):
        stream.readall()
    os.close(descriptor)


def test_frames_are_unambiguous() -> None:
    assert frame(b"a", b"bc") != frame(b"ab", b"c")
    assert frame(b"", b"") != frame(b"")
    assert frame(12) == frame(b"12")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "-dir", ".hidden", "a\0b", "x" * 300])
def test_names_from_configurations_stay_inside(name: str) -> None:
    with pytest.raises(DamageError):
        safe_name(name, "test")
    assert safe_name("appendonly.aof", "test") == "appendonly.aof"


NOW = int(time.time() * 1000)


def _content(volatile: dict, ended: int = NOW) -> digest.Content:
    return digest.Content({(0, "string"): [2, 7]}, {(0, mark): expiry for mark, expiry in volatile.items()}, began=ended, ended=ended)


def _mark(number: int) -> bytes:
    return bytes([number]) * 16


@pytest.mark.parametrize(("found", "differences"), [
    ({_mark(1): NOW + 5000, _mark(2): NOW - 1}, []),
    ({_mark(1): NOW + 5000}, []),
    ({_mark(1): NOW + 5001}, ["database 0: 1 expiring keys are new, changed, or expire at another time"]),
    ({}, ["database 0: 1 expiring keys are missing before their time"]),
    ({_mark(1): NOW + 5000, _mark(3): NOW + 9000}, ["database 0: 1 expiring keys are new, changed, or expire at another time"]),
])
def test_expiring_keys_are_compared_by_their_time(found: dict, differences: list[str]) -> None:
    expected = _content({_mark(1): NOW + 5000, _mark(2): NOW - 1})
    comparison = digest.compare(expected, _content(found))
    assert comparison.differences == differences
    assert comparison.equal == (not differences)


def test_permanent_keys_must_be_equal() -> None:
    other = _content({})
    other.permanent[(0, "string")] = [1, 7]
    other.permanent[(3, "hash")] = [1, 1]
    comparison = digest.compare(_content({}), other)
    assert comparison.differences == [
        "database 0: 2 permanent keys of type string expected, 1 found", "database 3: 0 permanent keys of type hash expected, 1 found",
    ]


def test_content_survives_the_tree() -> None:
    content = _content({bytes([number // 250, number % 250]) * 8: NOW + number for number in range(10000)})
    content.functions = [1, 99]
    entries = list(content.entries())
    again = digest.from_entries(entries)
    assert (again.permanent, again.volatile, again.functions) == (content.permanent, content.volatile, content.functions)
    assert again.digest(KEY) == content.digest(KEY)
    assert max(len(str(entry)) for entry in entries) < 200000
    with pytest.raises(DamageError):
        digest.from_entries([])
