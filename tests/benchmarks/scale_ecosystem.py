# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""N services with sizes, start times and requirements from a fixed seed, as real processes with real data on this machine.

The services are those of tests/lab/harbour.py; each answers its health probe only when its declared time to start is over.
Besides the graph itself there are two others over the same services and data, which need no other playbook: in ``waves`` each service
requires the whole level before its own, and in ``sequence`` the one service before it.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour

MIB = 1 << 20
#: Services on the longest chain of requirements.
DEPTH = 6
#: Services that have to do with each other: one island for so many.
ISLAND = 12
SHAPES = ("graph", "waves", "sequence")


@dataclass(frozen=True)
class Declared:
    """One service: what it requires, the bytes of its data, and the seconds from its start to its health."""

    requires: tuple[str, ...]
    size: int
    seconds: float


def grow(count: int, total: int, longest: float, seed: int = 5) -> dict[str, Declared]:
    """``count`` services with ``total`` bytes and a critical path of ``longest`` seconds, requirements first.

    The islands differ in size. Sizes and start times are log-normal, as those of real ecosystems are: most are small, a few are large.
    """
    dice = random.Random(f"{seed} {count}")
    islands = max(1, round(count / ISLAND))
    weights = [1 / (1 + number) ** 0.7 for number in range(islands)]
    members: list[list[str]] = [[] for _number in range(islands)]
    requires: dict[str, tuple[str, ...]] = {}
    level: dict[str, int] = {}
    for number in range(count):
        island = number if number < islands else dice.choices(range(islands), weights)[0]
        name, known = f"s{number:03d}", members[island]
        open_to = [one for one in known if level[one] < DEPTH - 1]
        needed = tuple(sorted(dice.sample(open_to, min(len(open_to), dice.choice((1, 1, 1, 2, 2, 3))))))
        # the first of an island stand alone; one in six later ones requires nothing either, but is required
        if known and dice.random() < 1 / 6:
            needed = needed[:1]
        requires[name], level[name] = needed, max((level[one] + 1 for one in needed), default=0)
        known.append(name)
    raw = {name: dice.lognormvariate(0.0, 0.8) for name in requires}
    sizes = {name: dice.lognormvariate(0.0, 1.2) for name in requires}
    path = _longest(requires, raw)
    whole = sum(sizes.values())
    return {
        name: Declared(needed, max(1024, round(total * sizes[name] / whole)), round(raw[name] * longest / path, 2))
        for name, needed in requires.items()
    }


def _longest(requires: Mapping[str, Sequence[str]], seconds: Mapping[str, float]) -> float:
    ends: dict[str, float] = {}
    for name, needed in requires.items():
        ends[name] = seconds[name] + max((ends[one] for one in needed), default=0.0)
    return max(ends.values())


def reshaped(services: Mapping[str, Declared], shape: str) -> dict[str, tuple[str, ...]]:
    """What each service requires in one of SHAPES."""
    if shape == "graph":
        return {name: one.requires for name, one in services.items()}
    names = list(services)
    if shape == "sequence":
        return {name: tuple(names[number - 1:number]) for number, name in enumerate(names)}
    level: dict[str, int] = {}
    for name, one in services.items():
        level[name] = max((level[needed] + 1 for needed in one.requires), default=0)
    return {name: tuple(other for other in names if level[other] == level[name] - 1) for name in names}


def depth(services: Mapping[str, Declared]) -> int:
    """Levels of the graph."""
    return round(_longest({name: one.requires for name, one in services.items()}, dict.fromkeys(services, 1.0)))


def islands(services: Mapping[str, Declared]) -> int:
    """Parts of the graph that have nothing to do with each other."""
    first: dict[str, str] = {}
    for name, one in services.items():
        joined = {first[needed] for needed in one.requires} | {name}
        first[name] = name
        first = {other: min(joined) if start in joined else start for other, start in first.items()}
    return len(set(first.values()))


class Fleet(Harbour):
    """The services of grow() below a folder of their own; nothing of it runs before a restore starts it."""

    def __init__(self, services: Mapping[str, Declared]) -> None:
        self.services = dict(services)
        super().__init__({name: one.requires for name, one in services.items()})
        self.catalogs = {}
        for shape in SHAPES:
            catalog: dict[str, Any] = {**self.catalog, "services": {
                name: {**self.catalog["services"][name], "requires": list(needed)} for name, needed in reshaped(services, shape).items()
            }}
            self.catalogs[shape] = self.write_catalog(self.home / f"{shape}.catalog.yml", catalog)
        #: What a catalog has no keys for: the seconds and bytes of each service.
        self.declared = self.home / "declared.json"
        self.declared.write_text(json.dumps({name: {"seconds": one.seconds, "bytes": one.size} for name, one in services.items()}, indent=1))

    def __enter__(self) -> Fleet:
        for number, name in enumerate(self.services):
            self.fill(name, seed=number)
        return self

    def entry(self, name: str, requires: Sequence[str] = ()) -> dict[str, Any]:
        one = self.services[name]
        found = super().entry(name, requires)
        # a status command as systemctl is one: it costs next to nothing
        found["runtime"]["status"] = ["/bin/sh", "-c", 'kill -0 "$(cat "$1")"', "status", str(self.folder(name) / "pid")]
        found["runtime"]["start"] = [*found["runtime"]["start"], f"{one.seconds:g}"]
        found["policy"] = {"start": {"timeout": "120s"}, "health": {"timeout": f"{int(one.seconds) + 600}s"}}
        return found

    def fill(self, name: str, items: int = 4, seed: int = 0) -> None:
        """Data of the declared size: half of it compresses well, half not at all."""
        super().fill(name, items)
        dice, size = random.Random(seed), self.services[name].size // items
        for number in range(items):
            data = dice.randbytes(size) if number % 2 else (dice.randbytes(256) * (size // 256 + 1))[:size]
            (self.data(name) / "items" / f"item{number}").write_bytes(data)

    def destroy(self) -> None:
        """All services are stopped and all their data is gone."""
        for name in self.services:
            self.control("stop", name)
            shutil.rmtree(self.data(name))
