# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Escrow: data keys sealed a second time for a key that lies in a safe, for the day when the key server is part of the wreck.

The catalog names the public half (``keys.escrow``). A repository's escrow record holds the index key, sealed, and the public
signing keys, so that a restore needs nothing but the repository, the catalog and the private half.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import ConfigError, DamageError, KeyAccessError
from . import envelope, key_files, signing
from .provider import EscrowCopy, KeyProvider, KeyVersions, WrappedKey

_DATA = b"escrow-data-key"
_INDEX = b"escrow-index-key"
_OTHER = "restore another snapshot, or this object from a second repository"


def public_key(text: str) -> bytes:
    """The escrow key of a catalog; ConfigError for anything that is no X25519 public key."""
    try:
        public = envelope.from_text(text)
        if len(public) == 32 and any(public):
            return public
    except ValueError:
        pass
    raise ConfigError("keys.escrow is no X25519 public key", "the catalog", "make one: lifeboat escrow-key FILE prints the public half, one line of base64")


def new_key(path: str) -> str:
    """Make an escrow key pair unless the file is there; the public half, as the catalog names it."""
    path = os.path.abspath(os.path.expanduser(path))
    key_files.create(path, envelope.new_private)
    return envelope.to_text(envelope.public_of(key_files.read_private(path)))


def copy_for(public: bytes, key: bytes, context: bytes) -> EscrowCopy:
    """A data key's escrow copy, bound to the same context as its wrapped form."""
    return EscrowCopy(envelope.fingerprint(public), envelope.to_text(envelope.seal(public, key, context, _DATA)))


def seal_index(public: bytes, key: bytes, context: bytes) -> str:
    """The index key as it stands in an escrow record."""
    return envelope.to_text(envelope.seal(public, key, context, _INDEX))


@dataclass(frozen=True)
class Record:
    """An escrow record: where it lies, the sealed index key and what that is bound to, the public signing keys.

    self_signed: no signing key was at hand, so that the record vouches for itself.
    """

    name: str
    sealed: str
    context: bytes
    publics: dict[tuple[str, int], bytes]
    self_signed: bool


class EscrowProvider(KeyProvider):
    """Opens what was sealed for an escrow key. It makes nothing, signs nothing, and asks no server.

    inner: the catalog's provider, for the public keys that it has at hand. path: file of the private half.
    record: reads the repository's record for (fingerprint, public keys at hand).
    """

    def __init__(self, inner: KeyProvider, service: str, path: str, record: Callable[[str, dict[tuple[str, int], bytes]], Record]) -> None:
        self._inner = inner
        self._service = service
        self._path = os.path.abspath(os.path.expanduser(path))
        self._private = key_files.read_private(self._path)
        self.recipient = envelope.fingerprint(envelope.public_of(self._private))
        self._read = record
        self._record: Record | None = None

    @property
    def record(self) -> Record:
        if self._record is None:
            self._record = self._read(self.recipient, self._inner.signing_publics(ask=False))
        return self._record

    def open_data_keys(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[bytes]:
        """Open the escrow copies; KeyAccessError names a key that has none, or one for another escrow key."""
        return [self._open(context, item) for context, item in wrapped]

    def _open(self, context: bytes, item: WrappedKey) -> bytes:
        where = f"service {self._service}, data key {context.decode('utf-8', 'replace').rpartition('/')[2]!r}"
        if item.escrow is None:
            raise KeyAccessError(
                "this data key has no escrow copy", where, "it was made before keys.escrow was set: only the key provider opens it; restore a newer point",
            )
        if item.escrow.recipient != self.recipient:
            raise KeyAccessError(
                f"wrong escrow key: sealed for {item.escrow.recipient}, this is {self.recipient}", f"{self._path}, {where}", "use the private half of that key",
            )
        return self._unseal(item.escrow.sealed, context, _DATA, where)

    def _unseal(self, text: str, context: bytes, purpose: bytes, where: str) -> bytes:
        try:
            key = envelope.unseal(self._private, envelope.from_text(text), context, purpose)
            if len(key) == 32:
                return key
        except (DamageError, ValueError):
            pass
        raise DamageError("escrow copy does not open: it was altered or belongs elsewhere", where, _OTHER)

    def index_key(self) -> bytes:
        """The index key of the repository's escrow record."""
        return self._unseal(self.record.sealed, self.record.context, _INDEX, self.record.name)

    def verify(self, data: bytes, signature: dict[str, Any]) -> None:
        """Check against the keys at hand, and those of the record."""
        signing.check(data, signature, self.record.publics, self.record.name)

    def signing_publics(self, ask: bool = True) -> dict[tuple[str, int], bytes]:
        return self.record.publics

    def _refuse(self, what: str) -> KeyAccessError:
        return KeyAccessError(
            f"keys come from escrow, which {what}", f"service {self._service}", "bring the key provider back, and run without the escrow key",
        )

    def ensure(self) -> bool:
        raise self._refuse("makes no keys")

    def new_data_key(self, context: bytes) -> tuple[bytes, WrappedKey]:
        raise self._refuse("only opens: nothing can be captured with it")

    def sign(self, data: bytes) -> dict[str, Any]:
        raise self._refuse("signs nothing")

    def versions(self) -> KeyVersions:
        raise self._refuse("has no versions")

    def number_of(self, wrapped: WrappedKey) -> int:
        raise self._refuse("has no versions")

    def rotate(self, after: int) -> int:
        raise self._refuse("rotates nothing")

    def rewrap(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[WrappedKey]:
        raise self._refuse("rewraps nothing")

    def retire(self, through: int) -> None:
        raise self._refuse("retires nothing")

    def destroy(self) -> list[str]:
        raise self._refuse("destroys nothing")
