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


@dataclass(frozen=True)
class WrappedKey:
    """A data key as it is stored: {"provider", "key", "version", "wrapped"}; ``wrapped`` is provider's text, no secret."""

    provider: str
    key: str
    version: int
    wrapped: str

    def as_dict(self) -> dict[str, Any]:
        return {"provider": self.provider, "key": self.key, "version": self.version, "wrapped": self.wrapped}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WrappedKey:
        return cls(str(data["provider"]), str(data["key"]), int(data["version"]), str(data["wrapped"]))


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
