# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The plan of a verb that goes to no recovery point: who, in which order, waiting for whom."""

from __future__ import annotations

from typing import Any, Mapping

from ..catalog.graph import HARD
from .order import islands, levels, nearest_picked
from .pick import Pick


def outline(document: Mapping[str, Any], pick: Pick, verb: str, digest: str = "", dependants: str = "") -> dict[str, Any]:
    """The parts of build() that need no points; same names, same shapes."""
    services, order = document["services"], pick.picked
    parts, depth = islands(services, order), levels(services, order)
    hard, both = nearest_picked(services, order, HARD), nearest_picked(services, order)
    island_of = {service: number for number, part in enumerate(parts) for service in part}
    return {
        "verb": verb, "ecosystem": document["ecosystem"], "production": document["production"], "catalog": digest,
        "audit": document.get("audit") or {}, "scope": pick.scope,
        "picked": order, "order": order, "asked": pick.asked, "added": pick.added,
        "dependants": [{"service": service, "chain": chain, "action": dependants or None} for service, chain in pick.dependants.items()],
        "islands": parts, "levels": max(depth.values(), default=-1) + 1, "warnings": [],
        "services": {
            service: {
                "host": services[service]["host"], "tier": services[service].get("tier"), "owner": services[service].get("owner"),
                "position": position, "island": island_of[service], "level": depth[service], "sources": sorted(services[service].get("sources") or {}),
                "waits_for": [{"service": needed, "kind": "hard" if needed in hard[service] else "soft"} for needed in both[service]],
            }
            for position, service in enumerate(order)
        },
    }
