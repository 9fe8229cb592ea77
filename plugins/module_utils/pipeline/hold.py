# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Legal holds on the snapshots of a point, in the repository and in every copy that has them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Iterator

from ..errors import ConfigError
from ..ledger import Ledger
from ..repository import holds
from ..repository.repository import NoRepository
from .resolve import resolve_target

if TYPE_CHECKING:
    from ..repository.manifest import StoredManifest
    from ..repository.repository import ServiceStore
    from ..spec import Spec


def hold_service(spec: Spec, run: dict[str, Any], target: str, state: str, reason: str, check: bool) -> dict[str, Any]:
    """Set or clear the hold on what ``target`` means: a snapshot id holds that one, anything else every snapshot of its point.

    state: set | clear. Returns {"changed", "snapshots": ids, "repositories": names where they were changed, "ledger"}.
    """
    if state == "set" and not reason.strip():
        raise ConfigError("a hold needs a reason", f"service {spec.service}", "say why, and by whose order; it is kept with the hold")
    ledger = Ledger.for_spec(spec)
    wanted = _wanted(spec, target)
    about = {"reason": reason.strip(), "by": f"{run.get('user') or '?'}@{run.get('controller') or '?'}",
             "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}
    changed: list[str] = []
    for name, store in _stores(spec):
        mine = [manifest for manifest in wanted if _there(store, manifest)]
        if check:
            differs = [manifest for manifest in mine if (holds.held(store, manifest.id) is not None) != (state == "set")]
        else:
            differs = [manifest for manifest in mine if holds.change(store, manifest, state, about)]
        if differs:
            changed.append(name)
    ids = [manifest.id for manifest in wanted]
    if changed and not check:
        ledger.append(run, "protect", f"hold.{state}", {"snapshots": ids, "repositories": changed, "reason": reason})
    return {"changed": bool(changed), "snapshots": ids, "repositories": changed, "ledger": ledger.appended}


def _stores(spec: Spec) -> Iterator[tuple[str, ServiceStore]]:
    """Every repository of the service that has been made."""
    for number, name in enumerate(spec.places()):
        try:
            yield name, spec.at(name).store()
        except NoRepository:
            if not number:
                raise  # a copy may not have been made yet


def _wanted(spec: Spec, target: str) -> list[StoredManifest]:
    point, _problems = resolve_target(spec, spec.reading_store(), target)
    one = [manifest for manifest in point.snapshots.values() if manifest.id == target]
    return one or [manifest for _source, manifest in sorted(point.snapshots.items())]


def _there(store: ServiceStore, manifest: StoredManifest) -> bool:
    try:
        store.backend.size(manifest.name)
    except FileNotFoundError:
        return False
    return True


def list_holds(spec: Spec) -> dict[str, Any]:
    """{"holds": [{"snapshot", "reason", "by", "time", "repositories"}]}, by snapshot."""
    found: dict[str, dict[str, Any]] = {}
    for name, store in _stores(spec) if spec.source_names else ():
        for snapshot, hold in holds.all_held(store).items():
            one = found.setdefault(snapshot, {"snapshot": snapshot, **{key: hold.get(key) for key in ("reason", "by", "time", "damaged")}, "repositories": []})
            one["repositories"].append(name)
    return {"holds": [found[snapshot] for snapshot in sorted(found)]}
