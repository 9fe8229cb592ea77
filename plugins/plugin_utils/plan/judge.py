# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""From the preflight of every service to one decision: go on, go on with fewer, try older points, or stop with all findings."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError, TargetError

from ..catalog.graph import Services
from ..run import files
from ..run.directory import RunDirectory
from .order import topological_order
from .refusals import error_of, left_out
from .target import TargetErrors, fall_back, units

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float:
    """Seconds of 90, 90s, 15m, 2h or 1d. Raises ConfigError."""
    word = str(text).strip()
    number, unit = (word[:-1], _UNITS[word[-1]]) if word[-1:] in _UNITS else (word, 1)
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise ConfigError("not a duration", f"lifeboat_max_loss={text}", "write it like 90s, 15m or 2h")
    return value * unit


def services_of(error: TargetErrors, services: Services, picked: Sequence[str]) -> dict[str, LifeboatError]:
    """The services that the errors of a target are about, groups with all their members."""
    found: dict[str, LifeboatError] = {}
    for owner, members in units(services, picked):
        for one in error.errors:
            if one.where == owner:
                found.update(dict.fromkeys(members, one))
    return found


def judge(services: Services, plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]], points: Mapping[str, Sequence[Any]],
          max_loss: str, partial: bool, inventory: str = "") -> dict[str, Any]:
    """``answers``: service -> what snapshot_restore said in check mode; ``points``: service -> all its points.

    Gives {"stop", "again" (preflight once more, with the new ``plan``), "lines" (every finding with its remedy), "message", "remedy",
    "left_out" (service -> verdict, message, remedy, root), "plan", "errors": number, "warnings": number}.
    """
    resolved = {service: entry["resolution"] for service, entry in plan["services"].items() if entry.get("resolution")}
    errors: dict[str, LifeboatError] = {}
    lines: list[str] = []
    warnings = 0
    damaged: list[str] = []
    for service in plan["order"]:
        answer = answers.get(service) or {}
        if answer.get("unreachable"):
            errors[service] = LifeboatError("its host does not answer", f"service {service}", "see why, then run the same command again")
            lines.append(f"error   {errors[service]}")
            continue
        findings = answer.get("findings")
        if not isinstance(findings, list) or (answer.get("failed") and not findings):
            errors[service] = error_of(service, answer)
            lines.append(f"error   {errors[service]}")
            continue
        for finding in findings:
            place = f"{service}.{finding['source']}" if finding.get("source") else service
            lines.append(f"{finding['level']:<7} {place}: {finding['what']}: {finding['where']}; {finding['remedy']}")
            if finding["level"] != "error":
                warnings += 1
                continue
            errors.setdefault(service, LifeboatError(str(finding["what"]), f"{place}: {finding['where']}", str(finding["remedy"])))
            if finding.get("code") == "damage" and service not in damaged:
                damaged.append(service)
    told: dict[str, Any] = {
        "stop": False, "again": False, "lines": lines, "message": "", "remedy": "", "left_out": {}, "plan": dict(plan),
        "errors": len(errors), "warnings": warnings,
    }
    if not errors:
        return told
    first = next(iter(errors.values()))
    told.update(message=str(first), remedy=first.remedy)
    if resolved and damaged and set(damaged) == set(errors):
        try:
            older = fall_back(services, resolved, points, damaged, seconds_of(max_loss), inventory)
        except TargetErrors as error:
            lines += [f"next    {one}" for one in error.errors]
            told["remedy"] = error.errors[0].remedy
        except (TargetError, ConfigError) as error:
            lines.append(f"next    {error}")
        else:
            told.update(again=True, plan=_with(plan, older))
            lines += [f"next    {service}: goes back to {new['point']} instead, {new['lost_seconds']:g}s more are lost" for service, new in older.items()]
            return told
    out = left_out(services, plan["order"], errors, "preflight")
    told["left_out"] = out
    told["stop"] = not partial or len(out) == len(plan["order"])
    if not told["stop"]:
        told["plan"] = without(services, plan, out, [service for service in errors if (answers.get(service) or {}).get("unreachable")])
    else:
        blame = next(iter(errors))
        for service in plan["order"]:
            out.setdefault(service, {
                "verdict": "skipped", "message": f"stopped before anything was touched: preflight of {blame} failed", "remedy": told["remedy"], "root": None,
            })
            if out[service]["verdict"] == "blocked":
                out[service].update(verdict="skipped")
    return told


def without(services: Services, plan: Mapping[str, Any], out: Mapping[str, Any], gone: Sequence[str]) -> dict[str, Any]:
    """The plan without those who are left out. They still run on their former data, so whoever they write into is restored
    while they are stopped, like any dependant outside the pick; a host that does not answer cannot be told to stop.
    """
    table = {service: dict(entry) for service, entry in plan["services"].items() if service not in out}
    dependants = list(plan.get("dependants") or [])
    for service in out:
        into = [edge["service"] for edge in plan["services"][service]["waits_for"] if edge["service"] in table]
        if into and service not in gone:
            # the last of them in the order is the first to be stopped
            last = max(into, key=plan["order"].index)
            dependants.append({"service": service, "chain": [service, last], "action": "stop", "of": last})
    for entry in table.values():
        entry["waits_for"] = [edge for edge in entry["waits_for"] if edge["service"] in table]
        entry["needed_by"] = [other for other in entry.get("needed_by") or [] if other in table]
    # in the order in which they start
    dependants.sort(key=lambda dependant: topological_order(services).index(dependant["service"]))
    return {
        **plan, "services": table, "order": [service for service in plan["order"] if service not in out], "dependants": dependants,
        "islands": [[service for service in island if service not in out] for island in plan["islands"]],
    }


def _with(plan: Mapping[str, Any], older: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The plan with other points for some services."""
    table = {
        service: ({**entry, "resolution": older[service], "bytes": older[service]["bytes"]} if service in older else entry)
        for service, entry in plan["services"].items()
    }
    said = [f"{service} goes back to {new['point']}: {new['fallback_from']} does not verify; {new['lost_seconds']:g}s more are lost"
            for service, new in older.items()]
    return {**plan, "services": table, "bytes": sum(entry["bytes"] for entry in table.values()), "warnings": [*(plan.get("warnings") or []), *said]}


def note(run: RunDirectory, found: Mapping[str, Any]) -> None:
    """Keep a decision in the run: verdicts of who is left out, the changed plan, and all findings in the journal."""
    run.journal().append("preflight", data={key: found[key] for key in ("lines", "errors", "warnings", "stop", "again")})
    if found["again"]:
        # the run's own parts (who, when, resumes) stay; what was planned is replaced
        files.replace_json(run.file("plan.json"), {**run.plan, **{key: found["plan"][key] for key in ("services", "bytes", "warnings")}}, indent=2)
        return
    if found["left_out"] and not found["stop"]:
        kept = ("services", "order", "islands", "dependants")
        files.replace_json(run.file("plan.json"), {**run.plan, **{key: found["plan"][key] for key in kept}}, indent=2)
    for service, verdict in found["left_out"].items():
        run.phase(service, "preflight")
        run.verdict(service, verdict["verdict"], verdict["message"], verdict["remedy"], verdict["root"], failure=str(verdict.get("failure") or ""))
