# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Seal a small secret for an X25519 public key: whoever seals cannot open.

One message = one fresh ephemeral key pair, X25519, HKDF-SHA256, AES-256-GCM. The purpose, both public
keys and the caller's context go into the key derivation *and* into the associated data, so a sealed
secret that is moved to another snapshot, another recipient or another use does not open. The same
function serves data keys of the ``file`` provider and any second recipient (escrow) by its purpose.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from ..errors import DamageError
from ..libraries import need

#: X25519 public key (32) + AES-256-GCM tag (16): what sealing adds to a secret, in bytes.
OVERHEAD = 48
_MAGIC = b"lifeboat/seal/1"


def fingerprint(public: bytes) -> str:
    """16 hex digits that name a public key in file names, key names and messages."""
    return hashlib.sha256(b"lifeboat/key/1\0" + public).hexdigest()[:16]


def to_text(data: bytes) -> str:
    """Canonical base64."""
    return base64.b64encode(data).decode("ascii")


def from_text(text: str) -> bytes:
    """Decode canonical base64 only; ValueError for anything else, so that no two texts mean the same bytes."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error
    if to_text(data) != text:
        raise ValueError("not canonical base64")
    return data


def raw_private(key: Any) -> bytes:
    """The 32 raw bytes of a private X25519 or ed25519 key object (the long way: older distributions lack the short one)."""
    serialization = need("cryptography.hazmat.primitives.serialization")
    return bytes(key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()))


def raw_public(key: Any) -> bytes:
    """The 32 raw bytes of a public X25519 or ed25519 key object."""
    serialization = need("cryptography.hazmat.primitives.serialization")
    return bytes(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def new_private() -> bytes:
    """A fresh X25519 private key, 32 raw bytes."""
    x25519 = need("cryptography.hazmat.primitives.asymmetric.x25519")
    return raw_private(x25519.X25519PrivateKey.generate())


def public_of(private: bytes) -> bytes:
    """The X25519 public half, 32 raw bytes."""
    x25519 = need("cryptography.hazmat.primitives.asymmetric.x25519")
    return raw_public(x25519.X25519PrivateKey.from_private_bytes(private).public_key())


def seal(public: bytes, secret: bytes, context: bytes, purpose: bytes) -> bytes:
    """Seal ``secret`` for ``public``: ephemeral public key (32 bytes) followed by ciphertext and tag.

    ValueError when ``public`` is no usable X25519 key.
    """
    x25519 = need("cryptography.hazmat.primitives.asymmetric.x25519")
    ephemeral = x25519.X25519PrivateKey.generate()
    ephemeral_public = raw_public(ephemeral.public_key())
    shared = ephemeral.exchange(x25519.X25519PublicKey.from_public_bytes(public))
    bound = _bind(purpose, ephemeral_public, public, context)
    cipher, nonce = _cipher(shared, bound)
    return ephemeral_public + bytes(cipher.encrypt(nonce, secret, bound))


def unseal(private: bytes, sealed: bytes, context: bytes, purpose: bytes) -> bytes:
    """Open what ``seal`` made; DamageError when one bit, the context, the purpose or the recipient differs."""
    x25519 = need("cryptography.hazmat.primitives.asymmetric.x25519")
    exceptions = need("cryptography.exceptions")
    if len(sealed) < OVERHEAD:
        raise DamageError("sealed key is cut short", "", "restore another snapshot, or this object from a second repository")
    ephemeral_public = sealed[:32]
    try:
        shared = x25519.X25519PrivateKey.from_private_bytes(private).exchange(x25519.X25519PublicKey.from_public_bytes(ephemeral_public))
        bound = _bind(purpose, ephemeral_public, public_of(private), context)
        cipher, nonce = _cipher(shared, bound)
        return bytes(cipher.decrypt(nonce, sealed[32:], bound))
    except (exceptions.InvalidTag, ValueError) as error:
        raise DamageError(
            "sealed key does not open: it was altered or belongs to another snapshot", "",
            "restore another snapshot, or this object from a second repository",
        ) from error


def _bind(*parts: bytes) -> bytes:
    """Length-prefixed, so that no two lists of parts give the same bytes."""
    return _MAGIC + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _cipher(shared: bytes, bound: bytes) -> tuple[Any, bytes]:
    """Key and nonce of one message; both come from a secret that is used once."""
    hashes = need("cryptography.hazmat.primitives.hashes")
    hkdf = need("cryptography.hazmat.primitives.kdf.hkdf")
    aead = need("cryptography.hazmat.primitives.ciphers.aead")
    material = hkdf.HKDF(algorithm=hashes.SHA256(), length=44, salt=None, info=bound).derive(shared)
    return aead.AESGCM(material[:32]), material[32:]
