# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What really runs, held against what the catalog says of it: undeclared dependencies, dead edges, peers that nobody declared.

A host answers with what module_utils/discovery/look.py tells. Pure functions.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members

from ..catalog.clusters import data_host
from ..catalog.graph import Services, reachable, requirements
from ..catalog.problems import shown
from .target import seconds_between

#: Seconds for which a connection counts as seen after it was.
RECENT = 7 * 86400
_PORTS = {"postgresql": 5432, "postgresql_database": 5432, "redis": 6379}
_PATHS = ("path", "data_directory", "directory")
_WEB = {"http": 80, "https": 443}


# -- what a host is asked ----------------------------------------------------------------------------------------------


def declared(services: Services) -> dict[str, dict[str, dict[str, Any]]]:
    """Host -> service -> what the catalog declares to be there of it: {"units", "paths", "ports", "databases"} as owners.py takes it."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for service, entry in services.items():
        for host in cluster_members.hosts_of(entry) or [data_host(entry)]:
            _add(found, host, service, _of_data(cluster_members.entry_at(entry, host)))
        for host in (entry.get("runtime") or {}).get("hosts") or [entry["host"]]:
            _add(found, str(host), service, _of_runtime(entry))
    return found


def lookouts(services: Services, picked: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Service -> the hosts that it asks, each with the inventory host whose connection is taken: each host once.

    A service's own connection leads to its data; other hosts are asked by the connection of the machine.
    """
    found: dict[str, list[dict[str, str]]] = {service: [] for service in picked}
    taken = set()
    for service in picked:
        host = data_host(services[service])
        if host not in taken:
            taken.add(host)
            found[service].append({"machine": host, "through": service})
    of_host = declared({service: services[service] for service in picked})
    for host in of_host:
        if host not in taken:
            taken.add(host)
            found[next(service for service in picked if service in of_host[host])].append({"machine": host, "through": host})
    return found


def _add(found: dict[str, dict[str, dict[str, Any]]], host: str, service: str, words: Mapping[str, Any]) -> None:
    known = found.setdefault(host, {}).setdefault(service, {"units": [], "paths": [], "ports": [], "databases": {}})
    for key in ("units", "paths", "ports"):
        known[key] += [word for word in words.get(key, ()) if word not in known[key]]
    known["databases"].update(words.get("databases", {}))


def _of_data(entry: Mapping[str, Any]) -> dict[str, Any]:
    sources = entry.get("sources") or {}
    return {
        "units": [unit for source in sources.values() for unit in _units(source.get("server"))],
        "paths": [str(source[key]) for source in sources.values() for key in _PATHS if source.get(key)],
        "ports": [[str(source.get("address") or "127.0.0.1"), int(source.get("port") or _PORTS[source["type"]])]
                  for source in sources.values() if source.get("type") in _PORTS],
        "databases": {name: source for name, source in sources.items() if source.get("type") in _PORTS},
    }


def _of_runtime(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"units": _units(entry.get("runtime")), "ports": [port for probe in entry.get("health") or () for port in _port(probe)]}


def _units(commands: Any) -> list[str]:
    """The units that ``start``, ``stop`` and ``status`` name, as ``unit`` or to systemctl."""
    found = []
    for command in (commands or {}).values() if isinstance(commands, Mapping) else ():
        if isinstance(command, Mapping) and command.get("unit"):
            found.append(str(command["unit"]))
        elif isinstance(command, list) and len(command) > 2 and str(command[0]).rpartition("/")[2] == "systemctl":
            found.append(str(command[-1]))
    return list(dict.fromkeys(found))


def _port(probe: Mapping[str, Any]) -> list[list[Any]]:
    text = str(probe.get("http") or "") or "tcp://" + str(probe.get("tcp") or "")
    parts = urlsplit(text)
    try:
        port = parts.port or _WEB.get(parts.scheme)
    except ValueError:
        return []
    return [[parts.hostname, port]] if parts.hostname and port else []


# -- what the answers come to ------------------------------------------------------------------------------------------


class Map:
    """Who is where: listeners and ends of connections by address, over all hosts that answered."""

    def __init__(self, hosts: Mapping[str, Mapping[str, Any]]) -> None:
        self._spaces: dict[str, list[tuple[str, str]]] = {}
        self._listening: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
        self._ends: dict[tuple[str, str, str, int], Mapping[str, Any]] = {}
        for host, told in hosts.items():
            for space, addresses in told["spaces"].items():
                for address in addresses:
                    self._spaces.setdefault(address, []).append((host, space))
            for one in told["listening"]:
                self._listening.setdefault((host, one["space"], one["port"]), []).append(one)
            for one in told["connections"]:
                for address, port in one["local"]:
                    self._ends[host, one["space"], address, port] = one

    def places(self, host: str, space: str, address: str) -> list[tuple[str, str]]:
        """(host, space) of an address as somebody in ``space`` of ``host`` means it: its own if it has it, else its host's, else others'."""
        if _loopback(address):
            return [(host, space)]
        all_of = self._spaces.get(address, [])
        return [one for one in all_of if one == (host, space)] or [one for one in all_of if one[0] == host] or all_of

    def listener(self, host: str, space: str, address: str, port: int) -> Mapping[str, Any] | None:
        """Who listens there; None where nobody who was asked does, or where two might be meant."""
        found = []
        for place in self.places(host, space, address):
            here = self._listening.get((*place, port), [])
            found += [one for one in here if one["address"] == address] or [one for one in here if one["address"] in ("0.0.0.0", "::")]
        return found[0] if found and all(one["services"] == found[0]["services"] for one in found) else None

    def known(self, address: str) -> bool:
        """The address is one of a host that answered."""
        return address in self._spaces

    def client(self, host: str, space: str, address: str, port: int) -> Mapping[str, Any] | None:
        """The other end of a connection that a server on ``host`` sees come from there."""
        found = [self._ends[key] for place in self.places(host, space, address) if (key := (*place, address, port)) in self._ends]
        return found[0] if len(found) == 1 else None


def _loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


class Comparison:
    """What was observed, collected, and then judged. answers: host -> what it told, or {"silent": why}."""

    def __init__(self, services: Services, answers: Mapping[str, Mapping[str, Any]]) -> None:
        self._services = services
        self._hosts = {host: told for host, told in answers.items() if "spaces" in told}
        self._silent = {host: str(told.get("silent") or "no answer") for host, told in answers.items() if host not in self._hosts}
        self._map = Map(self._hosts)
        self._declared = declared(services)
        #: (service, the one it uses) -> by what it is known.
        self.edges: dict[tuple[str, str], list[str]] = {}
        self.unknown: dict[tuple[str, str, int], str] = {}
        self.strangers: list[dict[str, Any]] = []
        self.unclear: dict[tuple[str, tuple[str, ...]], str] = {}
        self._resolved: set[tuple[str, str, str, int]] = set()
        for host, told in self._hosts.items():
            self._of_databases(host, told)
        for host, told in self._hosts.items():
            self._of_connections(host, told)

    def _edge(self, user: str, used: str, evidence: str) -> None:
        if user != used and user in self._services and used in self._services:
            known = self.edges.setdefault((user, used), [])
            if evidence not in known:
                known.append(evidence)

    def _of_databases(self, host: str, told: Mapping[str, Any]) -> None:
        for one in told["clients"]:
            end = self._map.client(host, told["own_space"], one["address"], one["port"]) if one["address"] else one.get("peer")
            what = f"client of {one['kind']} {one['service']}.{one['source']}" + (f", database {one['database']}" if one["kind"] == "postgresql" else "")
            users = set(end["services"]) if end else set()
            for place in self._map.places(host, told["own_space"], one["address"]) if one["address"] else []:
                self._resolved.add((*place, one["address"], one["port"]))
            if not users:
                # nothing but its name speaks for a client behind a proxy or on the server's own socket
                users = {service for service in self._services for name in (one["application"], one["user"]) if _same(service, name)}
                what += ", by the name it gives"
            if len(users) == 1:
                self._edge(users.pop(), one["service"], what)
            elif not users:
                name = one["application"] or (end or {}).get("program") or one["user"]
                stranger = {"service": one["service"], "source": one["source"], "address": one["address"] or "local socket", "client": shown(name)}
                if stranger not in self.strangers:
                    self.strangers.append(stranger)

    def _of_connections(self, host: str, told: Mapping[str, Any]) -> None:
        for one in told["local"]:
            if len(one["services"]) == len(one["to"]) == 1:  # of a shared server its clients tell
                self._edge(one["services"][0], one["to"][0], f"{one['program']} is connected to {one['path']}")
        for one in told["connections"]:
            if len(one["services"]) != 1:
                continue
            user = one["services"][0]
            at = f"{one['remote']}:{one['remote_port']}"
            listener = self._map.listener(host, one["space"], one["remote"], one["remote_port"])
            if listener is None or not listener["services"]:
                self.unknown[user, one["remote"], one["remote_port"]] = (listener or {}).get("program") or ""
            elif len(listener["services"]) == 1:
                self._edge(user, listener["services"][0], f"{one['program'] or 'a process'} is connected to {at}")
            elif user not in listener["services"] and not all((host, one["space"], *local) in self._resolved for local in one["local"]):
                self.unclear[user, tuple(listener["services"])] = at

    # -- judging

    def findings(self, former: Mapping[tuple[str, str], Mapping[str, Any]], now: str) -> list[dict[str, Any]]:
        """{"level", "kind", "service", "uses", "what", "remedy"}, the grave ones first."""
        needs = {service: requirements(self._services, service) for service in self._services}
        found = [*self._undeclared(needs), *self._unseen(needs, former, now), *self._blind()]
        return sorted(found, key=lambda one: (one["level"] != "warning", one["kind"], one["service"], one["uses"]))

    def _undeclared(self, needs: Mapping[str, Iterable[str]]) -> Iterable[dict[str, Any]]:
        missing: dict[str, list[str]] = {}
        for user, used in sorted(self.edges):
            if used in reachable(needs, [user]):
                continue
            if user in reachable(needs, [used]):
                yield _finding("note", "backward", user, used, f"{user} uses {used}, which requires {user}: {self.edges[user, used][0]}",
                               f"see that {user} starts and is healthy without {used}: a restore starts it first, and a requirement back would be a cycle")
            else:
                missing.setdefault(user, []).append(used)
        for user, all_used in missing.items():
            for used in all_used:
                yield _finding("warning", "undeclared", user, used, f"{user} uses {used} and does not require it: {self.edges[user, used][0]}",
                               f"add it to services.{user}: {self.suggestion(user, all_used)}")

    def suggestion(self, user: str, used: Sequence[str]) -> str:
        """The catalog's line with these requirements too."""
        edges = [edge["service"] if edge["kind"] == "hard" else f"{{service: {edge['service']}, kind: {edge['kind']}}}"
                 for edge in self._services[user].get("requires") or ()]
        return f"requires: [{', '.join([*edges, *used])}]"

    def _unseen(self, needs: Mapping[str, Iterable[str]], former: Mapping[tuple[str, str], Mapping[str, Any]], now: str) -> Iterable[dict[str, Any]]:
        visible = {service for told in self._hosts.values() for service in told["visible"]}
        running = {service for told in self._hosts.values() for service in told["running"]}
        for user, all_used in needs.items():
            for used in all_used:
                if (user, used) in self.edges or user not in visible or used not in running or not self._whole(user):
                    continue
                last = str((former.get((user, used)) or {}).get("seen") or "")
                if last and seconds_between(last, now) <= RECENT:
                    continue
                yield _finding("note", "dead", user, used, f"{user} requires {used} and no connection was seen" + (f" since {last}" if last else ""),
                               f"look longer or again (-e lifeboat_discover_seconds=60); if {user} does without {used}, remove the requirement")

    def _whole(self, service: str) -> bool:
        """Every host on which it may run has answered."""
        return all(host in self._hosts for host, words in self._declared.items() if service in words)

    def _blind(self) -> Iterable[dict[str, Any]]:
        for host, why in self._silent.items():
            yield _finding("warning", "silent", host, "", f"{host} was not looked at: {why}", "mend that and run the same command again")
        for host, told in self._hosts.items():
            here = sorted(self._declared.get(host, {}))
            if told["hidden"] and set(here) - set(told["visible"]):
                yield _finding("warning", "hidden", host, "", f"{told['hidden']} processes on {host} are hidden from this user: what "
                               f"{', '.join(sorted(set(here) - set(told['visible'])))} connects to is not known", "look as root (ansible_become)")
            for text in told["notes"]:
                yield _finding("warning", "database", host, "", text, "the clients of this database are not known")
        for (user, shared), at in self.unclear.items():
            yield _finding("note", "unclear", user, "", f"{user} is connected to {at}, which {' and '.join(shared)} share: whose it uses is not known",
                           "see the reason why the database was not asked, or give the client the service's name as its application name")


def _finding(level: str, kind: str, service: str, uses: str, what: str, remedy: str) -> dict[str, Any]:
    return {"level": level, "kind": kind, "service": service, "uses": uses, "what": what, "remedy": remedy}


def _same(service: str, name: str) -> bool:
    return bool(name) and service.replace("_", "-").lower() == name.replace("_", "-").lower()


def compare(document: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]], now: str, former: Mapping[str, Any]) -> dict[str, Any]:
    """What discovery.json holds; docs/discovery.md describes it. former: the one before or nothing; it remembers when an edge was seen last."""
    services: Services = document["services"]
    mine = former if former.get("ecosystem") == document["ecosystem"] else {}
    before = {(edge["service"], edge["uses"]): edge for edge in mine.get("edges") or ()}
    made = Comparison(services, answers)
    edges = []
    for user, used in sorted({*before, *made.edges}):
        if user not in services or used not in services:
            continue
        seen = (user, used) in made.edges
        direct = next((edge["kind"] for edge in services[user].get("requires") or () if edge["service"] == used), "")
        indirect = used in reachable({service: requirements(services, service) for service in services}, [user])
        edges.append({
            "service": user, "uses": used, "declared": direct or ("indirect" if indirect else ""), "by": made.edges.get((user, used), []),
            "first": (before.get((user, used)) or {}).get("first") or now, "seen": now if seen else before[user, used]["seen"],
        })
    looked = {host: told for host, told in answers.items() if "spaces" in told}
    return {
        "ecosystem": document["ecosystem"], "time": now, "edges": edges, "findings": made.findings(before, now),
        "unknown_peers": [{"service": service, "address": address, "port": port, "program": program}
                          for (service, address, port), program in sorted(made.unknown.items())],
        "unknown_clients": made.strangers,
        "unlisted": [{"machine": host, **{key: one[key] for key in ("address", "port", "program", "unit", "container")}}
                     for host, told in looked.items() for one in told["listening"] if not one["services"] and one["space"] == told["own_space"]],
        "machines": {
            host: {key: told[key] for key in ("running", "visible", "hidden", "not_looked", "notes")} if host in looked
            else {"silent": str(told.get("silent") or "no answer")} for host, told in answers.items()
        },
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The screen."""
    seen = [edge for edge in found["edges"] if edge["seen"] == found["time"]]
    warnings = [one for one in found["findings"] if one["level"] == "warning"]
    told = [f"{found['ecosystem']}: {len(seen)} dependencies seen on {sum('silent' not in one for one in found['machines'].values())} hosts, "
            f"{sum(bool(edge['declared']) for edge in seen)} of them declared"]
    told += [f"  {one['level']}: {one['what']}; {one['remedy']}" for one in [*warnings, *(one for one in found["findings"] if one not in warnings)]]
    for peer in found["unknown_peers"]:
        program = f" ({shown(peer['program'])})" if peer["program"] else ""
        told.append(f"  outside: {peer['service']} is connected to {peer['address']}:{peer['port']}{program}")
    for one in found["unknown_clients"]:
        told.append(f"  outside: {one['client']} at {one['address']} is a client of {one['service']}.{one['source']}")
    if found["unlisted"]:
        told.append(f"  {len(found['unlisted'])} listeners belong to no service; discovery.json lists them")
    return told
