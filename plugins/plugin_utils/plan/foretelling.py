# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The forecast of a restore as an operator reads it, or the whole plan as JSON."""

from __future__ import annotations

import json
from typing import Any, Mapping

from ..run import words

#: How a step of the critical path could be made shorter.
_HOW = {
    "stage": "stage it before it is needed (lifeboat_until=staged), or let it move less", "start": "prewarm it, or let it start faster",
    "health": "prewarm it, so that it is ready sooner", "invariants": "make its checks cheaper", "cutover": "make its server stop and start faster",
    "stop": "let it stop faster", "protect": "make its preflight of captures cheaper",
}
#: Shorter steps are not shown, in seconds.
_SHOWN = 0.1
#: Services that are shown one by one.
_ROWS = 40


def render(plan: Mapping[str, Any], form: str = "text") -> str:
    """The lines, or JSON."""
    return json.dumps(plan, indent=2, sort_keys=True) if form == "json" else "\n".join(lines(plan))


def lines(plan: Mapping[str, Any]) -> list[str]:
    """What is moved, how long it takes per service and phase, what decides it, and what would make it faster."""
    told, moves = plan["forecast"], plan.get("moves")
    found = ["Forecast:", *_targets(plan)]
    if moves:
        kept = f", {words.size(moves['reused'])} of {words.size(moves['bytes'])} are in place" if moves["reused"] else ""
        found.append(f"  to move  {words.size(moves['written'])}, of it {words.size(moves['fetched'])} stored bytes over the link{kept}")
    for host, rate in sorted(told["links"].items()):
        bound = "it decides how long staging takes" if told["bound"].get(host) == "link" else "the host's cores decide how long staging takes"
        found.append(f"  link     {host} reads {words.size(rate)}/s from the repository; {bound}")
    if told["seconds"] is None:
        return [*found, f"  forecast none: {words.one_line(told['reason'], 200)}"]
    found.append(f"  forecast {between(told)} (80 %), from {told['reason']}")
    found += _table(plan)
    path = plan["critical_path"]
    found.append("  critical " + " > ".join(_step(step) for step in path["steps"] if step["seconds"] >= _SHOWN))
    for advice in told["advice"]:
        where = f"{words.one_line(advice['service'], 60)} {advice['phase']}"
        found.append(f"  faster   {where}: up to {words.duration(advice['gain'])} of the whole; {_HOW[advice['phase']]}")
    forks = told["forks"]
    if forks["costs"] > 0:
        number = forks["services"]
        found.append(f"  forks    {forks['given']} for {number} services cost {words.duration(forks['costs'])}; run with --forks {number}")
    so_far = told["accuracy"]
    if so_far["runs"]:
        many = f"{so_far['runs']} forecasts were" if so_far["runs"] != 1 else "1 forecast was"
        found.append(f"  so far   {many} off by {100 * so_far['median_error']:.0f} % (median), {so_far['inside']} of {so_far['runs']} inside the interval")
    late = [name for name in plan["order"] if plan["services"][name].get("rto_at_risk")]
    if late:
        found.append("  warning: by the forecast these miss their RTO: " + ", ".join(late))
    return found


def _step(step: Mapping[str, Any]) -> str:
    service = words.one_line(step["service"], 60) + " " if step["service"] else ""
    return f"{service}{step['phase']} {words.duration(step['seconds'])}"


def between(told: Mapping[str, Any]) -> str:
    """A forecast with its interval."""
    return f"{words.duration(told['seconds'])}, between {words.duration(told['low'])} and {words.duration(told['high'])}"


def _targets(plan: Mapping[str, Any]) -> list[str]:
    """What services go back to and why, those together that agree."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in plan["order"]:
        resolution = plan["services"][name]["resolution"]
        if resolution.get("at"):
            groups.setdefault((str(resolution["at"]), str(resolution["why"])), []).append(name)
    return [f"  back to  {words.one_line(at, 100)}, {why}" + (f": {words.one_line(', '.join(names), 200)}" if len(groups) > 1 else "")
            for (at, why), names in groups.items()]


def _table(plan: Mapping[str, Any]) -> list[str]:
    names = list(plan["order"])
    width = max([len(name) for name in names] + [7])
    rows = []
    for name in names[:_ROWS]:
        told = plan["services"][name]["forecast"]
        phases = ", ".join(f"{phase} {words.duration(one['seconds'])}" for phase, one in told["phases"].items() if one["seconds"] >= _SHOWN)
        rows.append(f"    {name:<{width}}  there after {between(told)}: {phases or told['reason']}")
    return rows + ([f"    … and {len(names) - _ROWS} more, in plan.json"] if len(names) > _ROWS else [])
