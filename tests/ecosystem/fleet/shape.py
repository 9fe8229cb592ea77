# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services a fleet has: so many, over these hosts, with requirements so deep, in so many islands. The same numbers give the same fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: Names of layers, from what requires nothing to what people see.
LAYERS = ("store", "core", "domain", "flow", "edge", "portal")
#: What the services above the stores are, in turn. ``stateless`` ones have no data of their own.
KINDS = ("database", "files", "stateless", "database", "files", "files")
#: A private cluster and files, two sources of one service.
PRIVATE_AT = 7
POSTGRES_PORT, REDIS_PORT, SERVICE_PORT = 5432, 6379, 8000


@dataclass
class Member:
    """One service. kind: cluster, redis, files, database, stateless, private. server: the port of its database server, 0 without one."""

    name: str
    kind: str
    host: str
    layer: int
    island: int
    port: int
    requires: list[str] = field(default_factory=list)
    server: int = 0
    items: int = 40
    #: On the host: address to listen on, folder of the service, folder of its database server.
    address: str = ""
    folder: str = ""
    server_folder: str = ""

    def told(self) -> dict[str, Any]:
        """As inside.py takes it."""
        return asdict(self)


def name_of(layer: int, number: int) -> str:
    word = LAYERS[layer] if layer < len(LAYERS) else f"layer{layer}"
    return f"{word}-{number:02d}"


def shape(hosts: Sequence[str], services: int = 24, depth: int = 6, islands: int = 2, top: str = "/srv/fleet") -> list[Member]:
    """The members, requirements first. The first island has the depth and most services; each further one is a store and what builds on it."""
    aside = [2 if services >= 12 else 1] * (islands - 1)
    main = services - sum(aside)
    if main < depth:
        raise ValueError(f"{services} services in {islands} islands are too few for a depth of {depth}")
    found: list[Member] = []
    layers: list[list[Member]] = [[] for _layer in range(depth)]
    for number in range(main):
        # every layer gets one first, the rest goes round beginning with the stores
        layer = number if number < depth else (number - depth) % depth
        layers[layer].append(Member("", "", "", layer, 0, 0))
    number = 0
    for layer, members in enumerate(layers):
        for place, member in enumerate(members):
            member.name = name_of(layer, number)
            member.kind = ("cluster", "redis", "files")[place % 3] if layer == 0 else "private" if number == PRIVATE_AT else KINDS[number % len(KINDS)]
            if layer:
                below = layers[layer - 1]
                member.requires = sorted({below[place % len(below)].name, below[(place + 1) % len(below)].name})
            number += 1
            found.append(member)
    if main > 1 and len(layers[0]) > 1:  # one island: what no other store is bound to hangs on the first service above
        for store in layers[0]:
            if not any(store.name in member.requires for member in found):
                layers[1][0].requires = sorted({*layers[1][0].requires, store.name})
    for island, size in enumerate(aside, 1):
        for layer in range(size):
            kind = "database" if layer == 0 else "files"
            found.append(Member(name_of(layer, number), kind, "", layer, island, 0, [found[-1].name] if layer else []))
            number += 1
    _place(found, list(hosts), top)
    return found


def _place(members: list[Member], hosts: list[str], top: str) -> None:
    """Hosts in turn. Databases of one island and host share a server; every island has servers of its own, so that it depends on no other."""
    shared: dict[tuple[str, int], int] = {}
    used: dict[str, int] = {}
    for number, member in enumerate(members):
        member.host = hosts[number % len(hosts)]
        member.port = SERVICE_PORT + number
        member.folder = f"{top}/{member.name}"
        if member.kind == "redis":
            member.server, member.server_folder = REDIS_PORT + number, f"{member.folder}/redis"
        elif member.kind == "database":
            key = (member.host, member.island)
            if key not in shared:
                used[member.host] = used.get(member.host, 0) + 1
                shared[key] = POSTGRES_PORT + used[member.host] - 1
            member.server, member.server_folder = shared[key], f"{top}/databases-{shared[key]}"
        elif member.kind in ("cluster", "private"):
            used[member.host] = used.get(member.host, 0) + 1
            member.server, member.server_folder = POSTGRES_PORT + used[member.host] - 1, f"{member.folder}/cluster"
