# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The command lines that an operator may need next, ready to paste."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words


def command(verb: str, catalog: str, **variables: str) -> str:
    """The ansible-playbook command of a verb, ready to paste."""
    parts = ["ansible-playbook", f"lifeboat.recovery.{verb}", "-i", shlex.quote(catalog or "CATALOG")]
    for name, value in variables.items():
        if value:
            parts += ["-e", shlex.quote(f"lifeboat_{name}={value}")]
    return " ".join(parts)


def invocation(plan: dict[str, Any]) -> dict[str, str]:
    """How a run was called, as far as the commands for the next step need it."""
    found = plan.get("invocation")
    return {str(k): str(v) for k, v in found.items() if v not in (None, "")} if isinstance(found, dict) else {}


def following(plan: dict[str, Any], picked: list[str]) -> dict[str, str]:
    """The exact commands for what may come next: {resume, rollback, status}. The resume keeps the target that was resolved."""
    called = invocation(plan)
    verb, run = str(plan["run"].get("verb")), str(plan["run"].get("id"))
    catalog = called.get("catalog", "")
    target = target_of(plan)
    pinned = str(target["point"] or target["asked"] or called.get("target", ""))
    services = called.get("services") or ",".join(picked)
    # "last" may be another one by then
    undone = str((plan.get("flags") or {}).get("run") or called.get("run", ""))
    confirm = called.get("confirm", "")
    approval = called.get("approval", "")
    resumable = verb in ("restore", "drill", "verify", "extract")
    part = {name: called[name] for name in ("source", "database", "tables", "as", "new_hosts") if called.get(name)}
    return {
        "resume": command(verb, catalog, services=services, target=pinned if resumable else "", run=undone, confirm=confirm,
                          approval="" if approval.startswith("{") else approval, **part),
        "rollback": command("rollback", catalog, services=services, run=run, confirm=confirm),
        "status": command("status", catalog),
    }


def target_of(plan: dict[str, Any]) -> dict[str, Any]:
    """The target: {asked, point (when all services go back to one), time, points: {service: point}}, null where there is none."""
    points: dict[str, str] = {}
    times: set[str] = set()
    for name, entry in words.table_of_services(plan.get("services")).items():
        resolution: dict[str, Any] = entry["resolution"] if isinstance(entry.get("resolution"), dict) else {}
        if resolution.get("point"):
            points[name] = words.one_line(resolution["point"], 120)
            times.add(words.one_line(resolution.get("time") or "", 60))
    only = set(points.values())
    return {
        "asked": words.one_line(plan["target"], 120) if isinstance(plan.get("target"), str) and plan["target"] else None,
        "point": only.pop() if len(only) == 1 else None, "time": max(times) or None if times else None, "points": points,
    }
