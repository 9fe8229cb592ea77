# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How long a restore will take, from what earlier runs took. Without history there is no forecast, and it says so."""

from __future__ import annotations

from statistics import median
from typing import Any, Mapping, Sequence

from ..catalog.graph import Services
from .order import levels, nearest_picked, topological_order

#: Earlier runs of one service, newest last: {"bytes": int, "phases": {phase: seconds}}.
History = Mapping[str, Sequence[Mapping[str, Any]]]

#: Only the newest runs count; a service changes.
WINDOW = 5
#: Phases that only wait for others; the graph already accounts for them.
WAITING = ("plan", "island", "gate", "verdict")
#: Phases that all services do at once, before the first of an island goes on.
TOGETHER = ("preflight", "stage")


def _factor(runs: int) -> float:
    """How far a forecast from so few runs may be off: double or half after one, a fifth after five. A rule of thumb, and said to be one."""
    return 1.0 + 1.0 / runs


def forecast_service(service: str, runs: Sequence[Mapping[str, Any]], size: int = 0) -> dict[str, Any]:
    """{"seconds", "low", "high", "stage_seconds", "runs", "reason"}: medians of the newest runs; the stage grows with the bytes.

    low, high: all that was measured lies between them, widened by _factor(). ``stage_seconds`` is preflight and stage, which all
    services do at once. seconds is null, with the reason, when no earlier run measured this service.
    """
    measured = [run for run in runs if isinstance(run.get("phases"), Mapping) and run["phases"]][-WINDOW:]
    if not measured:
        return {"seconds": None, "low": None, "high": None, "stage_seconds": None, "runs": 0, "reason": f"no measured restore or drill of {service} yet"}
    stages = []
    for run in measured:
        stage = float(run["phases"].get("stage") or 0)
        before = int(run.get("bytes") or 0)
        stages.append((stage * size / before if size and before else stage) + float(run["phases"].get("preflight") or 0))
    rest = [sum(float(seconds) for phase, seconds in run["phases"].items() if phase not in (*WAITING, *TOGETHER)) for run in measured]
    stage_seconds = round(median(stages), 3)
    seconds, totals, factor = round(stage_seconds + median(rest), 3), [one + other for one, other in zip(stages, rest)], _factor(len(measured))
    return {
        "seconds": seconds, "low": round(min(*totals, seconds / factor), 3), "high": round(max(*totals, seconds * factor), 3),
        "stage_seconds": stage_seconds, "runs": len(measured), "reason": f"median of {len(measured)} measured run{'s' if len(measured) > 1 else ''}",
    }


def critical_path(services: Services, picked: Sequence[str], islands: Sequence[Sequence[str]],
                  forecasts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The chain that decides when the last service is there: {"by", "services", "seconds", "low", "high", "reason"}.

    by "history": an island starts when its slowest stage is done, then each service follows its requirements. by
    "levels" when any picked service has no history: the longest chain, and no seconds.
    """
    order = topological_order(services, picked)
    waits = nearest_picked(services, order)
    unknown = [service for service in order if forecasts[service]["seconds"] is None]
    if unknown:
        depth = levels(services, order)
        chain = _chain(order, waits, dict.fromkeys(order, 1.0), {service: float(depth[service] + 1) for service in order})
        return {"by": "levels", "services": chain, "seconds": None, "low": None, "high": None,
                "reason": f"no measured times of {', '.join(unknown)}: the longest chain, counted"}

    def finish(bound: str) -> tuple[dict[str, float], dict[str, float]]:
        """(own seconds after the stage, when each is done), all at one bound of their forecasts."""
        scale = {service: float(forecasts[service][bound]) / (float(forecasts[service]["seconds"]) or 1.0) for service in order}
        begin: dict[str, float] = {}
        for island in islands:
            begin.update(dict.fromkeys(island, max(float(forecasts[service]["stage_seconds"]) * scale[service] for service in island)))
        own = {service: (float(forecasts[service]["seconds"]) - float(forecasts[service]["stage_seconds"])) * scale[service] for service in order}
        done: dict[str, float] = {}
        for service in order:
            done[service] = max([begin[service], *(done[needed] for needed in waits[service])]) + own[service]
        return own, done

    own, done = finish("seconds")
    low, high = (round(max(finish(bound)[1].values(), default=0.0), 3) for bound in ("low", "high"))
    return {"by": "history", "services": _chain(order, waits, own, done), "seconds": round(max(done.values(), default=0.0), 3), "low": low, "high": high,
            "reason": "medians of measured runs; staging of all services at once, each island after its slowest stage"}


def _chain(order: Sequence[str], waits: Mapping[str, Sequence[str]], own: Mapping[str, float], finish: Mapping[str, float]) -> list[str]:
    """From the service that finishes last back through the requirement that it waited for longest."""
    if not order:
        return []
    current = max(order, key=lambda service: (finish[service], service))
    chain = [current]
    while waits[current]:
        before = max(waits[current], key=lambda service: (finish[service], service))
        if finish[before] + own[current] < finish[current] - 1e-6:
            break  # it waited for its island's staging, not for a requirement
        chain.append(before)
        current = before
    return chain[::-1]
