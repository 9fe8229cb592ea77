# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Legal holds: a snapshot that nothing may delete until the hold is cleared, whatever retention and locks say.

A hold is a signed object, and its clearing is the next one; where the store has legal holds of its own, everything the snapshot needs
carries one too. Whoever deletes asks held() for each snapshot first, by name and not by a list.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..errors import ConflictError, DamageError
from ..keys.provider import KeyProvider
from . import layout, signed
from .backend import Backend
from .manifest import StoredManifest

if TYPE_CHECKING:
    from .repository import ServiceStore

LIMIT = 1 << 20
_NAME = re.compile(r"(.+)\.(\d{6})\.json\Z")
_STATES = ("set", "clear")


def read(backend: Backend, provider: KeyProvider, repository_id: str, name: str) -> dict[str, Any]:
    """One hold object, its signature and place checked; DamageError names it, FileNotFoundError when it is absent."""
    def damaged(what: str) -> DamageError:
        return DamageError(f"record of a hold {what}", name, "the snapshot counts as held; set or clear the hold again")

    data, _text = signed.load(backend.read(name, LIMIT), "hold", provider, damaged)
    try:
        right = data["format"] == layout.FORMAT and data["kind"] == "hold" and data["repository"] == repository_id and data["state"] in _STATES
        if not right or layout.hold(data["service"], data["snapshot"], data["number"]) != name:
            raise damaged("belongs to another place (moved or replayed)")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(f"is damaged ({error})") from error
    return data


def held(store: ServiceStore, snapshot: str) -> dict[str, Any] | None:
    """The hold on a snapshot, or None. A record that cannot be read counts as one: {"state": "set", "number", "damaged": text}."""
    found: dict[str, Any] | None = None
    number = 1
    while True:
        try:
            found = read(store.backend, store.provider, store.repository.id, layout.hold(store.service, snapshot, number))
        except FileNotFoundError:
            return found if found is not None and found["state"] == "set" else None
        except DamageError as error:
            found = {"state": "set", "snapshot": snapshot, "number": number, "reason": "", "by": "", "time": "", "damaged": str(error)}
        number += 1


def all_held(store: ServiceStore) -> dict[str, dict[str, Any]]:
    """Snapshot id -> its hold, of all that are listed."""
    prefix = layout.holds(store.service)
    names = {match[1] for name, _size in store.backend.list(prefix) for match in [_NAME.match(name[len(prefix):])] if match}
    found = {snapshot: held(store, snapshot) for snapshot in sorted(names)}
    return {snapshot: hold for snapshot, hold in found.items() if hold is not None}


def closure(store: ServiceStore, manifest: StoredManifest) -> list[str]:
    """Everything a snapshot needs, its manifest last."""
    service, data = store.service, manifest.data
    names = [layout.pack(service, bytes.fromhex(pack)) for pack, _size, _digest in data["packs"]]
    prefix = layout.keys(service)
    wanted = set(data["keys"])
    names += [name for name, _size in store.backend.list(prefix) if name[len(prefix):].split(".")[0] in wanted]
    names.append(layout.tree(service, data["tree"]["id"]))
    names.append(str(data["catalog"]["object"]))
    return [*names, manifest.name]


def change(store: ServiceStore, manifest: StoredManifest, state: str, about: dict[str, str]) -> bool:
    """Set or clear the hold on a snapshot; False when it was so already. about: {"reason", "by", "time"}."""
    if state not in _STATES:
        raise ValueError(state)
    now = held(store, manifest.id)
    if (now is not None) == (state == "set") and not (now or {}).get("damaged"):
        if state == "set":
            store.backend.hold(closure(store, manifest), True)  # an earlier call may have been cut short
        return False
    if state == "set":
        store.backend.hold(closure(store, manifest), True)
    _record(store, manifest.id, state, about)
    if state == "clear":
        others = all_held(store)
        kept = {name for chain in store.chains() for one in chain.manifests if one.id in others for name in closure(store, one)}
        store.backend.hold([name for name in closure(store, manifest) if name not in kept], False)
    return True


def _record(store: ServiceStore, snapshot: str, state: str, about: dict[str, str]) -> None:
    number = 0
    while True:
        number += 1
        name = layout.hold(store.service, snapshot, number)
        try:
            store.backend.size(name)
            continue
        except FileNotFoundError:
            pass
        document = {"format": layout.FORMAT, "kind": "hold", "repository": store.repository.id, "service": store.service, "snapshot": snapshot,
                    "number": number, "state": state, **about}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        body = json.dumps({"hold": text, "signature": store.provider.sign(text.encode())}, separators=(",", ":")).encode()
        try:
            store.backend.create(name, body, "manifest")
            return
        except ConflictError:
            continue  # somebody else said something meanwhile: ours is said after it
