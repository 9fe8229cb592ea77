# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Services that live on several hosts: the members of a replicated cluster, data on one host and runtime on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members

if TYPE_CHECKING:
    from .validation import Context

#: Probes and invariants that ask a source, where the data is; all others ask the service, where it runs.
OF_DATA = ("sql", "redis")


def data_host(entry: Mapping[str, Any]) -> str:
    """The host on which the sources of a service are, and all that works on them."""
    return next((str(source["host"]) for source in (entry.get("sources") or {}).values() if source.get("host")), str(entry.get("host") or ""))


def runtime_hosts(entry: Mapping[str, Any]) -> list[str]:
    """The hosts on which a service runs, where that is not the one with its data alone."""
    hosts = [str(host) for host in (entry.get("runtime") or {}).get("hosts") or [entry.get("host")] if host]
    return [] if hosts == [data_host(entry)] else hosts


def plain(entry: Mapping[str, Any]) -> bool:
    """Whether the service is started and stopped by no more than one command each, on the host of its entry."""
    runtime = entry.get("runtime") or {}
    return not runtime.get("hosts") and not any(isinstance(runtime.get(verb), dict) and "tasks" in runtime[verb] for verb in ("start", "stop"))


def part(entry: Mapping[str, Any], which: str) -> dict[str, Any]:
    """The entry with the checks of its ``data`` (sql, redis, its stores and their schema) or of its ``runtime`` (status, and all others) only."""
    of_data = which == "data"

    def mine(checks: Any) -> list[Any]:
        return [check for check in checks or [] if any(kind in check for kind in OF_DATA) == of_data]

    runtime = {key: value for key, value in (entry.get("runtime") or {}).items() if not (of_data and key == "status")}
    checks = {"runtime": runtime, "health": mine(entry.get("health")), "invariants": mine(entry.get("invariants"))}
    if not of_data:  # neither its stores nor their schema can be asked from there
        return {**entry, **checks, "sources": {}, "members": {}, "schema": []}
    return {**entry, **checks, "prewarm": {key: value for key, value in (entry.get("prewarm") or {}).items() if key != "http"}}


def validate(context: Context) -> None:
    """Record every fault of members, of sources on several hosts and of replicas."""
    for service, entry in context.services.items():
        sources = entry.get("sources") or {}
        hosts = sorted({str(source.get("host") or entry.get("host")) for source in sources.values()})
        if len(hosts) > 1:
            context.fault(f"{service} has sources on several hosts ({', '.join(hosts)})", context.at("services", service, "sources"),
                          "make a service of its own of what is elsewhere, in the same consistency_group")
        runtime = entry.get("runtime") or {}
        if runtime.get("quorum", 1) > len(runtime.get("hosts") or [0]):
            context.fault(f"{service} wants {runtime['quorum']} healthy hosts of {len(runtime.get('hosts') or [0])}",
                          context.at("services", service, "runtime", "quorum"), "lower quorum, or name more hosts")
        for name, source in sources.items():
            _conninfo(context, service, name, source.get("conninfo"), "conninfo")
            if "members" in source:
                _members(context, service, name, entry)


def _members(context: Context, service: str, name: str, entry: Mapping[str, Any]) -> None:
    node = context.at("services", service, "sources", name, "members")
    if len(entry["sources"]) > 1:
        context.fault(f"{service} has other sources beside the replicated cluster {name}", node,
                      "make services of their own of them, in the same consistency_group: the cluster's primary may move to another host")
    seen = {data_host(entry)}
    for member in entry["sources"][name]["members"]:
        if member["host"] in seen:
            context.fault(f"{service}.{name} names member {member['host']} twice", node, "the source's own host is a member already; name the others once each")
        seen.add(member["host"])
        _conninfo(context, service, name, member.get("conninfo"), f"members {member['host']} conninfo")


def _conninfo(context: Context, service: str, name: str, text: Any, what: str) -> None:
    if text is None:
        return
    try:
        cluster_members.parse_conninfo(str(text))
    except ConfigError as error:
        context.fault(f"{what} of {service}.{name} cannot be used: {error.what}", context.at("services", service, "sources", name), error.remedy)
