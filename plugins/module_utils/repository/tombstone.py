# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The signed word that a service was shredded: its keys are destroyed, what lies in the repository opens nobody any more."""

from __future__ import annotations

import json
from typing import Any

from ..errors import ConflictError, DamageError, KeyAccessError
from ..keys.provider import KeyProvider
from ..ledger import canonical
from . import layout, signed
from .backend import Backend

_LIMIT = 1 << 20


class ShreddedError(KeyAccessError):
    """The service's keys were destroyed deliberately."""


def write(backend: Backend, provider: KeyProvider, repository_id: str, service: str, told: dict[str, Any]) -> dict[str, Any]:
    """Write the tombstone; the one that is there already counts. told: {"time", "by", "run", "reason"}."""
    document = {"format": layout.FORMAT, "kind": "shredded", "repository": repository_id, "service": service, **told}
    text = canonical(document).decode()
    signature = provider.sign(text.encode())
    provider.verify(text.encode(), signature)
    try:
        backend.create(layout.tombstone(service), json.dumps({"shredded": text, "signature": signature}, separators=(",", ":")).encode(), "key")
    except ConflictError:
        pass  # a killed call wrote it, or another operator
    return read(backend, provider, repository_id, service) or document


def read(backend: Backend, provider: KeyProvider | None, repository_id: str, service: str) -> dict[str, Any] | None:
    """The tombstone, its signature checked unless ``provider`` is None; None where there is none. DamageError when it is not genuine."""
    name = layout.tombstone(service)

    def damaged(what: str) -> DamageError:
        return DamageError(f"tombstone {what}", name, "somebody else wrote or altered it; look at the ledger (lifeboat history) and at the key server")

    try:
        raw = backend.read(name, _LIMIT)
    except FileNotFoundError:
        return None
    data, _text = signed.load(raw, "shredded", provider, damaged)
    if (data.get("format"), data.get("kind"), data.get("repository"), data.get("service")) != (layout.FORMAT, "shredded", repository_id, service):
        raise damaged("belongs to another place (moved or replayed)")
    return data


def refuse(backend: Backend, provider: KeyProvider, repository_id: str, service: str, why: Exception | None = None) -> None:
    """Raise ShreddedError when the service was shredded; otherwise return, so that the caller says what it met (``why``)."""
    found = read(backend, provider, repository_id, service)
    if found is not None:
        raise ShreddedError(
            f"service {service} was shredded on {found.get('time')} by {found.get('by')} in run {found.get('run')}", layout.tombstone(service),
            "its keys are destroyed and nothing of it can be restored; a new service of that kind needs another name or repository",
        ) from why
