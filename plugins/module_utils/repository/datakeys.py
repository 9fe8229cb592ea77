# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Data keys in a repository: small objects with the wrapped form; rewrapping adds a generation, data never changes.

Generations of a key are numbered without gaps, so the newest one is found by asking for names, not by a list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ConflictError, DamageError, KeyAccessError
from ..keys import escrow
from ..keys.provider import KeyProvider, KeyVersionError, WrappedKey
from . import checked, escrow_record, layout, tombstone
from .backend import Backend
from .numbers import newest_number, present

_LIMIT = 1 << 20


def context(repository: str, service: str, key_id: str) -> bytes:
    """What a wrapped data key is bound to."""
    return f"lifeboat/data-key/1/{repository}/{service}/{key_id}".encode()


def create_key(backend: Backend, service: str, repository: str, provider: KeyProvider, key_id: str) -> bytes:
    """Make a data key and store its wrapped form, and its escrow copy, before anything is sealed with it."""
    tombstone.refuse(backend, provider, repository, service)
    bound = context(repository, service, key_id)
    plain, wrapped = provider.new_data_key(bound)
    if provider.escrow_public is not None:
        escrow_record.ensure(backend, provider, repository, service)
        wrapped = replace(wrapped, escrow=escrow.copy_for(provider.escrow_public, plain, bound))
    _store(backend, service, key_id, 0, wrapped)
    return plain


def _store(backend: Backend, service: str, key_id: str, generation: int, wrapped: WrappedKey) -> None:
    document = {"format": layout.FORMAT, "id": key_id, "service": service, "wrapped": wrapped.as_dict()}
    backend.create(layout.key(service, key_id, generation), checked.dump(document), "key")


@dataclass(frozen=True)
class StoredKey:
    """One generation of a data key as it lies in the repository."""

    id: str
    generation: int
    wrapped: WrappedKey


def newest_generation(backend: Backend, service: str, key_id: str) -> int | None:
    """The newest generation of a data key. None when its object is missing; a list is asked only where its first ones are gone."""

    def exists(generation: int) -> bool:
        return present(backend, layout.key(service, key_id, generation))

    found = newest_number(exists)
    if found is None:
        prefix = f"{layout.keys(service)}{key_id}."
        numbers = [name[len(prefix):-5] for name, _size in backend.list(layout.keys(service)) if name.startswith(prefix) and name.endswith(".json")]
        found = max((int(number) for number in numbers if number.isdigit()), default=None)
        while found is not None and exists(found + 1):
            found += 1
    return found


def read_generation(backend: Backend, service: str, key_id: str, generation: int, snapshot: str) -> StoredKey:
    """One generation; DamageError names the object."""
    name = layout.key(service, key_id, generation)
    try:
        document = checked.load(backend.read(name, _LIMIT))
        if document["id"] != key_id or document["service"] != service or document["format"] != layout.FORMAT:
            raise ValueError("another key")
        return StoredKey(key_id, generation, WrappedKey.from_dict(document["wrapped"]))
    except FileNotFoundError as error:
        raise DamageError("data key is missing", f"snapshot {snapshot}, object {name}",
                          "without it this snapshot cannot be opened; restore another point") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError("data key object is damaged", f"snapshot {snapshot}, object {name}", "restore another point") from error


def read_newest(backend: Backend, service: str, key_id: str, snapshot: str) -> StoredKey:
    """The newest generation of a data key; DamageError names the object."""
    return read_generation(backend, service, key_id, newest_generation(backend, service, key_id) or 0, snapshot)


def read_key(backend: Backend, service: str, key_id: str, snapshot: str) -> WrappedKey:
    """The newest wrapped form of a data key; DamageError names the object."""
    return read_newest(backend, service, key_id, snapshot).wrapped


def store_next(backend: Backend, service: str, key: StoredKey, wrapped: WrappedKey) -> bool:
    """Write a data key's next generation; False when another writer did so a moment ago: theirs is the same key."""
    try:
        _store(backend, service, key.id, key.generation + 1, wrapped)
    except ConflictError:
        return False
    return True


def open_keys(
    backend: Backend, service: str, repository: str, provider: KeyProvider, key_ids: list[str], snapshot: str
) -> dict[str, bytes]:
    """Open the data keys a snapshot needs: key id -> 32 bytes. Of each the newest generation that opens."""
    found = open_each(backend, service, repository, provider, dict.fromkeys(key_ids, snapshot))
    return {key_id: _or_raise(key) for key_id, key in found.items()}


def open_each(
    backend: Backend, service: str, repository: str, provider: KeyProvider, wanted: dict[str, str]
) -> dict[str, bytes | DamageError | KeyVersionError]:
    """As open_keys for {key id: the snapshot that needs it}; a key that does not open stands there as its error and hurts no other."""
    try:
        wrapped = [(context(repository, service, key_id), read_key(backend, service, key_id, snapshot)) for key_id, snapshot in wanted.items()]
        return dict(zip(wanted, provider.open_data_keys(wrapped)))
    except (DamageError, KeyVersionError):
        tombstone.refuse(backend, provider, repository, service)
        return {key_id: _open_any(backend, service, repository, provider, key_id, snapshot) for key_id, snapshot in wanted.items()}
    except KeyAccessError as error:
        tombstone.refuse(backend, provider, repository, service, error)
        raise


def _open_any(
    backend: Backend, service: str, repository: str, provider: KeyProvider, key_id: str, snapshot: str
) -> bytes | DamageError | KeyVersionError:
    """One key by itself, from its newest generation down; what was wrong with the newest when none opens."""
    first: DamageError | KeyVersionError | None = None
    generation = newest_generation(backend, service, key_id) or 0
    while True:
        try:
            stored = read_generation(backend, service, key_id, generation, snapshot)
            return provider.open_data_keys([(context(repository, service, key_id), stored.wrapped)])[0]
        except (DamageError, KeyVersionError) as error:
            first = first or error
        if generation == 0:
            return first
        generation -= 1


def _or_raise(key: bytes | DamageError | KeyVersionError) -> bytes:
    if isinstance(key, bytes):
        return key
    raise key
