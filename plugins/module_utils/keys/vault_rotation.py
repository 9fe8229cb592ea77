# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The life of a data key in Vault's transit engine: rotate, rewrap, retire, destroy.

Requests and answers, all of https://developer.hashicorp.com/vault/api-docs/secret/transit: "Rotate key", "Rewrap data" (it never
returns the data key, so the role that rotates opens nothing), "Update key configuration" (min_decryption_version,
deletion_allowed), "Delete key", "Read key".
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any

from ..errors import DamageError, KeyAccessError
from .provider import KeyProvider, KeyVersions, WrappedKey
from .vault_session import Session

PROVIDER = "vault"
CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})")
#: Data keys in one request: a chain of hundreds is one. A server's own limit is 32 MiB by default, this is about 200 KiB
#: (https://developer.hashicorp.com/vault/docs/configuration/listener/tcp, max_request_size).
BATCH = 1000
_ROTATE = "rotating needs the rotate policy (rotate_auth)"
_RETIRE = "retiring a version needs the retire policy (rotate_auth)"
_SHRED = "destroying a service's keys needs the shred policy (rotate_auth)"


class VaultRotation(KeyProvider):
    """The part of the provider that works with the credentials of ``rotate_auth``."""

    _mount: str
    _rotator: Session
    _opened: dict[tuple[bytes, str], bytes]

    @abstractmethod
    def _name(self, kind: str) -> str:
        """Name of a transit key."""

    @abstractmethod
    def _check_wrapped(self, context: bytes, item: WrappedKey) -> None:
        """Refuse what is not this service's."""

    @abstractmethod
    def _not_opened(self, context: bytes, item: WrappedKey, said: str) -> KeyAccessError | DamageError:
        """The error of one item of a batch."""

    @abstractmethod
    def _body(self, context: bytes, item: WrappedKey) -> dict[str, str]:
        """One item of a batch."""

    def versions(self) -> KeyVersions:
        """GET keys/…: latest_version and min_decryption_version."""
        name = self._name("data")
        found = self._ask("GET", f"keys/{name}", None, "read", _ROTATE)
        newest, oldest = (found or {}).get("latest_version"), (found or {}).get("min_decryption_version")
        if not isinstance(newest, int) or not isinstance(oldest, int) or newest < 1:
            raise KeyAccessError(f"transit key {name} is not there", self._url(f"keys/{name}"), "let bootstrap create it")
        return KeyVersions({number: f"{name} version {number}" for number in range(1, newest + 1)}, max(1, oldest))

    def number_of(self, wrapped: WrappedKey) -> int:
        self._check_wrapped(b"", wrapped)
        return wrapped.version

    def rotate(self, after: int) -> int:
        """POST keys/…/rotate, unless a version newer than ``after`` is there."""
        newest = self.versions().newest
        if newest <= after:
            self._ask("POST", f"keys/{self._name('data')}/rotate", {}, "update", _ROTATE, once=True)
            newest = self.versions().newest
            if newest <= after:
                raise KeyAccessError("Vault rotated the key and shows no new version", self._url(f"keys/{self._name('data')}"), "ask the leader, not a standby")
        return newest

    def rewrap(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[WrappedKey]:
        """POST rewrap/… in batches."""
        found: list[WrappedKey] = []
        for start in range(0, len(wrapped), BATCH):
            items = wrapped[start:start + BATCH]
            for context, item in items:
                self._check_wrapped(context, item)
            path = f"rewrap/{self._name('data')}"
            data = self._ask("POST", path, {"batch_input": [self._body(context, item) for context, item in items]}, "update", _ROTATE, partial=True)
            results = (data or {}).get("batch_results")
            if not isinstance(results, list) or len(results) != len(items):
                raise KeyAccessError("Vault's answer does not fit the request", self._url(path), "is keys.url a Vault server with the transit engine?")
            found += [self._rewrapped(context, item, result) for (context, item), result in zip(items, results)]
        return found

    def _rewrapped(self, context: bytes, item: WrappedKey, result: Any) -> WrappedKey:
        if not isinstance(result, dict) or result.get("error"):
            raise self._not_opened(context, item, str((result or {}).get("error")))
        text = result.get("ciphertext")
        match = CIPHERTEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None or int(match[1]) < item.version:
            raise KeyAccessError("Vault's answer holds no rewrapped key", self._url(f"rewrap/{self._name('data')}"), "is it a transit engine?")
        return WrappedKey(PROVIDER, item.key, int(match[1]), match[0], item.escrow)

    def retire(self, through: int) -> None:
        """POST keys/…/config min_decryption_version, read back."""
        name = self._name("data")
        if self.versions().oldest <= through:
            self._ask("POST", f"keys/{name}/config", {"min_decryption_version": through + 1}, "update", _RETIRE)
            if self.versions().oldest <= through:
                raise KeyAccessError(f"Vault still lets version {through} of {name} open", self._url(f"keys/{name}"), "look at the key's configuration")

    def destroy(self) -> list[str]:
        """Allow the deletion of the data and the index key, delete them, and look whether they are gone."""
        destroyed = []
        for kind in ("data", "index"):
            name = self._name(kind)
            if self._ask("GET", f"keys/{name}", None, "read", _SHRED) is None:
                continue
            self._ask("POST", f"keys/{name}/config", {"deletion_allowed": True}, "update", _SHRED)
            self._ask("DELETE", f"keys/{name}", None, "delete", _SHRED)
            if self._ask("GET", f"keys/{name}", None, "read", _SHRED) is not None:
                raise KeyAccessError(f"Vault deleted transit key {name} and still shows it", self._url(f"keys/{name}"), "look into Vault's log")
            destroyed.append(f"transit key {name} with all its versions")
        self._opened.clear()
        return destroyed

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, capability: str, remedy: str, partial: bool = False, once: bool = False,
    ) -> dict[str, Any] | None:
        full = f"{self._mount}/{path}"
        hint = f"grant {capability!r} on {full!r}: {remedy}"
        return self._rotator.request(method, full, body, capability=capability, remedy=hint, partial=partial, once=once)

    def _url(self, path: str) -> str:
        return f"{self._rotator.options.url}/v1/{self._mount}/{path}"
