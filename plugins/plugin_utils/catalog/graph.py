# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The graph of services: order, cycles, neighbours. Pure functions over ``{service: {requires, priority}}``.

An edge goes from a service to what it requires. Hard and soft edges both decide the order; only hard ones gate.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

#: Service name -> entry with "requires": [{"service", "kind"}] and "priority".
Services = Mapping[str, Mapping[str, Any]]

BOTH = ("hard", "soft")
HARD = ("hard",)


class CycleError(ConfigError):
    """Services that require each other. ``cycles`` holds each as [a, b, …, a]."""

    def __init__(self, cycles: Sequence[Sequence[str]]) -> None:
        self.cycles = [list(cycle) for cycle in cycles]
        super().__init__("services require each other in a cycle", "; ".join(" -> ".join(cycle) for cycle in self.cycles),
                         "remove one of these requirements")


def requirements(services: Services, service: str, kinds: Sequence[str] = BOTH) -> list[str]:
    """What a service requires directly, of the given kinds; names that do not exist are left out."""
    return [edge["service"] for edge in services[service].get("requires") or () if edge["kind"] in kinds and edge["service"] in services]


def dependants(services: Services, kinds: Sequence[str] = BOTH) -> dict[str, list[str]]:
    """Who requires each service directly."""
    result: dict[str, list[str]] = {service: [] for service in services}
    for service in services:
        for needed in requirements(services, service, kinds):
            if service not in result[needed]:
                result[needed].append(service)
    return result


def reachable(edges: Mapping[str, Iterable[str]], start: Iterable[str]) -> set[str]:
    """Everything that can be reached from ``start``, which is included."""
    seen = set(start)
    pending = list(seen)
    while pending:
        for following in edges.get(pending.pop(), ()):
            if following not in seen:
                seen.add(following)
                pending.append(following)
    return seen


def components(services: Services) -> list[list[str]]:
    """Strongly connected components (Tarjan, without recursion), requirements before their dependants."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in services:
        if root in index:
            continue
        work = [(root, iter(requirements(services, root)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            service, edges = work[-1]
            for needed in edges:
                if needed not in index:
                    index[needed] = low[needed] = len(index)
                    stack.append(needed)
                    on_stack.add(needed)
                    work.append((needed, iter(requirements(services, needed))))
                    break
                if needed in on_stack:
                    low[service] = min(low[service], index[needed])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[service])
                if low[service] == index[service]:
                    component: list[str] = []
                    while not component or component[-1] != service:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    found.append(sorted(component))
    return found


def cycles(services: Services) -> list[list[str]]:
    """One shortest cycle per knot, written [a, b, …, a] from its smallest name; empty for a sound graph."""
    found = []
    for component in components(services):
        first = component[0]
        if len(component) > 1 or first in requirements(services, first):
            found.append(_shortest_cycle(services, component))
    return sorted(found)


def _shortest_cycle(services: Services, component: Sequence[str]) -> list[str]:
    inside = set(component)
    best: list[str] = []
    for start in component:
        came: dict[str, str] = {}
        queue = deque([start])
        closed = None
        while queue and closed is None:
            service = queue.popleft()
            for needed in requirements(services, service):
                if needed == start:
                    closed = service
                    break
                if needed in inside and needed not in came:
                    came[needed] = service
                    queue.append(needed)
        if closed is None:
            continue
        way = [closed]
        while way[-1] != start:
            way.append(came[way[-1]])
        cycle = [*reversed(way), start]
        if not best or len(cycle) < len(best):
            best = cycle
    ring = best[:-1]
    turn = ring.index(min(ring))
    ring = ring[turn:] + ring[:turn]
    return [*ring, ring[0]]


def effective_priorities(services: Services) -> dict[str, float]:
    """A requirement is as urgent as the most urgent service that needs it; no priority is the least urgent."""
    result: dict[str, float] = {}
    followers = dependants(services)
    for component in reversed(components(services)):  # dependants first
        for service in component:
            own = services[service].get("priority")
            result[service] = min([float("inf") if own is None else float(own),
                                   *(result[follower] for follower in followers[service] if follower in result)])
    return result


def path_between(services: Services, start: str, goal: str) -> list[str]:
    """A shortest chain of requirements from ``start`` to ``goal``; empty if there is none."""
    came: dict[str, str] = {}
    queue = deque([start])
    while queue:
        service = queue.popleft()
        for needed in requirements(services, service):
            if needed not in came and needed != start:
                came[needed] = service
                queue.append(needed)
                if needed == goal:
                    way = [goal]
                    while way[-1] != start:
                        way.append(came[way[-1]])
                    return way[::-1]
    return []
