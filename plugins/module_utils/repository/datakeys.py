# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Data keys in a repository: small objects with the wrapped form; rewrapping adds a generation, data never changes."""

from __future__ import annotations

from ..errors import DamageError
from ..keys.provider import KeyProvider, WrappedKey
from . import checked, layout
from .backend import Backend

_LIMIT = 1 << 20


def context(repository: str, service: str, key_id: str) -> bytes:
    """What a wrapped data key is bound to."""
    return f"lifeboat/data-key/1/{repository}/{service}/{key_id}".encode()


def create_key(backend: Backend, service: str, repository: str, provider: KeyProvider, key_id: str) -> bytes:
    """Make a data key and store its wrapped form before anything is sealed with it."""
    plain, wrapped = provider.new_data_key(context(repository, service, key_id))
    document = {"format": layout.FORMAT, "id": key_id, "service": service, "wrapped": wrapped.as_dict()}
    backend.create(layout.key(service, key_id), checked.dump(document), "key")
    return plain


def _newest(backend: Backend, service: str, key_id: str) -> str:
    names = [name for name, _size in backend.list(layout.keys(service)) if name.startswith(f"{layout.keys(service)}{key_id}.")]
    return max(names, default=layout.key(service, key_id))


def read_key(backend: Backend, service: str, key_id: str, snapshot: str) -> WrappedKey:
    """The newest wrapped form of a data key; DamageError names the object."""
    name = layout.key(service, key_id)
    try:
        try:
            raw = backend.read(name, _LIMIT)
        except FileNotFoundError:
            name = _newest(backend, service, key_id)
            raw = backend.read(name, _LIMIT)
        document = checked.load(raw)
        if document["id"] != key_id or document["service"] != service or document["format"] != layout.FORMAT:
            raise ValueError("another key")
        return WrappedKey.from_dict(document["wrapped"])
    except FileNotFoundError as error:
        raise DamageError("data key is missing", f"snapshot {snapshot}, object {name}",
                          "without it this snapshot cannot be opened; restore another point") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError("data key object is damaged", f"snapshot {snapshot}, object {name}", "restore another point") from error


def open_keys(
    backend: Backend, service: str, repository: str, provider: KeyProvider, key_ids: list[str], snapshot: str
) -> dict[str, bytes]:
    """Open the data keys a snapshot needs: key id -> 32 bytes."""
    wrapped = [(context(repository, service, key_id), read_key(backend, service, key_id, snapshot)) for key_id in key_ids]
    return dict(zip(key_ids, provider.open_data_keys(wrapped)))
