# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Where data keys come from: one contract for the file and the Vault transit provider.

Two keys per service: ``data`` (whoever captures can make data keys but not open them) and ``index``
(whoever captures may open it; it seals what incremental work needs). Signing is ed25519.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from ..errors import KeyAccessError


class KeyVersionError(KeyAccessError):
    """The version that a data key is wrapped under is retired or not at hand; another generation of the same data key may open."""


@dataclass(frozen=True)
class EscrowCopy:
    """A data key sealed a second time, for the escrow key whose fingerprint is ``recipient``."""

    recipient: str
    sealed: str


@dataclass(frozen=True)
class WrappedKey:
    """A data key as it is stored: {"provider", "key", "version", "wrapped"[, "escrow"]}; ``wrapped`` is provider's text, no secret."""

    provider: str
    key: str
    version: int
    wrapped: str
    escrow: EscrowCopy | None = None

    def as_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"provider": self.provider, "key": self.key, "version": self.version, "wrapped": self.wrapped}
        return {**plain, "escrow": {"recipient": self.escrow.recipient, "sealed": self.escrow.sealed}} if self.escrow else plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WrappedKey:
        copy = data.get("escrow")
        escrow = EscrowCopy(str(copy["recipient"]), str(copy["sealed"])) if copy is not None else None
        return cls(str(data["provider"]), str(data["key"]), int(data["version"]), str(data["wrapped"]), escrow)


@dataclass(frozen=True)
class KeyVersions:
    """The versions of a service's data key. names: number -> what it is called; the highest number makes new data keys.

    oldest: the lowest number that still opens; what is below it is retired.
    """

    names: dict[int, str]
    oldest: int

    @property
    def newest(self) -> int:
        return max(self.names)


class KeyProvider(ABC):
    """Keys of one service. All methods raise KeyAccessError whose remedy names the missing right or file."""

    @abstractmethod
    def ensure(self) -> bool:
        """Create the service's keys where they are missing (bootstrap role); True if something was made."""

    @abstractmethod
    def new_data_key(self, context: bytes) -> tuple[bytes, WrappedKey]:
        """A fresh 32-byte data key and its wrapped form, bound to ``context`` (snapshot id) as associated data."""

    @abstractmethod
    def open_data_keys(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[bytes]:
        """Open many data keys, (context, wrapped) each, in one call; needs the restore role."""

    @abstractmethod
    def index_key(self) -> bytes:
        """The service's 32-byte index key."""

    @abstractmethod
    def sign(self, data: bytes) -> dict[str, Any]:
        """Sign: {"algorithm": "ed25519", "key": str, "version": int, "value": base64 str}."""

    @abstractmethod
    def verify(self, data: bytes, signature: dict[str, Any]) -> None:
        """Raise DamageError unless the signature is by this service's signing key."""

    # ---- the life of the data key: who rotates needs to open nothing ------------------------------------------

    #: The escrow key (X25519 public) for which new data keys are sealed a second time; None without escrow.
    escrow_public: bytes | None = None

    @abstractmethod
    def signing_publics(self, ask: bool = True) -> dict[tuple[str, int], bytes]:
        """The public signing keys, (key name, version) -> 32 bytes; without ``ask`` those at hand on this host, maybe none."""

    @abstractmethod
    def versions(self) -> KeyVersions:
        """The versions of the data key."""

    @abstractmethod
    def number_of(self, wrapped: WrappedKey) -> int:
        """The number of the version a data key is wrapped under; KeyAccessError when there never was such a version here."""

    @abstractmethod
    def rotate(self, after: int) -> int:
        """Make a version newer than ``after`` unless there is one already, so that it may be repeated; the newest number."""

    @abstractmethod
    def rewrap(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[WrappedKey]:
        """The same data keys under the newest version, (context, wrapped) each, in order. Escrow copies are kept as they are."""

    @abstractmethod
    def retire(self, through: int) -> None:
        """Let versions up to ``through`` open nothing any more. The caller has made sure that nothing needs them."""

    @abstractmethod
    def destroy(self) -> list[str]:
        """Destroy what opens the service's snapshots for ever; what was destroyed, in words. May be repeated."""
