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


def forecast_service(service: str, runs: Sequence[Mapping[str, Any]], size: int = 0) -> dict[str, Any]:
    """{"seconds", "stage_seconds", "runs", "reason"}: medians of the newest runs; the stage grows with the bytes.

    seconds is null, with the reason, when no earlier run measured this service.
    """
    measured = [run for run in runs if isinstance(run.get("phases"), Mapping) and run["phases"]][-WINDOW:]
    if not measured:
        return {"seconds": None, "stage_seconds": None, "runs": 0, "reason": f"no measured restore or drill of {service} yet"}
    stages = []
    for run in measured:
        stage = float(run["phases"].get("stage") or 0)
        before = int(run.get("bytes") or 0)
        stages.append(stage * size / before if size and before else stage)
    rest = [sum(float(seconds) for phase, seconds in run["phases"].items() if phase != "stage" and phase not in WAITING) for run in measured]
    stage_seconds = round(median(stages), 3)
    return {
        "seconds": round(stage_seconds + median(rest), 3), "stage_seconds": stage_seconds, "runs": len(measured),
        "reason": f"median of {len(measured)} measured run{'s' if len(measured) > 1 else ''}",
    }


def critical_path(services: Services, picked: Sequence[str], islands: Sequence[Sequence[str]],
                  forecasts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The chain that decides when the last service is there: {"by", "services", "seconds", "reason"}.

    by "history": an island starts when its slowest stage is done, then each service follows its requirements. by
    "levels" when any picked service has no history: the longest chain, and no seconds.
    """
    order = topological_order(services, picked)
    waits = nearest_picked(services, order)
    unknown = [service for service in order if forecasts[service]["seconds"] is None]
    if unknown:
        depth = levels(services, order)
        chain = _chain(order, waits, dict.fromkeys(order, 1.0), {service: float(depth[service] + 1) for service in order})
        return {"by": "levels", "services": chain, "seconds": None, "reason": f"no measured times of {', '.join(unknown)}: the longest chain, counted"}
    begin = {}
    for island in islands:
        staged = max(float(forecasts[service]["stage_seconds"]) for service in island)
        begin.update(dict.fromkeys(island, staged))
    own = {service: float(forecasts[service]["seconds"]) - float(forecasts[service]["stage_seconds"]) for service in order}
    finish: dict[str, float] = {}
    for service in order:
        finish[service] = max([begin[service], *(finish[needed] for needed in waits[service])]) + own[service]
    chain = _chain(order, waits, own, finish)
    return {"by": "history", "services": chain, "seconds": round(max(finish.values(), default=0.0), 3),
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
