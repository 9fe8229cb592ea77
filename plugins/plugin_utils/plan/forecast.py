# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How long a restore will take: what earlier runs measured, what this one moves, and over how fast a way; with what it is uncertain by.

Twice: with the plan, from the catalogued sizes, and after preflight, from what hosts said they would move and how fast the repository
answered. Without any history there is no forecast, and it says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Mapping, Sequence

from ..catalog.graph import Services
from . import numbers
from .fit import Fit, Load, at_pace, fit
from .history import Past
from .order import levels, nearest_picked
from .simulate import UP, Played, Step, World, gains, play

#: Measured forecasts that the interval is calibrated with, and pieces of advice.
CALIBRATION = 10
ADVICE = 3
#: What a service goes through, besides staging, that is left running because nothing is left to do.
_LEFT_RUNNING = ("island", "verdict")
#: Seconds from the end of preflight to the first stage, until a run has measured it.
HANDOVER = 0.5


@dataclass
class Inputs:
    """estimates: service -> what preflight said it moves (module_utils/pipeline/estimate.py), sizes: service -> bytes of its point.

    untouched: services where nothing is left to do. elapsed: seconds since the run began, when preflight has ended; None before it.
    before: seconds from the incident to the begin of this run. rounds: of preflight, because points were given up.
    """

    services: Services
    order: Sequence[str]
    islands: Sequence[Sequence[str]]
    sizes: Mapping[str, int]
    past: Sequence[Past] = ()
    forks: int | None = None
    estimates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    untouched: frozenset[str] = frozenset()
    elapsed: float | None = None
    before: float = 0.0
    rounds: int = 1


def forecast(given: Inputs) -> dict[str, Any]:
    """{"forecast", "critical_path", "services": {service: {"forecast", "rto_at_risk"}}}: what build() puts into the plan.

    forecast: {"seconds", "low", "high" (80 %), "runs", "reason", "elapsed", "pace", "links": {host: bytes/s}, "bound": {host: "cores"|"link"},
    "forks": {"given", "services", "costs"}, "advice": [{"service", "phase", "seconds", "gain"}], "accuracy": accuracy()}; the forecast of
    a service {"seconds" (from the run's begin to its verdict), "low", "high", "stage_seconds", "phases": {phase: {"seconds", "low",
    "high"}}, "runs", "reason", "longest": the {"service", "phase", "seconds"} that it waits for most}. seconds is null where nothing was measured.
    """
    services = list(given.order)
    pace = _pace(given)
    past = at_pace([run for run in _recoveries(given) if any(service in run["services"] for service in services)], pace)
    if not past:
        return _nothing(given)
    loads = [_load(given, service) for service in services]
    cores = {load.host: float((given.estimates.get(load.service) or {}).get("cores") or 2) for load in loads}
    links = link_rates(given.estimates, _hosts(given))
    fitted = fit(past, loads, cores)
    waits = nearest_picked(given.services, services)
    world = World(
        works=fitted.works(loads, links), phases={
            name: {phase: guess.seconds for phase, guess in found.items() if name not in given.untouched or phase in _LEFT_RUNNING}
            for name, found in fitted.phases.items()
        },
        waits=waits, islands=[part for part in given.islands if part], cores=cores,
        forks=min(given.forks or len(services), max(1, len(services))), levels=fitted.levels, prelude=_prelude(past, given.elapsed),
    )
    played = play(world)
    compared = accuracy(past)
    distance = _distance(fitted, world, played)
    width = numbers.spread(numbers.logs(compared["pairs"]), len(past), distance)
    low, high = numbers.around(played.seconds, width)
    runs = min((fitted.stage_runs[service] for service in services), default=0)
    told = {
        "seconds": round(played.seconds, 3), "low": round(low, 3), "high": round(high, 3), "runs": runs, "reason": _reason(given, fitted, compared),
        "elapsed": given.elapsed, "pace": pace, "links": {host: round(rate) for host, rate in links.items()}, "bound": _bound_by(world),
        "forks": _forks(world, played), "advice": gains(world, played)[:ADVICE],
        "accuracy": {key: compared[key] for key in ("runs", "median_error", "inside")},
    }
    path = played.path()
    chain = list(dict.fromkeys(service for service, phase, _begin, _end in path if phase in UP))
    return {
        "forecast": told,
        "critical_path": {
            "by": "history", "services": chain, "steps": _steps(path, world.prelude), **{key: told[key] for key in ("seconds", "low", "high")},
            "reason": "staging of all services at once, each island after its slowest stage",
        },
        "services": {service: _service(given, service, fitted, played, width) for service in given.order},
    }


def accuracy(past: Sequence[Past]) -> dict[str, Any]:
    """How good forecasts were: {"pairs": [(forecast, measured)], "runs", "median_error", "inside" (how many lay in their interval)}."""
    pairs: list[tuple[float, float]] = []
    inside = 0
    for run in past[::-1]:
        told = run.get("forecast") or {}
        if run.get("seconds") and told.get("seconds") and len(pairs) < CALIBRATION:
            pairs.append((float(told["seconds"]), float(run["seconds"])))
            inside += (told.get("low") or 0.0) <= run["seconds"] <= (told.get("high") or math.inf)
    errors = [abs(found - told) / found for told, found in pairs]
    return {"pairs": pairs, "runs": len(pairs), "median_error": round(median(errors), 4) if errors else None, "inside": inside}


def link_rates(estimates: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, str]) -> dict[str, float]:
    """host -> bytes per second of its whole way to the repository: what its services read in preflight, where they read at the same time."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for service, estimate in estimates.items():
        link = (estimate or {}).get("link")
        if isinstance(link, Mapping) and link.get("seconds") and link.get("bytes"):
            found.setdefault(hosts[service], []).append(link)
    rates = {}
    for host, links in found.items():
        spans = sorted((float(link["began"]), max(float(link["ended"]), float(link["began"]) + float(link["seconds"]))) for link in links)
        union, reached = 0.0, -math.inf
        for begin, end in spans:
            union += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        together = sum(end - begin for begin, end in spans) / union if union else 1.0
        rates[host] = sum(float(link["bytes"]) for link in links) * together / sum(float(link["seconds"]) for link in links)
    return rates


def _recoveries(given: Inputs) -> list[Past]:
    """The runs without what tells nothing of a recovery: the times of a service that has a start and was not started, as when only its data was restored."""
    def told(service: str, measured: Mapping[str, Any]) -> bool:
        return "start" in measured["phases"] or not ((given.services.get(service) or {}).get("runtime") or {}).get("start")

    return [{**run, "services": {name: one for name, one in run["services"].items() if told(name, one)}} for run in given.past]


def _hosts(given: Inputs) -> dict[str, str]:
    return {service: str(given.services[service].get("host")) for service in given.order}


def _pace(given: Inputs) -> float | None:
    """See fit.pace_of: seconds until now for each round of preflight, less those that the longest look at a service took on its host."""
    if given.elapsed is None:
        return None
    looking = max((float(estimate.get("seconds") or 0.0) for estimate in given.estimates.values()), default=0.0)
    return round(max(0.1, given.elapsed / max(1, given.rounds) - looking), 3)


def _nothing(given: Inputs) -> dict[str, Any]:
    """The longest chain, and no seconds."""
    waits, depth = nearest_picked(given.services, given.order), levels(given.services, given.order)
    current: str | None = max(given.order, key=lambda service: (depth[service], service), default=None)
    chain: list[str] = []
    while current is not None:
        chain.append(current)
        current = max(waits[current], key=lambda service: (depth[service], service), default=None)
    empty: dict[str, Any] = {"seconds": None, "low": None, "high": None}
    reason = "no measured times of a restore or drill yet: the longest chain, counted"
    single = {**empty, "stage_seconds": None, "phases": {}, "runs": 0, "longest": None}
    return {
        "forecast": {
            **empty, "runs": 0, "reason": reason, "elapsed": given.elapsed, "pace": _pace(given), "bound": {}, "advice": [],
            "links": {host: round(rate) for host, rate in link_rates(given.estimates, _hosts(given)).items()},
            "forks": {"given": given.forks, "services": len(given.order), "costs": 0.0},
            "accuracy": {"runs": 0, "median_error": None, "inside": 0},
        },
        "critical_path": {"by": "levels", "services": chain[::-1], "steps": [], **empty, "reason": reason},
        "services": {
            service: {"forecast": {**single, "reason": f"no measured restore or drill of {service} yet"}, "rto_at_risk": None} for service in given.order
        },
    }


def _load(given: Inputs, service: str) -> Load:
    entry, estimate = given.services[service], given.estimates.get(service)
    size = float(given.sizes.get(service) or 0)
    kind = tuple(sorted(str((source or {}).get("type")) for source in (entry.get("sources") or {}).values()))
    moved = estimate or {"bytes": size, "written": size, "fetched": 0.0}
    return Load(service, str(entry.get("host")), kind, float(moved["bytes"]), float(moved["written"]), float(moved["fetched"]))


def _prelude(past: Sequence[Past], elapsed: float | None) -> float:
    """Seconds from the run's begin to the first stage: as it was, or what has passed and what followed then."""
    offsets, rest = [], []
    for run in past[-5:]:
        begins = [item["offset"] for item in run["services"].values() if item.get("offset") is not None]
        if not begins:
            begins = [sum(float(item["phases"].get(phase) or 0.0) for phase in ("plan", "preflight")) for item in run["services"].values()]
        offsets.append(min(begins))
        passed = (run.get("forecast") or {}).get("elapsed")
        if passed is not None:
            rest.append(max(0.0, offsets[-1] - passed))
    if elapsed is None:
        return median(offsets) if offsets else 0.0
    return elapsed + (median(rest) if rest else HANDOVER)


def _distance(fitted: Fit, world: World, played: Played) -> float:
    """How far this run lies from what was measured: by how much more or less staging it has, in the part of the whole that staging is."""
    staged = max((end for (_service, phase), (_begin, end) in played.steps.items() if phase == "stage"), default=world.prelude) - world.prelude
    usual = median(fitted.modelled) if fitted.modelled else 0.0
    modelled = staged / median(fitted.levels.values()) if fitted.levels else 0.0
    if staged <= 0 or usual <= 0 or modelled <= 0 or played.seconds <= 0:
        return 0.0
    return abs(math.log(modelled / usual)) * staged / played.seconds


def _bound_by(world: World) -> dict[str, str]:
    found = {}
    for host in {work.host for work in world.works}:
        works = [work for work in world.works if work.host == host]
        cpu = max(sum(work.cpu for work in works) / world.cores.get(host, 1.0), max(work.cpu for work in works) / 2)
        found[host] = "link" if sum(work.link for work in works) > cpu else "cores"
    return found


def _forks(world: World, played: Played) -> dict[str, Any]:
    """What it costs that Ansible works on fewer services at once than there are."""
    number = len(world.works)
    all_at_once = played if world.forks >= number else play(replace(world, forks=number))
    return {"given": world.forks, "services": number, "costs": round(max(0.0, played.seconds - all_at_once.seconds), 3)}


def _steps(path: Sequence[Step], prelude: float) -> list[dict[str, Any]]:
    first = [{"service": None, "phase": "preflight", "seconds": round(prelude, 3)}] if prelude else []
    return first + [{"service": service, "phase": phase, "seconds": round(end - begin, 3)} for service, phase, begin, end in path if end > begin]


def _longest(path: Sequence[Step]) -> dict[str, Any]:
    """The step that took most of the time until a service was there."""
    service, phase, begin, end = max(path, key=lambda step: step[3] - step[2])
    return {"service": service, "phase": phase, "seconds": round(end - begin, 3)}


def _reason(given: Inputs, fitted: Fit, compared: Mapping[str, Any]) -> str:
    borrowed = sorted(service for service, runs in fitted.stage_runs.items() if not runs)
    text = "what hosts said they would move" if given.estimates else "catalogued sizes, before preflight"
    if borrowed:
        text += f"; never measured and taken from others: {', '.join(borrowed)}"
    if compared["runs"] < 2:
        text += "; the interval is a rule of thumb"
    return text


def _service(given: Inputs, service: str, fitted: Fit, played: Played, width: float) -> dict[str, Any]:
    rto = given.services[service].get("rto")
    done = played.done(service)
    low, high = numbers.around(done, width)
    begin, end = played.steps[service, "stage"]
    runs = fitted.stage_runs[service]
    phases = {}
    untouched = service in given.untouched
    reason = "nothing is left to do" if untouched else f"from {runs} measured run{'s' if runs != 1 else ''}" if runs else "never measured, taken from others"
    wide = numbers.spread(fitted.stage_residuals[service], runs, 0.0 if runs else 2.0)
    for phase, seconds, by in [("stage", end - begin, wide), *((phase, guess.seconds, guess.width) for phase, guess in fitted.phases[service].items())]:
        if untouched and phase not in ("stage", *_LEFT_RUNNING):
            continue
        bounds = numbers.around(seconds, by, 0.05)
        phases[phase] = {"seconds": round(seconds, 3), "low": round(bounds[0], 3), "high": round(bounds[1], 3)}
    return {
        "forecast": {
            "seconds": round(done, 3), "low": round(low, 3), "high": round(high, 3), "stage_seconds": round(end - begin, 3), "phases": phases,
            "runs": runs, "reason": reason, "longest": _longest(played.path(service)),
        },
        "rto_at_risk": None if rto is None else given.before + done > rto,
    }
