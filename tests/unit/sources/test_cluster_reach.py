# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a log leads on from a snapshot, across timelines and holes."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_reach import log_bytes, log_range, lost_behind, reachable
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Covered, Log

SEGMENT = 0x1000000
FACTS = {"timeline": 1, "stop_lsn": "0/3000100", "segment_size": SEGMENT, "stop_time": "2026-11-22T10:00:00Z"}
NOON = "2026-11-22T12:00:00Z"


class Told(Log):
    """A log that consists of what it says of itself."""

    def __init__(self, *ranges: Covered, closed: bool = False, **histories: bytes) -> None:
        self._ranges, self._closed = list(ranges), closed
        self._histories = {int(name[1:]): content for name, content in histories.items()}

    def coverage(self) -> list[Covered]:
        return self._ranges

    def histories(self) -> dict[int, bytes]:
        if self._closed:
            raise KeyAccessError("no right to open", "here", "elsewhere")
        return self._histories

    def read(self, timeline: int, start: int, end: int) -> bytes:
        raise AssertionError("nothing is opened")


@pytest.mark.parametrize(("kind", "value", "wanted"), [
    ("latest", "", 0x17fff00), ("lsn", "0/3000200", 0x100), ("lsn", "0/1", 0), ("lsn", "0/9000000", 0x17fff00),
    ("time", "2026-11-22T11:00:00Z", 0x17fff00 // 2), ("time", "2026-11-22T09:00:00Z", 0), ("time", "2026-11-23T10:00:00Z", 0x17fff00),
    ("xid", "77", 0x17fff00), ("immediate", "", 0), ("time", "x", 0x17fff00),
])
def test_how_many_bytes_a_restore_goes_through(kind: str, value: str, wanted: int) -> None:
    log = Told(Covered(1, 0x3000000, 0x4800000, NOON))
    assert log_bytes(FACTS, {"kind": kind, "value": value, "timeline": ""}, log) == wanted
    assert log_bytes(FACTS, {"kind": kind, "value": value, "timeline": ""}, Told()) == 0


SECOND = {"t2": b"1\t0/5000000\tno recovery target specified\n"}
THIRD = {**SECOND, "t10": b"1\t0/5000000\tx\n2\t0/6000028\tx\n"}


@pytest.mark.parametrize(("log", "timeline", "end"), [
    (Told(Covered(1, 0x3000000, 0x4800000, NOON)), "", (1, 0x4800000)),
    (Told(Covered(1, 0x4000000, 0x4800000, NOON)), "", (1, 0x4800000)),  # begins with the segment after the snapshot's last one
    (Told(Covered(1, 0x4000008, 0x4800000, NOON)), "", None),
    (Told(Covered(1, 0x1000000, 0x3000000, NOON)), "", None),
    (Told(Covered(1, 0x1000000, 0x2000000, NOON), Covered(1, 0x3000000, 0x3800000, NOON)), "", (1, 0x3800000)),
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(2, 0x5000000, 0x5900000, NOON), **SECOND), "", (2, 0x5900000)),
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(2, 0x5000000, 0x5900000, NOON), **SECOND), "1", (1, 0x5400000)),
    (Told(Covered(1, 0x3000000, 0x4900000, NOON), Covered(2, 0x5000000, 0x5900000, NOON), **SECOND), "", (1, 0x4900000)),  # a hole before the switch
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(2, 0x5000000, 0x5900000, NOON)), "", (1, 0x5400000)),  # no history
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(2, 0x5000000, 0x5900000, NOON), closed=True, **SECOND), "", (1, 0x5400000)),
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(2, 0x5000000, 0x6100000, NOON), Covered(10, 0x6000000, 0x7000000, NOON), **THIRD), "",
     (10, 0x7000000)),
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(2, 0x2000000, 0x5900000, NOON), t2=b"1\t0/2000000\tx\n"), "", (1, 0x5400000)),  # left before
    (Told(Covered(1, 0x3000000, 0x4800000, NOON)), "7", None),
])
def test_how_far(log: Log, timeline: str, end: tuple[int, int] | None) -> None:
    found = log_range(FACTS, log, timeline)
    assert (found and (found.timeline, found.end)) == end


@pytest.mark.parametrize(("position", "reason"), [
    (("immediate", "", ""), ""),
    (("latest", "", ""), ""),
    (("lsn", "0/4000000", ""), ""),
    (("lsn", "0/3000000", ""), "leads from 0/3000100 to 0/4800000"),
    (("lsn", "0/4800001", ""), "leads from 0/3000100 to 0/4800000"),
    (("time", "2026-11-22T13:00:00+01:00", ""), ""),
    (("time", "2026-11-22T12:00:01Z", ""), "proven up to 2026-11-22T12:00:00Z"),
    (("time", "2026-11-22T09:59:59Z", ""), "finished later"),
    (("xid", "7", "3"), "does not go on .* on timeline 3"),
])
def test_reachable(position: tuple[str, str, str], reason: str) -> None:
    import re

    told = reachable(FACTS, dict(zip(("kind", "value", "timeline"), position)), Told(Covered(1, 0x3000000, 0x4800000, NOON)))
    assert bool(told) == bool(reason) and re.search(reason, told)


@pytest.mark.parametrize(("log", "words"), [
    (Told(Covered(1, 0x3000000, 0x4800000, NOON)), ""),
    (Told(Covered(1, 0x3000000, 0x4800000, NOON), Covered(1, 0x5000000, 0x5800000, "2026-11-22T12:30:00Z")),
     r"from 0/4800000 to 0/5000000 .* timeline 1, proven up to 2026-11-22T12:00:00Z: 8388608 later bytes, the log of 30.0 minutes up to 2026-11-22T12:30:00Z"),
    (Told(Covered(1, 0x1000000, 0x2000000, NOON), Covered(1, 0x3000000, 0x4800000, NOON)), ""),  # before the snapshot
    (Told(Covered(1, 0x5000000, 0x5800000, NOON)), "from 0/3000100 to 0/5000000"),  # right behind the snapshot
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(2, 0x5200000, 0x5900000, NOON), **SECOND), "from 0/5000000 to 0/5200000.* 7340032 later"),
    (Told(Covered(1, 0x3000000, 0x5400000, NOON), Covered(1, 0x5500000, 0x5800000, NOON), Covered(2, 0x5000000, 0x5900000, NOON), **SECOND), ""),
])
def test_what_lies_behind_a_hole(log: Log, words: str) -> None:
    import re

    told = lost_behind(FACTS, {"kind": "latest", "value": "", "timeline": ""}, log)
    assert bool(told) == bool(words) and re.search(words, told), told
