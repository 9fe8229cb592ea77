# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The options of source types, read from the sources themselves, so that catalog and engine cannot disagree."""

from __future__ import annotations

import importlib
from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members

from . import kinds
from .kinds import WRONG, At, Field, Kind
from .problems import nearest, shown
from .reader import Node

_SOURCES = "ansible_collections.lifeboat.recovery.plugins.module_utils.sources"

#: The type that may have members.
REPLICATED = "postgresql"

KINDS: dict[str, Kind] = {
    "str": kinds.text, "int": kinds.integer(), "bool": kinds.boolean, "float": kinds.number, "path": kinds.path,
    "duration": kinds.duration, "size": kinds.size, "list": kinds.sequence(kinds.scalar), "dict": kinds.mapping_of(kinds.scalar, kinds.text),
}


def known_types() -> list[str]:
    """The source types this version of the collection has."""
    return sorted(importlib.import_module(f"{_SOURCES}.registry").types())


def options_of(source_type: str) -> Mapping[str, Mapping[str, Any]]:
    """The declared options of a known type (see module_utils/sources/contract.py)."""
    options: Mapping[str, Mapping[str, Any]] = importlib.import_module(f"{_SOURCES}.registry").get(source_type).options
    return options


def control_kind(node: Node, at: At) -> Any:
    """How something is started or stopped: a command, {unit: systemd unit}, or {tasks: file beside the catalog}."""
    if node.kind != "map":
        if node.kind == "list":
            return kinds.argv(node, at)
        return at.wrong(node, "must be a command list or a mapping", 'write ["program", "word"], {unit: name.service} or {tasks: file.yml}')
    result = kinds.take_fields(node, at, {"unit": Field(kinds.text), "tasks": Field(kinds.inner_path)})
    if result is WRONG or not kinds.exactly_one(result, ("unit", "tasks"), node, at):
        return WRONG
    return result


_SERVER = {"start": Field(control_kind), "stop": Field(control_kind), "status": Field(control_kind)}

#: What every source may say, whatever its type.
COMMON = {
    "type": Field(kinds.name, required=True),
    "host": Field(kinds.host),
    "server": Field(kinds.closed(_SERVER)),
    "provision": Field(kinds.argv),
    "compression": Field(kinds.integer(1, 19)),
}


def fields_of(source_type: str) -> dict[str, Field]:
    """The closed set of keys of a source of this type."""
    fields = {**COMMON, **{option: _field(spec) for option, spec in options_of(source_type).items()}}
    return {**fields, "members": Field(kinds.sequence(member_kind, minimum=1))} if source_type == REPLICATED else fields


def member_kind(node: Node, at: At) -> Any:
    """A host, or {host, and what of the source's options is another one there}."""
    def short(node: Node, at: At) -> Any:
        value = kinds.host(node, at)
        return WRONG if value is WRONG else {"host": value}
    fields = {**fields_of_options(cluster_members.OPTIONS), "host": Field(kinds.host, required=True)}
    return kinds.closed(fields, short=short)(node, at)


def fields_of_options(names: Sequence[str]) -> dict[str, Field]:
    """Some keys of a source of the replicated type, without their defaults."""
    known = {**COMMON, **{option: _field(spec) for option, spec in options_of(REPLICATED).items()}}
    return {name: Field(known[name].kind) for name in names if name in known}


def _field(spec: Mapping[str, Any]) -> Field:
    """One declared option; "options" are the only keys that a mapping may have, "least" and "most" bound a number."""
    kind = KINDS.get(str(spec.get("type", "str")), kinds.anything)
    if spec.get("choices"):
        kind = kinds.choice(*[str(word) for word in spec["choices"]])
    elif spec.get("options"):
        kind = kinds.closed({option: _field(inner) for option, inner in spec["options"].items()})
    elif "least" in spec or "most" in spec:
        kind = kinds.bounded(kind, spec.get("least"), spec.get("most"))
    return Field(kind, bool(spec.get("required")), spec.get("default"))


def source_kind(node: Node, at: At) -> Any:
    """One source: its type decides which other keys it may have."""
    if node.kind != "map":
        return at.wrong(node, "must be a mapping", "write {type: …} with the options of that type")
    if "type" not in node.value:
        at.faults.add(f"missing key type in {at.label}", node.file, node.line, f"add type: (known are {', '.join(known_types())})")
        return WRONG
    type_node = node.value["type"]
    source_type = kinds.text(type_node, at.key("type"))
    if source_type is WRONG:
        return WRONG
    types = known_types()
    if source_type not in types:
        return at.key("type").wrong(type_node, f'is unknown ("{shown(source_type)}")', nearest(source_type, types))
    return kinds.take_fields(node, at, fields_of(source_type))
