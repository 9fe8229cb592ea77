# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which services a run is about: asked for, narrowed by --limit, widened by the scope, and never half a consistency group."""

from __future__ import annotations

import importlib
import shlex
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

from ..catalog.graph import HARD, Services, dependants, path_between, reachable, requirements
from ..catalog.problems import nearest, shown
from .order import known, topological_order

SCOPES = ("service", "requirements", "group")
DEPENDANTS = ("", "stop", "ignore")
#: Verbs that change live data: half a consistency group would leave it inconsistent.
WHOLE_GROUPS = ("restore", "drill", "rollback")


@dataclass
class Pick:
    """picked: in order. asked: before the scope widened it. added: service -> why the scope took it in.

    dependants: service outside the pick -> the chain of requirements from it to the picked one it needs.
    """

    picked: list[str]
    asked: list[str]
    added: dict[str, str] = field(default_factory=dict)
    dependants: dict[str, list[str]] = field(default_factory=dict)
    scope: str = "service"

    def as_dict(self) -> dict[str, Any]:
        return {"picked": self.picked, "asked": self.asked, "added": self.added, "dependants": self.dependants, "scope": self.scope}


def command(verb: str, inventory: str = "", limit: Sequence[str] = (), **variables: object) -> str:
    """The command line that an operator can copy."""
    words = ["ansible-playbook", f"lifeboat.recovery.{verb}", "-i", shlex.quote(inventory) if inventory else "CATALOG"]
    if limit:
        words += ["--limit", shlex.quote(",".join(limit))]
    for name, value in variables.items():
        if value not in ("", None):
            words += ["-e", shlex.quote(f"lifeboat_{name}={value}")]
    return " ".join(words)


def names_of(services: object) -> list[str]:
    """lifeboat_services as a list: a comma list or a list of names, each once."""
    if services is None:
        return []
    words = services.split(",") if isinstance(services, str) else list(services) if isinstance(services, (list, tuple)) else None
    if words is None or not all(isinstance(word, str) for word in words):
        raise ConfigError("lifeboat_services is not a list of names", shown(services), "write lifeboat_services=orders,payments")
    result = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    if not result and services:
        raise ConfigError("lifeboat_services names no service", shown(services), "write lifeboat_services=orders,payments")
    return result


def select(document: Mapping[str, Any], expression: str) -> list[str]:
    """The services that a JMESPath expression over the catalog gives.

    It sees {"ecosystem", "production", "tiers", "services": [{"name", …entry}]} and must give names or services,
    as in ``services[?tier=='gold'].name`` or ``services[?contains(keys(sources), 'db')]``.
    """
    try:
        jmespath = importlib.import_module("jmespath")
    except ImportError:
        raise ConfigError("lifeboat_select needs the Python library jmespath", "this controller",
                          "install jmespath where ansible-playbook runs, or use lifeboat_services") from None
    view = {
        "ecosystem": document["ecosystem"], "production": document["production"], "tiers": document["tiers"],
        "services": [{"name": name, **entry} for name, entry in document["services"].items()],
    }
    try:
        found = jmespath.search(expression, view)
    except jmespath.exceptions.JMESPathError as error:
        first = str(error).splitlines()[0] if str(error) else "syntax error"
        raise ConfigError("lifeboat_select is not a JMESPath expression", shown(f"{expression} ({first})", 160),
                          "try for example services[?tier=='gold'].name") from None
    result = []
    for item in found if isinstance(found, list) else [found]:
        name = item.get("name") if isinstance(item, dict) else item
        if not isinstance(name, str):
            raise ConfigError("lifeboat_select gives something that is not a service", shown(item), "end the expression with .name")
        result.append(name)
    if not result:
        raise ConfigError("lifeboat_select matches no service", shown(expression, 160), "try it without a condition: services[].name")
    known(document["services"], result)
    return list(dict.fromkeys(result))


def groups_of(services: Services) -> dict[str, list[str]]:
    """Consistency group -> its members."""
    groups: dict[str, list[str]] = {}
    for service, entry in services.items():
        if entry.get("consistency_group"):
            groups.setdefault(str(entry["consistency_group"]), []).append(service)
    return groups


def widen(services: Services, pick: Iterable[str], scope: str = "service") -> dict[str, str]:
    """The services that the scope adds, each with the reason.

    service: none. requirements: everything the pick needs by hard requirements, through any number of steps; a soft
    requirement is not needed, so its data is not put back. group: the other members of the consistency groups touched.
    """
    if scope not in SCOPES:
        raise ConfigError(f'unknown scope "{shown(scope)}"', "lifeboat_scope", nearest(scope, SCOPES))
    asked = known(services, pick)
    added: dict[str, str] = {}
    if scope == "requirements":
        hard = {service: requirements(services, service, HARD) for service in services}
        for service in sorted(asked):
            for needed in sorted(reachable(hard, [service]) - asked):
                added.setdefault(needed, f"required by {service}")
    elif scope == "group":
        for group, members in sorted(groups_of(services).items()):
            if asked.intersection(members):
                for member in sorted(set(members) - asked):
                    added.setdefault(member, f"in consistency group {group}")
    return added


def refuse_torn(services: Services, pick: Iterable[str], verb: str = "restore", inventory: str = "") -> None:
    """ConfigError when the pick holds a part of a consistency group."""
    picked = set(pick)
    for group, members in sorted(groups_of(services).items()):
        outside = sorted(set(members) - picked)
        inside = sorted(set(members) & picked)
        if inside and outside:
            raise ConfigError(
                f"consistency group {group} would be torn", f"{', '.join(inside)} without {', '.join(outside)}",
                "pick the whole group: " + command(verb, inventory, services=",".join(topological_order(services, picked | set(members)))),
            )


def live_dependants(services: Services, pick: Iterable[str]) -> dict[str, list[str]]:
    """Services outside the pick that need a picked one, with the chain [outside, …, picked].

    Through hard requirements over any number of steps, and direct soft ones. Which of them are live, preflight finds out.
    """
    picked = known(services, pick)
    found = reachable(dependants(services, HARD), picked)
    direct = dependants(services)
    for service in picked:
        found.update(direct[service])
    result = {}
    for service in topological_order(services, found - picked):
        chains = [chain for chain in (path_between(services, service, needed) for needed in sorted(picked)) if chain]
        result[service] = min(chains, key=len)
    return result


def refuse_dependants(live: Mapping[str, Sequence[str]], choice: str = "", verb: str = "restore", inventory: str = "") -> None:
    """ConfigError unless the operator said what happens to the live services that need a picked one."""
    if choice not in DEPENDANTS:
        raise ConfigError(f'unknown choice "{shown(choice)}"', "lifeboat_dependants", "use stop or ignore")
    if live and not choice:
        chains = "; ".join(" -> ".join(chain) for chain in live.values())
        raise ConfigError(
            f"{len(live)} live service{'s' if len(live) > 1 else ''} outside the pick would write into what is restored", chains,
            f"pick {'them' if len(live) > 1 else 'it'} too, or add -e lifeboat_dependants=stop (stopped before, started after) or ignore",
        )


def pick_services(document: Mapping[str, Any], services: object = None, select_by: str = "", scope: str = "service",
                  limit: Sequence[str] | None = None, verb: str = "restore", inventory: str = "") -> Pick:
    """Decide what a run is about.

    document: the normalised catalog. services, select_by, scope: the operator's lifeboat_services, lifeboat_select and
    lifeboat_scope. limit: the services that --limit left over, None when it was not given. Raises ConfigError with
    the command that would work.
    """
    everything: Services = document["services"]
    names = names_of(services)
    if names and select_by:
        raise ConfigError("lifeboat_services and lifeboat_select together", "the command line", "give one of them")
    asked = set(known(everything, names) if names else select(document, select_by) if select_by else everything)
    if limit is not None:
        narrowed = asked & set(limit)
        if not narrowed:
            raise ConfigError("--limit leaves none of the picked services", ", ".join(sorted(asked)), "widen or drop --limit")
        asked = narrowed
    added = widen(everything, asked, scope)
    picked = topological_order(everything, asked | set(added))
    if limit is not None:
        outside = [service for service in picked if service not in set(limit)]
        if outside:
            raise ConfigError(
                f"scope {scope} needs services outside --limit", ", ".join(f"{service} ({added[service]})" for service in outside),
                "run: " + command(verb, inventory, limit=picked, services=",".join(sorted(asked)), scope=scope),
            )
    if verb in WHOLE_GROUPS:
        refuse_torn(everything, picked, verb, inventory)
    return Pick(picked, topological_order(everything, asked), added, live_dependants(everything, picked), scope)
