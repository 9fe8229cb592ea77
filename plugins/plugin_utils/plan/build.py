# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The plan of a restore: what would happen, in which order, with which snapshots. Pure: reads nothing, changes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Mapping, Sequence

from ..catalog.graph import HARD, Services
from .forecast import Inputs, forecast
from .history import Past
from .order import islands, levels, nearest_picked
from .pick import Pick
from .target import Point, resolve, seconds_between


def build(document: Mapping[str, Any], pick: Pick, points: Mapping[str, Sequence[Point]], target: str = "latest",
          now: datetime | None = None, history: Sequence[Past] = (), forks: int | None = None,
          verb: str = "restore", digest: str = "", inventory: str = "", dependants: str = "") -> dict[str, Any]:
    """The plan as plan.json keeps it. Raises TargetErrors where the target cannot be resolved.

    Shape: {"verb", "ecosystem", "production", "catalog" (digest), "target", "scope", "picked", "order" (both the picked
    services in order), "asked", "added", "dependants": [{"service", "chain", "action"}], "islands": [[service]],
    "levels": int, "bytes", "services": {name: entry below}, "forecast" and "critical_path" as forecast() gives them, "skew_seconds",
    "warnings": [str]}; an entry is {"host", "tier", "owner", "position", "island", "level", "requires"
    (declared edges, each with "picked"), "waits_for": [{"service", "kind"}] (picked ones, also through services that are
    not picked; this is what a gate takes), "resolution", "bytes", "sources": [name], "rto", "forecast", "rto_at_risk"}; preflight adds to it.
    """
    services = document["services"]
    order = pick.picked
    resolved = resolve(services, order, points, target, now, inventory)
    parts = islands(services, order)
    depth = levels(services, order)
    hard = nearest_picked(services, order, HARD)
    both = nearest_picked(services, order)
    island_of = {service: number for number, part in enumerate(parts) for service in part}
    sizes = {service: int(resolved[service]["bytes"]) for service in order}
    foretold = forecast(Inputs(services, order, parts, sizes, past=history, forks=forks))
    entries = {}
    for position, service in enumerate(order):
        entry = services[service]
        entries[service] = {
            "host": entry["host"], "tier": entry.get("tier"), "owner": entry.get("owner"), "position": position,
            "island": island_of[service], "level": depth[service],
            "requires": [{**edge, "picked": edge["service"] in resolved} for edge in entry.get("requires") or ()],
            "waits_for": [{"service": needed, "kind": "hard" if needed in hard[service] else "soft"} for needed in both[service]],
            "resolution": resolved[service], "bytes": resolved[service]["bytes"], "sources": sorted(entry.get("sources") or {}),
            "rto": entry.get("rto"), **foretold["services"][service],
        }
    return {
        "verb": verb, "ecosystem": document["ecosystem"], "production": document["production"], "catalog": digest, "audit": document.get("audit") or {},
        "target": target, "scope": pick.scope, "picked": order, "order": order, "asked": pick.asked, "added": pick.added,
        "dependants": [{"service": service, "chain": chain, "action": dependants or None} for service, chain in pick.dependants.items()],
        "islands": parts, "levels": max(depth.values(), default=-1) + 1, "bytes": sum(entry["bytes"] for entry in entries.values()),
        "services": entries, "critical_path": foretold["critical_path"], "forecast": foretold["forecast"],
        "skew_seconds": skew(resolved), "warnings": warnings(resolved, parts, forks) + uncovered(services, resolved),
    }


def skew(resolved: Mapping[str, Mapping[str, Any]]) -> float:
    """Seconds between the oldest and the newest point that the services go back to."""
    times = sorted(str(resolution["time"]) for resolution in resolved.values() if resolution["time"])
    return seconds_between(times[0], times[-1]) if times else 0.0


def warnings(resolved: Mapping[str, Mapping[str, Any]], parts: Sequence[Sequence[str]], forks: int | None) -> list[str]:
    """What an operator should know before saying yes."""
    found = []
    chosen = sorted({str(resolution["point"]) for resolution in resolved.values() if resolution["point"]})
    if len(chosen) > 1:
        found.append(f"services go back to {len(chosen)} different points, {skew(resolved):g}s apart: {', '.join(chosen)}")
    unproven = [service for service, resolution in resolved.items() if resolution["point"] and not resolution["proven"]]
    if unproven:
        found.append(f"never proven by a restore or drill: {', '.join(unproven)}")
    count = sum(len(part) for part in parts)
    if forks is not None and forks < count:
        found.append(f"forks={forks} is fewer than {count} services: {count - forks} wait for a free slot, so islands may wait for each other; "
                     f"run with --forks {count}")
    return found


def uncovered(services: Services, resolved: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the catalog has changed since the point was taken: what the restore will leave as it is."""
    found = []
    for service, resolution in resolved.items():
        if resolution["point"]:
            declared, captured = set(services[service].get("sources") or {}), set(resolution["snapshots"])
            for source in sorted(declared - captured):
                found.append(f"{service}.{source} is not in point {resolution['point']}: it stays as it is")
            for source in sorted(captured - declared):
                found.append(f"{service}.{source} is in point {resolution['point']} but no longer in the catalog: it is not restored")
    return found
