# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which chunks a service already has. The truth is in the packs; index objects and the local table are caches of it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import struct
import threading
from typing import Iterable

from ..errors import DamageError, StorageError
from ..libraries import need
from . import layout
from .backend import Backend
from .pack import Located, PackInfo, read_footer
from .seal import Sealer, derive, object_digest

MAGIC = b"LBINDX1\n"
#: The largest index object a reader accepts, in bytes; a capture that makes more packs writes several.
INDEX_LIMIT = 256 << 20
_PACKS_PER_INDEX = 2000


def _sealer(index_key: bytes, index_id: str) -> Sealer:
    return Sealer(derive(index_key, bytes.fromhex(index_id), "lifeboat/index/1"))


def _associated(service: str, index_id: str) -> bytes:
    return b"lifeboat/index/1\0" + service.encode() + b"\0" + bytes.fromhex(index_id)


def write_index(backend: Backend, service: str, index_key: bytes, packs: list[PackInfo]) -> None:
    """Publish index objects that cover ``packs``."""
    for start in range(0, len(packs), _PACKS_PER_INDEX):
        index_id = os.urandom(32).hex()
        rows = [
            {"id": pack.id.hex(), "key": pack.key_id, "size": pack.size, "digest": pack.digest,
             "chunks": [[chunk_id.hex(), sealed, plain] for chunk_id, sealed, plain in pack.chunks]}
            for pack in packs[start:start + _PACKS_PER_INDEX]
        ]
        plain = json.dumps({"format": layout.FORMAT, "packs": rows}, separators=(",", ":")).encode()
        body = struct.pack(">I", len(plain)) + need("zstandard").ZstdCompressor(level=3).compress(plain)
        sealed = _sealer(index_key, index_id).seal(0, body, _associated(service, index_id))
        backend.create(layout.index(service, index_id), MAGIC + bytes.fromhex(index_id) + sealed, "index")


def read_index(backend: Backend, service: str, index_key: bytes, name: str) -> list[PackInfo]:
    """The packs that an index object describes; DamageError names it."""
    remedy = "nothing is lost: it is rebuilt from the packs at the next backup"
    try:
        raw = backend.read(name, INDEX_LIMIT)
        index_id = raw[len(MAGIC):len(MAGIC) + 32].hex()
        if raw[:len(MAGIC)] != MAGIC or layout.index(service, index_id) != name:
            raise ValueError("header")
        body = _sealer(index_key, index_id).open(0, raw[len(MAGIC) + 32:], _associated(service, index_id))
        (length,) = struct.unpack_from(">I", body)
        if length > 16 * INDEX_LIMIT:
            raise ValueError("length")
        plain = need("zstandard").ZstdDecompressor().decompress(body[4:], max_output_size=length)
        return [
            PackInfo(bytes.fromhex(row["id"]), row["key"], row["size"], row["digest"],
                     [(bytes.fromhex(chunk[0]), chunk[1], chunk[2]) for chunk in row["chunks"]])
            for row in json.loads(plain)["packs"]
        ]
    except FileNotFoundError as error:
        raise DamageError("index is missing", name, remedy) from error
    except (ValueError, KeyError, TypeError, struct.error, need("zstandard").ZstdError) as error:
        raise DamageError("index is damaged", name, remedy) from error


class ChunkIndex:
    """The local table of one service's chunks in one repository: SQLite, so that memory stays bounded. Thread-safe."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = self._open()
        #: Packs in the repository with the size they must have.
        self.live: dict[bytes, str] = {}

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=60)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA cache_size=-32768")
            connection.execute("CREATE TABLE IF NOT EXISTS packs (id BLOB PRIMARY KEY, key TEXT, size INTEGER, digest TEXT) WITHOUT ROWID")
            connection.execute("CREATE TABLE IF NOT EXISTS indexes (name TEXT PRIMARY KEY) WITHOUT ROWID")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS chunks"
                " (id BLOB PRIMARY KEY, pack BLOB, ord INTEGER, off INTEGER, sealed INTEGER, plain INTEGER) WITHOUT ROWID")
            connection.execute("SELECT count(*) FROM indexes").fetchone()
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._connection.close()

    def refresh(self, backend: Backend, service: str, index_key: bytes) -> list[DamageError]:
        """Make the table describe the packs that are in the repository now; returns what was found damaged.

        Damaged index objects are replaced by a new one made from the packs; damaged packs are left out, so that
        their content is captured again.
        """
        damaged: list[DamageError] = []
        sizes = {}
        for name, size in backend.list(layout.packs(service)):
            with contextlib.suppress(ValueError):
                sizes[bytes.fromhex(name.rsplit("/", 1)[1].split(".")[0])] = (name, size)
        with self._lock:
            known = dict(self._connection.execute("SELECT id, size FROM packs").fetchall())
            read = {row[0] for row in self._connection.execute("SELECT name FROM indexes")}
        gone = [pack for pack, size in known.items() if pack not in sizes or sizes[pack][1] != size]
        for pack in gone:
            if pack in sizes:
                damaged.append(DamageError("pack has another size than when it was written", sizes[pack][0], "verify the repository"))
                sizes.pop(pack)
        self._forget(gone)
        missing = set(sizes) - set(known)
        covered = set(known)
        unread = {name for name, _size in backend.list(layout.indexes(service))} - read
        for name in sorted(unread):
            try:
                packs = read_index(backend, service, index_key, name)
            except DamageError as error:
                damaged.append(error)
                continue
            self.add([pack for pack in packs if pack.id in missing and sizes[pack.id][1] == pack.size])
            covered.update(pack.id for pack in packs)
            with self._lock:
                self._connection.execute("INSERT OR IGNORE INTO indexes VALUES (?)", (name,))
        missing -= set(self._pack_ids())
        found = []
        for pack in sorted(missing):
            name, size = sizes[pack]
            try:
                orphan = read_footer(backend, service, name, size, index_key)
                orphan.digest = object_digest(backend, name, size)
                found.append(orphan)
            except DamageError as error:
                damaged.append(error)
                sizes.pop(pack)
            except FileNotFoundError:
                sizes.pop(pack)
        self.add(found)
        orphans = [pack for pack in found if pack.id not in covered]
        if orphans and any("index" in error.what for error in damaged):
            try:
                write_index(backend, service, index_key, orphans)
            except StorageError:
                pass  # a repository that cannot be written fails the capture itself with a better message
        with self._lock:
            self.live = dict(self._connection.execute("SELECT id, key FROM packs").fetchall())
        return damaged

    def _pack_ids(self) -> list[bytes]:
        with self._lock:
            return [row[0] for row in self._connection.execute("SELECT id FROM packs")]

    def _forget(self, packs: Iterable[bytes]) -> None:
        with self._lock:
            for pack in packs:
                self._connection.execute("DELETE FROM chunks WHERE pack = ?", (pack,))
                self._connection.execute("DELETE FROM packs WHERE id = ?", (pack,))

    def add(self, packs: list[PackInfo]) -> None:
        """Take finished packs in."""
        with self._lock:
            self._connection.execute("BEGIN")
            for pack in packs:
                self._connection.execute("INSERT OR REPLACE INTO packs VALUES (?,?,?,?)", (pack.id, pack.key_id, pack.size, pack.digest))
                self._connection.executemany(
                    "INSERT OR IGNORE INTO chunks VALUES (?,?,?,?,?,?)",
                    [(chunk_id, *place) for chunk_id, place in pack.located()])
                self.live[pack.id] = pack.key_id
            self._connection.execute("COMMIT")

    def find(self, chunk_id: bytes) -> Located | None:
        with self._lock:
            row = self._connection.execute("SELECT pack, ord, off, sealed, plain FROM chunks WHERE id = ?", (chunk_id,)).fetchone()
        return Located(*row) if row else None

    def pack(self, pack_id: bytes) -> tuple[int, str]:
        """(size, digest) of a known pack."""
        with self._lock:
            row = self._connection.execute("SELECT size, digest FROM packs WHERE id = ?", (pack_id,)).fetchone()
        if row is None:
            raise KeyError(pack_id)
        return int(row[0]), str(row[1])
