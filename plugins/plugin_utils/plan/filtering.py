# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What playbooks hand to filters, turned into what the plan's functions take; and their errors into Ansible's."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any, Callable, Mapping, TypeVar

from ansible.errors import AnsibleFilterError

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError

from ..catalog.problems import shown
from .target import parse_time

Result = TypeVar("Result")


def filtered(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a filter raise the collection's errors; Ansible shows their text."""
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Result:
        try:
            return function(*arguments, **options)
        except LifeboatError as error:
            raise AnsibleFilterError(str(error)) from error
    return wrapper


def mapping_in(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is not a mapping", shown(type(value).__name__), "give service: value pairs")
    return value


def document_of(value: Any) -> Mapping[str, Any]:
    """A whole catalog."""
    document = mapping_in(value, "the catalog")
    if not isinstance(document.get("services"), Mapping) or "ecosystem" not in document:
        raise ConfigError("this is not a catalog", "the filter's input", "give lifeboat_catalog")
    return document


def services_of(value: Any) -> dict[str, dict[str, Any]]:
    """name -> entry, from a catalog, a mapping of entries, or hostvars; requirements may be plain names."""
    table = mapping_in(value, "services")
    if isinstance(table.get("services"), Mapping) and "ecosystem" in table:
        table = table["services"]
    result: dict[str, dict[str, Any]] = {}
    for name in table:
        item = table[name]
        entry = item.get("lifeboat_entry", item) if isinstance(item, Mapping) else None
        if isinstance(item, Mapping) and "lifeboat_entry" not in item and "ansible_version" in item:
            continue  # hostvars of a machine
        if not isinstance(entry, Mapping):
            raise ConfigError(f"service {shown(name)} is not a mapping", "the filter's input", "give lifeboat_catalog")
        edges = entry.get("requires") or []
        result[str(name)] = {**entry, "requires": [
            {"kind": "hard", **edge} if isinstance(edge, Mapping) else {"service": edge, "kind": "hard"} for edge in edges]}
    return result


def points_in(value: Any) -> list[dict[str, Any]]:
    """Points, or the result of snapshot_info that holds them."""
    if isinstance(value, Mapping) and "points" in value:
        value = value["points"]
    if not isinstance(value, (list, tuple)) or not all(isinstance(point, Mapping) and "id" in point and "time" in point for point in value):
        raise ConfigError("these are not recovery points", "the filter's input", "give the points that snapshot_info returns")
    return [dict(point) for point in value]


def time_of(value: Any) -> datetime:
    """An ISO 8601 time with a zone."""
    moment = parse_time(str(value))
    if moment is None or moment.tzinfo is None:
        raise ConfigError(f'not an ISO 8601 time with a zone: "{shown(str(value))}"', "now", "write it like 2030-01-31T12:00:00Z")
    return moment
