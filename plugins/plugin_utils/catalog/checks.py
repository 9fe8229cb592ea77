# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Health probes, invariants and the sides of a reconciliation: what the checks of the engine can run."""

from __future__ import annotations

import importlib
from typing import Any, Mapping

from . import kinds
from .kinds import WRONG, At, Field
from .problems import nearest
from .reader import Node

HTTP = kinds.url("http", "https")
COMPARISONS = ("equals", "at_least", "at_most")
RELATIONS = ("subset", "superset", "equal", "disjoint")


def jmespath_text(node: Node, at: At) -> Any:
    """A JMESPath expression; its syntax is checked where the library is installed."""
    value = kinds.text(node, at)
    if value is WRONG:
        return WRONG
    try:
        jmespath = importlib.import_module("jmespath")
    except ImportError:
        return value  # the host that evaluates it names the missing library
    try:
        jmespath.compile(value)
    except Exception:
        return at.wrong(node, "is not a JMESPath expression", "check it at https://jmespath.org")
    return value


_TIMEOUT = Field(kinds.positive_duration, default=5)

PROBE: dict[str, Field] = {
    "name": Field(kinds.text),
    "http": Field(HTTP),
    "expect_status": Field(kinds.integer(100, 599)),
    "tcp": Field(kinds.address),
    "sql": Field(kinds.text),
    "source": Field(kinds.name),
    "database": Field(kinds.text),
    "equals": Field(kinds.scalar),
    "command": Field(kinds.argv),
    "timeout": _TIMEOUT,
}
_PROBE_KEYS = {
    "http": ("expect_status",), "tcp": (), "sql": ("source", "database", "equals"), "command": (),
}

_COMPARISON_FIELDS: dict[str, Field] = {
    "equals": Field(kinds.scalar), "at_least": Field(kinds.number), "at_most": Field(kinds.number),
}
INVARIANT: dict[str, Field] = {
    "name": Field(kinds.text, required=True),
    "sql": Field(kinds.text),
    "http": Field(HTTP),
    "json": Field(jmespath_text),
    "redis": Field(kinds.argv),
    "command": Field(kinds.argv),
    "source": Field(kinds.name),
    "database": Field(kinds.text),
    **_COMPARISON_FIELDS,
    "timeout": Field(kinds.positive_duration),
}
_INVARIANT_KEYS = {
    "sql": ("source", "database", *COMPARISONS), "http": ("json", *COMPARISONS), "redis": ("source", *COMPARISONS), "command": COMPARISONS,
}

#: The version of the data that a service's program wants.
SCHEMA: dict[str, Field] = {
    "query": Field(kinds.text, required=True),
    "expect": Field(kinds.scalar, required=True),
    "source": Field(kinds.name),
    "database": Field(kinds.text),
}
#: A request that warms a service up.
WARM_UP: dict[str, Field] = {
    "http": Field(HTTP, required=True),
    "expect_status": Field(kinds.integer(100, 599), default=200),
    "timeout": Field(kinds.positive_duration, default=10),
    "required": Field(kinds.boolean, default=False),
}

SIDE: dict[str, Field] = {
    "service": Field(kinds.name, required=True),
    "source": Field(kinds.name),
    "database": Field(kinds.text),
    "sql": Field(kinds.text),
    "http": Field(HTTP),
    "json": Field(jmespath_text),
    "redis": Field(kinds.argv),
    "command": Field(kinds.argv),
}
_SIDE_KEYS = {"sql": ("source", "database"), "http": ("json",), "redis": ("source",), "command": ()}

COMPENSATE: dict[str, Field] = {
    "service": Field(kinds.name),
    "source": Field(kinds.name),
    "sql": Field(kinds.text),
    "command": Field(kinds.argv),
    "tasks": Field(kinds.inner_path),
    "limit": Field(kinds.integer(1)),
}

RECONCILE: dict[str, Field] = {
    "name": Field(kinds.text, required=True),
    "left": Field(kinds.closed(SIDE, lambda result, node, at: one_way(result, node, at, _SIDE_KEYS)), required=True),
    "right": Field(kinds.closed(SIDE, lambda result, node, at: one_way(result, node, at, _SIDE_KEYS)), required=True),
    "relation": Field(kinds.choice(*RELATIONS), required=True),
    "window": Field(kinds.positive_duration, default=900),
    "compensate": Field(kinds.closed(COMPENSATE, lambda result, node, at:
                                     result if kinds.exactly_one(result, ("sql", "command", "tasks"), node, at) else WRONG)),
}


def one_way(result: dict[str, Any], node: Node, at: At, ways: Mapping[str, tuple[str, ...]]) -> Any:
    """Exactly one way of looking (http, sql, …), and only the keys that belong to it."""
    if not kinds.exactly_one(result, tuple(ways), node, at):
        return WRONG
    way = next(key for key in ways if key in result)
    for key in result:
        if any(key in keys for keys in ways.values()) and key not in ways[way]:
            owners = " or ".join(other for other in ways if key in ways[other])
            return at.wrong(node, f"has {key}, which does not belong to {way}", f"remove {key}; it goes with {owners}")
    return result


def probe_kind(node: Node, at: At) -> Any:
    def complete(result: dict[str, Any], node: Node, at: At) -> Any:
        if one_way(result, node, at, _PROBE_KEYS) is WRONG:
            return WRONG
        if "http" in result:
            result.setdefault("expect_status", 200)
        if "sql" in result and "equals" not in result:
            return at.wrong(node, "compares with nothing", "add equals:")
        return result
    return kinds.closed(PROBE, complete)(node, at)


def invariant_kind(node: Node, at: At) -> Any:
    def complete(result: dict[str, Any], node: Node, at: At) -> Any:
        if one_way(result, node, at, _INVARIANT_KEYS) is WRONG:
            return WRONG
        given = [key for key in COMPARISONS if key in result]
        if not given and "command" in result:
            return result  # the exit code alone decides
        if len(given) != 1:
            return at.wrong(node, "compares with nothing" if not given else f"has {' and '.join(given)} together",
                            f"give exactly one of {', '.join(COMPARISONS)}")
        if "http" in result and "json" not in result:
            return at.wrong(node, "does not say what to compare", "add json: with a JMESPath expression")
        return result
    return kinds.closed(INVARIANT, complete)(node, at)


def default_source(check: dict[str, Any], sources: Mapping[str, Mapping[str, Any]], node: Node, at: At) -> None:
    """Name the source a sql or redis check, or a schema version, talks to: the given one, or the only one of that family."""
    family = "sql" if "sql" in check or "query" in check else "redis" if "redis" in check else None
    if family is None:
        return
    fitting = [source for source, config in sources.items() if family_of(str(config.get("type"))) == family]
    if "source" not in check:
        if len(fitting) == 1:
            check["source"] = fitting[0]
        elif fitting:
            at.wrong(node, f"does not say which source to ask ({', '.join(fitting)})", "add source:")
        else:
            at.wrong(node, f"asks {family}, but the service has no such source", "declare the source, or use another kind of check")
        return
    where = node.value["source"] if "source" in node.value else node
    if check["source"] not in sources:
        at.key("source").wrong(where, f'is unknown ("{check["source"]}")', nearest(check["source"], sources, "sources are"))
    elif check["source"] not in fitting:
        at.key("source").wrong(where, f"is of type {sources[check['source']].get('type')} and cannot be asked {family}",
                               nearest(check["source"], fitting, "sources that can are"))


def family_of(source_type: str) -> str:
    """Which language a source type is asked in: sql, redis, or nothing."""
    if source_type.startswith("postgresql") or source_type == "mariadb":
        return "sql"
    return "redis" if source_type == "redis" else ""
