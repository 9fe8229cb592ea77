# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One object of each class of a repository, and its older and its foreign counterparts."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import layout
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_index import load
from ansible_collections.lifeboat.recovery.tests.doubles.logged_box import SEGMENT

from .two_services import TwoServices


class Target(NamedTuple):
    """Names of objects: one that the newest point of ``orders`` needs, an older valid one of its class, and one of the service ``bills``."""

    name: str
    older: str
    foreign: str


def _newest_and_older(world: TwoServices, service: str) -> dict[str, tuple[str, str]]:
    """Class (as layout.py calls it) -> the newest object of a service and an older one."""
    store = world.spec(service).store()
    first, second, last = next(chain.manifests for chain in store.chains() if chain.source == "tree")
    known = {pack for pack, _size, _digest in second.data["packs"]}
    pack = next(pack for pack, _size, _digest in last.data["packs"] if pack not in known)
    key = next(key for key in last.data["keys"] if key not in second.data["keys"])
    epochs = load(store.backend, store.provider, store.repository.id, service, "db").epochs
    return {
        "pack": (layout.pack(service, bytes.fromhex(pack)), layout.pack(service, bytes.fromhex(first.data["packs"][0][0]))),
        "key": (layout.key(service, key), layout.key(service, first.data["keys"][0])),
        "key of a log": (layout.key(service, epochs[2].key_id), layout.key(service, epochs[1].key_id)),
        "tree": (layout.tree(service, last.data["tree"]["id"]), layout.tree(service, first.data["tree"]["id"])),
        "manifest": (layout.manifest(service, "tree", 3), layout.manifest(service, "tree", 2)),
        "index": world.newest_and_oldest(service, "indexes"),
        "catalog": world.newest_and_oldest(service, "catalogs"),
        "escrow": world.newest_and_oldest(service, "escrow"),
        "hold": world.newest_and_oldest(service, "holds"),
        "journal": world.newest_and_oldest(service, "journals"),
        "ledger": world.newest_and_oldest(service, "ledgers"),
        "log_record": (layout.log_record(service, "db", 2), layout.log_record(service, "db", 1)),
        "log_piece": (layout.log_piece(service, "db", 2, 2, 2 * SEGMENT, 3 * SEGMENT), layout.log_piece(service, "db", 1, 1, SEGMENT, 2 * SEGMENT)),
        "log_history": (layout.log_history(service, "db", 3, 2), layout.log_history(service, "db", 2, 2)),
    }


def targets(world: TwoServices) -> dict[str, Target]:
    """Class -> what is tampered with."""
    ours, theirs = _newest_and_older(world, "orders"), _newest_and_older(world, "bills")
    return {kind: Target(name, older, theirs[kind][0]) for kind, (name, older) in ours.items()}
