# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One capture of one service: a fresh data key, shared packs, and manifests written last."""

from __future__ import annotations

import os
from typing import Any

from ..errors import ConflictError, DamageError, LifeboatError, StorageError
from ..keys.provider import KeyProvider
from ..progress import Progress
from . import compression, layout
from .backend import Backend
from .datakeys import create_key, newest_generation
from .index import ChunkIndex, write_index
from .manifest import StoredManifest, publish
from .pool import PackPool
from .repository import ServiceStore
from .tree import TreeWriter
from .writer import SnapshotWriter, new_key_id

#: How often a claimed sequence number is tried again with the next one.
_CLAIMS = 16


class CaptureSession:
    """Use: writer() per source, then seal(), then publish() per source; abort() gives up and keeps finished packs.

    Packs that finished before a crash are found again by their footers, so the next session reuses them.
    ``damaged`` holds what was found wrong in the repository's caches and packs while opening.
    """

    def __init__(self, store: ServiceStore, cache_dir: str, progress: Progress) -> None:
        self._store = store
        self._backend: Backend = store.backend
        self._provider: KeyProvider = store.provider
        self._progress = progress
        try:
            os.makedirs(cache_dir, mode=0o700, exist_ok=True)
            self._index = ChunkIndex(os.path.join(cache_dir, f"chunks-{store.repository.id}.sqlite"))
        except OSError as error:
            raise StorageError(f"cannot keep the chunk cache ({error.strerror})", cache_dir, "free space or fix permissions there") from error
        self.damaged: list[DamageError] = self._index.refresh(self._backend, store.service, store.index_key)
        key_id = new_key_id()
        data_key = create_key(self._backend, store.service, store.repository.id, self._provider, key_id)
        self._key_id = key_id
        self._pool = PackPool(self._backend, store.service, data_key, key_id, store.index_key, self._index)
        self._writers: list[SnapshotWriter] = []

    def writer(self, parent: StoredManifest | None, level: int = compression.DEFAULT) -> SnapshotWriter:
        """A writer for one source; ``parent`` is the snapshot whose tree an incremental capture compares with, level: of its compression."""
        writer = SnapshotWriter(
            pool=self._pool, index=self._index, tree=TreeWriter(self._backend, self._store.service, self._store.index_key),
            chunk_key=self._store.chunk_key, previous=self._store.tree(parent) if parent else None,
            progress=self._progress, workers=self._store.workers, level=level)
        self._writers.append(writer)
        return writer

    def seal(self) -> list[dict[str, Any]]:
        """Make all packs, trees and the index durable; per writer, in order, what its manifest records of them."""
        self._pool.finish()
        parts = [writer.finish() for writer in self._writers]
        write_index(self._backend, self._store.service, self._store.index_key, self._pool.finished)
        self._keep(parts)
        return parts

    def _keep(self, parts: list[dict[str, Any]]) -> None:
        """What these snapshots share with older ones must not be deletable before they are."""
        service = self._store.service
        new = {pack.id.hex() for pack in self._pool.finished}
        shared = {layout.pack(service, bytes.fromhex(pack)) for part in parts for pack, _size, _digest in part["packs"] if pack not in new}
        older = {key for part in parts for key in part["keys"] if key != self._key_id}
        shared |= {layout.key(service, key, newest_generation(self._backend, service, key) or 0) for key in older}
        self._backend.keep(sorted(shared))

    def publish(self, manifest: dict[str, Any], after: tuple[int, str | None]) -> StoredManifest:
        """Write a manifest under the next free number after ``after`` (sequence, digest of the newest known one)."""
        sequence, previous = after
        for _try in range(_CLAIMS):
            sequence += 1
            manifest.update(sequence=sequence, previous=previous)
            manifest["id"] = f"{manifest['service']}.{manifest['source']}-{sequence:06d}-{manifest['tree']['id'][:8]}"
            try:
                return publish(self._backend, self._provider, manifest)
            except ConflictError:
                taken = self._store.manifest(manifest["source"], sequence)
                previous = taken.digest
        raise LifeboatError("other captures keep claiming the sequence number", layout.snapshots(manifest["service"], manifest["source"]),
                            "stop the other backups of this service, then run again")

    def close(self) -> None:
        self._index.close()

    def abort(self) -> None:
        """Drop what is not complete; finished packs stay for the next session."""
        self._pool.abort()
        for writer in self._writers:
            writer.abort()
        self._index.close()
