# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Trees: a snapshot's entries and chunk table, in sealed, compressed segments (docs/repository-format.md, "Tree").

A segment is a JSON array of records: ["p", pack id, data key id] declares the next pack, ["c", chunk id, pack, order, offset,
sealed, plain] the next chunk, ["e", {...}] is an entry of the source. What an entry refers to is declared before it.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from array import array
from functools import partial
from typing import Any, Iterator

from ..errors import DamageError
from ..libraries import need
from ..meter import Meter
from ..sources.contract import Entry, TreeReader
from . import layout
from .backend import Backend, soundly
from .pack import CHUNK_LIMIT, Located
from .seal import Sealer, derive

MAGIC = b"LBTREE1\n"
_LENGTH = struct.Struct(">I")
#: Records of a segment; one with many extents weighs more.
_SEGMENT = 2048
#: The largest plain segment a reader accepts; an entry is never larger.
SEGMENT_LIMIT = 64 << 20


def _sealer(index_key: bytes, tree_id: str) -> Sealer:
    return Sealer(derive(index_key, bytes.fromhex(tree_id), "lifeboat/tree/1"))


def _associated(service: str, tree_id: str, last: bool) -> bytes:
    return b"lifeboat/tree/1\0" + service.encode() + b"\0" + bytes.fromhex(tree_id) + (b"\1" if last else b"\0")


class TreeWriter:
    """Appends records; thread-safe. finish() makes the tree durable."""

    def __init__(self, backend: Backend, service: str, index_key: bytes) -> None:
        self.id = os.urandom(32).hex()
        self._service = service
        self._sealer = _sealer(index_key, self.id)
        self._new = backend.new(layout.tree(service, self.id), "tree")
        self._hash = need("blake3").blake3()
        self._compressor = need("zstandard").ZstdCompressor(level=3)
        self._records: list[list[Any]] = []
        self._weight = 0
        self._segments = 0
        self._lock = threading.Lock()
        self.size = 0
        self._write(MAGIC + bytes.fromhex(self.id))

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._new.write(data)
        self.size += len(data)

    def record(self, value: list[Any], weight: int = 1) -> None:
        """Append a record; it must not change afterwards, since segments are encoded as a whole."""
        with self._lock:
            self._records.append(value)
            self._weight += weight
            if self._weight >= _SEGMENT:
                self._flush(last=False)

    def _flush(self, last: bool) -> None:
        plain = json.dumps(self._records, separators=(",", ":")).encode()
        packed = _LENGTH.pack(len(plain)) + self._compressor.compress(plain)
        sealed = self._sealer.seal(self._segments, packed, _associated(self._service, self.id, last))
        self._write(_LENGTH.pack(len(sealed)) + sealed)
        self._segments += 1
        self._records, self._weight = [], 0

    def finish(self) -> dict[str, Any]:
        """{"id", "size", "digest"}: what the manifest records of this tree."""
        with self._lock:
            self._flush(last=True)
            self._new.commit()
        return {"id": self.id, "size": self.size, "digest": self._hash.hexdigest()}

    def abort(self) -> None:
        self._new.abort()


class ChunkTable:
    """The chunk table of a tree in compact arrays: 52 bytes a chunk."""

    def __init__(self) -> None:
        self.packs: list[tuple[bytes, str]] = []
        self._ids = bytearray()
        self._pack = array("I")
        self._order = array("I")
        self._offset = array("Q")
        self._sealed = array("I")
        self._plain = array("I")

    def __len__(self) -> int:
        return len(self._pack)

    def add(self, chunk_id: bytes, pack: int, order: int, offset: int, sealed: int, plain: int) -> None:
        if len(chunk_id) != 32 or not 0 <= pack < len(self.packs) or not 0 < plain <= CHUNK_LIMIT or not 0 < sealed <= plain + 16:
            raise ValueError("chunk record out of bounds")
        self._ids += chunk_id
        self._pack.append(pack)
        self._order.append(order)
        self._offset.append(offset)
        self._sealed.append(sealed)
        self._plain.append(plain)

    def sealed_bytes(self) -> int:
        """What all chunks take in their packs."""
        return sum(self._sealed)

    def chunk_id(self, number: int) -> bytes:
        if not 0 <= number < len(self._pack):
            raise IndexError(number)
        return bytes(self._ids[32 * number:32 * number + 32])

    def pack_of(self, number: int) -> tuple[bytes, str]:
        """(pack id, data key id) of a chunk."""
        return self.packs[self._pack[number]]

    def located(self, number: int) -> Located:
        return Located(self.packs[self._pack[number]][0], self._order[number], self._offset[number],
                       self._sealed[number], self._plain[number])


class StoredTree(TreeReader):
    """Reads a tree from a repository; ``table`` grows while entries() is read."""

    def __init__(self, backend: Backend, service: str, index_key: bytes, snapshot: str, tree: dict[str, Any],
                 meter: Meter | None = None) -> None:
        self._meter = meter or Meter()
        self._backend = backend
        self._service = service
        self._snapshot = snapshot
        self._tree = tree
        self._name = layout.tree(service, tree["id"])
        self._sealer = _sealer(index_key, tree["id"])
        self.table = ChunkTable()

    def _damaged(self, what: str) -> DamageError:
        return DamageError(f"tree {what}", f"snapshot {self._snapshot}, object {self._name}",
                           "restore an earlier snapshot (list them with the points playbook)")

    def _read(self, offset: int, length: int) -> bytes:
        try:
            with self._meter.during("fetch"):
                data = self._backend.read_range(self._name, offset, length)
            self._meter.add(fetched=len(data))
        except FileNotFoundError as error:
            raise self._damaged("is missing") from error
        if len(data) != length:
            raise self._damaged("is cut short")
        return data

    def _segments(self) -> Iterator[list[list[Any]]]:
        soundly(self._backend, self._name, self._header)
        offset, end, segment = len(MAGIC) + 32, int(self._tree["size"]), 0
        while offset < end:
            records, offset = soundly(self._backend, self._name, partial(self._segment, segment, offset, end))
            segment += 1
            yield records
        if segment == 0:
            raise self._damaged("is empty")

    def _header(self) -> None:
        header = MAGIC + bytes.fromhex(self._tree["id"])
        if self._read(0, len(header)) != header:
            raise self._damaged("header is damaged")

    def _segment(self, segment: int, offset: int, end: int) -> tuple[list[list[Any]], int]:
        """(records of a segment, where the next one begins)."""
        (length,) = _LENGTH.unpack(self._read(offset, _LENGTH.size))
        offset += _LENGTH.size
        if length > min(end - offset, SEGMENT_LIMIT):
            raise self._damaged("segment length is damaged")
        sealed = self._read(offset, length)
        offset += length
        try:
            packed = self._sealer.open(segment, sealed, _associated(self._service, self._tree["id"], offset == end))
            (plain_length,) = _LENGTH.unpack_from(packed)
            if plain_length > SEGMENT_LIMIT:
                raise ValueError("segment too large")
            plain = need("zstandard").ZstdDecompressor().decompress(packed[_LENGTH.size:], max_output_size=max(1, plain_length))
            if len(plain) != plain_length:
                raise ValueError("segment length")
            records: list[list[Any]] = json.loads(plain)
        except (ValueError, struct.error, need("zstandard").ZstdError) as error:
            raise self._damaged(f"segment {segment} is damaged") from error
        return records, offset

    def entries(self) -> Iterator[Entry]:
        self.table = ChunkTable()
        table = self.table
        for records in self._segments():
            for record in records:
                kind = record[0]
                if kind == "e":
                    yield record[1]
                elif kind == "c":
                    try:
                        table.add(bytes.fromhex(record[1]), *record[2:])
                    except (ValueError, TypeError, OverflowError) as error:
                        raise self._damaged("holds an impossible chunk record") from error
                elif kind == "p":
                    table.packs.append((bytes.fromhex(record[1]), record[2]))
                else:
                    raise self._damaged(f"holds an unknown record {kind!r}")

    def chunk_id(self, number: int) -> bytes:
        return self.table.chunk_id(number)
