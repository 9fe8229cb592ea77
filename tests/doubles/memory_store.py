# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A double of the repository for the tests of sources: strict about the contract, everything in memory.

It refuses what a real repository would refuse (empty or oversized chunks, entries that are no JSON, extents of
chunks that do not exist, reads of an entry's chunks before the entry) and counts what was newly stored.
"""

from __future__ import annotations

import json
import threading
from typing import Any, BinaryIO, Iterator

import blake3

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Captured, Entry, Extent, Reader, TreeReader, Writer

MAX_CHUNK = 4 * 1024 * 1024


class MemoryStore:
    """All chunks of one service. key: what a source is given as digest_key; chunk ids are keyed with it, as in a real repository."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.chunks: dict[bytes, bytes] = {}
        self.lock = threading.Lock()

    def chunk_id(self, data: bytes) -> bytes:
        """The keyed BLAKE3 of a chunk."""
        return bytes(blake3.blake3(data, key=self.key).digest())


class MemoryReader(Reader):
    """A finished snapshot."""

    def __init__(self, store: MemoryStore, ids: list[bytes], lines: list[str], manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self._store = store
        self._ids = ids
        self._lines = lines

    def entries(self) -> Iterator[Entry]:
        for line in self._lines:
            yield json.loads(line)

    def chunk_id(self, number: int) -> bytes:
        return self._ids[number]

    def chunk(self, number: int, read_back: bool = False) -> bytes:
        try:
            data = self._store.chunks[self._ids[number]]
        except KeyError:
            raise DamageError("chunk is missing", f"chunk {number}") from None
        if self._store.chunk_id(data) != self._ids[number]:
            raise DamageError("chunk is altered", f"chunk {number}")
        return data

    def stream(self, extents: list[Extent]) -> Iterator[bytes]:
        for number, offset, length in extents:
            piece = self.chunk(number)[offset:offset + length]
            if len(piece) != length:
                raise DamageError("extent reaches beyond its chunk", f"chunk {number}")
            yield piece


class IndexOnly(TreeReader):
    """A reader as verify_live gets it: entries, no contents."""

    def __init__(self, reader: MemoryReader) -> None:
        self._reader = reader

    def entries(self) -> Iterator[Entry]:
        return self._reader.entries()

    def chunk_id(self, number: int) -> bytes:
        return self._reader.chunk_id(number)


class MemoryWriter(Writer):
    """One capture. new_chunks and new_bytes count what the store did not have."""

    def __init__(self, store: MemoryStore, previous: MemoryReader | None = None) -> None:
        self.previous = None if previous is None else IndexOnly(previous)
        self._parent = previous
        self._store = store
        self._ids: list[bytes] = []
        self._lines: list[str] = []
        self._thread = threading.get_ident()
        self.new_chunks = 0
        self.new_bytes = 0

    def put(self, data: bytes | memoryview) -> int:
        data = bytes(data)
        assert 0 < len(data) <= MAX_CHUNK, "a chunk holds 1 byte to 4 MiB"
        identity = self._store.chunk_id(data)
        with self._store.lock:
            if identity not in self._store.chunks:
                self._store.chunks[identity] = data
                self.new_chunks += 1
                self.new_bytes += len(data)
            self._ids.append(identity)
            return len(self._ids) - 1

    def put_stream(self, stream: BinaryIO, name: str) -> tuple[list[Extent], int]:
        import pyfastcdc

        extents: list[Extent] = []
        total = 0
        for chunk in pyfastcdc.FastCDC(avg_size=65536).cut_stream(stream):
            extents.append((self.put(chunk.data), 0, len(chunk.data)))
            total += len(chunk.data)
        return extents, total

    def reuse(self, number: int) -> int:
        if self._parent is None:
            raise KeyError(number)
        identity = self._parent.chunk_id(number)
        if identity not in self._store.chunks:
            raise KeyError(number)
        with self._store.lock:
            self._ids.append(identity)
            return len(self._ids) - 1

    def chunk_id(self, number: int) -> bytes:
        return self._ids[number]

    def entry(self, entry: Entry) -> None:
        assert threading.get_ident() == self._thread, "entry() is not thread-safe: call it from the thread of capture()"
        assert isinstance(entry["type"], str)
        for number, offset, length in entry.get("extents", []):
            assert 0 <= number < len(self._ids) and offset >= 0 and length > 0, "extent of a chunk that does not exist"
        self._lines.append(json.dumps(entry, allow_nan=False))

    def finish(self, captured: Captured) -> MemoryReader:
        """The snapshot that this capture made; what the manifest holds must be plain JSON."""
        manifest = {"digest": captured.digest, "proof": captured.proof, "facts": captured.facts, "snapshot": "double-000001"}
        return MemoryReader(self._store, self._ids, self._lines, json.loads(json.dumps(manifest, allow_nan=False)))
