# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Verify the logs of a service: records, keys, every piece, and that nothing is missing between two pieces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Tuple

from ..errors import DamageError, LifeboatError
from ..repository import layout, log_missing
from ..repository.datakeys import read_key
from ..repository.log_index import Epoch, LogIndex, Piece, load
from ..repository.log_piece import HEADER, OBJECT_LIMIT, captured, check
from ..repository.log_reader import SourceLog

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore

#: Called with (error, is a needed object).
Found = Callable[[LifeboatError, bool], None]
_Job = Tuple[str, Callable[[], object], bool]


class LogVerifier:
    """All logs of a service. afford(bytes): may so much be read at this depth? read, objects: what was looked at; keys: ids of their data keys."""

    def __init__(self, store: ServiceStore, depth: str, afford: Callable[[int], bool], found: Found) -> None:
        self._store = store
        self._depth = depth
        self._afford = afford
        self._found = found
        self.objects = 0
        self.bytes = 0
        self.keys: set[str] = set()

    def run(self, threads: ThreadPoolExecutor, marks: dict[str, dict[str, Any]]) -> None:
        """marks: source -> the proven position that this host remembers."""
        prefix = layout.logs(self._store.service)
        listed = {name[len(prefix):].partition("/")[0] for name, _size in self._store.backend.list(prefix)}
        for source in sorted(listed | set(marks)):
            index = load(self._store.backend, self._store.provider, self._store.repository.id, self._store.service, source, everything=True)
            for problem in index.problems:
                self._found(problem, True)
            jobs = self._pieces(index) + self._others(index)
            for error, needed in threads.map(self._one, jobs):
                if error is not None:
                    self._found(error, needed)
            for system in sorted({epoch.system for epoch in index.epochs.values()}):
                for missing in log_missing.pieces(index, system):
                    self._found(missing.error, not missing.told)
            end = log_missing.end(index, marks.get(source) or {})
            if end is not None:
                self._found(end.error, True)

    def _one(self, job: _Job) -> tuple[LifeboatError | None, bool]:
        name, action, needed = job
        try:
            action()
        except FileNotFoundError:
            return DamageError("an object of the log is missing", name, log_missing.REMEDY), needed
        except ValueError as error:
            return DamageError(f"a piece of the log {error}", name, log_missing.REMEDY), needed
        except LifeboatError as error:
            return error, needed
        return None, needed

    def _pieces(self, index: LogIndex) -> list[_Job]:
        jobs: list[_Job] = []
        for system in sorted({epoch.system for epoch in index.epochs.values()}):
            log = SourceLog(self._store, index.source, system)
            for timeline, pieces in index.pieces(system).items():
                reach = -1
                for piece in pieces:
                    jobs.append((self._name(index, timeline, piece), self._check(index, log, timeline, piece), piece.end > reach))
                    reach = max(reach, piece.end)
        return jobs

    def _name(self, index: LogIndex, timeline: int, piece: Piece) -> str:
        return layout.log_piece(index.service, index.source, piece.epoch, timeline, piece.start, piece.end)

    def _check(self, index: LogIndex, log: SourceLog, timeline: int, piece: Piece) -> Callable[[], object]:
        name = self._name(index, timeline, piece)

        def decode() -> None:
            self._count(piece.size)
            log.plain(timeline, piece)

        return decode if self._depth == "decode" else lambda: self._raw(name, piece.size)

    def _count(self, size: int) -> None:
        self.objects += 1
        self.bytes += size

    def _raw(self, name: str, size: int) -> None:
        """The object is as it was written; at depth "exists", when there is too much to read, only how it begins."""
        if self._afford(size):
            self._count(size)
            check(self._store.backend.read(name, OBJECT_LIMIT))
        else:
            self.objects += 1
            captured(self._store.backend.read_range(name, 0, HEADER))

    def _others(self, index: LogIndex) -> list[_Job]:
        jobs: list[_Job] = []
        store = self._store
        for number, epoch in sorted(index.epochs.items()):
            name = layout.log_history(store.service, index.source, number, epoch.timeline)
            pieces = index.listed.get(number)
            if epoch.timeline > 1 and (pieces or (number, epoch.timeline) in index.histories):
                # the record holds its timelines and positions too: a restore goes on without the object
                jobs.append((name, self._history(index, epoch, name), False))
            self.keys.add(epoch.key_id)
            jobs.append((layout.key(store.service, epoch.key_id), self._key(epoch.key_id, number), bool(pieces)))
        return jobs

    def _history(self, index: LogIndex, epoch: Epoch, name: str) -> Callable[[], object]:
        if self._depth == "decode":
            return lambda: SourceLog(self._store, index.source, epoch.system).history(epoch.number)
        return lambda: self._raw(name, 0)

    def _key(self, key_id: str, number: int) -> Callable[[], object]:
        return lambda: read_key(self._store.backend, self._store.service, key_id, f"of log epoch {number}")
