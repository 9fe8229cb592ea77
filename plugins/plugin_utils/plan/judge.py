# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""From the preflight of every service to one decision: go on, go on with fewer, try older points, or stop with all findings."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError, TargetError
from ansible_collections.lifeboat.recovery.plugins.module_utils.findings import finding

from ..catalog.graph import Services
from ..run import causes, files, words
from ..run.directory import RunDirectory
from . import refusals, together
from .order import note_stops, topological_order
from .target import TargetErrors, fall_back, units

#: Rounds of preflight in a run, as playbooks/tasks/preflight_again.yml has them: no point that none of them looked at is restored.
ROUNDS = 3
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
          max_loss: str, partial: bool, inventory: str = "", never: Mapping[str, Any] | None = None, own: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """``answers``: service -> what snapshot_restore said in check mode; ``points``: service -> all its points; ``never``: the catalog's
    never_restore_into; ``own``: findings about the controller itself.

    Gives {"stop", "again" (preflight once more, with the new ``plan``), "lines" (every cause with its remedy, once), "findings" (service ->
    those that the hosts did not tell), "groups" (as causes.grouped), "message", "remedy", "left_out" (service -> verdict, message, remedy,
    root), "plan", "errors": number of services, "warnings": number of findings}.
    """
    resolved = {service: entry["resolution"] for service, entry in plan["services"].items() if entry.get("resolution")}
    found = _collect(plan, answers, never or {}, own)
    before = _before(plan)
    order = [*before, *plan["order"]]
    groups = causes.grouped({**one, "service": service} for service in order for one in (before.get(service) or found[service]))
    lines = [causes.line(group, len(order)) for group in groups]
    warnings = sum(one["level"] != "error" for one in (one for each in found.values() for one in each))
    errors: dict[str, LifeboatError] = {}
    for service in plan["order"]:
        mine = [group for group in groups if group["level"] == "error" and service in group["services"]]
        if mine:
            place = f"{mine[0]['places'][0]}: " if len(mine[0]["places"]) == 1 else ""
            errors[service] = LifeboatError(str(mine[0]["what"]), f"{place}{causes.where(mine[0])}", str(mine[0]["remedy"]))
    damaged = [service for service in errors if any(one["level"] == "error" and one.get("code") == "damage" for one in found[service])]
    said = {service: [one for one in found[service] if one not in (answers.get(service) or {}).get("findings", [])] for service in plan["order"]}
    told: dict[str, Any] = {
        "stop": False, "again": False, "lines": lines, "groups": groups,
        "findings": {service: more for service, more in said.items() if more}, "message": "", "remedy": "", "left_out": {}, "plan": dict(plan),
        "errors": len(errors), "warnings": warnings,
    }
    if before and not errors:
        first = refusals.told_once({service: _error(service, more[0]) for service, more in before.items()})[0]
        told.update(message=str(first), remedy=first.remedy)
        stop(told, plan, f"preflight of {next(iter(before))} failed")
    if not errors:
        return told
    first = next(iter(errors.values()))
    told.update(message=str(first), remedy=first.remedy)
    if resolved and damaged and set(damaged) == set(errors) and not before:
        try:
            older = fall_back(services, resolved, points, damaged, seconds_of(max_loss), inventory)
        except TargetErrors as error:
            lines += [f"next    {one}" for one in error.errors]
            told["remedy"] = error.errors[0].remedy
        except (TargetError, ConfigError) as error:
            lines.append(f"next    {error}")
        else:
            if int(plan.get("rounds") or 1) < ROUNDS:
                told.update(again=True, plan=_with(plan, older))
                lines += [f"next    {service}: goes back to {new['point']} instead, {new['lost_seconds']:g}s more are lost" for service, new in older.items()]
                return told
            told["remedy"] = "see with the verify playbook what is wrong with the repository, then name an older point as lifeboat_target"
            lines.append(f"next    {ROUNDS} points in a row do not verify: {told['remedy']}")
    out = refusals.left_out(services, plan["order"], errors, "preflight")
    told["left_out"] = out
    told["stop"] = bool(before) or not partial or len(out) == len(plan["order"])
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


def _before(plan: Mapping[str, Any]) -> together.Findings:
    """service -> findings of those who could not even be planned, and stop the run."""
    classes: list[type[LifeboatError]] = LifeboatError.__subclasses__()
    kinds = {kind.code: kind.kind for kind in classes}
    return {
        service: [{"level": "error", "kind": kinds.get(str(error.get("code")), "host"), "source": None, "cause": "", **error,
                   "where": refusals.place_of(service, _error(service, error)) or "its host"}]
        for service, error in (plan.get("stopping") or {}).items()
    }


def _error(service: str, told: Mapping[str, Any]) -> LifeboatError:
    return LifeboatError(str(told["what"]), str(told.get("where") or service), str(told.get("remedy") or ""))


def _collect(
    plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]], never: Mapping[str, Any], own: Sequence[Mapping[str, Any]],
) -> together.Findings:
    """service -> its findings; a host or a module that gave no answer is one too."""
    hosts = {service: str(entry.get("host") or "") for service, entry in plan["services"].items()}
    quiet = dict(together.silent(plan["order"], answers, hosts))
    spoken = {service: answers[service] for service in plan["order"] if service not in quiet and _told(answers.get(service) or {})}
    found = together.look(spoken, never, words.from_iso(plan.get("target")) is not None)
    for service in plan["order"]:
        if service in quiet:
            found[service] = [quiet[service]]
        elif service not in spoken:
            error = dict((answers.get(service) or {}).get("error") or {})
            broken = LifeboatError(str(error["what"]), str(error.get("where") or "its host"), str(error.get("remedy") or "")) if error.get("what") else \
                LifeboatError(" ".join(str((answers.get(service) or {}).get("msg") or "the host gave no answer").split()), "its host", "run it again with -vvv")
            found[service] = [finding("error", broken)]
        found[service] += [dict(one) for one in own]
    return found


def _told(answer: Mapping[str, Any]) -> bool:
    findings = answer.get("findings")
    return isinstance(findings, list) and bool(findings or not answer.get("failed"))


def stop(told: dict[str, Any], plan: Mapping[str, Any], why: str) -> None:
    """Everybody who has no verdict yet is skipped: the run ends here."""
    told["stop"] = True
    for service in plan["order"]:
        verdict = told["left_out"].setdefault(service, {
            "verdict": "skipped", "message": f"stopped before anything was touched: {why}", "remedy": told["remedy"], "root": None,
        })
        if verdict["verdict"] == "blocked":
            verdict.update(verdict="skipped")


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
    # in the order in which they start
    dependants.sort(key=lambda dependant: topological_order(services).index(dependant["service"]))
    note_stops(table, dependants)
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
    return {**plan, "services": table, "bytes": sum(entry["bytes"] for entry in table.values()), "warnings": [*(plan.get("warnings") or []), *said],
            "rounds": int(plan.get("rounds") or 1) + 1}


#: What a decision may change of plan.json; the run's own parts (who, when, resumes) stay.
_REPLACED = ("services", "order", "islands", "dependants", "bytes", "warnings", "moves", "forecast", "critical_path")


def keep(run: RunDirectory, plan: Mapping[str, Any]) -> None:
    """Write what was decided into the run's plan.json."""
    run.replace_plan({key: plan[key] for key in _REPLACED if key in plan})


def note(run: RunDirectory, found: Mapping[str, Any]) -> None:
    """Keep a decision in the run: verdicts of who is left out, the changed plan, and all findings in the journal."""
    run.journal().append("preflight", data={key: found[key] for key in ("lines", "errors", "warnings", "stop", "again")})
    for service, more in found["findings"].items():
        run.keep(service, "judged", {"findings": more})
    keep(run, found["plan"])
    run.journal().append("planned", data={"plan": files.digest(run.file("plan.json"))})
    if found["again"]:
        return
    for service, verdict in found["left_out"].items():
        run.phase(service, "preflight")
        run.verdict(service, verdict["verdict"], verdict["message"], verdict["remedy"], verdict["root"], failure=str(verdict.get("failure") or ""))
