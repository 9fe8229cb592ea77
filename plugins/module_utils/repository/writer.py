# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A capture in progress: chunks are hashed, deduplicated, compressed, sealed and packed by many threads at once."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from ..errors import LifeboatError
from ..libraries import need
from ..progress import Progress
from ..sources.contract import Entry, Extent, Writer
from .compression import compressor_of
from .index import ChunkIndex
from .pack import CHUNK_LIMIT, Located
from .pool import PackPool
from .seal import keyed_hash
from .tree import StoredTree, TreeWriter

#: Average, least and largest size of chunks cut by content, bytes.
_CUT = (1 << 20, 256 << 10, CHUNK_LIMIT)


class SnapshotWriter(Writer):
    """The Writer of one source's snapshot."""

    def __init__(self, *, pool: PackPool, index: ChunkIndex, tree: TreeWriter, chunk_key: bytes, previous: StoredTree | None,
                 progress: Progress, workers: int, level: int) -> None:
        self.previous = previous
        self._previous = previous
        self._pool = pool
        self._index = index
        self._tree = tree
        self._chunk_key = chunk_key
        self._progress = progress
        self._workers = workers
        self._level = level
        self._lock = threading.Lock()
        self._local = threading.local()
        #: Chunks of this tree: a private SQLite table, which spills to disk, so that memory stays bounded.
        self._numbers = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._numbers.execute("PRAGMA journal_mode=OFF")
        self._numbers.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, id BLOB UNIQUE)")
        self._count = 0
        self._pack_numbers: dict[bytes, int] = {}
        self._in_flight: dict[bytes, Future[int]] = {}
        #: Bundled files ask for the same chunk many times in a row.
        self._last_reused = (-1, -1)
        self.chunks_new = 0
        self.chunks_reused = 0
        self.bytes_source = 0
        self.bytes_stored = 0

    # -- chunks

    def put(self, data: bytes | memoryview) -> int:
        if not 0 < len(data) <= CHUNK_LIMIT:
            raise ValueError(f"a chunk has 1 to {CHUNK_LIMIT} bytes, not {len(data)}")
        chunk_id = keyed_hash(self._chunk_key, data)
        with self._lock:
            self.bytes_source += len(data)
            number = self._number(chunk_id)
            if number is not None:
                self.chunks_reused += 1
                return number
            waiting = self._in_flight.get(chunk_id)
            if waiting is None:
                mine: Future[int] = Future()
                self._in_flight[chunk_id] = mine
        if waiting is not None:
            return waiting.result()
        try:
            number = self._store(chunk_id, data)
        except BaseException as error:
            with self._lock:
                del self._in_flight[chunk_id]
            mine.set_exception(error)
            raise
        mine.set_result(number)
        return number

    def _store(self, chunk_id: bytes, data: bytes | memoryview) -> int:
        place = self._index.find(chunk_id)
        known = place is not None and place.pack in self._index.live
        if place is None or not known:
            packed = self._compress(data)
            place = self._pool.add(chunk_id, packed if len(packed) < len(data) else bytes(data), len(data))
        with self._lock:
            if known:
                self.chunks_reused += 1
            else:
                self.chunks_new += 1
                self.bytes_stored += place.sealed
            number = self._declare(chunk_id, place)
            del self._in_flight[chunk_id]
        self._progress.add(len(data))
        return number

    def _compress(self, data: bytes | memoryview) -> bytes:
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = compressor_of(self._level)
        packed: bytes = compressor.compress(data)
        return packed

    def _number(self, chunk_id: bytes) -> int | None:
        row = self._numbers.execute("SELECT number FROM numbers WHERE id = ?", (chunk_id,)).fetchone()
        return int(row[0]) if row else None

    def _declare(self, chunk_id: bytes, place: Located) -> int:
        """Give a chunk its number in this tree; the caller holds the lock."""
        pack = self._pack_numbers.get(place.pack)
        if pack is None:
            pack = self._pack_numbers[place.pack] = len(self._pack_numbers)
            self._tree.record(["p", place.pack.hex(), self._index.live.get(place.pack, self._pool.key_id)])
        number = self._count
        self._count += 1
        self._numbers.execute("INSERT INTO numbers VALUES (?, ?)", (number, chunk_id))
        self._tree.record(["c", chunk_id.hex(), pack, place.order, place.offset, place.sealed, place.plain])
        return number

    def reuse(self, number: int) -> int:
        if self._previous is None:
            raise KeyError(number)
        if number == self._last_reused[0]:
            return self._last_reused[1]
        try:
            chunk_id = self._previous.chunk_id(number)
        except IndexError as error:
            raise KeyError(number) from error
        place = self._previous.table.located(number)
        with self._lock:
            mine = self._number(chunk_id)
            if mine is None:
                if place.pack not in self._index.live:
                    raise KeyError(number)
                mine = self._declare(chunk_id, place)
                self.chunks_reused += 1
            self._last_reused = (number, mine)
        return mine

    def chunk_id(self, number: int) -> bytes:
        with self._lock:
            row = self._numbers.execute("SELECT id FROM numbers WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise IndexError(number)
        return bytes(row[0])

    # -- streams and entries

    def put_stream(self, stream: BinaryIO, name: str) -> tuple[list[Extent], int]:
        cutter = need("pyfastcdc").FastCDC(avg_size=_CUT[0], min_size=_CUT[1], max_size=_CUT[2])
        extents: list[Extent] = []
        size = 0
        pending: deque[tuple[Future[int], int]] = deque()
        with ThreadPoolExecutor(self._workers, thread_name_prefix=f"store-{name[:20]}") as threads:
            try:
                for piece in cutter.cut_stream(stream):
                    data = bytes(piece.data)
                    size += len(data)
                    pending.append((threads.submit(self.put, data), len(data)))
                    while len(pending) > 2 * self._workers:
                        future, length = pending.popleft()
                        extents.append((future.result(), 0, length))
                for future, length in pending:
                    extents.append((future.result(), 0, length))
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        return extents, size

    def entry(self, entry: Entry) -> None:
        self._tree.record(["e", entry], 1 + len(entry.get("data") or entry.get("extents") or ()) // 16)

    def settle(self) -> None:
        self._pool.settle()

    # -- end

    def finish(self) -> dict[str, Any]:
        """Make the tree durable; {"tree": {...}, "packs": [[id, size, digest]...], "keys": [data key ids]}.

        The pool must have been finished before: a tree never refers to a pack that is not durable.
        """
        packs = []
        keys = set()
        for pack in self._pack_numbers:
            try:
                size, digest = self._index.pack(pack)
            except KeyError as error:
                raise LifeboatError("a pack of this snapshot is not in the index", pack.hex(), "report this as a bug") from error
            packs.append([pack.hex(), size, digest])
            keys.add(self._index.live[pack])
        tree = self._tree.finish()
        self._numbers.close()
        return {"tree": tree, "packs": packs, "keys": sorted(keys)}

    def abort(self) -> None:
        self._tree.abort()
        self._numbers.close()


def new_key_id() -> str:
    """A data key's random name, 16 bytes as hex."""
    return os.urandom(16).hex()
