# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A source's log opened for restore: any range, opened and checked; a hole or a damaged object is named, never passed over."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ..errors import DamageError, KeyAccessError, LifeboatError
from ..sources.contract import Covered, Log
from . import layout, log_missing
from .backend import soundly
from .datakeys import open_each
from .log_index import LogIndex, Piece, at, captured_at, list_epoch, load
from .log_piece import OBJECT_LIMIT, iso, open_piece

if TYPE_CHECKING:
    from .repository import ServiceStore

#: Opened pieces kept: reading ahead in order needs each once, a look around needs the neighbours again.
_KEPT = 3
_REMEDY = "restore to a position before it, or to a point (list them with the points playbook)"


class SourceLog(Log):
    """The log of one cluster (by its system identifier) of one source. Listed at the first use, and again by refresh()."""

    def __init__(self, store: ServiceStore, source: str, system: str) -> None:
        self._store = store
        self._source = source
        self._system = system
        self._lock = threading.RLock()
        self._index: LogIndex | None = None
        self._pieces: dict[int, list[Piece]] = {}
        self._relisted: set[int] = set()
        self._keys: dict[int, bytes] = {}
        self._closed: dict[int, LifeboatError] = {}
        self._kept: OrderedDict[tuple[int, Piece], bytes] = OrderedDict()
        #: What reading met and could go round, because other pieces hold the same bytes.
        self.problems: list[LifeboatError] = []

    def refresh(self) -> None:
        """Forget what was listed."""
        with self._lock:
            self._index = None
            self._keys, self._closed = {}, {}
            self._relisted.clear()

    def index(self) -> LogIndex:
        """Everything listed, for verify and status."""
        with self._lock:
            if self._index is None:
                self._index = load(self._store.backend, self._store.provider, self._store.repository.id, self._store.service, self._source)
                self._pieces = self._index.pieces(self._system)
            return self._index

    def unexplained(self, mark: dict[str, Any], after: int | None) -> LifeboatError | None:
        """What was removed or damaged behind a position (log_missing.unexplained)."""
        return log_missing.unexplained(self.index(), self._system, mark, after)

    def coverage(self) -> list[Covered]:
        index = self.index()
        return [
            Covered(found.timeline, found.start, found.end, iso(captured_at(self._store.backend, index, found.timeline, found.last)))
            for found in index.stretches(self._system)
        ]

    def histories(self) -> dict[int, bytes]:
        """Timeline -> content of its history file. Without the right to open data, or where the object is damaged, it is made of what
        the signed record says: the same timelines and positions, without the words behind them."""
        index = self.index()
        found: dict[int, bytes] = {}
        for number, epoch in sorted(index.epochs.items(), reverse=True):
            if epoch.system != self._system or epoch.timeline in found or epoch.timeline == 1:
                continue
            try:
                found[epoch.timeline] = self.history(number)
                continue
            except DamageError as error:
                self.problems.append(error)
            except KeyAccessError:
                pass
            lines = [f"{int(timeline)}\t{left}\tlog epoch {number}\n" for timeline, left in epoch.record.get("ancestors") or []]
            if lines:
                found[epoch.timeline] = "".join(lines).encode()
        return found

    def history(self, number: int) -> bytes:
        """The history file that an epoch holds, opened and checked; DamageError names its object."""
        timeline = self.index().epochs[number].timeline
        return self._open(number, layout.log_history(self._store.service, self._source, number, timeline), None)

    def read(self, timeline: int, start: int, end: int) -> bytes:
        self.index()
        parts = []
        position = start
        while position < end:
            piece, plain = self._holding(timeline, position, end)
            parts.append(plain[position - piece.start:end - piece.start])
            position = min(end, piece.end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- inside

    def _holding(self, timeline: int, position: int, end: int) -> tuple[Piece, bytes]:
        """A sound piece with the byte at a position."""
        wrong: list[DamageError] = []
        for candidates in (self._listed, self._superseded, self._unlisted):
            for piece in candidates(timeline, position):
                try:
                    plain = self.plain(timeline, piece)
                except DamageError as error:
                    wrong.append(error)
                    continue
                self.problems += wrong
                return piece, plain
        if wrong:
            raise wrong[0]
        raise self._hole(timeline, position, end)

    def _listed(self, timeline: int, position: int) -> list[Piece]:
        return list(at(self._pieces.get(timeline, []), position))

    def _superseded(self, timeline: int, position: int) -> list[Piece]:
        """After damage: the smaller pieces that were forgotten while listing."""
        hurt = self._listed(timeline, position)
        with self._lock:
            again = {piece.epoch for piece in hurt} - self._relisted
            for number in again:
                list_epoch(self._store.backend, self.index(), number)
                self._relisted.add(number)
            if again:
                self._pieces = self.index().pieces(self._system)
        return [piece for piece in self._listed(timeline, position) if piece not in hurt]

    def _hole(self, timeline: int, position: int, end: int) -> DamageError:
        """Named by the object that would fill it."""
        pieces = self._pieces.get(timeline, [])
        start = max((piece.end for piece in pieces if piece.end <= position), default=position)
        after = min((piece.start for piece in pieces if piece.start > position), default=end)
        name = self.index().missing_name(self._system, timeline, start, max(after, position + 1))
        return DamageError("the log has a hole: a piece is missing", f"object {name} or parts of it", _REMEDY)

    def _epochs(self, timeline: int) -> list[int]:
        index = self.index()
        return [number for number, epoch in index.epochs.items() if epoch.system == self._system and epoch.timeline == timeline]

    def _unlisted(self, timeline: int, position: int) -> list[Piece]:
        """A list is never proof of absence: before a hole is told, the whole segment is asked for by name in each epoch."""
        found = []
        for number in self._epochs(timeline):
            size = int(self.index().epochs[number].record["segment_size"])
            start = position // size * size
            with contextlib.suppress(FileNotFoundError):
                stored = self._store.backend.size(layout.log_piece(self._store.service, self._source, number, timeline, start, start + size))
                found.append(Piece(start, start + size, number, stored))
        return found

    def plain(self, timeline: int, piece: Piece) -> bytes:
        """One piece, opened and checked; DamageError names its object."""
        with self._lock:
            kept = self._kept.get((timeline, piece))
            if kept is not None:
                self._kept.move_to_end((timeline, piece))
                return kept
        name = layout.log_piece(self._store.service, self._source, piece.epoch, timeline, piece.start, piece.end)
        plain = self._open(piece.epoch, name, piece.end - piece.start)
        with self._lock:
            self._kept[timeline, piece] = plain
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return plain

    def _open(self, number: int, name: str, length: int | None) -> bytes:
        return soundly(self._store.backend, name, lambda: self._open_once(number, name, length))

    def _open_once(self, number: int, name: str, length: int | None) -> bytes:
        key = self._key(number)
        try:
            with self._store.meter.during("fetch"):
                raw = self._store.backend.read(name, OBJECT_LIMIT)
            self._store.meter.add(fetched=len(raw))
        except FileNotFoundError as error:
            raise DamageError("a piece of the log is missing", f"object {name}", _REMEDY) from error
        try:
            with self._store.meter.during("decode"):
                return open_piece(key, name, raw, length)[0]
        except ValueError as error:
            raise DamageError(f"a piece of the log {error}", f"object {name}", _REMEDY) from error

    def _key(self, number: int) -> bytes:
        with self._lock:
            if not self._keys and not self._closed:
                self._open_keys()
            if number in self._closed:
                raise self._closed[number]
            return self._keys[number]

    def _open_keys(self) -> None:
        """All epochs' keys in one call; a key object that is damaged hurts its own epoch only."""
        store = self._store
        numbers = {epoch.key_id: number for number, epoch in self.index().epochs.items() if epoch.system == self._system}
        wanted = {key_id: f"of log epoch {number}" for key_id, number in numbers.items()}
        for key_id, key in open_each(store.backend, store.service, store.repository.id, store.provider, wanted).items():
            if isinstance(key, bytes):
                self._keys[numbers[key_id]] = key
            else:
                self._closed[numbers[key_id]] = key


def open_log(store: ServiceStore, source: str, system: object) -> SourceLog | None:
    """The log of a source where the repository holds one."""
    if not system:
        return None
    for _name in store.backend.list(layout.logs(store.service, source)):
        return SourceLog(store, source, str(system))
    return None
