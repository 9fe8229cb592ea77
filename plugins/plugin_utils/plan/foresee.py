# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The forecast after preflight: with what hosts said they would move, over the way they measured; and the gate on the RTO."""

from __future__ import annotations

import time
from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError

from ..run import words
from .forecast import Inputs, forecast
from .history import Past
from .judge import stop
from .urgency import giving_way

#: What the catalog's ``rto_gate`` and ``lifeboat_rto_gate`` may say.
WARN, REFUSE = GATES = ("warn", "refuse")
#: What the plan keeps of an estimate.
_MOVED = ("bytes", "reused", "written", "fetched")


def after_preflight(document: Mapping[str, Any], plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]], past: Sequence[Past],
                    run: Mapping[str, Any], incident: Any = None, now: float | None = None) -> dict[str, Any]:
    """The plan with "moves", "forecast", "critical_path", and in each entry "estimate", "forecast", "rto_at_risk" and "gives_way" (urgency.py).

    answers: what preflight of each service said. run: of plan.json, for when it began; incident: when the RTO's clock did.
    """
    order = list(plan["order"])
    estimates = {service: answer["estimate"] for service, answer in answers.items() if service in order and isinstance(answer.get("estimate"), Mapping)}
    began = words.from_iso(run.get("started"))
    elapsed = None if began is None else max(0.0, (time.time() if now is None else now) - began)
    told = words.from_iso((incident or {}).get("time"))
    foretold = forecast(Inputs(
        document["services"], order, plan["islands"], {service: int(plan["services"][service].get("bytes") or 0) for service in order}, past=past,
        forks=((plan.get("forecast") or {}).get("forks") or {}).get("given") or plan.get("forks"), estimates=estimates,
        untouched=_untouched(plan, answers), elapsed=None if elapsed is None else round(elapsed, 3),
        before=max(0.0, began - told) if began is not None and told is not None else 0.0, rounds=int(plan.get("rounds") or 1),
    ))
    table = {}
    for service in order:
        entry = plan["services"][service]
        table[service] = {
            **entry, **foretold["services"][service], "estimate": estimates.get(service),
            "resolution": {**entry["resolution"], "why": why(entry["resolution"], (answers.get(service) or {}).get("resumes"))},
        }
    second = giving_way(document["services"], table, plan["islands"])
    table = {service: {**entry, "gives_way": service in second} for service, entry in table.items()}
    return {
        **plan, "services": table, "forecast": foretold["forecast"], "critical_path": foretold["critical_path"],
        "moves": {key: sum(int(estimate.get(key) or 0) for estimate in estimates.values()) for key in _MOVED} if estimates else None,
    }


def why(resolution: Mapping[str, Any], resumes: Any = None) -> str:
    """Why a service goes back to what it goes back to, in words; ``resumes``: the unfinished restore that is gone on with."""
    asked, point = str(resolution.get("target") or "latest"), resolution.get("point")
    if not point:
        return "it has no data"
    if resumes:
        return "kept from the unfinished restore that is gone on with"
    if resolution.get("fallback_from"):
        return f"{resolution['fallback_from']} does not verify, and lifeboat_max_loss allows this older point"
    words_of = {"latest": "the newest complete point", "proven": "the newest point that a restore or drill has proven"}
    reason = words_of.get(asked) or ("the newest state before the time asked for" if words.from_iso(asked) is not None else "as asked for")
    if resolution.get("at") != point:
        reason += ", with its log"
    others = [name for name in resolution.get("together") or [] if name]
    return f"{reason} of {', '.join(others)} together" if len(others) > 1 else reason


def _untouched(plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Services whose data is the target already, and that of all they build on: they are left running, unless they are not well."""
    found: set[str] = set()
    forced = bool((plan.get("flags") or {}).get("force"))
    for service in plan["order"]:
        needed = [edge["service"] for edge in plan["services"][service]["waits_for"]]
        if (answers.get(service) or {}).get("data_current") and not forced and all(one in found for one in needed):
            found.add(service)
    return frozenset(found)


def slim(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan as tasks take it along: what only people and the next forecast read stays in plan.json."""
    def part(entry: Mapping[str, Any]) -> dict[str, Any]:
        told = entry.get("forecast") or {}
        return {**{key: value for key, value in entry.items() if key != "estimate"}, "forecast": {key: told[key] for key in told if key != "phases"}}

    return {**plan, "services": {service: part(entry) for service, entry in plan["services"].items()}}


def refusals(document: Mapping[str, Any], plan: Mapping[str, Any]) -> list[LifeboatError]:
    """One error for each service that the forecast says is late, where its tier gates on it and the command line does not say otherwise."""
    said = str((plan.get("flags") or {}).get("rto_gate") or "")
    found: list[LifeboatError] = []
    for service in plan["order"]:
        entry = plan["services"][service]
        tier = str(entry.get("tier") or "")
        gate = said or str((document.get("tiers") or {}).get(tier, {}).get("rto_gate") or WARN)
        if not entry.get("rto_at_risk") or gate != REFUSE:
            continue
        told = entry["forecast"]
        why = "lifeboat_rto_gate=refuse was given" if said else f"tier {tier} has rto_gate: refuse"
        found.append(ConfigError(
            f"the forecast misses the RTO of {words.duration(float(entry['rto']))}: it takes {words.duration(told['seconds'])}, "
            f"between {words.duration(told['low'])} and {words.duration(told['high'])}, and {why}",
            f"service {service}", _remedy(told["longest"]),
        ))
    return found


def refuse(told: dict[str, Any], errors: Sequence[LifeboatError]) -> None:
    """Stop a run that preflight would let go on; ``told`` as judge() gives it."""
    first = errors[0]
    told.update(message=str(first), remedy=first.remedy, errors=told["errors"] + len(errors),
                lines=[*told["lines"], *(f"error   {error}" for error in errors)])
    stop(told, told["plan"], f"{first.where}: {first.what}")


def _remedy(longest: Mapping[str, Any]) -> str:
    faster = f"make {longest['phase']} of {longest['service']} faster ({words.duration(longest['seconds'])} of it)"
    return f"{faster}, or go on all the same with -e lifeboat_rto_gate={WARN}"
