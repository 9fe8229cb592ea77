# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""In which order picked services come up, and which of them have to do with each other."""

from __future__ import annotations

import heapq
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

from ..catalog.graph import BOTH, CycleError, Services, cycles, dependants, effective_priorities, requirements
from ..catalog.problems import nearest, shown


def topological_order(services: Services, pick: Iterable[str] | None = None) -> list[str]:
    """Requirements first, over the FULL graph, then cut down to ``pick``.

    Among services that could come next the lowest priority number wins, then the name: the order never depends on
    the order of the input. Raises CycleError, and ConfigError for a picked name that does not exist.
    """
    wanted = set(services) if pick is None else known(services, pick)
    followers = dependants(services)
    missing = {service: len(set(requirements(services, service))) for service in services}
    priority = effective_priorities(services)
    ready = [(priority[service], service) for service, count in missing.items() if count == 0]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        service = heapq.heappop(ready)[1]
        order.append(service)
        for follower in followers[service]:
            missing[follower] -= 1
            if missing[follower] == 0:
                heapq.heappush(ready, (priority[follower], follower))
    if len(order) != len(services):
        raise CycleError(cycles(services))
    return [service for service in order if service in wanted]


def known(services: Services, names: Iterable[str]) -> set[str]:
    """The names as a set; ConfigError for one that is not declared."""
    picked = list(names)
    for name in picked:
        if name not in services:
            raise ConfigError(f'unknown service "{shown(name)}"', "the pick", nearest(name, services, "services are"))
    return set(picked)


def nearest_picked(services: Services, pick: Iterable[str], kinds: Sequence[str] = BOTH) -> dict[str, list[str]]:
    """For each picked service the picked ones it waits for: directly, or through services that are not picked."""
    picked = known(services, pick)
    result: dict[str, list[str]] = {}
    for service in picked:
        found: set[str] = set()
        pending = requirements(services, service, kinds)
        seen: set[str] = set()
        while pending:
            needed = pending.pop()
            if needed in seen:
                continue
            seen.add(needed)
            if needed in picked:
                found.add(needed)
            else:
                pending.extend(requirements(services, needed, kinds))
        result[service] = sorted(found - {service})
    return result


def islands(services: Services, pick: Iterable[str] | None = None) -> list[list[str]]:
    """The connected components of the picked services, each in its order, sorted by where the first one starts.

    Hard and soft edges connect, also through services that were not picked (what stands between two picked services
    goes down with the one and is needed by the other); a consistency group connects, because it is cut over as one.
    """
    order = topological_order(services, pick)
    parent = {service: service for service in order}

    def root(service: str) -> str:
        while parent[service] != service:
            parent[service] = parent[parent[service]]
            service = parent[service]
        return service

    for service, needed in nearest_picked(services, order).items():
        for other in needed:
            parent[root(service)] = root(other)
    first_of_group: dict[str, str] = {}
    for service in order:
        group = services[service].get("consistency_group")
        if group:
            parent[root(service)] = root(first_of_group.setdefault(group, service))
    gathered: dict[str, list[str]] = {}
    for service in order:
        gathered.setdefault(root(service), []).append(service)
    return list(gathered.values())


def levels(services: Services, pick: Iterable[str] | None = None) -> dict[str, int]:
    """How many picked services stand before each one on its longest chain: 0 for those that wait for nothing."""
    order = topological_order(services, pick)
    waits = nearest_picked(services, order)
    result: dict[str, int] = {}
    for service in order:
        result[service] = max((result[needed] + 1 for needed in waits[service]), default=0)
    return result


def note_stops(entries: Mapping[str, dict[str, Any]], outside: Sequence[Mapping[str, Any]]) -> None:
    """Say in each entry of a plan after whom the service stops: ``needed_by``, services of the plan, and ``stops_first``, live ones outside it, in order.

    outside: the plan's "dependants", in the order in which they start.
    """
    for name, entry in entries.items():
        entry["needed_by"] = [other for other, theirs in entries.items() if name in [edge["service"] for edge in theirs["waits_for"]]]
        entry["stops_first"] = [str(one["service"]) for one in reversed(outside) if one["action"] == "stop" and one["of"] == name]
