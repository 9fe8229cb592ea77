# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A snapshot opened for restore: chunks are fetched, opened, decompressed and checked; nothing unchecked leaves here."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Iterator

from ..errors import DamageError
from ..keys.provider import KeyProvider
from ..libraries import need
from ..meter import Meter
from ..sources.contract import Entry, Extent, Reader
from . import layout
from .backend import Backend, soundly
from .datakeys import open_keys
from .manifest import StoredManifest
from .pack import TAG, chunk_associated, pack_sealer
from .seal import Sealer, keyed_hash
from .tree import StoredTree

#: Opened pack ciphers kept per snapshot; deriving one again costs microseconds.
_CIPHERS = 256


class SnapshotReader(Reader):
    """The Reader of one snapshot. Thread-safe once entries() has passed what is asked for."""

    def __init__(self, backend: Backend, service: str, repository: str, provider: KeyProvider, manifest: StoredManifest,
                 tree: StoredTree, chunk_key: bytes, workers: int, meter: Meter | None = None) -> None:
        self._meter = meter or Meter()
        self.manifest = manifest.data
        self._backend = backend
        self._service = service
        self._repository = repository
        self._provider = provider
        self._id = manifest.id
        self._tree = tree
        self._chunk_key = chunk_key
        self._workers = workers
        self._lock = threading.Lock()
        self._keys: dict[str, bytes] | None = None
        self._ciphers: dict[bytes, Sealer] = {}
        self._local = threading.local()

    def open_keys(self) -> dict[str, bytes]:
        """Open every data key of the snapshot in one call; KeyAccessError or DamageError names what is missing."""
        with self._lock:
            if self._keys is None:
                self._keys = open_keys(self._backend, self._service, self._repository, self._provider, self.manifest["keys"], self._id)
            return self._keys

    def entries(self) -> Iterator[Entry]:
        return self._tree.entries()

    def chunk_id(self, number: int) -> bytes:
        return self._tree.chunk_id(number)

    def count(self) -> int:
        """Chunks declared so far; all of them once entries() was read to its end."""
        return len(self._tree.table)

    def sealed_bytes(self) -> int:
        """Stored bytes of the chunks declared so far."""
        return self._tree.table.sealed_bytes()

    def _cipher(self, pack: bytes, key_id: str) -> Sealer:
        cipher = self._ciphers.get(pack)
        if cipher is None:
            keys = self.open_keys()
            if key_id not in keys:
                raise DamageError("tree refers to a data key that its manifest does not list", f"snapshot {self._id}, key {key_id}",
                                  "choose another snapshot")
            cipher = pack_sealer(keys[key_id], pack)
            with self._lock:
                if len(self._ciphers) >= _CIPHERS:
                    self._ciphers.clear()
                self._ciphers[pack] = cipher
        return cipher

    def chunk(self, number: int, read_back: bool = False) -> bytes:
        pack, _key_id = self._tree.table.pack_of(number)
        return soundly(self._backend, layout.pack(self._service, pack), lambda: self._chunk(number, read_back))

    def _chunk(self, number: int, read_back: bool) -> bytes:
        pack, key_id = self._tree.table.pack_of(number)
        place = self._tree.table.located(number)
        chunk_id = self._tree.table.chunk_id(number)
        name = layout.pack(self._service, pack)

        def damaged(what: str) -> DamageError:
            return DamageError(f"pack {what}", f"snapshot {self._id}, object {name} at byte {place.offset}",
                               "live data is as it was; restore an earlier point (list them with the points playbook)")

        try:
            with self._meter.during("fetch"):
                sealed = self._backend.read_range(name, place.offset, place.sealed)
            self._meter.add(fetched=len(sealed))
        except FileNotFoundError as error:
            raise damaged("is missing") from error
        if len(sealed) != place.sealed:
            raise damaged("is cut short")
        cipher = self._cipher(pack, key_id)
        with self._meter.during("decode"):
            try:
                data = cipher.open(place.order, sealed, chunk_associated(self._service, pack, place.order, chunk_id))
            except ValueError as error:
                raise damaged("is damaged") from error
            if place.sealed - TAG < place.plain:
                data = self._decompress(data, place.plain)
            if len(data) != place.plain or not (read_back or keyed_hash(self._chunk_key, data) == chunk_id):
                raise damaged("holds other content than was captured")
        return data

    def _decompress(self, data: bytes, plain: int) -> bytes:
        """The plain chunk, or nothing when it does not decode to ``plain`` bytes: the caller names the damage."""
        zstandard = need("zstandard")
        decompressor = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = zstandard.ZstdDecompressor()
        if zstandard.frame_content_size(data) != plain:
            return b""
        try:
            result: bytes = decompressor.decompress(data, max_output_size=plain)
        except zstandard.ZstdError:
            return b""
        return result

    def stream(self, extents: list[Extent]) -> Iterator[bytes]:
        ahead = self._workers + 1
        pending: deque[tuple[Future[bytes], int, int]] = deque()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="fetch") as threads:
            try:
                for number, offset, length in extents:
                    pending.append((threads.submit(self.chunk, number), offset, length))
                    if len(pending) > ahead:
                        yield self._cut(*pending.popleft())
                while pending:
                    yield self._cut(*pending.popleft())
            finally:
                for future, _offset, _length in pending:
                    future.cancel()

    def _cut(self, future: Future[bytes], offset: int, length: int) -> bytes:
        data = future.result()
        if offset < 0 or length < 0 or offset + length > len(data):
            raise DamageError("tree refers beyond the end of a chunk", f"snapshot {self._id}", "choose another snapshot")
        return data if length == len(data) else data[offset:offset + length]
