# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One object of a log: a sealed piece of it, or a history file (docs/repository-format.md, "Log")."""

from __future__ import annotations

import datetime
import os
import struct

from ..libraries import need
from .pack import TAG
from .seal import Sealer, derive

MAGIC = b"LBWLOG1\n"
#: magic, salt, capture time (ns since 1970), plain length
_HEADER = struct.Struct(">8s32sQI")
HEADER = _HEADER.size
CHECKSUM = 32
#: The largest plain piece a reader accepts; a larger segment is kept in aligned pieces of this size.
PIECE_LIMIT = 64 << 20
#: The largest object: what cannot be compressed is stored as it is.
OBJECT_LIMIT = PIECE_LIMIT + HEADER + TAG + CHECKSUM
#: zstd level: a third of the time of level 3, and hardly larger, for what must be written at the pace of the commits.
LEVEL = 1


def _associated(name: str, header: bytes) -> bytes:
    """The place and the time that a sealed piece is bound to."""
    return b"lifeboat/log/1\0" + name.encode() + b"\0" + header


def _sealer(data_key: bytes, salt: bytes) -> Sealer:
    # a random salt per object: even a name that is tried twice never sees one nonce twice under one key
    return Sealer(derive(data_key, salt, "lifeboat/log/1"))


def seal(data_key: bytes, name: str, plain: bytes | memoryview, captured_ns: int) -> bytes:
    """The stored form of a piece under its object name."""
    frame: bytes = need("zstandard").ZstdCompressor(level=LEVEL).compress(plain)
    body = frame if len(frame) < len(plain) else bytes(plain)
    header = _HEADER.pack(MAGIC, os.urandom(32), captured_ns, len(plain))
    stored = header + _sealer(data_key, header[8:40]).seal(0, body, _associated(name, header))
    checksum: bytes = need("blake3").blake3(stored).digest()
    return stored + checksum


def captured(header: bytes) -> int:
    """The capture time (ns) in the first HEADER bytes, not authenticated yet; ValueError when it is no piece."""
    if len(header) < HEADER or header[:8] != MAGIC:
        raise ValueError("is no piece of a log")
    return int(_HEADER.unpack_from(header)[2])


def check(raw: bytes) -> None:
    """ValueError unless the object is as it was written; needs no key."""
    captured(raw)
    if len(raw) < HEADER + TAG + CHECKSUM:
        raise ValueError("is cut short")
    if need("blake3").blake3(raw[:-CHECKSUM]).digest() != raw[-CHECKSUM:]:
        raise ValueError("is damaged: its hash is not the recorded one")


def open_piece(data_key: bytes, name: str, raw: bytes, length: int | None = None) -> tuple[bytes, int]:
    """(plain, capture time in ns) of a stored piece; ValueError says what is wrong. length: what the plain form must have."""
    check(raw)
    _magic, salt, when, plain_length = _HEADER.unpack_from(raw)
    if plain_length > PIECE_LIMIT or (length is not None and plain_length != length):
        raise ValueError(f"holds {plain_length} bytes, not what its name says")
    header = raw[:HEADER]
    sealed = raw[HEADER:-CHECKSUM]
    try:
        plain = _sealer(data_key, salt).open(0, sealed, _associated(name, header))
    except ValueError as error:
        raise ValueError("is damaged, or belongs to another place or key") from error
    if len(sealed) - TAG < plain_length:
        zstandard = need("zstandard")
        try:
            if zstandard.frame_content_size(plain) != plain_length:
                raise ValueError("is damaged: its length is not the recorded one")
            plain = zstandard.ZstdDecompressor().decompress(plain, max_output_size=plain_length)
        except zstandard.ZstdError as error:
            raise ValueError("cannot be decompressed") from error
    if len(plain) != plain_length:
        raise ValueError("is damaged: its length is not the recorded one")
    return plain, int(when)


def iso(nanoseconds: int) -> str:
    """A capture time as ISO UTC."""
    moment = datetime.datetime.fromtimestamp(nanoseconds // 1000 / 1e6, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
