# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a well-formed catalog must also mean: names that exist, an order that exists, promises that can be kept."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Iterator

from . import checks, clusters, copies, graph
from .kinds import At
from .problems import Faults, nearest, shown
from .reader import Node

#: Inventory words that cannot be the name of a service.
RESERVED = ("all", "ungrouped", "localhost", "lifeboat_services", "last", "latest", "proven")
#: Source types with a log between snapshots; all others lose what was written since the last snapshot.
LOGGED = ("postgresql", "mariadb", "jetstream", "rabbitmq", "bucket")
#: Of these, the ones that keep it only where the catalog says log.
OPTIONAL = ("postgresql",)
#: Ways to say "this host".
LOOPBACK = ("", "127.0.0.1", "localhost", "::1")
#: Source types of which several may name one data directory: they own a part of what the server keeps there.
SHARED_DIRECTORY = ("postgresql_database",)
#: Options that say where the data of a source lies.
DATA_PATHS = ("path", "data_directory", "directory")


@dataclass
class Context:
    """A parsed catalog before it is trusted: its nodes, what is right of its values, where faults go."""

    root: Node
    values: dict[str, Any]
    faults: Faults
    directory: str
    warnings: list[str] = field(default_factory=list)

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        services = self.values.get("services")
        return services if isinstance(services, dict) else {}

    def at(self, *keys: str | int) -> Node:
        """The node at a place, or the nearest one above it that exists."""
        node = self.root
        for key in keys:
            value = node.value
            if isinstance(key, int):
                if not isinstance(value, list) or key >= len(value):
                    break
                node = value[key]
            else:
                if not isinstance(value, dict) or key not in value:
                    break
                node = value[key]
        return node

    def found(self, *keys: str | int) -> Iterator[Node]:
        """The node at a place, if it exists."""
        parent, node = self.at(*keys[:-1]), self.at(*keys)
        if node is not parent:
            yield node

    def declared_sources(self, service: str) -> bool:
        """Whether a service declares any source, a faulty one too."""
        node = next(self.found("services", service, "sources"), None)
        return node is not None and bool(node.value)

    def key_line(self, *keys: str) -> int:
        """The line of a mapping key."""
        return self.at(*keys[:-1]).key_lines.get(keys[-1], self.at(*keys).line)

    def declared(self, section: str) -> list[str]:
        """The names declared in a section, the faulty ones too, so that one fault does not cause others."""
        node = self.root.value.get(section)
        return list(node.value) if isinstance(node, Node) and node.kind == "map" else []

    def fault(self, what: str, node: Node, remedy: str) -> None:
        self.faults.add(what, node.file, node.line, remedy)


def validate(context: Context) -> None:
    """Record every fault of meaning."""
    for check in (_names, _requirements, _cycles, _priorities, _references, _groups, _objectives, _checks, _steps, _reconcile, _paths, _servers, _task_files,
                  clusters.validate, copies.validate):
        check(context)


def _names(context: Context) -> None:
    for section in ("services", "repositories"):
        node = context.root.value.get(section)
        if isinstance(node, Node) and node.kind == "map" and not node.value:
            context.fault(f"{section} is empty", node, "declare at least one")
    for service in context.declared("services"):
        if service in RESERVED:
            context.faults.add(f'service name "{service}" is reserved', context.root.file, context.key_line("services", service), "choose another name")


def _edges(context: Context, service: str) -> Iterator[tuple[str, Node]]:
    """Each requirement of a service with its node, the wrong ones left out."""
    for node in context.found("services", service, "requires"):
        yield from _edges_in(node)


def _edges_in(node: Node) -> Iterator[tuple[str, Node]]:
    for item in node.value if node.kind == "list" else [node]:
        if item.kind == "map":
            target = item.value.get("service")
            if isinstance(target, Node) and isinstance(target.value, str):
                yield target.value, item
        elif isinstance(item.value, str):
            yield item.value, item


def _requirements(context: Context) -> None:
    declared = context.declared("services")
    for service in declared:
        seen: set[str] = set()
        for needed, node in _edges(context, service):
            if needed not in declared:
                context.fault(f'{service} requires unknown service "{shown(needed)}"', node, nearest(needed, declared, "services are"))
            elif needed in seen:
                context.fault(f"{service} requires {needed} twice", node, "remove one of them")
            seen.add(needed)


def _cycles(context: Context) -> None:
    for cycle in graph.cycles(context.services):
        node = next((item for needed, item in _edges(context, cycle[0]) if needed == cycle[1]), context.at("services", cycle[0]))
        context.fault(f"requirements form a cycle {' -> '.join(cycle)}", node, "remove one of these requirements")


def _priorities(context: Context) -> None:
    """Direct edges and chains over services without a priority; longer chains follow from these."""
    services = context.services
    for service, entry in services.items():
        own = entry.get("priority")
        if own is None:
            continue
        ways = deque([[service]])
        seen = {service}
        while ways:
            way = ways.popleft()
            for needed in graph.requirements(services, way[-1]):
                if needed in seen:
                    continue
                seen.add(needed)
                other = services[needed].get("priority")
                if other is None:
                    ways.append([*way, needed])
                elif other > own:
                    chain = " -> ".join([*way, needed])
                    context.fault(f"priority {own} of {service} contradicts priority {other} of {needed}, which it requires ({chain})",
                                  context.at("services", service, "priority"),
                                  f"lower numbers start first: give {needed} {own} or less, or {service} {other} or more")


def _references(context: Context) -> None:
    tiers = context.declared("tiers")
    repositories = context.declared("repositories")
    for service, entry in context.services.items():
        tier, repository = entry.get("tier"), entry.get("repository")
        if tier is not None and tier not in tiers:
            context.fault(f'{service} has unknown tier "{tier}"', context.at("services", service, "tier"), nearest(tier, tiers, "tiers are"))
        if repository is not None and repository not in repositories:
            context.fault(f'{service} has unknown repository "{repository}"', context.at("services", service, "repository"),
                          nearest(repository, repositories, "repositories are"))
    for tier, policy in (context.values.get("tiers") or {}).items():
        repository = policy.get("repository")
        if repository is not None and repository not in repositories:
            context.fault(f'tier {tier} has unknown repository "{repository}"', context.at("tiers", tier, "repository"),
                          nearest(repository, repositories, "repositories are"))


def _groups(context: Context) -> None:
    """A misspelt group would tear a consistency group in silence, so it must be declared or have company."""
    members: dict[str, list[str]] = {}
    for service, entry in context.services.items():
        if entry.get("consistency_group"):
            members.setdefault(entry["consistency_group"], []).append(service)
    declared = context.declared("consistency_groups")
    for group, inside in members.items():
        node = context.at("services", inside[0], "consistency_group")
        if declared and group not in declared:
            for service in inside:
                context.fault(f'{service} has unknown consistency group "{group}"', context.at("services", service, "consistency_group"),
                              nearest(group, declared, "groups are"))
        elif not declared and len(inside) == 1:
            others = [other for other in members if other != group]
            context.fault(f'consistency group "{group}" has one member, {inside[0]}', node,
                          nearest(group, others, "other groups are") if others else "name a second member, or remove it")


def _objectives(context: Context) -> None:
    for tier, policy in (context.values.get("tiers") or {}).items():
        rpo = policy.get("rpo")
        if rpo is None:
            continue
        schedule = policy.get("schedule") or {}
        node = context.at("tiers", tier, "rpo")
        if not schedule:
            context.fault(f"rpo of tier {tier} is met by nothing", node, "give the tier a schedule")
            continue
        best = min(schedule, key=lambda key: schedule[key])
        if schedule[best] > rpo:
            context.fault(f"rpo {_seconds(rpo)} of tier {tier} cannot be met: its shortest interval is {best} every {_seconds(schedule[best])}",
                          node, "capture more often (schedule), capture logs continuously, or promise less")
            continue
        snapshots = [schedule[key] for key in ("full", "incremental") if key in schedule]
        if snapshots and min(snapshots) <= rpo:
            continue
        for service, entry in context.services.items():
            if entry.get("tier") != tier:
                continue
            for source, config in (entry.get("sources") or {}).items():
                if _log_interval(config) is not None:
                    slow = context.at("services", service, "sources", source, "log", "interval")
                    if _log_interval(config) >= rpo:
                        context.fault(f"rpo {_seconds(rpo)} of tier {tier} cannot be met: the log of {service}.{source} is looked at every "
                                      f"{_seconds(_log_interval(config))}", slow, "set log.interval well below the rpo, or promise less")
                elif config.get("type") not in LOGGED or config["type"] in OPTIONAL:
                    between = f"up to {_seconds(min(snapshots))}" if snapshots else "everything"
                    context.warnings.append(f"{service}.{source} ({config.get('type')}) keeps no log: a loss can be {between}, "
                                            f"although tier {tier} promises {_seconds(rpo)}")


def _log_interval(config: dict[str, Any]) -> Any:
    """Seconds between two looks at a log that a source declares; None where it declares none."""
    if config.get("type") not in OPTIONAL or config.get("log") is None:
        return None
    return config["log"].get("interval", 1)


def _seconds(value: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if value >= size and value % size == 0:
            return f"{int(value // size)}{unit}"
    return f"{value:g}s"


def _checks(context: Context) -> None:
    """Which source a check asks; names of invariants are unique, because verdicts and reports name them."""
    for service, entry in context.services.items():
        sources = _sound_sources(context, service)
        for section in ("health", "schema", "invariants"):
            node = next(context.found("services", service, section), None)
            if node is None:
                continue
            items = node.value if node.kind == "list" else [node]
            if len(items) != len(entry.get(section) or ()):
                continue  # some were wrong and are reported already; positions no longer match
            names: dict[str, int] = {}
            for index, (item, check) in enumerate(zip(items, entry[section])):
                if sources is not None:
                    checks.default_source(check, sources, item, At(f"services.{service}.{section}[{index}]", context.faults))
                label = check.get("name")
                if label is not None and label in names:
                    context.fault(f'{service} has two {section} named "{shown(label)}"', item, f"the first is at line {names[label]}; rename one")
                elif label is not None:
                    names[label] = item.line


def _steps(context: Context) -> None:
    """A migration has data to migrate, and a step that goes back on failure has something to go back to."""
    for service, entry in context.services.items():
        sources = entry.get("sources") or {}
        if "migrate" in (entry.get("runtime") or {}) and not context.declared_sources(service):
            context.fault(f"{service} has a migration and no source", context.at("services", service, "runtime", "migrate"),
                          "declare it on the service that owns the data, which this one requires")
        fixed = sorted(name for name, source in sources.items() if source.get("in_place"))
        for step, said in (entry.get("policy") or {}).items():
            if said.get("on_error") == "rollback" and (fixed or not context.declared_sources(service)):
                what = f"source {fixed[0]} is restored in place" if fixed else "it has no source"
                context.fault(f"{service} cannot go back when {step} fails: {what}", context.at("services", service, "policy", step, "on_error"),
                              "say on_error: fail")


def _sound_sources(context: Context, service: str) -> dict[str, dict[str, Any]] | None:
    """The sources of a service; None when one of them is wrong, so that what asks it is not reported as well."""
    sources: dict[str, dict[str, Any]] = context.services[service].get("sources") or {}
    declared = next(context.found("services", service, "sources"), None)
    if declared is not None and (declared.kind != "map" or len(declared.value) != len(sources)):
        return None
    return sources


def _reconcile(context: Context) -> None:
    declared = context.declared("services")
    node = context.at("reconcile")
    rules = context.values.get("reconcile") or []
    if node is context.root or node.kind != "list" or len(node.value) != len(rules):
        return
    names: dict[str, int] = {}
    for index, (item, rule) in enumerate(zip(node.value, rules)):
        if rule["name"] in names:
            context.fault(f'two reconcile rules are named "{shown(rule["name"])}"', item, f"the first is at line {names[rule['name']]}; rename one")
        names.setdefault(rule["name"], item.line)
        for side in ("left", "right", "compensate"):
            if side not in rule or "service" not in rule[side]:
                continue
            service = rule[side]["service"]
            side_node = item.value[side]
            if service not in declared:
                context.fault(f'reconcile[{index}].{side} names unknown service "{service}"', side_node.value["service"],
                              nearest(service, declared, "services are"))
            elif service in context.services:
                sources = _sound_sources(context, service)
                if sources is not None:
                    checks.default_source(rule[side], sources, side_node, At(f"reconcile[{index}].{side}", context.faults))


def _paths(context: Context) -> None:
    """No two sources on one host may own the same data, and neither repository nor state may lie inside it."""
    owned: list[tuple[str, str, str, str, Node]] = []
    for service, entry in context.services.items():
        for source, config in (entry.get("sources") or {}).items():
            host = str(config.get("host") or entry.get("host"))
            # the databases of one cluster share its directory; _servers looks after them
            shared = str(config["type"]) if config.get("type") in SHARED_DIRECTORY else ""
            for option in DATA_PATHS:
                if isinstance(config.get(option), str) and config[option].startswith("/"):
                    owned.append((host, config[option], f"{service}.{source}", shared, context.at("services", service, "sources", source, option)))
    for index, (host, path, owner, shared, node) in enumerate(owned):
        for other_host, other, other_owner, other_shared, _node in owned[:index]:
            if host == other_host and (_inside(path, other) or _inside(other, path)) and not (shared and shared == other_shared and path == other):
                context.fault(f"{owner} ({path}) and {other_owner} ({other}) overlap on {host}", node,
                              "let one source own the data; a restore swaps the whole of it")
        for what, place in _own_places(context):
            if _inside(place, path) or _inside(path, place):
                context.fault(f"{owner} ({path}) overlaps with {what} ({place})", node, f"move {what} out of the data that it protects")


def _servers(context: Context) -> None:
    """One database belongs to one source, and a cluster that is somebody's own serves nobody else."""
    seen: dict[tuple[str, ...], list[tuple[str, dict[str, Any], Node]]] = {}
    for service, entry in context.services.items():
        for source, config in (entry.get("sources") or {}).items():
            if checks.family_of(str(config.get("type"))):
                address = str(config.get("socket") or config.get("address") or "")
                server = (checks.family_of(str(config["type"])), str(config.get("host") or entry.get("host")),
                          "" if address in LOOPBACK else address, str(config.get("port")))
                seen.setdefault(server, []).append((f"{service}.{source}", config, context.at("services", service, "sources", source)))
    for (family, host, _address, port), users in seen.items():
        for index, (owner, config, node) in enumerate(users):
            for other, other_config, _node in users[:index]:
                where = f"on the server at port {port} of {host}"
                whole = [name for name, one in ((owner, config), (other, other_config)) if one.get("type") == "postgresql"]
                if whole:
                    context.fault(f"{owner} and {other} own the same cluster {where}: {whole[0]} captures and restores all of it", node,
                                  "make the cluster a service of its own that the others require, or let each own its postgresql_database")
                elif family == "redis" or config.get("database") == other_config.get("database"):
                    what = "the same server" if family == "redis" else f"database {shown(config.get('database'))}"
                    context.fault(f"{owner} and {other} own {what} {where if family != 'redis' else f'(port {port} of {host})'}", node,
                                  "let one service own it; the other one requires that service")
                elif "own" in (config.get("cluster"), other_config.get("cluster")):
                    alone = owner if config.get("cluster") == "own" else other
                    context.fault(f"{owner} and {other} share the server at port {port} of {host}, but {alone} says cluster: own", node,
                                  "say cluster: shared, or give the other one its own server")


def _own_places(context: Context) -> Iterator[tuple[str, str]]:
    for name, repository in (context.values.get("repositories") or {}).items():
        if str(repository.get("url", "")).startswith("file://"):
            yield f"repository {name}", repository["url"][len("file://"):]
    state = context.values.get("state_dir")
    if isinstance(state, str) and state.startswith("/"):
        yield "state_dir", state
    keys = context.values.get("keys")
    for key in ("path", "private_path"):
        if isinstance(keys, dict) and str(keys.get(key, "")).startswith("/"):
            yield f"keys.{key}", keys[key]


def _inside(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _task_files(context: Context) -> None:
    """Task files are read by the playbooks: they exist, and no link leads them out of the catalog's directory."""
    root = os.path.realpath(context.directory)
    for node in _task_nodes(context):
        if not isinstance(node.value, str) or node.value.startswith(("/", "~")) or ".." in node.value.split("/"):
            continue  # reported by its kind
        full = os.path.realpath(os.path.join(root, node.value))
        if not _inside(full, root):
            context.fault(f"tasks file {shown(node.value)} leads out of the directory of the catalog", node, "keep the file beside the catalog")
        elif not os.path.isfile(full):
            context.fault(f"tasks file {shown(node.value)} does not exist", node, "create it beside the catalog")


def _task_nodes(context: Context) -> Iterator[Node]:
    for service in context.declared("services"):
        places: list[tuple[str | int, ...]] = [("runtime",)]
        sources = context.at("services", service, "sources")
        if sources.kind == "map":
            places += [("sources", source, "server") for source in sources.value]
        for place in places:
            for action in ("start", "stop", "status"):
                yield from context.found("services", service, *place, action, "tasks")
    rules = context.root.value.get("reconcile")
    if isinstance(rules, Node) and rules.kind == "list":
        for index in range(len(rules.value)):
            yield from context.found("reconcile", index, "compensate", "tasks")
