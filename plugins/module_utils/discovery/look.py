# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One look at a host: what listens, who is connected to what, who is connected to declared databases."""

from __future__ import annotations

import time
from typing import Any

from . import databases, local, owners, sockets, units

#: Seconds between two looks, and connections that are told at most: a host with more of them has long shown what there is to see.
_BETWEEN, _MOST = 0.25, 5000


def look(services: dict[str, dict[str, Any]], seconds: float = 0) -> dict[str, Any]:
    """What runs on this host, as services where the catalog declares it.

    services: what is declared to be here (see owners). seconds: for how long connections are watched; once before and once after databases are asked at least.

    Returns what the module service_discovery documents: "spaces", "own_space", "listening", "connections", "clients", "local", "running", "visible",
    "hidden", "not_looked" and "notes". Ends of connections that were made to a listener here are not in "connections".
    """
    watch = _Watch(services)
    watch.once()
    clients, notes = databases.asked(services)
    until = time.monotonic() + seconds
    watch.once()
    while time.monotonic() < until:
        time.sleep(min(_BETWEEN, max(0.0, until - time.monotonic())))
        watch.once()
    for client in clients:
        client["peer"] = watch.peers.get(client["server_pid"]) if not client["address"] else None
    return {**watch.told(), "clients": clients, "notes": notes}


class _Watch:
    """What was seen so far."""

    def __init__(self, services: dict[str, dict[str, Any]]) -> None:
        self._services = services
        self._aliases, self._no_systemd = units.declared(sorted({str(name) for words in services.values() for name in words.get("units") or ()}))
        self._labels: dict[str, dict[str, str]] = {}
        self._no_labels = ""
        self._known_containers: set[str] = set()
        self._spaces: dict[str, set[str]] = {}
        self._listening: dict[tuple[str, str, int], dict[str, Any]] = {}
        self._connections: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._local: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._no_local = ""
        #: Process of a server -> whose the other end of its one local connection is.
        self.peers: dict[int, dict[str, Any]] = {}
        self._own = sockets.own_space()
        self._running: set[str] = set()
        self._visible: set[str] = set()
        self._hidden = 0

    def once(self) -> None:
        """One look."""
        known = sockets.processes()
        ends, addresses = sockets.sockets(known.values())
        for space, found in addresses.items():
            self._spaces.setdefault(space, set()).update(found)
        self._ask_labels({units.container_of(process.cgroup) for process in known.values() if process.inodes} - {""})
        listening = [end for end in ends if end.state == "listening"]
        declared = owners.ports(self._services, self._spaces, self._own)
        who = owners.Owners(self._services, known, listening, declared, self._aliases, self._labels)
        held = owners.holders(known)
        self._hidden = sum(not process.seen for process in known.values())
        for pid in known:
            self._visible |= who.of(pid)[0]
        for end in listening:
            told = self._who(end.inode, held, who)
            if not told["services"] and owners.listens_for(end, declared):
                told.update(services=sorted(owners.listens_for(end, declared)), by="port")
            self._running |= set(told["services"])
            self._listening[end.space, end.address, end.port] = told
        taken = {(end.space, end.port) for end in listening}
        for end in ends:
            if end.state == "established" and (end.space, end.port) not in taken:
                self._connected(end, self._who(end.inode, held, who))
        self._connected_locally(held, who)

    def told(self) -> dict[str, Any]:
        """The parts of look() that come from here."""
        return {
            "spaces": {space: sorted(found) for space, found in sorted(self._spaces.items())},
            "listening": [{"space": space, "address": address, "port": port, **who} for (space, address, port), who in sorted(self._listening.items())],
            "connections": list(self._connections.values()),
            "own_space": self._own,
            "local": list(self._local.values()),
            "running": sorted(self._running | self._visible),
            "visible": sorted(self._visible),
            "hidden": self._hidden,
            "not_looked": {word: why for word, why in (("systemd", self._no_systemd), ("labels", self._no_labels), ("local", self._no_local)) if why},
        }

    def _ask_labels(self, containers: set[str]) -> None:
        new = containers - self._known_containers
        if new:
            found, self._no_labels = units.labels(new)
            self._labels.update(found)
            self._known_containers |= new

    def _who(self, inode: int, held: dict[int, list[sockets.Process]], who: owners.Owners) -> dict[str, Any]:
        """Whose a socket is. Processes that share it with their parent (workers) are told once, by the one that is a service."""
        found = held.get(inode) or []
        process = found[0] if found else None
        services: frozenset[str] = frozenset()
        by = ""
        for one in found:
            services, by = who.of(one.pid)
            if services:
                process = one
                break
        cgroup = process.cgroup if process else ""
        return {
            "services": sorted(services), "by": by, "program": process.name if process else "", "unit": units.unit_of(cgroup),
            "container": self._labels.get(units.container_of(cgroup)) or {},
        }

    def _connected(self, end: sockets.Socket, who: dict[str, Any]) -> None:
        key = (end.space, end.remote, end.remote_port, *who["services"], "", who["program"])
        if key not in self._connections and len(self._connections) >= _MOST:
            return
        found = self._connections.setdefault(key, {"space": end.space, "remote": end.remote, "remote_port": end.remote_port, "local": [], **who})
        if [end.address, end.port] not in found["local"] and len(found["local"]) < _MOST:
            found["local"].append([end.address, end.port])

    def _connected_locally(self, held: dict[int, list[sockets.Process]], who: owners.Owners) -> None:
        try:
            ends = local.connections()
        except OSError as error:
            self._no_local = f"the kernel does not tell of local sockets ({error.strerror or error})"
            return
        for end in ends:
            client, server = self._who(end.client, held, who), self._who(end.inode, held, who)
            for process in held.get(end.inode) or ():
                if len(held[end.inode]) == 1:
                    self.peers[process.pid] = client
            if client["services"] and server["services"] and client["services"] != server["services"]:
                self._local.setdefault((end.path, *client["services"]), {"path": end.path, "to": server["services"], **client})
