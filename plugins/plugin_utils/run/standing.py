# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a service's calls have left behind in the run: whether anything is left to do for it, and what of an answer is taken over."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory


def to_change(run: RunDirectory, service: str) -> list[str]:
    """The services because of which something is left to do for this one: itself or any it builds on, whose data is not the target yet or is not well."""
    services = words.table_of_services(run.plan.get("services"))
    pending, seen, changed = [service], set(), []
    while pending:
        name = pending.pop()
        if name in seen or name not in services:
            continue
        seen.add(name)
        if not (run.kept(name).get("staged") or {}).get("noop"):
            changed.append(name)
        pending += [edge["service"] for edge in services[name].get("waits_for") or []]
    return sorted(changed)


def others(run: RunDirectory, service: str, waits: str) -> list[Any]:
    """The services that the run's plan has this one wait for, by the word of the gate; ConfigError for a service that it does not tell of."""
    planned = words.table_of_services(run.plan.get("services")).get(service)
    if planned is None:
        raise ConfigError("the run's plan tells nothing of this service", f"gate of {service}", "pass services")
    if waits == "dependants_stopped":
        return list(planned.get("needed_by") or [])
    edges = [edge for edge in planned.get("waits_for") or [] if isinstance(edge, dict)]
    if waits == "requirements":
        return edges
    islands = run.plan.get("islands") or []
    if (run.plan.get("flags") or {}).get("partial"):  # what fails keeps back only what builds on it
        return [edge["service"] for edge in edges if edge.get("kind") == "hard"]
    return [name for name in islands[planned["island"]] if name != service]


def take_over(run: RunDirectory, service: str, answer: dict[str, Any], subject: str = "") -> None:
    """Keep what a module answered: its ledger entries, and its facts under ``subject``."""
    run.collect(service, answer.get("ledger"))
    if subject:
        run.keep(service, subject, {key: value for key, value in answer.items() if key not in ("ledger", "invocation", "diff")})
    elif answer.get("notes"):
        run.keep(service, "recorded", {"notes": answer["notes"]})
    if answer.get("failed"):
        run.trouble(service, answer)
