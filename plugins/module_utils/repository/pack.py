# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Packs: sealed chunks one after another, and a sealed footer that describes them (docs/repository-format.md, "Pack")."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import DamageError
from ..libraries import need
from . import layout
from .backend import Backend, NewObject
from .seal import Sealer, derive

MAGIC = b"LBPACK1\n"
END = b"LBPEND1\n"
HEADER = len(MAGIC) + 32 + 16
_RECORD = struct.Struct(">32sII")
_TRAILER = struct.Struct(">I8s")
TAG = 16
#: The largest plain chunk a reader accepts.
CHUNK_LIMIT = 4 << 20
#: A pack is finished when it holds this much.
PACK_TARGET = 64 << 20


class Located(NamedTuple):
    """Where a chunk is: its pack's 32-byte id, its order in the pack, offset and sealed length in the pack, plain length."""

    pack: bytes
    order: int
    offset: int
    sealed: int
    plain: int


@dataclass
class PackInfo:
    """A finished pack: id, data key id (hex), size in bytes, BLAKE3 of the object (hex), chunks (id, sealed, plain) in order."""

    id: bytes
    key_id: str
    size: int
    digest: str
    chunks: list[tuple[bytes, int, int]] = field(default_factory=list)

    def located(self) -> list[tuple[bytes, Located]]:
        """(chunk id, place) of every chunk."""
        found = []
        offset = HEADER
        for order, (chunk_id, sealed, plain) in enumerate(self.chunks):
            found.append((chunk_id, Located(self.id, order, offset, sealed, plain)))
            offset += sealed
        return found


def chunk_associated(service: str, pack_id: bytes, order: int, chunk_id: bytes) -> bytes:
    """Owner and position that a sealed chunk is bound to."""
    return b"lifeboat/chunk/1\0" + service.encode() + b"\0" + pack_id + struct.pack(">Q", order) + chunk_id


def pack_sealer(data_key: bytes, pack_id: bytes) -> Sealer:
    return Sealer(derive(data_key, pack_id, "lifeboat/pack/1"))


def _footer_sealer(index_key: bytes, pack_id: bytes) -> Sealer:
    return Sealer(derive(index_key, pack_id, "lifeboat/footer/1"))


def _footer_associated(service: str, pack_id: bytes, key_id: str) -> bytes:
    return b"lifeboat/footer/1\0" + service.encode() + b"\0" + pack_id + bytes.fromhex(key_id)


class PackWriter:
    """One pack being filled by one thread at a time."""

    def __init__(self, backend: Backend, service: str, data_key: bytes, key_id: str, index_key: bytes) -> None:
        self.id = os.urandom(32)
        self._service = service
        self._key_id = key_id
        self._index_key = index_key
        self._sealer = pack_sealer(data_key, self.id)
        self._new: NewObject = backend.new(layout.pack(service, self.id), "pack")
        self._hash = need("blake3").blake3()
        self._chunks: list[tuple[bytes, int, int]] = []
        self.size = 0
        try:
            self._write(MAGIC + self.id + bytes.fromhex(key_id))
        except BaseException:
            self._new.abort()  # nobody else knows of it yet
            raise

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._new.write(data)
        self.size += len(data)

    def add(self, chunk_id: bytes, stored: bytes, plain: int) -> Located:
        """Seal and append one chunk; ``stored`` is its compressed form, or the plain one when that is not larger."""
        order = len(self._chunks)
        sealed = self._sealer.seal(order, stored, chunk_associated(self._service, self.id, order, chunk_id))
        offset = self.size
        self._write(sealed)
        self._chunks.append((chunk_id, len(sealed), plain))
        return Located(self.id, order, offset, len(sealed), plain)

    def finish(self) -> PackInfo:
        """Write the footer and make the pack durable."""
        body = b"".join(_RECORD.pack(*chunk) for chunk in self._chunks)
        sealed = _footer_sealer(self._index_key, self.id).seal(0, body, _footer_associated(self._service, self.id, self._key_id))
        self._write(sealed + _TRAILER.pack(len(sealed), END))
        self._new.commit()
        return PackInfo(self.id, self._key_id, self.size, self._hash.hexdigest(), self._chunks)

    def abort(self) -> None:
        self._new.abort()


def read_footer(backend: Backend, service: str, name: str, size: int, index_key: bytes) -> PackInfo:
    """What a pack says of itself, without its content; DamageError names it. The digest field stays empty."""

    def damaged(what: str) -> DamageError:
        return DamageError(f"pack {what}", name, "verify the repository; snapshots that need this pack cannot be restored from here")

    header = backend.read_range(name, 0, HEADER)
    trailer = backend.read_range(name, max(0, size - _TRAILER.size), _TRAILER.size)
    if len(header) != HEADER or header[:len(MAGIC)] != MAGIC:
        raise damaged("header is damaged")
    if len(trailer) != _TRAILER.size or not trailer.endswith(END):
        raise damaged("is cut short")
    pack_id = header[len(MAGIC):len(MAGIC) + 32]
    key_id = header[len(MAGIC) + 32:].hex()
    if layout.pack(service, pack_id) != name:
        raise damaged("carries another pack's name")
    (length, _end) = _TRAILER.unpack(trailer)
    if length > size - HEADER - _TRAILER.size or length < TAG or (length - TAG) % _RECORD.size:
        raise damaged("footer is damaged")
    sealed = backend.read_range(name, size - _TRAILER.size - length, length)
    try:
        body = _footer_sealer(index_key, pack_id).open(0, sealed, _footer_associated(service, pack_id, key_id))
    except ValueError as error:
        raise damaged("footer is damaged or sealed for another service") from error
    chunks = [_RECORD.unpack_from(body, at) for at in range(0, len(body), _RECORD.size)]
    if HEADER + sum(chunk[1] for chunk in chunks) + length + _TRAILER.size != size:
        raise damaged("length does not match its footer")
    return PackInfo(pack_id, key_id, size, "", chunks)
