# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Authenticated encryption of repository objects: AES-256-GCM under derived keys (docs/repository-format.md)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ..libraries import need

if TYPE_CHECKING:
    from .backend import Backend


def derive(key: bytes, salt: bytes, info: str) -> bytes:
    """HKDF-SHA256 to 32 bytes."""
    hkdf = need("cryptography.hazmat.primitives.kdf.hkdf").HKDF
    sha256 = need("cryptography.hazmat.primitives.hashes").SHA256
    result: bytes = hkdf(algorithm=sha256(), length=32, salt=salt, info=info.encode()).derive(key)
    return result


def nonce(counter: int) -> bytes:
    """A 96-bit counter nonce; unique because every key seals one object."""
    return struct.pack(">IQ", 0, counter)


class Sealer:
    """AES-256-GCM under one key that belongs to one object. ``open`` raises ValueError on any mismatch."""

    def __init__(self, key: bytes) -> None:
        aead = need("cryptography.hazmat.primitives.ciphers.aead")
        self._invalid = need("cryptography.exceptions").InvalidTag
        self._aead = aead.AESGCM(key)

    def seal(self, counter: int, data: bytes, associated: bytes) -> bytes:
        sealed: bytes = self._aead.encrypt(nonce(counter), data, associated)
        return sealed

    def open(self, counter: int, sealed: bytes, associated: bytes) -> bytes:
        try:
            data: bytes = self._aead.decrypt(nonce(counter), sealed, associated)
        except self._invalid as error:
            raise ValueError("authentication failed") from error
        return data


def keyed_hash(key: bytes, data: bytes | memoryview) -> bytes:
    """Keyed BLAKE3, 32 bytes."""
    digest: bytes = need("blake3").blake3(data, key=key).digest()
    return digest


def plain_hash(data: bytes) -> str:
    """BLAKE3 of an object's stored bytes, hex."""
    digest: str = need("blake3").blake3(data).hexdigest()
    return digest


def object_digest(backend: Backend, name: str, size: int) -> str:
    """BLAKE3 of a stored object of ``size`` bytes, hex, read in blocks."""
    hasher = need("blake3").blake3()
    for offset in range(0, size, 4 << 20):
        hasher.update(backend.read_range(name, offset, min(4 << 20, size - offset)))
    digest: str = hasher.hexdigest()
    return digest
