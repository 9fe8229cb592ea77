# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A double of a source's continuous log: the segments that pg_receivewal wrote, in memory, with holes and faults at will."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Covered, Log

SEGMENT = 16 << 20


class WalLog(Log):
    """ends: timeline -> position up to which its bytes are real (a partial segment is filled up with zeros)."""

    def __init__(self, until: str = "2999-01-01T00:00:00Z") -> None:
        self.segments: dict[tuple[int, int], bytes] = {}
        self.ends: dict[int, int] = {}
        self.known: dict[int, bytes] = {}
        self.until = until
        #: Positions at which reading fails, with what.
        self.faults: dict[int, Exception] = {}
        self.reads = 0
        self._lock = threading.Lock()

    def load(self, folder: Path, ends: dict[int, int]) -> WalLog:
        """Take in a directory that pg_receivewal wrote."""
        for name in sorted(os.listdir(folder)):
            found = re.match(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?\Z", name)
            history = re.match(r"([0-9A-F]{8})\.history\Z", name)
            if found:
                number = int(found.group(2), 16) * 256 + int(found.group(3), 16)
                self.segments[(int(found.group(1), 16), number)] = (folder / name).read_bytes()
            elif history:
                self.known[int(history.group(1), 16)] = (folder / name).read_bytes()
        self.ends.update(ends)
        return self

    def coverage(self) -> list[Covered]:
        ranges: list[Covered] = []
        for timeline, number in sorted(self.segments):
            start = number * SEGMENT
            end = min(start + SEGMENT, self.ends.get(timeline, start + SEGMENT))
            if end <= start:
                continue
            if ranges and ranges[-1].timeline == timeline and ranges[-1].end == start:
                ranges[-1].end = end
            else:
                ranges.append(Covered(timeline, start, end, self.until))
        return ranges

    def histories(self) -> dict[int, bytes]:
        return dict(self.known)

    def read(self, timeline: int, start: int, end: int) -> bytes:
        with self._lock:
            self.reads += 1
        for position, error in self.faults.items():
            if start <= position < end:
                raise error
        data = bytearray()
        while start < end:
            number, offset = divmod(start, SEGMENT)
            upto = min(end, (number + 1) * SEGMENT, self.ends.get(timeline, end))
            if (timeline, number) not in self.segments or upto <= start:
                raise DamageError("the log has a hole", f"timeline {timeline} at {start:X}")
            data += self.segments[(timeline, number)][offset:offset + upto - start]
            start = upto
        return bytes(data)
