# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Services that stage at the same time share their host's cores and its way to the repository: how long each takes, and what each took alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

#: Cores that one service can keep busy while it is staged.
PARALLEL = 2.0


@dataclass(frozen=True)
class Work:
    """What staging one service takes: seconds of one core, and seconds of its host's whole link to the repository, which overlap."""

    service: str
    host: str
    cpu: float
    link: float


def share(cores: float, active: int) -> float:
    """Cores that each of ``active`` services on a host has."""
    return min(PARALLEL, cores, cores / max(1, active))


def finish(works: Sequence[Work], cores: Mapping[str, float], slots: int | None = None) -> dict[str, tuple[float, float]]:
    """Service -> (begin, end) in seconds, in processor sharing; at most ``slots`` at once, in the given order."""
    waiting = list(works)[::-1]
    left: dict[str, list[float]] = {}
    host = {work.service: work.host for work in works}
    times: dict[str, tuple[float, float]] = {}
    begin: dict[str, float] = {}
    now = 0.0
    while waiting or left:
        while waiting and (slots is None or len(left) < max(1, slots)):
            work = waiting.pop()
            left[work.service], begin[work.service] = [max(0.0, work.cpu), max(0.0, work.link)], now
        on_cpu: dict[str, int] = {}
        on_link: dict[str, int] = {}
        for service, (cpu, link) in left.items():
            on_cpu[host[service]] = on_cpu.get(host[service], 0) + (cpu > 0)
            on_link[host[service]] = on_link.get(host[service], 0) + (link > 0)
        speed = {service: (share(cores.get(host[service], 1.0), on_cpu[host[service]]), 1.0 / max(1, on_link[host[service]])) for service in left}
        step = min((amount / speed[service][kind] for service, rest in left.items() for kind, amount in enumerate(rest) if amount > 0), default=0.0)
        now += step
        for service in list(left):
            rest = left[service]
            for kind in (0, 1):
                rest[kind] = rest[kind] - step * speed[service][kind] if rest[kind] > step * speed[service][kind] * (1 + 1e-9) else 0.0
            if not any(rest):
                times[service] = (begin[service], now)
                del left[service]
    return times


def alone(spans: Mapping[str, tuple[float, float]], host: Mapping[str, str], cores: Mapping[str, float]) -> dict[str, float]:
    """The reverse: core seconds of each service, from when each was measured to begin and end beside the others on its host."""
    found = dict.fromkeys(spans, 0.0)
    for place in {host[service] for service in spans}:
        here = {service: span for service, span in spans.items() if host[service] == place}
        edges = sorted({edge for span in here.values() for edge in span})
        for low, high in zip(edges, edges[1:]):
            active = [service for service, (begin, end) in here.items() if begin <= low and end >= high]
            for service in active:
                found[service] += share(cores.get(place, 1.0), len(active)) * (high - low)
    return found
