# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores that take no time: an ecosystem stepped through by a clock of its own, with noise from a seed.

It knows nothing of how a forecast is made: services are state machines that look at each other at every tick, as the tasks of the
playbook do, and share cores and link as processes share them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

TICK = 0.05
MIB = 1 << 20
UP = ("cutover", "start", "health", "invariants", "protect", "verdict")


@dataclass
class Service:
    """needs: what it waits for. size: bytes of data. cost: core seconds of a MiB. phases: seconds; ``idle`` ones do not mind a busy host."""

    needs: tuple[str, ...] = ()
    size: float = 0.0
    fixed: float = 1.0
    cost: float = 0.02
    phases: dict[str, float] = field(default_factory=dict)
    idle: tuple[str, ...] = ("start",)
    host: str = "db1"


@dataclass
class Ecosystem:
    """Services in topological order, all in one island."""

    services: dict[str, Service]
    seed: int
    cores: float = 2.0
    noise: float = 0.06
    busy: float = 0.12

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def document(self) -> dict[str, Any]:
        """Its services as the catalog has them."""
        return {
            name: {
                "host": one.host, "tier": None, "priority": None, "consistency_group": None, "rto": None,
                "sources": {"tree": {"type": "files"}} if one.size else {}, "requires": [{"service": other, "kind": "hard"} for other in one.needs],
            } for name, one in self.services.items()
        }

    def prepare(self, scale: float = 1.0, link: float = 200.0 * MIB) -> Attempt:
        """Preflight of a restore of ``scale`` times the data over a link of so many bytes a second."""
        pace = self.random.lognormvariate(0.0, self.busy)
        reading = sum(one.size for one in self.services.values()) * scale / link
        elapsed = (2.5 + 0.4 * len(self.services)) * pace * self.random.lognormvariate(0.0, self.noise) + reading
        told = link * self.random.lognormvariate(0.0, self.noise)
        estimates = {
            name: {
                "bytes": one.size * scale, "reused": 0, "written": one.size * scale, "fetched": one.size * scale, "cores": self.cores,
                "seconds": reading,
                # they read at the same time, so each sees its share of the link
                "link": {"bytes": one.size * scale, "seconds": reading, "began": 1e9, "ended": 1e9 + reading} if one.size else None,
            } for name, one in self.services.items()
        }
        for estimate in estimates.values():
            if estimate["link"]:
                estimate["link"]["bytes"] *= told / link
        return Attempt(self, scale, link, pace, elapsed, estimates)


@dataclass
class Attempt:
    """One restore, prepared and not yet carried out."""

    world: Ecosystem
    scale: float
    link: float
    pace: float
    elapsed: float
    estimates: dict[str, dict[str, Any]]

    def carry_out(self, run: str, forks: int = 1000, told: dict[str, Any] | None = None) -> dict[str, Any]:
        """As plan/history.py reads a run: "seconds", "services", and ``told`` with its inputs as "forecast"."""
        world = self.world
        left: dict[str, list[float]] = {}
        spent: dict[str, dict[str, float]] = {name: {} for name in world.services}
        waited: dict[str, dict[str, float]] = {name: {"island": 0.0, "gate": 0.0} for name in world.services}
        at = dict.fromkeys(world.services, "stage")
        rest: dict[str, float] = {}
        for name, one in world.services.items():
            left[name] = [(one.fixed + one.cost * one.size * self.scale / MIB) * self._noise(), one.size * self.scale / self.link]
        order = list(world.services)
        dependants = {name: [other for other in order if name in world.services[other].needs] for name in order}
        now = begin = self.elapsed + 0.4 * self.pace
        done: dict[str, float] = {}
        waves = forks < len(order)
        stage = 0
        held: list[str] = order[:forks] if waves else list(order)
        while len(done) < len(order):
            for host in {one.host for one in world.services.values()}:
                here = [name for name in held if at[name] == "stage" and world.services[name].host == host]
                for kind, capacity in ((0, world.cores / self.pace), (1, 1.0)):
                    active = [name for name in here if left[name][kind] > 0]
                    for name in active:
                        left[name][kind] -= TICK * min(2.0 / self.pace, capacity / len(active))
            for name in list(held):
                phase = at[name]
                if phase in ("island", "gate"):
                    waited[name][phase] += TICK
                else:
                    spent[name][phase] = spent[name].get(phase, 0.0) + TICK
                if not self._over(name, left, rest):
                    continue
                at[name] = self._next(name, at, order, dependants, done, stage if waves else None)
                if at[name] == "done":
                    done[name] = now + TICK
                    held.remove(name)
                elif at[name] not in ("stage", "island", "gate"):
                    rest[name] = self._takes(name, at[name])
                if waves and name in held and (at[name],) == ("island", "gate")[stage:stage + 1]:
                    held.remove(name)
            if waves:
                stage, held = self._slots(stage, held, at, order, forks)
            now += TICK
        services = {
            name: {
                "bytes": int(world.services[name].size * self.scale), "offset": begin, "moved": {
                    "written": self.estimates[name]["written"], "fetched": self.estimates[name]["fetched"]},
                "phases": {**spent[name], **waited[name]}, "waited": waited[name],
            } for name in order
        }
        return {"run": run, "seconds": max(done.values()), "forecast": told, "services": services}

    def _noise(self) -> float:
        return self.world.random.lognormvariate(0.0, self.world.noise)

    def _takes(self, name: str, phase: str) -> float:
        one = self.world.services[name]
        return one.phases.get(phase, 0.2) * self._noise() * (1.0 if phase in one.idle else self.pace)

    def _over(self, name: str, left: dict[str, list[float]], rest: dict[str, float]) -> bool:
        if max(left[name]) > 0:
            return False
        rest[name] = rest.get(name, 0.0) - TICK
        return rest[name] <= 0

    @staticmethod
    def _next(name: str, at: dict[str, str], order: list[str], dependants: dict[str, list[str]], done: dict[str, float], stage: int | None) -> str:
        """The phase after this one, or the same when somebody else has to come first."""
        phase = at[name]
        if phase == "stage":
            return "island"
        if phase == "island":
            ready = all(at[other] != "stage" for other in order) and all(at[other] not in ("stage", "island", "stop") for other in dependants[name])
            return "stop" if ready and stage != 0 else "island"
        if phase == "stop":
            return "gate"
        if phase == "gate":
            needed = [other for other in order if name in dependants[other]]
            return "cutover" if all(other in done for other in needed) and stage not in (0, 1) else "gate"
        return (*UP, "done")[UP.index(phase) + 1]

    @staticmethod
    def _slots(stage: int, held: list[str], at: dict[str, str], order: list[str], forks: int) -> tuple[int, list[str]]:
        """Fewer forks than services: three plays, each over all of them, with as many at once as there are forks."""
        waiting = {
            0: [name for name in order if at[name] == "stage" and name not in held],
            1: [name for name in order[::-1] if at[name] in ("island", "stop") and name not in held],
            2: [name for name in order if at[name] in ("gate", *UP) and name not in held],
        }
        if not held and not waiting[stage] and stage < 2:
            stage += 1
        return stage, [*held, *waiting[stage][:max(0, forks - len(held))]]
