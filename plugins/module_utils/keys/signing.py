# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""ed25519: sign with a private key at hand, check a signature against the public keys of a service."""

from __future__ import annotations

from typing import Any

from ..errors import DamageError, KeyAccessError
from ..libraries import need
from . import envelope

ALGORITHM = "ed25519"


def new_private() -> bytes:
    """A fresh ed25519 private key (seed), 32 raw bytes."""
    ed25519 = need("cryptography.hazmat.primitives.asymmetric.ed25519")
    return envelope.raw_private(ed25519.Ed25519PrivateKey.generate())


def public_of(private: bytes) -> bytes:
    """The ed25519 public half, 32 raw bytes."""
    ed25519 = need("cryptography.hazmat.primitives.asymmetric.ed25519")
    return envelope.raw_public(ed25519.Ed25519PrivateKey.from_private_bytes(private).public_key())


def sign(private: bytes, data: bytes) -> bytes:
    """The 64-byte signature of ``data`` (plain Ed25519 over the bytes, RFC 8032)."""
    ed25519 = need("cryptography.hazmat.primitives.asymmetric.ed25519")
    return bytes(ed25519.Ed25519PrivateKey.from_private_bytes(private).sign(data))


def describe(key: str, version: int, value: bytes) -> dict[str, Any]:
    """A signature as manifests carry it."""
    return {"algorithm": ALGORITHM, "key": key, "version": version, "value": envelope.to_text(value)}


def check(data: bytes, signature: dict[str, Any], publics: dict[tuple[str, int], bytes], where: str) -> None:
    """Raise DamageError unless ``signature`` over ``data`` is by one of ``publics`` ({(key name, version): raw public key}).

    where: names the key's owner in messages. KeyAccessError when there is no public key to check against.
    """
    ed25519 = need("cryptography.hazmat.primitives.asymmetric.ed25519")
    exceptions = need("cryptography.exceptions")
    if not publics:
        raise KeyAccessError("no public signing key", where, "put the service's sign.pub there")
    if not isinstance(signature, dict) or signature.get("algorithm") != ALGORITHM:
        raise DamageError(
            "signature is missing or of an unknown algorithm", where, f"only {ALGORITHM} is accepted; restore another snapshot",
        )
    key, version, value = signature.get("key"), signature.get("version"), signature.get("value")
    if not isinstance(key, str) or isinstance(version, bool) or not isinstance(version, int) or not isinstance(value, str):
        raise DamageError("signature is malformed", where, "restore another snapshot")
    public = publics.get((key, version))
    if public is None:
        known = ", ".join(sorted(name if name.find("@") >= 0 else f"{name} v{number}" for name, number in publics))
        raise DamageError(
            f"wrong signing key: signed by {key[:120]!r} version {version}, trusted here: {known}", where,
            "if that key was this service's, put its public half beside sign.pub; otherwise somebody else wrote this object",
        )
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(envelope.from_text(value), data)
    except (exceptions.InvalidSignature, ValueError) as error:
        raise DamageError(
            f"signature by {key} version {version} does not fit the content", where,
            "the object was altered; restore another snapshot, or this object from a second repository",
        ) from error
