# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""From what earlier runs measured to durations of this one: per service the work of its stage, and its phases without waiting for others."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any, Iterable, Mapping, Sequence

from . import numbers
from .history import Past
from .sharing import Work, alone, finish
from .simulate import UP

#: Only the newest runs of a service count; it changes.
WINDOW = 5
#: Core seconds of staging that do not grow with the bytes, as long as nothing tells them from the rest: as long as it takes to call a
#: module that does next to nothing, which is what this phase is.
FIXED_LIKE, FIXED = "verdict", 0.8
#: From this share of the time on the way to the repository was what made staging take so long, and nothing is learnt of the work.
BOUND = 0.6
#: Phases of one service that are forecast one by one, besides preflight and stage.
SINGLE = ("island", "stop", *UP)


@dataclass(frozen=True)
class Load:
    """What one service moves: bytes of its data, bytes that are written anew, stored bytes over the link. kind: types of its sources."""

    service: str
    host: str
    kind: tuple[str, ...]
    bytes: float
    written: float
    fetched: float


@dataclass(frozen=True)
class Guess:
    """seconds, the width of its interval (numbers.spread), and how many measured runs it stands on; 0 when others' were taken."""

    seconds: float
    width: float
    runs: int


@dataclass
class Fit:
    """work: kind -> (fixed, per byte) core seconds of staging. levels: service -> measured over modelled staging. distance: see numbers.spread."""

    work: dict[tuple[str, ...], tuple[float, float]]
    levels: dict[str, float]
    stage_runs: dict[str, int]
    stage_residuals: dict[str, list[float]]
    modelled: list[float]
    phases: dict[str, dict[str, Guess]] = field(default_factory=dict)

    def works(self, loads: Sequence[Load], links: Mapping[str, float]) -> list[Work]:
        """The work of staging; a host whose link is unknown has a fast one."""
        found = []
        for load in loads:
            fixed, slope = self.work[load.kind]
            rate = links.get(load.host) or 0.0
            found.append(Work(load.service, load.host, fixed + slope * load.written, load.fetched / rate if rate else 0.0))
        return found


def loads_of(past: Past, now: Sequence[Load]) -> list[Load]:
    """What the services that are picked now moved then. Without a record of it they moved all their bytes."""
    found = []
    for load in now:
        item = past["services"].get(load.service)
        if item is not None:
            moved = item.get("moved") or {"written": item["bytes"], "fetched": 0.0}
            found.append(Load(load.service, load.host, load.kind, float(item["bytes"]), float(moved["written"]), float(moved["fetched"])))
    return found


def links_of(past: Past) -> dict[str, float]:
    return dict((past.get("forecast") or {}).get("links") or {})


def pace_of(past: Past) -> float | None:
    """Seconds that plan and preflight of a run took besides looking at stores: the same work each time, so it tells how busy all were."""
    value = (past.get("forecast") or {}).get("pace")
    return float(value) if value else None


def at_pace(past: Sequence[Past], pace: float | None) -> list[Past]:
    """The runs as they would have gone at this pace, as far as past runs show that it matters. What has no pace stays as it was."""
    if not pace:
        return list(past)
    known = [(own, _own_seconds(run)) for run in past if (own := pace_of(run)) is not None]
    power = numbers.elasticity(known)
    found: list[Past] = []
    for run in past:
        own = pace_of(run)
        factor = min(4.0, max(0.25, pace / own)) ** power if own else 1.0
        services = {
            service: {**item, **{key: {phase: seconds * factor for phase, seconds in item[key].items()} for key in ("phases", "waited")}}
            for service, item in run["services"].items()
        }
        found.append({**run, "services": services})
    return found


def _own_seconds(run: Past) -> float:
    """What the services of a run took together, without preflight and without waiting for each other; per service."""
    total = 0.0
    for item in run["services"].values():
        waited = item.get("waited") or {}
        total += sum(max(0.0, seconds - waited.get(phase, 0.0)) for phase, seconds in item["phases"].items() if phase not in ("plan", "preflight"))
    return total / len(run["services"])


def fit(past: Sequence[Past], loads: Sequence[Load], cores: Mapping[str, float]) -> Fit:
    """All that can be learnt for these services; ``past`` holds at least one of them."""
    host = {load.service: load.host for load in loads}
    samples: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    then: list[tuple[Past, list[Load]]] = []
    for run in past[-3 * WINDOW:]:
        moved = loads_of(run, loads)
        if not moved:
            continue
        then.append((run, moved))
        spans = _spans(run, moved)
        took = alone(spans, host, cores)
        for load in moved:
            if not _bound(load.host, moved, spans, links_of(run)):
                samples.setdefault(load.kind, []).append((load.written, took[load.service]))
    calls = [seconds for load in loads for _size, seconds in _own(load.service, FIXED_LIKE, past)]
    work = _work(samples, {load.kind for load in loads}, median(calls) if calls else FIXED)
    found = Fit(work, {}, {}, {}, [])
    ratios: dict[str, list[float]] = {}
    for run, moved in then[-2 * WINDOW:]:
        ends = finish(found.works(moved, links_of(run)), cores)
        found.modelled.append(max(end for _begin, end in ends.values()))
        for load in moved:
            seconds = _stage(run["services"][load.service])
            begin, end = ends[load.service]
            if end > begin and seconds is not None:
                ratios.setdefault(load.service, []).append(seconds / (end - begin))
    everybody = median([ratio for one in ratios.values() for ratio in one] or [1.0])
    for load in loads:
        own = [ratio for ratio in ratios.get(load.service, []) if ratio > 0][-WINDOW:]
        found.levels[load.service] = median(own) if own else everybody
        found.stage_runs[load.service] = len(own)
        found.stage_residuals[load.service] = numbers.logs([(found.levels[load.service], ratio) for ratio in own])
    found.phases = {load.service: _phases(load, past, loads) for load in loads}
    return found


def _stage(item: Mapping[str, Any]) -> float | None:
    value = item["phases"].get("stage")
    return None if value is None else float(value)


def _spans(run: Past, moved: Iterable[Load]) -> dict[str, tuple[float, float]]:
    found = {}
    for load in moved:
        item = run["services"][load.service]
        begin = float(item.get("offset") or 0.0)
        found[load.service] = (begin, begin + (_stage(item) or 0.0))
    return found


def _bound(host: str, moved: Sequence[Load], spans: Mapping[str, tuple[float, float]], links: Mapping[str, float]) -> bool:
    """The link of a host, and not its cores, decided how long staging took there."""
    here = [load for load in moved if load.host == host]
    span = max(spans[load.service][1] for load in here) - min(spans[load.service][0] for load in here)
    rate = links.get(host)
    return bool(rate) and sum(load.fetched for load in here) / float(rate or 1.0) > BOUND * span


def _work(
    samples: Mapping[tuple[str, ...], Sequence[tuple[float, float]]], kinds: Iterable[tuple[str, ...]], call: float,
) -> dict[tuple[str, ...], tuple[float, float]]:
    """Services without data tell the fixed part for all kinds; a kind of which only one size was seen takes the fixed part of all together,
    and where nobody tells it, that of a ``call``."""
    everything = [sample for one in samples.values() for sample in one]
    empty = [sample for sample in everything if not sample[0]]
    whole = numbers.line(everything)
    found = {}
    for kind in kinds:
        own = [*samples.get(kind, ()), *(empty if kind else ())]
        known = numbers.line(own)
        if known is None and own:
            size, took = median(size for size, _took in own), median(took for _size, took in own)
            fixed = min(whole[0] if whole else call, took if not size else 0.8 * took)
            known = (fixed if size else took, (took - fixed) / size if size else 0.0)
        found[kind] = known or whole or (call, 0.0)
    return found


def _own(service: str, phase: str, past: Sequence[Past]) -> list[tuple[float, float]]:
    """(bytes, seconds without waiting) of a phase in each run that had it, oldest first."""
    found = []
    for run in past:
        item = run["services"].get(service)
        if item is not None and phase in item["phases"]:
            waited = float((item.get("waited") or {}).get(phase) or 0.0)
            found.append((float(item["bytes"]), max(0.0, float(item["phases"][phase]) - waited)))
    return found[-WINDOW:]


def _phases(load: Load, past: Sequence[Past], loads: Sequence[Load]) -> dict[str, Guess]:
    found = {}
    for phase in SINGLE:
        own = _own(load.service, phase, past)
        if own:
            found[phase] = _guess(own, load.bytes)
            continue
        if any(load.service in run["services"] for run in past):
            continue  # it does not go through this phase
        others = [sample[1] for other in loads if other.kind == load.kind or not load.kind for sample in _own(other.service, phase, past)]
        others = others or [sample[1] for other in loads for sample in _own(other.service, phase, past)]
        if others:
            found[phase] = Guess(median(others), numbers.spread([], 1, 2.0), 0)
    return found


def _guess(own: Sequence[tuple[float, float]], size: float) -> Guess:
    """A line over the bytes where these differed enough, else the median."""
    known = numbers.line([sample for sample in own if sample[0] > 0]) if len(own) >= 3 else None
    middle = median(seconds for _size, seconds in own)
    if known is not None:
        modelled = [known[0] + known[1] * at for at, _seconds in own]
        seconds = known[0] + known[1] * size
    else:
        modelled, seconds = [middle] * len(own), middle
    return Guess(seconds, numbers.spread(numbers.logs([(told, found) for told, (_size, found) in zip(modelled, own)]), len(own)), len(own))
