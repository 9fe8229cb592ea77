# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""From the spool into the repository: pieces of what is being received, whole segments of what is complete, and the proven position.

Order of one segment, each step only after the one before is durable: the piece in the repository, read back and opened - the proven
position on the host - the removal from the spool. A kill between two steps repeats the later one; nothing is told as proven before.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, NoReturn

from .. import faults
from ..errors import ConflictError, LifeboatError, SourceError, StorageError
from ..repository import layout
from ..repository.log_index import LogIndex
from ..repository.log_piece import PIECE_LIMIT, iso
from ..repository.log_writer import LogWriter, OpenEpoch
from . import proven, wal
from .spool import Spool, SpoolFile

#: Segments that are compressed, written and read back at once: one more than most hosts can spare cores for, since each waits for the disk too.
WORKERS = 3
#: Segments that are handed out before the oldest of them is proven: nobody waits for work while that one is acknowledged.
AHEAD = 2 * WORKERS
#: Seconds between two looks for more of them.
_LOOK = 0.05
#: Bytes that one pass ships at most while more keeps coming.
_PASS = 512 << 20
#: Seconds for which a segment that the server has finished already is expected to become whole, before its beginning is shipped.
_SOON = 2.0
#: Bytes of a file that is being received which are read at once.
_BLOCK = 1 << 20


class Divergence(SourceError):
    """What the server has is not the continuation of what the repository holds; a person must look."""


class Shipping:
    """One source's way into the repository. Single-threaded but for its own workers.

    load: lists what the repository holds. keep: makes the proven position durable. history: how to get the history file of a timeline
    that the spool does not have. position: the server's timeline and position when it was last asked, None if it was not since load().
    taken: since when (ns) this host's data is what was restored to be the service; 0: somebody said that it is; None: nothing says so.
    """

    def __init__(self, spool: Spool, writer: LogWriter, load: Callable[[], LogIndex], mark: proven.Proven, keep: Callable[[proven.Proven], None],
                 history: Callable[[int], bytes], position: Callable[[], tuple[int | None, int] | None],
                 taken: Callable[[], int | None] = lambda: None) -> None:
        self.mark = mark
        self._spool = spool
        self._writer = writer
        self._load = load
        self._index = load()
        self._keep = keep
        self._history = history
        self._position = position
        self._taken = taken
        self._where = f"log of {self._index.service}.{self._index.source}"
        self._histories: dict[int, bytes] = {}
        self._epoch: OpenEpoch | None = None
        self._unsigned: list[dict[str, Any]] = []
        self._written: tuple[int, int] = (0, 0)
        self._ahead: tuple[int | None, int] = (None, 0)
        self._young: tuple[str, float] = ("", 0.0)
        self.version = 0
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="ship")

    def close(self) -> None:
        self._workers.shutdown(wait=True)

    def reported(self, timeline: int, position: int) -> None:
        """The receiver told the server that it wrote up to here (see wal.filled); timeline 0 takes it back."""
        self._written = (timeline, position)

    def expect(self, timeline: int | None, position: int) -> None:
        """The server is here: a segment that it has finished soon is whole in the spool too. Position 0 takes it back."""
        self._ahead = (timeline, position)

    def ship(self, tail: bool = True) -> int:
        """Ship what the spool holds; the bytes that were proven by it. Repeat after an error: it goes on where it stopped.

        tail: also the beginning of the segment that is being received. Raises StorageError, KeyAccessError (the repository or the keys
        refuse), Divergence.
        """
        size = self.mark.segment_size
        if not size:
            return 0
        begin = self.mark.position
        files = self._spool.files(size)
        self._histories.update(self._spool.histories())
        newest = files[-1] if files else None
        while files:
            one = files[0]
            if one.timeline < self.mark.timeline or (one.complete and one.timeline == self.mark.timeline and one.start + size <= self.mark.position):
                files.pop(0)  # proven, or left on a timeline that the log has gone on from
                if one is not newest or one.complete:
                    self._spool.remove(one.path)
            elif not one.complete:
                files.pop(0)
                if one is newest and (not tail or self._whole_soon(one)):
                    break
                try:
                    self._ship_partial(one, one is newest)
                except FileNotFoundError:
                    break  # it was completed a moment ago: the next pass finds it under its final name
                if one is not newest:
                    self._spool.remove(one.path)  # the receiver went on elsewhere and does not come back to it
            else:
                run = self._run(files, one.timeline, one.start)
                if self._ship_complete(run, lambda timeline, start: self._run(self._spool.files(size), timeline, start)) > len(run):
                    break  # more came meanwhile: what lies behind is looked at anew
                files = files[len(run):]
        return self.mark.position - begin

    def _whole_soon(self, one: SpoolFile) -> bool:
        """The server has finished this segment: shipping its beginning now would ship it twice. Not for long: the network may be slow."""
        timeline, position = self._ahead
        if timeline not in (None, one.timeline) or position < one.start + self.mark.segment_size:
            return False
        if self._young[0] != one.path:
            self._young = (one.path, time.monotonic())
        return time.monotonic() - self._young[1] < _SOON

    # -- complete segments

    def begin(self, timeline: int) -> None:
        """Begin the epoch of a timeline, which keeps its history file."""
        self._open(timeline, max((left for _number, left in wal.ancestors(self._content(timeline), timeline)), default=0))

    def push(self, one: SpoolFile) -> None:
        """Ship one complete segment that stays where it is."""
        if one.timeline < self.mark.timeline or (one.timeline == self.mark.timeline and one.start + self.mark.segment_size <= self.mark.position):
            self._store_whole(self._open(one.timeline, one.start), one)  # asked again: the server did not hear that it was proven
            return
        self._go_to(one.timeline, one.start)
        captured = self._store_whole(self._open(one.timeline, one.start), one)
        self._advance(one.start + self.mark.segment_size, captured)

    def catch_up(self, timeline: int, start: int, finished: Callable[[int, int], list[SpoolFile]]) -> int:
        """Ship segments that are not received but read where they are: what finished(timeline, position) finds from the proven position on,
        or from ``start`` where the log is on another timeline. The bytes that were proven by it."""
        begin = self.mark.position if self.mark.timeline == timeline else start
        run = finished(timeline, begin)
        if run:
            self._ship_complete(run, finished)
        return self.mark.position - begin if run else 0

    def _ship_complete(self, run: list[SpoolFile], more: Callable[[int, int], list[SpoolFile]]) -> int:
        """A run of complete segments of one timeline, and what is added to it meanwhile: in parallel, acknowledged in order; how many."""
        todo = deque(run)
        self._go_to(todo[0].timeline, todo[0].start)
        epoch = self._open(todo[0].timeline, todo[0].start)
        limit = max(1, _PASS // self.mark.segment_size)
        working: deque[tuple[SpoolFile, Future[int]]] = deque()
        count = 0
        try:
            while todo or working:
                while todo and len(working) < AHEAD:
                    one = todo.popleft()
                    working.append((one, self._workers.submit(self._store_whole, epoch, one)))
                last = working[-1][0]
                wait([future for _one, future in working if not future.done()], _LOOK, FIRST_COMPLETED)
                count += self._acknowledge(working)
                if len(working) + len(todo) < AHEAD and count + len(working) + len(todo) < limit:
                    last = todo[-1] if todo else last
                    todo.extend(more(last.timeline, last.start + self.mark.segment_size))
        finally:
            wait([future for _one, future in working])  # none may still write when the next pass begins
        return count

    def _run(self, files: list[SpoolFile], timeline: int, start: int) -> list[SpoolFile]:
        """The complete segments of a timeline that follow each other from a position on."""
        run: list[SpoolFile] = []
        for one in files:
            if one.complete and one.timeline == timeline and one.start == start + len(run) * self.mark.segment_size:
                run.append(one)
        return run

    def _acknowledge(self, working: deque[tuple[SpoolFile, Future[int]]]) -> int:
        """The oldest segments that are ready become proven together; how many."""
        ready: list[tuple[SpoolFile, int]] = []
        while working and working[0][1].done():
            one, future = working.popleft()
            try:
                ready.append((one, future.result()))
            except (LifeboatError, OSError) as error:
                self._proven(ready)
                self._failed(error)
        self._proven(ready)
        return len(ready)

    def _proven(self, ready: list[tuple[SpoolFile, int]]) -> None:
        if not ready:
            return
        faults.point("log.stored")
        self._advance(ready[-1][0].start + self.mark.segment_size, ready[-1][1])
        faults.point("log.proven")
        for one, _captured in ready:
            if one.received:
                self._spool.remove(one.path)

    def _store_whole(self, epoch: OpenEpoch, one: SpoolFile) -> int:
        captured = time.time_ns()
        size, padding = self.mark.segment_size, False
        with open(one.path, "rb") as handle:
            if os.fstat(handle.fileno()).st_size != size:
                raise self._spoilt(one)
            for offset in range(0, size, PIECE_LIMIT):
                data = handle.read(min(PIECE_LIMIT, size - offset))
                if offset == 0:
                    self._check(data, one)
                count = 0 if padding else wal.paged(data, one.start + offset)
                padding = count < len(data)
                if padding and data[count:].strip(b"\0"):
                    raise self._spoilt(one)
                self._writer.put(epoch, one.start + offset, data, captured)
        return captured

    def _check(self, data: bytes, one: SpoolFile) -> None:
        """A spool is a directory on a disk: what is not the segment it is called never becomes a piece."""
        found = wal.header(data)
        if found is None or found.start != one.start or found.segment_size != self.mark.segment_size or found.timeline > one.timeline:
            raise self._spoilt(one)
        if found.system != self.mark.system:
            raise Divergence("a received segment belongs to another cluster", one.path, "empty the spool, then start the shipper again")

    def _spoilt(self, one: SpoolFile) -> StorageError:
        if not one.received:
            return StorageError("a segment of the server's log is not what it is called", one.path, "it is received instead; check the server's disk")
        return StorageError("a received segment is not what was received", one.path,
                            "remove the file and start the shipper again: it is received anew while the server has it")

    # -- the segment that is being received

    def _ship_partial(self, one: SpoolFile, newest: bool) -> None:
        begin = one.start
        if one.timeline == self.mark.timeline and one.start < self.mark.position:
            begin = self.mark.position
        # never to the very end: a position there says that the segment is there whole, as one object, and then it soon is complete
        limit = min(one.start + self.mark.segment_size - wal.ALIGNMENT, begin // wal.PAGE * wal.PAGE + PIECE_LIMIT)
        known = self._written[1] if newest and self._written[0] == one.timeline else 0
        captured = time.time_ns()
        with open(one.path, "rb") as handle:
            first = handle.read(wal.PAGE)
            if wal.header(first) is None:
                return  # nothing received yet
            self._check(first, one)
            data = _received(handle, one.start, begin, limit, known)
        if not data:
            return
        self._go_to(one.timeline, one.start)
        try:
            self._writer.put(self._open(one.timeline, begin), begin, data, captured)
        except (LifeboatError, OSError) as error:
            self._failed(error)
        faults.point("log.stored")
        self._advance(begin + len(data), captured)
        faults.point("log.proven")

    def _failed(self, error: BaseException) -> NoReturn:
        if isinstance(error, ConflictError):
            self._epoch = None
        raise error

    # -- position and epoch

    def _advance(self, position: int, captured: int) -> None:
        if position > self.mark.position:
            self._move(position=position, time_ns=captured)

    def _move(self, **where: Any) -> None:
        """Nothing counts as proven in memory that is not durable on the host: a spool is emptied by it."""
        before = {name: getattr(self.mark, name) for name in where}
        try:
            self._set(where)
            self._keep(self.mark)
        except BaseException:
            self._set(before)
            raise

    def _set(self, where: dict[str, Any]) -> None:
        for name, value in where.items():
            setattr(self.mark, name, value)

    def _go_to(self, timeline: int, start: int) -> None:
        """The next bytes begin at ``start`` of ``timeline``: where that leaves a gap, say so before they count."""
        mark = self.mark
        if timeline == mark.timeline and start <= mark.position:
            return
        now = time.time_ns()
        begin = start
        if mark.timeline and timeline != mark.timeline:
            self._joint(timeline, start, now)
        else:
            self._index = self._load()
            begin, reached = self._held(timeline, mark.position if mark.timeline else None)
            if reached is not None and reached < start:
                self._gap(timeline, reached, start, "the server no longer had this log when it was asked for", now)
            if reached is None or reached < start:
                begin = start
        if timeline != mark.timeline or self._unsigned:
            self._open(timeline, start)  # a gap is signed before this host may forget that it was one
        self._move(timeline=timeline, begin=begin, position=start, time_ns=now)

    def _held(self, timeline: int, position: int | None) -> tuple[int, int | None]:
        """(begin, end) of what is held without a gap around a position, or at the end: this host may know less than the repository."""
        own = (self.mark.begin, position)
        for stretch in self._index.stretches(self.mark.system):
            if stretch.timeline == timeline and (position is None or stretch.start <= position <= stretch.end):
                own = (stretch.start, max(stretch.end, position or 0))
        return own

    def _gap(self, timeline: int, start: int, end: int, reason: str, now: int) -> None:
        """Remembered on the host, and signed in the record of the epoch that begins behind it."""
        self._unsigned.append(self.mark.add_gap(timeline, start, end, reason, now))
        self._epoch = None

    def _joint(self, timeline: int, start: int, now: int) -> None:
        """The log goes on on another timeline: does what is held of its ancestors reach to where its own begins?"""
        mark = self.mark
        self._index = self._load()
        path = wal.ancestors(self._content(timeline), timeline)
        parent, left = path[-1]
        reached = mark.position if parent == mark.timeline else self._index.end_of(mark.system, parent)
        if reached is not None and reached < min(start, left):
            self._gap(parent, reached, min(start, left), f"not received before the server went on on timeline {timeline}", now)
        if start > left:
            self._gap(timeline, left, start, "the server no longer had this log when it was asked for", now)

    def _content(self, timeline: int) -> bytes:
        if timeline not in self._histories:
            self._histories[timeline] = self._history(timeline)
        return self._histories[timeline]

    def _open(self, timeline: int, start: int) -> OpenEpoch:
        """The epoch for a timeline; a new one per start, day and timeline."""
        current = self._epoch
        if current is not None and (current.record["timeline"], current.record["system"]) == (timeline, self.mark.system) and not current.old:
            return current
        mark = self.mark
        history = self._content(timeline) if timeline > 1 else None
        digest = hashlib.sha256(history).hexdigest() if history is not None else None
        for epoch in self._index.epochs.values():
            if epoch.system == mark.system and epoch.timeline == timeline and epoch.record.get("history") != digest:
                raise Divergence(
                    f"timeline {timeline} of this server is not the timeline {timeline} that the repository holds",
                    f"{self._where}, {layout.log_record(self._index.service, self._index.source, epoch.number)}",
                    "two copies of one cluster ship here: stop this shipper, or give this copy a source of its own",
                )
        self._not_ahead(timeline)
        self._no_copy(timeline)
        about: dict[str, Any] = {
            "system": mark.system, "timeline": timeline, "history": digest,
            "ancestors": [[number, wal.text(left)] for number, left in wal.ancestors(history or b"", timeline)],
            "segment_size": mark.segment_size,
            "server_version": self.version, "host": platform.node(), "gaps": list(self._unsigned), "begins": wal.text(start),
            "follows": {"timeline": mark.timeline, "position": wal.text(mark.position)} if mark.timeline else None,
        }
        newest = max((mark.epoch, mark.digest), self._index.newest, key=lambda one: one[0])
        fresh = self._writer.begin(about, newest)
        mark.epoch, mark.digest = fresh.number, fresh.digest
        self._unsigned.clear()
        if history is not None:
            self._writer.put_history(fresh, history, time.time_ns())
        self._epoch = fresh
        return fresh

    def _no_copy(self, timeline: int) -> None:
        """A host that never shipped this log, with a server on a timeline that the log does not know, is a copy until it took the original's place."""
        others = [one for one in self._index.stretches(self.mark.system) if one.timeline != timeline]
        known = [epoch for epoch in self._index.epochs.values() if (epoch.system, epoch.timeline) == (self.mark.system, timeline)]
        if self.mark.timeline or known or not others:
            return
        since = self._taken()
        if since == 0:
            return
        remedy = f"if it has taken the original's place, say so once: lifeboat log run {self._index.service} {self._index.source} --take-over; if not, stop it"
        if since is None:
            raise Divergence(f"this server is a copy: the log does not know its timeline {timeline}, and nothing was restored here to take its place",
                             self._where, remedy)
        last = max(self._writer.captured(self._index, one.timeline, one.last) for one in others)
        if last > since:
            raise Divergence(f"the original still ships its log (last at {iso(last)}), after this copy of it went live at {iso(since)}", self._where, remedy)

    def _not_ahead(self, timeline: int) -> None:
        """The repository cannot know more of a timeline than its server, unless the server went back or another copy ships too."""
        held, now = self._index.end_of(self.mark.system, timeline), self._position()
        if held is not None and now is not None and now[0] == timeline and now[1] < held:
            raise Divergence(
                f"the server is at {wal.text(now[1])} of timeline {timeline}, the repository holds that timeline up to {wal.text(held)}", self._where,
                "the server was set back, or another copy of it ships here: restore it so that it begins a timeline of its own",
            )


def _received(handle: Any, start: int, begin: int, limit: int, known: int) -> bytes:
    """The bytes from ``begin`` on that are certainly received, at most up to ``limit``."""
    address = begin // wal.PAGE * wal.PAGE
    handle.seek(address - start)
    data = b""
    while address + len(data) < limit:
        block = handle.read(min(_BLOCK, limit - address - len(data)))
        count = wal.paged(block, address + len(data))
        data += block[:count]
        if count < _BLOCK:
            break
    return data[:wal.filled(data, address, known)][begin - address:]
