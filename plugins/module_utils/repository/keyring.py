# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Every data key that something of a service in a repository still needs, and whether it is certain that these are all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Iterable

from ..errors import DamageError, LifeboatError
from . import layout, log_index

if TYPE_CHECKING:
    from .manifest import Chain
    from .repository import ServiceStore


@dataclass
class KeyRing:
    """needed: key id -> what needs it, in words. problems: why there may be further ones."""

    needed: dict[str, str] = field(default_factory=dict)
    problems: list[LifeboatError] = field(default_factory=list)


def key_ring(store: ServiceStore, sources: Iterable[str]) -> tuple[KeyRing, list[Chain]]:
    """The keys that snapshots and epochs name, and those whose objects are there: an unfinished capture's packs may be used again.

    A list is never proof, so manifests and epochs are asked for by number, those of ``sources`` (the catalog's) even where it shows none.
    """
    ring, service = KeyRing(), store.service
    chains = store.chains()
    listed = {chain.source for chain in chains}
    for chain in chains:
        ring.problems += chain.problems
        for manifest in chain.manifests:
            for key_id in manifest.data["keys"]:
                ring.needed.setdefault(key_id, f"snapshot {manifest.id}")
    for source in sorted({*sources} - listed):
        first = layout.manifest(service, source, 1)
        try:
            store.backend.size(first)
        except FileNotFoundError:
            continue
        ring.problems.append(DamageError("the list of snapshots is incomplete: it lacks a source that has some", first, "repeat it; ask the store's operator"))
    for source in sorted({*sources} | _logged(store)):
        log = log_index.load(store.backend, store.provider, store.repository.id, service, source)
        ring.problems += log.problems
        ring.needed.update({epoch.key_id: f"log epoch {number} of {source}" for number, epoch in log.epochs.items()})
    for name, _size in store.backend.list(layout.keys(service)):
        try:
            ring.needed.setdefault(layout.generation_of(name)[0], "no snapshot yet")
        except ValueError:
            ring.problems.append(DamageError("an object among the keys has a name that no key has", name, "look at who put it there; it is not used"))
    return ring, chains


def _logged(store: ServiceStore) -> set[str]:
    prefix = layout.logs(store.service)
    return {name[len(prefix):].partition("/")[0] for name, _size in store.backend.list(prefix)}
