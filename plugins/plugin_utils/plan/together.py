# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What no host sees alone: one disk for the copies of several services, two services in one place, clocks, and where nothing may be restored."""

from __future__ import annotations

import os
import re
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils import clocks, identity, room
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import TargetError, VersionError
from ansible_collections.lifeboat.recovery.plugins.module_utils.findings import finding

Findings = dict[str, list[dict[str, Any]]]
_RELEASE = re.compile(r"\d+")


def look(answers: Mapping[str, Mapping[str, Any]], never: Mapping[str, Any], timed: bool) -> Findings:
    """service -> all findings, its own of the answer and those of the whole. Only for answers that hold findings.

    never: ``never_restore_into`` of the catalog. timed: the restore ends at a time.
    """
    own: Findings = {service: [dict(one) for one in answer.get("findings") or []] for service, answer in answers.items()}
    for part in (_room(answers, own), _same_data(answers), _systems(answers), _clocks(answers, timed), _never(answers, never)):
        for service, more in part.items():
            own[service] += more
    return own


def _host(answer: Mapping[str, Any]) -> tuple[str, str, str]:
    host = answer.get("host") or {}
    return str(host.get("boot") or ""), str(host.get("id") or ""), str(host.get("name") or "")


def _name(answer: Mapping[str, Any]) -> str:
    return _host(answer)[2] or "its host"


def _room(answers: Mapping[str, Mapping[str, Any]], own: Findings) -> Findings:
    """Copies are all staged at once, so what they need of one file system (or of one host's memory) is added up."""
    needs: list[dict[str, Any]] = []
    for service, answer in answers.items():
        # a device number means the same on one running kernel, whatever the host is called there
        kernel = _host(answer)[0] or _name(answer)
        needs += [{**need, "service": service, "place": f"{kernel} {need['device']}", "on": _name(answer)} for need in answer.get("needs") or []]
    found: Findings = {}
    for place, total in room.added_up(needs, "place").items():
        mine = list(dict.fromkeys(str(need["service"]) for need in needs if need["place"] == place))
        if len(mine) < 2:
            continue  # its own preflight said so
        for error in room.lacking(total, f" by {len(mine)} services together"):
            error.where += f" on {total['on']}"
            for service in mine:
                own[service] = [one for one in own[service] if not (one.get("kind") == "space" and one.get("cause") == total["device"])]
                found.setdefault(service, []).append(finding("error", error, "space", cause=place))
    return found


def _places(answers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**place, "service": service, "host": () if place.get("network") else _host(answer), "boot": _host(answer)[0], "on": _name(answer)}
        for service, answer in answers.items() for place in answer.get("places") or [] if place.get("live")
    ]


def _same_data(answers: Mapping[str, Mapping[str, Any]]) -> Findings:
    """Two sources whose live data is the same or lies within the other's: whoever is switched last would win."""
    found: Findings = {}
    places = _places(answers)
    for number, one in enumerate(places):
        for other in places[number + 1:]:
            same = one["host"] == other["host"] and one["live"] == other["live"]
            inode = bool(one["inode"]) and (one["boot"], one["inode"]) == (other["boot"], other["inode"])
            inside = one["host"] == other["host"] and (_below(one["live"], other["live"]) or _below(other["live"], one["live"]))
            if not (same or inode or inside):
                continue
            names = " and ".join(f"{place['service']}.{place['source']}" for place in (one, other))
            lives = one["live"] if one["live"] == other["live"] else f"{one['live']} and {other['live']}"
            error = TargetError(
                f"{names} restore into {'the same data' if same or inode else 'data of which one lies inside the other'}", f"{lives} on {one['on']}",
                "give each a place of its own in the catalog; a store that services share is a service of its own, which they require",
            )
            for service in dict.fromkeys((one["service"], other["service"])):
                found.setdefault(service, []).append(finding("error", error, "identity", cause=names))
    return found


def _below(path: str, top: str) -> bool:
    return os.path.isabs(path) and os.path.isabs(top) and path.startswith(top.rstrip("/") + "/")


def _systems(answers: Mapping[str, Mapping[str, Any]]) -> Findings:
    """A cluster in place that is, by its identifier, the one that another service's snapshot was taken of."""
    places = _places(answers)
    owners = {place["captured"]: place["service"] for place in places if place.get("captured")}
    found: Findings = {}
    for place in places:
        owner = owners.get(place.get("system"))
        if owner is not None and owner != place["service"] and place["system"] != place["captured"]:
            found.setdefault(place["service"], []).append(finding("error", TargetError(
                f"the cluster in place is that of service {owner} (system identifier {place['system']})", f"{place['live']} on {place['on']}",
                "correct data_directory of one of the two in the catalog",
            ), "identity", place["source"]))
    return found


def _clocks(answers: Mapping[str, Mapping[str, Any]], timed: bool) -> Findings:
    found: Findings = {}
    for service, answer in answers.items():
        skew = (answer.get("clock") or {}).get("skew")
        told = clocks.judge(clocks.Skew(*skew), f"host {_name(answer)}", "the controller", timed) if skew else None
        if told:
            found[service] = [finding(told[0], told[1], cause=" ".join(_host(answer)))]
    return found


def _never(answers: Mapping[str, Mapping[str, Any]], never: Mapping[str, Any]) -> Findings:
    """What the catalog says is never restored into."""
    remedy = "the catalog's never_restore_into names it: correct the inventory or the place, or take it out there when you mean it"
    machines = {one for raw in never.get("machines") or [] for one in (str(raw), identity.hashed(str(raw)))}
    found: Findings = {}
    for service, answer in answers.items():
        _boot, host_id, name = _host(answer)
        errors = []
        if name and name in (never.get("hosts") or []):
            errors.append(TargetError(f"nothing may be restored on host {name}", name, remedy))
        if host_id and host_id in machines:
            errors.append(TargetError(f"nothing may be restored on this machine ({host_id})", name, remedy))
        told = [finding("error", error, "identity", cause=f"host {name} {host_id}") for error in errors]
        for place in answer.get("places") or []:
            if place.get("system") and str(place["system"]) in [str(one) for one in never.get("systems") or []]:
                error = TargetError(f"this cluster may not be displaced (system identifier {place['system']})", f"{place['live']} on {name}", remedy)
                told.append(finding("error", error, "identity", place["source"]))
            if any(place["live"] == path.rstrip("/") or _below(str(place["live"]), path) for path in map(str, never.get("paths") or [])):
                told.append(finding("error", TargetError("nothing may be restored there", f"{place['live']} on {name}", remedy), "identity", place["source"]))
        if told:
            found[service] = told
    return found


def controller(ansible: str, least: str) -> list[dict[str, Any]]:
    """What keeps this controller from it: an ansible-core that is too old. Both are versions like 2.19.0."""
    def number(text: str) -> list[int]:
        return [int(part) for part in _RELEASE.findall(text)[:2]]

    if number(ansible) >= number(least):
        return []
    return [finding("error", VersionError(
        f"ansible-core {ansible} is too old", "the controller", f"run it with ansible-core {least} or newer: pip install 'ansible-core>={least}'",
    ), cause="controller")]


def silent(services: Iterable[str], answers: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, str]) -> Sequence[tuple[str, dict[str, Any]]]:
    """(service, finding) of every host that gave no answer; one that is out of reach is told once for all its services."""
    found = []
    for service in services:
        if (answers.get(service) or {}).get("unreachable"):
            error = TargetError("its host does not answer", f"host {hosts.get(service) or 'unknown'}", "see why, then run the same command again")
            found.append((service, finding("error", error, "host", cause=f"host {hosts.get(service)}")))
    return found
