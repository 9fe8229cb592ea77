# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What many services suffer from is told once: findings and failures grouped by their cause."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.findings import LEVELS

#: So many names are written out.
_NAMES = 3
_DIGITS = re.compile(r"\d+")


def names(services: Sequence[str], of: int = 0) -> str:
    """Services in a line: all of them, or the first and how many more. of: how many there are in all."""
    if of and len(services) == of and of > _NAMES:
        return f"all {of} services"
    more = len(services) - _NAMES
    return ", ".join(services) if more <= 1 else f"{', '.join(services[:_NAMES])} and {more} more"


def grouped(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Findings, each with its "service", as one per cause: errors first, and of a kind together.

    Gives finding dicts with "services" (each once, in order), "places" ("service" or "service.source" of each), "wheres": all that differ.
    Findings are of one cause when level, kind and cause are the same and their wording too, apart from numbers; without a cause their
    place and remedy must be the same.
    """
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in findings:
        level, kind, cause = str(one.get("level")), str(one.get("kind") or ""), str(one.get("cause") or "")
        what = str(one.get("what"))
        key = (level, kind, cause, _DIGITS.sub("#", what)) if cause else (level, kind, "", what, str(one.get("where")), str(one.get("remedy")))
        group = groups.setdefault(key, {**one, "kind": kind, "cause": cause, "services": [], "places": [], "wheres": []})
        place = f"{one['service']}.{one['source']}" if one.get("source") else str(one["service"])
        for name, value in (("services", str(one["service"])), ("places", place), ("wheres", str(one.get("where") or ""))):
            if value not in group[name]:
                group[name].append(value)
    order = {level: number for number, level in enumerate(LEVELS)}
    return sorted(groups.values(), key=lambda group: order.get(str(group["level"]), 0))


def who(group: Mapping[str, Any], of: int = 0) -> str:
    """Whom a group is about: a source of a service, a service, or services."""
    return str(group["places"][0]) if len(group["places"]) == 1 else names(group["services"], of)


def where(group: Mapping[str, Any]) -> str:
    """Where; with how many other places there are."""
    more = len(group["wheres"]) - 1
    return str(group["wheres"][0]) + (f" and {more} other place{'s' if more > 1 else ''}" if more > 0 else "")


def line(group: Mapping[str, Any], of: int = 0) -> str:
    """A group in one line: level, whom it is about, what, where, what to do."""
    return f"{group['level']:<7} {who(group, of)}: {group['what']}: {where(group)}; {group['remedy']}"


def failures(services: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Services that came to the same verdict in the same phase for the same reason, together: [{"names", "item": that of the first}]."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, item in services.items():
        key = (item["verdict"], item["phase"], item["message"], item["remedy"])
        groups.setdefault(key if item["message"] else (name,), {"names": [], "item": item})["names"].append(name)
    return list(groups.values())
