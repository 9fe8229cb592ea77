# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Writing a source's log: epochs with a data key each, and pieces that are read back and opened before they count."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ConflictError, DamageError, LifeboatError, StorageError
from . import layout
from .datakeys import create_key
from .log_index import Epoch, LogIndex, Piece, captured_at, read_record
from .log_piece import OBJECT_LIMIT, iso, open_piece, seal
from .writer import new_key_id

if TYPE_CHECKING:
    from .repository import ServiceStore

#: A new epoch, and with it a new data key, is begun after this many seconds.
EPOCH_SECONDS = 86400.0
_CLAIMS = 16


@dataclass
class OpenEpoch:
    """An epoch that is being written: its signed record, its digest, and its data key (in memory only)."""

    number: int
    digest: str
    record: dict[str, Any]
    key: bytes
    begun: float
    #: Names written last whose objects were read back: asked again, there is nothing to do.
    proven: deque[str] = field(default_factory=lambda: deque(maxlen=64))

    @property
    def old(self) -> bool:
        return time.monotonic() - self.begun > EPOCH_SECONDS


class LogWriter:
    """Writes the log of one source. What a method returns for is durable in the repository, was read back and could be opened.

    Any method may be repeated after an error. Thread-safe but for begin().
    """

    def __init__(self, store: ServiceStore, source: str) -> None:
        self._store = store
        self._backend = store.backend
        self._service = store.service
        self._source = source

    def begin(self, about: dict[str, Any], newest: tuple[int, str | None]) -> OpenEpoch:
        """Begin an epoch behind ``newest`` (number, digest of its record): a fresh data key, then the signed record.

        about: {"system", "timeline", "history", "segment_size", "server_version", "host", "begins"}, see docs/repository-format.md.
        """
        key_id = new_key_id()
        key = create_key(self._backend, self._service, self._store.repository.id, self._store.provider, key_id)
        number, previous = newest
        for _try in range(_CLAIMS):
            number += 1
            record = {
                "format": layout.FORMAT, "kind": "log epoch", "repository": self._store.repository.id, "service": self._service,
                "source": self._source, "epoch": number, "previous": previous, "key": key_id, "started": iso(time.time_ns()), **about,
            }
            text = json.dumps(record, sort_keys=True, separators=(",", ":"))
            signature = self._store.provider.sign(text.encode())
            self._store.provider.verify(text.encode(), signature)
            document = json.dumps({"epoch": text, "signature": signature}, separators=(",", ":")).encode()
            name = layout.log_record(self._service, self._source, number)
            try:
                self._backend.create(name, document, "epoch")
            except ConflictError:
                previous = self._digest_of(number)
                continue
            if self._backend.read(name, OBJECT_LIMIT) != document:
                raise StorageError("the record of an epoch reads back different", name, "check the repository's disk")
            return OpenEpoch(number, hashlib.sha256(text.encode()).hexdigest(), record, key, time.monotonic())
        raise LifeboatError("other shippers keep claiming the epoch", layout.logs(self._service, self._source),
                            "stop the other shippers of this source, then start this one again")

    def _digest_of(self, number: int) -> str | None:
        """Another's record is followed, not judged: a damaged one is named by verify and must not stop the log."""
        try:
            return self.record(number).digest
        except DamageError:
            return None

    def record(self, number: int) -> Epoch:
        """An epoch of this source, its signature checked."""
        return read_record(self._backend, self._store.provider, self._store.repository.id, self._service, self._source, number)

    def captured(self, index: LogIndex, timeline: int, piece: Piece) -> int:
        """When a piece that is listed was captured, in ns; 0 where its object does not tell any more."""
        try:
            return captured_at(self._backend, index, timeline, piece)
        except DamageError:
            return 0

    def put(self, epoch: OpenEpoch, start: int, plain: bytes | memoryview, captured_ns: int) -> str:
        """Write the bytes from position ``start`` on as one piece of the epoch's timeline; returns the object's name."""
        name = layout.log_piece(self._service, self._source, epoch.number, int(epoch.record["timeline"]), start, start + len(plain))
        self._write(epoch, name, plain, captured_ns)
        return name

    def put_history(self, epoch: OpenEpoch, content: bytes, captured_ns: int) -> str:
        """Write the history file of the epoch's timeline."""
        name = layout.log_history(self._service, self._source, epoch.number, int(epoch.record["timeline"]))
        self._write(epoch, name, content, captured_ns)
        return name

    def _write(self, epoch: OpenEpoch, name: str, plain: bytes | memoryview, captured_ns: int) -> None:
        if name in epoch.proven:
            return
        try:
            self._backend.create(name, seal(epoch.key, name, plain, captured_ns), "log")
        except ConflictError as error:
            # Ours, from a try that failed after the name was given: nobody knows whether that name is durable, so it is not
            # acknowledged; the caller begins a new epoch and writes the bytes under a name of their own.
            raise ConflictError("a piece of the log is there already", name, "it is written again in a new epoch") from error
        try:
            found, _when = open_piece(epoch.key, name, self._backend.read(name, OBJECT_LIMIT), len(plain))
        except (FileNotFoundError, ValueError) as error:
            raise StorageError(f"a piece of the log reads back different ({error})", name, "check the repository's disk") from error
        if found != plain:
            raise StorageError("a piece of the log reads back different", name, "check the repository's disk")
        epoch.proven.append(name)
