# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Destroy the keys of one service for ever, so that nothing of it in any repository can be read again; other services have keys of their own.

First a signed tombstone, then the keys: a call that is killed between the two is completed by the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import faults
from ..errors import ConfigError, KeyAccessError, LifeboatError
from ..ledger import Ledger, now
from ..repository import datakeys, tombstone
from ..repository.keyring import key_ring

if TYPE_CHECKING:
    from ..keys.provider import WrappedKey
    from ..repository.repository import ServiceStore
    from ..spec import Spec

#: Data keys that are tried after the destruction: none may open.
_TRIED = 50


def shred_service(spec: Spec, run: dict[str, Any], confirm: str, reason: str, check: bool) -> dict[str, Any]:
    """Shred a service: {"changed", "destroyed": [words], "tombstone": {...}, "data_keys", "escrow_copies", "tried", "warnings"}.

    confirm: ``ECOSYSTEM/SERVICE``, spelled out; ConfigError otherwise.
    """
    wanted = f"{spec.catalog.get('ecosystem') or ''}/{spec.service}"
    if confirm != wanted:
        raise ConfigError(
            "shredding a service destroys its keys for ever and needs its name as confirmation", f"service {spec.service}", f"give confirm: {wanted}",
        )
    ledger = Ledger.for_spec(spec)
    store = spec.store()
    found = tombstone.read(store.backend, store.provider, store.repository.id, spec.service)
    if found is None:
        store.provider.versions()  # may this role look, and is there something to destroy
    wrapped = _keys(spec, store)
    copies = sum(1 for item in wrapped.values() if item.escrow is not None)
    told = {"data_keys": len(wrapped), "escrow_copies": copies, "warnings": _copies_left(spec, copies), "ledger": ledger.appended}
    if check:
        return {"changed": found is None, "destroyed": [], "tombstone": found, "tried": 0, **told}
    by = f"{run.get('user') or '?'}@{run.get('controller') or '?'}"
    ledger.append(run, "rotate", "shred.intent", {"repository": store.repository.id, "by": by, "reason": reason, "data_keys": len(wrapped)})
    faults.point("shred.intent")
    about = {"time": now(), "by": by, "run": str(run["id"]), "reason": reason}
    found = found or tombstone.write(store.backend, store.provider, store.repository.id, spec.service, about)
    faults.point("shred.marked")
    destroyed = store.provider.destroy()
    faults.point("shred.destroyed")
    tried = _refuse_opened(spec, store, wrapped)
    ledger.append(run, "rotate", "shred.done", {"destroyed": destroyed, "tried": tried, "opened": 0, "escrow_copies": copies})
    return {"changed": bool(destroyed), "destroyed": destroyed, "tombstone": found, "tried": tried, **told}


def _keys(spec: Spec, store: ServiceStore) -> dict[str, WrappedKey]:
    """The stored data keys that can be read; what is damaged opens nothing anyway."""
    ring, _chains = key_ring(store, spec.source_names)
    found = {}
    for key_id, needed_by in ring.needed.items():
        try:
            found[key_id] = datakeys.read_key(store.backend, store.service, key_id, needed_by)
        except LifeboatError:
            continue
    return found


def _refuse_opened(spec: Spec, store: ServiceStore, wrapped: dict[str, WrappedKey]) -> int:
    """How many keys were tried with a provider that knows nothing of before; LifeboatError when one opens."""
    provider = spec.provider()
    tried = sorted(wrapped.items())[:_TRIED]
    for key_id, item in tried:
        try:
            provider.open_data_keys([(datakeys.context(store.repository.id, store.service, key_id), item)])
        except KeyAccessError:
            continue
        raise LifeboatError(
            "a data key still opens after the keys were destroyed", f"service {spec.service}, key {key_id}", "find the copy of the key that opened it",
        )
    return len(tried)


def _copies_left(spec: Spec, copies: int) -> list[dict[str, str]]:
    if not copies:
        return []
    return [{
        "code": "key", "what": f"{copies} data keys have escrow copies, which the escrow key still opens", "where": f"service {spec.service}",
        "remedy": "the service is shredded for everybody but the holder of the escrow key until these objects are deleted from every repository",
    }]
