# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which service of the catalog a process is: by what the catalog declares of it, and by its parent.

Declared (``services``): {service: {"units": [name], "paths": [directory], "ports": [[host, port]], "databases": {source: its entry}}}.
The strongest word counts: unit, label of a container, data directory, port. A process that several services declare (one PostgreSQL with
a database of each) is all of them.
"""

from __future__ import annotations

import os
from typing import Any, Iterable, Mapping

from . import units
from .sockets import Process, Socket, resolved

Declared = Mapping[str, Mapping[str, Any]]
#: Addresses that mean every one of the host's own.
ANY = ("0.0.0.0", "::")


def is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


#: (space, port) -> the services that declare it there, each with the addresses it may be at.
Ports = Mapping["tuple[str, int]", "list[tuple[str, frozenset[str]]]"]


def ports(services: Declared, spaces: Mapping[str, Iterable[str]], own: str) -> Ports:
    """What is declared to be on this host. spaces: each with its addresses; own: where the words of a catalog are meant, unless an address is another's."""
    found: dict[tuple[str, int], list[tuple[str, frozenset[str]]]] = {}
    here = set(spaces.get(own, ()))
    for service, words in services.items():
        for host, port in words.get("ports") or ():
            named = resolved(str(host))
            for space, addresses in spaces.items():
                local = {one for one in named if one in here or one in ANY or is_loopback(one)} if space == own else named & set(addresses) - here
                if local:
                    found.setdefault((space, int(port)), []).append((service, frozenset(local)))
    return found


def holders(known: Mapping[int, Process]) -> dict[int, list[Process]]:
    """Inode of a socket -> who holds it."""
    found: dict[int, list[Process]] = {}
    for process in known.values():
        for inode in process.inodes:
            found.setdefault(inode, []).append(process)
    return found


def listens_for(socket: Socket, declared: Ports) -> set[str]:
    """The services that declare this listening socket."""
    return {
        service for service, addresses in declared.get((socket.space, socket.port), ())
        if socket.address in ANY or socket.address in addresses or addresses.intersection(ANY)
    }


class Owners:
    """Answers for one look at the host."""

    def __init__(self, services: Declared, known: Mapping[int, Process], listening: Iterable[Socket], declared: Ports,
                 aliases: Mapping[str, set[str]], labels: Mapping[str, Mapping[str, str]]) -> None:
        self._services, self._known, self._labels, self.ports = services, known, labels, declared
        self._units = {alias: {service for service, words in services.items() if name in (words.get("units") or ())}
                       for name, names in aliases.items() for alias in names}
        self._paths = [(os.path.realpath(path), service) for service, words in services.items() for path in words.get("paths") or ()]
        held = holders(known)
        self._by_port: dict[int, set[str]] = {}
        for one in listening:
            for process in held.get(one.inode, ()):
                self._by_port.setdefault(process.pid, set()).update(listens_for(one, self.ports))
        self._answers: dict[int, tuple[frozenset[str], str]] = {}
        for pid in known:
            # this look itself is no service, wherever it works
            self._answers[pid] = (frozenset(), "") if pid == os.getpid() else self._declared(known[pid])
        self._by_unit = self._one_service_units()

    def of(self, pid: int) -> tuple[frozenset[str], str]:
        """(services, by which word), nothing when the process belongs to none."""
        seen: set[int] = set()
        at = pid if pid != os.getpid() else 0
        while at in self._known and at not in seen:
            seen.add(at)
            if self._answers[at][0]:
                found = self._answers[at]
                return found if at == pid else (found[0], f"child of {at}")
            at = self._known[at].parent
        unit = units.unit_of(self._known[pid].cgroup) if pid in self._known and pid != os.getpid() else ""
        return (self._by_unit[unit], f"in {unit} too") if unit in self._by_unit else (frozenset(), "")

    def _declared(self, process: Process) -> tuple[frozenset[str], str]:
        unit = units.unit_of(process.cgroup)
        if self._units.get(unit):
            return frozenset(self._units[unit]), f"unit {unit}"
        told = self._labels.get(units.container_of(process.cgroup)) or {}
        for label in units.NAMES:
            if told.get(label) in self._services:
                return frozenset([told[label]]), f"label {label}"
        places = [os.path.realpath(process.cwd)] if process.cwd else []
        places += [os.path.normpath(word) for word in process.argv if word.startswith("/")]
        within = {(path, service) for path, service in self._paths for place in places if place == path or place.startswith(path + "/")}
        if within and process.inodes:
            longest = max(len(path) for path, _service in within)
            return frozenset(service for path, service in within if len(path) == longest), "data directory"
        if self._by_port.get(process.pid):
            return frozenset(self._by_port[process.pid]), "port"
        return frozenset(), ""

    def _one_service_units(self) -> dict[str, frozenset[str]]:
        """Units that no service declares, but all of whose known processes are of the same service."""
        found: dict[str, set[frozenset[str]]] = {}
        for pid, (services, _by) in self._answers.items():
            unit = units.unit_of(self._known[pid].cgroup)
            if unit and services:
                found.setdefault(unit, set()).add(services)
        return {unit: next(iter(services)) for unit, services in found.items() if len(services) == 1}
