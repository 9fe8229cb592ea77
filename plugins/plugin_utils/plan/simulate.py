# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A restore played through with forecast durations: when each service is there, what decides it, what fewer forks and a faster step would change."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Mapping, Sequence

from .sharing import Work, finish

#: What a service goes through after its island is staged and it may stop; then after its requirements are there.
DOWN = ("island", "stop")
UP = ("gate", "cutover", "start", "health", "invariants", "protect", "verdict")

#: One step of the critical path: (service, phase, begin, end).
Step = tuple[str, str, float, float]


@dataclass(frozen=True)
class World:
    """works: in topological order. phases: service -> phase -> seconds without waiting for others. waits: service -> what it waits for.

    levels: service -> what staging it took, over what sharing alone would have made of it. prelude: seconds before staging begins.
    """

    works: Sequence[Work]
    phases: Mapping[str, Mapping[str, float]]
    waits: Mapping[str, Sequence[str]]
    islands: Sequence[Sequence[str]]
    cores: Mapping[str, float]
    forks: int
    levels: Mapping[str, float]
    prelude: float = 0.0

    @property
    def order(self) -> list[str]:
        return [work.service for work in self.works]


@dataclass(frozen=True)
class Played:
    """When each step began and ended, and the step that each had to wait for last."""

    steps: Mapping[tuple[str, str], tuple[float, float]]
    before: Mapping[tuple[str, str], tuple[str, str] | None]

    def done(self, service: str) -> float:
        return self.steps[service, UP[-1]][1]

    @property
    def seconds(self) -> float:
        return max((end for _begin, end in self.steps.values()), default=0.0)

    def path(self, service: str = "") -> list[Step]:
        """What decided the end, or when a service was there; first step first."""
        if not self.steps:
            return []
        current: tuple[str, str] | None = (service, UP[-1]) if service else max(self.steps, key=lambda step: (self.steps[step][1], step))
        found: list[Step] = []
        while current is not None:
            found.append((*current, *self.steps[current]))
            current = self.before[current]
        return found[::-1]


def play(world: World) -> Played:
    """With forks for all services each goes on as soon as it may; with fewer, staging and stopping are done everywhere first."""
    staged = finish(world.works, world.cores, world.forks)
    steps: dict[tuple[str, str], tuple[float, float]] = {}
    before: dict[tuple[str, str], tuple[str, str] | None] = {}
    for service in world.order:
        begin, end = staged[service]
        steps[service, "stage"] = (world.prelude + begin, world.prelude + begin + (end - begin) * world.levels.get(service, 1.0))
        before[service, "stage"] = None
    if world.forks >= len(world.order):
        _flow(world, steps, before)
    else:
        _in_waves(world, steps, before)
    return Played(steps, before)


def _latest(steps: Mapping[tuple[str, str], tuple[float, float]], candidates: Sequence[tuple[str, str]]) -> tuple[str, str]:
    return max(candidates, key=lambda step: (steps[step][1], step))


def _run(world: World, service: str, names: Sequence[str], begin: float, last: tuple[str, str],
         steps: dict[tuple[str, str], tuple[float, float]], before: dict[tuple[str, str], tuple[str, str] | None]) -> None:
    """Phases of one service, one after the other."""
    for phase in names:
        steps[service, phase] = (begin, begin + world.phases[service].get(phase, 0.0))
        before[service, phase] = last
        begin, last = steps[service, phase][1], (service, phase)


def _dependants(world: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {service: [] for service in world.order}
    for service in world.order:
        for needed in world.waits[service]:
            found[needed].append(service)
    return found


def _flow(world: World, steps: dict[tuple[str, str], tuple[float, float]], before: dict[tuple[str, str], tuple[str, str] | None]) -> None:
    island = {service: part for part in world.islands for service in part}
    dependants = _dependants(world)
    for service in reversed(world.order):
        last = _latest(steps, [(other, "stage") for other in island[service]])
        _run(world, service, ("island",), steps[last][1], last, steps, before)
        last = _latest(steps, [(service, "island"), *((other, "stop") for other in dependants[service])])
        _run(world, service, ("stop",), steps[last][1], last, steps, before)
    for service in world.order:
        last = _latest(steps, [(service, "stop"), *((needed, UP[-1]) for needed in world.waits[service])])
        _run(world, service, UP, steps[last][1], last, steps, before)


def _in_waves(world: World, steps: dict[tuple[str, str], tuple[float, float]], before: dict[tuple[str, str], tuple[str, str] | None]) -> None:
    """Each play begins when the one before has ended everywhere; a service keeps its slot also while it waits."""
    dependants = _dependants(world)
    for names, order, needs, end in (
        (DOWN, world.order[::-1], dependants, "stop"), (UP, world.order, world.waits, UP[-1]),
    ):
        start = _latest(steps, list(steps))
        slots: list[tuple[float, tuple[str, str]]] = [(steps[start][1], start)] * max(1, world.forks)
        for service in order:
            free, holder = heapq.heappop(slots)
            candidates = [(needed, end) for needed in needs[service]]
            last = _latest(steps, candidates) if candidates else holder
            last = last if steps[last][1] > free else holder
            _run(world, service, names, max(free, steps[last][1]), last, steps, before)
            heapq.heappush(slots, (steps[service, end][1], (service, end)))


def gains(world: World, played: Played) -> list[dict[str, object]]:
    """What it would save of the whole if a step of the critical path took no time: [{"service", "phase", "seconds", "gain"}], the most first."""
    found: list[dict[str, object]] = []
    for service, phase, begin, end in played.path():
        if end - begin <= 0 or phase in ("island", "gate", "verdict"):
            continue
        if phase == "stage":
            works = [replace(work, cpu=0.0, link=0.0) if work.service == service else work for work in world.works]
            other = replace(world, works=works)
        else:
            other = replace(world, phases={**world.phases, service: {**world.phases[service], phase: 0.0}})
        gain = played.seconds - play(other).seconds
        if gain > 0:
            found.append({"service": service, "phase": phase, "seconds": round(end - begin, 3), "gain": round(gain, 3)})
    return sorted(found, key=lambda one: (-float(str(one["gain"])), str(one["service"]), str(one["phase"])))
