# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a run took on one service, put together from its marks and from what the calls on its host measured."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils import meter
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import chain, timings, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

Mark = dict[str, Any]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def human(plan: dict[str, Any], marks: list[Mark], origin: Mark, last: Mark) -> dict[str, Any]:
    """{"seconds", "waits": [{"after", "seconds"}]}: waiting for people before this run and in it."""
    attempts = [one for one in plan.get("chain") or [] if isinstance(one, dict)]
    found = chain.waits(attempts, float(origin["time"]))
    inside = timings.human_wait(marks, last)
    if inside:
        found.append({"after": "the begin of this run", "seconds": inside})
    return {"seconds": round(sum(float(one["seconds"]) for one in found), 3), "waits": found}


def detect(plan: dict[str, Any], origin: Mark) -> float:
    """Seconds from the incident to the first attempt to do something about it."""
    began = words.from_iso(_mapping(plan.get("incident_started")).get("time"))
    attempts = plan.get("chain") or []
    first = words.from_iso(_mapping(attempts[0]).get("began")) if attempts else None
    return round(max(0.0, (float(origin["time"]) if first is None else first) - began), 3) if began is not None else 0.0


def of_service(kept: dict[str, Any], phases: list[dict[str, Any]], total: float) -> dict[str, Any]:
    """The part ``measured`` of run.json: {"queue_seconds", "steps", "bytes", "usage", "calls"}.

    queue: seconds of ``total`` in which the service was in no phase, so that nobody worked for it or said whom it waits for.
    """
    calls = [one for one in kept.get("calls") or [] if isinstance(one, dict)]
    told = meter.combined(_mapping(one.get("measured")) for one in calls)
    return {
        "queue_seconds": round(max(0.0, total - sum(float(phase["seconds"]) for phase in phases)), 3), **told,
        "usage": meter.combined_usage(_mapping(one.get("usage")) for one in calls), "calls": len(calls),
    }


def waited_for(phases: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """phase -> {"seconds", "waited_for": the service it waited for longest, or None}, for the ledger."""
    found: dict[str, dict[str, Any]] = {}
    for phase in phases:
        one = found.setdefault(str(phase["name"]), {"seconds": 0.0, "waited_for": None})
        one["seconds"] = round(one["seconds"] + float(phase["seconds"]), 3)
        longest = max(phase["waited_for"], key=lambda wait: float(wait["seconds"]), default=None)
        if longest is not None:
            one["waited_for"] = str(longest["service"])
    return found


def recovery(plan: dict[str, Any], planned: dict[str, Any], origin: Mark, done: Mark, waited: float, usable: bool) -> dict[str, Any]:
    """{"limit", "raw", "net", "met"}: seconds from the incident to the verdict, with and without waiting for people, against the RTO."""
    limit = planned.get("rto") if isinstance(planned.get("rto"), (int, float)) else None
    began = words.from_iso(_mapping(plan.get("incident_started")).get("time"))
    if began is None:
        return {"limit": limit, "raw": None, "net": None, "met": None}
    raw = round(max(0.0, float(origin["time"]) - began) + timings.seconds_between(origin, done), 3)
    met = raw <= limit if limit is not None and usable else None
    return {"limit": limit, "raw": raw, "net": round(max(0.0, raw - waited), 3), "met": met}


def for_ledger(run: RunDirectory, service: str, verdict: str) -> dict[str, Any]:
    """What the ledger's entry ``measured`` takes from the controller, for a service that is about to get, or just got, its verdict."""
    state, plan, kept = run.state(service) or {}, run.plan, run.kept(service)
    word = str(state.get("verdict") or ("degraded" if verdict in ("verified", "restored") and state.get("degraded_by") else verdict))
    marks = timings.clean(run.timings(service))
    now = timings.now_mark()
    origin = next((mark for mark in marks if mark["event"] == "begun"), None) or (marks[0] if marks else now)
    done = timings.verdict_mark(marks, service) or now
    phases = timings.phases(marks, service, origin, done)
    planned = words.table_of_services(plan.get("services")).get(service, {})
    waited = human(plan, marks, origin, done)
    total = timings.seconds_between(origin, done)
    told = of_service(kept, phases, total)
    forecast = _foretold(planned)
    return {
        "verdict": word, "seconds": total, "phases": waited_for(phases), "steps": told["steps"], "bytes": told["bytes"], "usage": told["usage"],
        "failure": state.get("failure") if word in words.UNDONE else None, "human_seconds": waited["seconds"],
        "before": {"detect": detect(plan, origin), "queue": told["queue_seconds"]},
        "recovery": {**recovery(plan, planned, origin, done, waited["seconds"], word in words.USABLE), "noop": _noop(kept)},
        "chain": [str(one["run"]) for one in plan.get("chain") or [] if isinstance(one, dict) and one.get("run")],
        **({"forecast": forecast} if forecast is not None else {}),
    }


def _foretold(planned: dict[str, Any]) -> float | None:
    """Seconds of work that the plan foretold: the forecast itself counts the waiting for others, too."""
    phases = _mapping(_mapping(planned.get("forecast")).get("phases"))
    known = [float(one["seconds"]) for one in phases.values() if isinstance(one, dict) and isinstance(one.get("seconds"), (int, float))]
    return round(sum(known), 3) if phases and len(known) == len(phases) else None


def _noop(kept: dict[str, Any]) -> bool:
    return any(_mapping(kept.get(subject)).get("noop") is True for subject in ("staged", "live"))
