# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A service's escrow record: its index key sealed for the escrow key, and its public signing keys. Signed, write-once, numbered from 0.

A new one is written when there is a new signing key; the index key never changes.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ConflictError, DamageError, KeyAccessError
from ..keys import envelope, escrow, signing
from ..keys.provider import KeyProvider
from ..ledger import canonical
from . import layout, signed
from .backend import Backend
from .numbers import newest_number, present

_LIMIT = 1 << 20


def context(repository: str, service: str) -> bytes:
    """What the sealed index key is bound to."""
    return f"lifeboat/index-key/1/{repository}/{service}".encode()


def ensure(backend: Backend, provider: KeyProvider, repository: str, service: str) -> None:
    """See to it that there is a record for the provider's escrow key with all its signing keys."""
    public = provider.escrow_public
    if public is None:
        return
    recipient = envelope.fingerprint(public)
    publics = [[key, version, envelope.to_text(raw)] for (key, version), raw in sorted(provider.signing_publics().items())]
    number = _newest(backend, service, recipient)
    if number is not None and _lists(backend, provider, repository, service, recipient, number, publics):
        return
    document = {
        "format": layout.FORMAT, "kind": "escrow", "repository": repository, "service": service, "recipient": recipient, "publics": publics,
        "index": escrow.seal_index(public, provider.index_key(), context(repository, service)),
    }
    text = canonical(document).decode()
    body = json.dumps({"escrow": text, "signature": provider.sign(text.encode())}, separators=(",", ":")).encode()
    try:
        backend.create(layout.escrow(service, recipient, 0 if number is None else number + 1), body, "key")
    except ConflictError:
        pass  # another host was faster with the same


def check(backend: Backend, provider: KeyProvider, repository: str, service: str, recipient: str, number: int) -> None:
    """DamageError unless a record is genuine. Whether its sealed key opens only the escrow key can tell."""
    data, _signature = _load(backend, provider, repository, service, recipient, number)
    _publics(data["publics"], layout.escrow(service, recipient, number))


def _lists(
    backend: Backend, provider: KeyProvider, repository: str, service: str, recipient: str, number: int, publics: list[list[Any]]
) -> bool:
    try:
        data, _signed = _load(backend, provider, repository, service, recipient, number)
    except DamageError:
        return False
    return bool(data["publics"] == publics)


def _newest(backend: Backend, service: str, recipient: str) -> int | None:
    return newest_number(lambda number: present(backend, layout.escrow(service, recipient, number)))


def _load(
    backend: Backend, provider: KeyProvider | None, repository: str, service: str, recipient: str, number: int
) -> tuple[dict[str, Any], tuple[bytes, dict[str, Any]]]:
    """(record, (what is signed, signature)); the signature is checked unless ``provider`` is None."""
    name = layout.escrow(service, recipient, number)

    def damaged(what: str) -> DamageError:
        return DamageError(f"escrow record {what}", name, "the next capture writes a new one; until then use the key provider")

    try:
        raw = backend.read(name, _LIMIT)
    except FileNotFoundError as error:
        raise damaged("is missing") from error
    data, text = signed.load(raw, "escrow", provider, damaged)
    place = (layout.FORMAT, "escrow", repository, service, recipient)
    if tuple(data.get(key) for key in ("format", "kind", "repository", "service", "recipient")) != place:
        raise damaged("belongs to another place (moved or replayed)")
    if not isinstance(data.get("index"), str) or not isinstance(data.get("publics"), list):
        raise damaged("lacks what it is for")
    return data, (text.encode(), json.loads(raw)["signature"])


def read(backend: Backend, repository: str, service: str, recipient: str, known: dict[tuple[str, int], bytes]) -> escrow.Record:
    """The newest record that is genuine, for who has the escrow key. known: public signing keys at hand; when there are some, one of them must have
    signed the record. Without any the record vouches for itself. KeyAccessError when there is no record for this escrow key."""
    number = _newest(backend, service, recipient)
    if number is None:
        raise KeyAccessError(
            f"nothing of service {service} is sealed for escrow key {recipient}", layout.escrow(service, recipient),
            "is it the private half of the catalog's keys.escrow, and the right repository? nothing captured before keys.escrow was set is in escrow",
        )
    first: DamageError | None = None
    while number >= 0:
        try:
            data, (text, signature) = _load(backend, None, repository, service, recipient, number)
            publics = _publics(data["publics"], layout.escrow(service, recipient, number))
            signing.check(text, signature, known or publics, layout.escrow(service, recipient, number))
            return escrow.Record(
                layout.escrow(service, recipient, number), data["index"], context(repository, service), {**publics, **known}, not known)
        except DamageError as error:
            first = first or error
        number -= 1
    raise first or DamageError("escrow record is missing", layout.escrow(service, recipient), "use the key provider")


def _publics(listed: list[Any], name: str) -> dict[tuple[str, int], bytes]:
    try:
        return {(str(key), int(version)): envelope.from_text(text) for key, version, text in listed}
    except (ValueError, TypeError, AttributeError) as error:
        raise DamageError("escrow record lists no signing keys", name, "the next capture writes a new one; until then use the key provider") from error
