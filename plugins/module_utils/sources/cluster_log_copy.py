# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The log from the start of a backup to its end, copied while the files are read, so that the server need not keep all of it."""

from __future__ import annotations

import os
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor

from ..errors import SourceError
from .cluster_backup import Backup, segments_between
from .cluster_lsn import history_name
from .cluster_spans import SPAN, File, Part, Result, Spans
from .cluster_walk import Item
from .contract import Entry

#: Seconds between two looks for complete segments.
_EVERY = 5.0


class LogCopy:
    """Segments of one timeline from ``start`` on. size: bytes of a segment. Used by one thread."""

    def __init__(self, data: str, backup: Backup, spans: Spans, threads: ThreadPoolExecutor, timeline: int, start: int, size: int) -> None:
        self._folder = f"{data}/pg_wal"
        self._backup = backup
        self._spans = spans
        self._threads = threads
        self._timeline = timeline
        self._start = start
        self._size = size
        self._next = start // size * size
        self._copies: list[Future[Result]] = []
        self._let_go = 0
        self._looked = time.monotonic()

    def tick(self) -> None:
        """Now and then copy the segments that are complete and let the server remove those that are copied."""
        if time.monotonic() - self._looked < _EVERY:
            return
        ready = self._backup.flushed() // self._size * self._size
        if ready > self._next and os.path.exists(f"{self._folder}/{segments_between(self._timeline, self._next, self._next, self._size)[0]}"):
            self._copy(ready)
        copied = self._start // self._size * self._size
        for copy in self._copies:
            if not copy.done() or copy.exception() is not None:
                break
            copied += self._size
        if copied > max(self._start, self._let_go):
            self._backup.let_go(copied)
            self._let_go = copied
        self._looked = time.monotonic()

    def finish(self, timeline: int, stop: int) -> Result:
        """The rest up to ``stop``; the entries of all segments in order, and of the timeline's history."""
        if timeline != self._timeline:  # a standby whose last checkpoint was on an older one; what was copied is of no use
            self._timeline, self._copies, self._next = timeline, [], self._start // self._size * self._size
        self._copy(max(stop, self._start + 1))
        total = Result()
        for copy in self._copies:
            found = copy.result()
            if not found.files:
                raise self._gone(f"{self._folder}, timeline {timeline}")
            _add(total, found)
        history = f"{self._folder}/{history_name(timeline)}"
        if timeline > 1 and os.path.exists(history):
            _add(total, self._spans.job(_parts(history)))
        return total

    def _copy(self, stop: int) -> None:
        """Begin to copy the segments up to the one that holds the byte before ``stop``."""
        if stop <= self._next:
            return
        for name in segments_between(self._timeline, self._next, stop, self._size):
            full = f"{self._folder}/{name}"
            try:
                status = os.lstat(full)
                with open(full, "rb") as handle:
                    header = handle.read(16)
            except FileNotFoundError:
                raise self._gone(full) from None
            if status.st_size != self._size or struct.unpack_from("=Q", header, 8)[0] != self._next:
                raise self._gone(full)  # a recycled one under its new name
            self._copies.append(self._threads.submit(self._spans.job, _parts(full)))
            self._next += self._size

    @staticmethod
    def _gone(where: str) -> SourceError:
        return SourceError("the server removed a segment of its log that the backup needs", where,
                           "raise max_slot_wal_keep_size or free space for the log, then run the same command again")


def _parts(full: str) -> list[Part | Entry]:
    item = Item("file", f"pg_wal/{os.path.basename(full)}", full, os.lstat(full))
    file, size = File(item), item.status.st_size
    starts = range(0, max(1, size), SPAN)
    file.expect(len(starts))
    return [Part(file, at, min(SPAN, size - at), first=at == 0, whole=len(starts) == 1) for at in starts]


def _add(total: Result, found: Result) -> None:
    total.entries += found.entries
    total.read += found.read
    total.files += found.files
    total.bytes += found.bytes
