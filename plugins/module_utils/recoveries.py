# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Mean time to recover and its trend, from the runs that ledgers keep. Pure: reads nothing but what it is given.

A recovery is a run that brought a service back (verified, restored or degraded) and had something to do. It lasts from the incident to the verdict
("raw"; "net": without waiting for people), so a failed attempt before it is part of it. A domain or tier is back when the last of its services is,
in a run in which none of them failed.
"""

from __future__ import annotations

from itertools import combinations
from statistics import mean, median
from typing import Any, Iterable, Mapping, Sequence

SCHEMA = "lifeboat.report/1"
_BACK = ("verified", "restored", "degraded")
_UNDONE = ("failed", "blocked", "interrupted")
#: Phases in which a service waits for others, or that are bookkeeping: a forecast is about the rest.
_NOT_FORECAST = ("plan", "island", "gate", "verdict")
#: Newest recoveries that count for the slope.
_WINDOW = 50


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None


def outcomes(runs: Iterable[Mapping[str, Any]], verb: str = "restore") -> list[dict[str, Any]]:
    """What each run of a verb came to, oldest first.

    {"run", "began", "verdict", "back": bool or None (asked to stop early), "noop", "raw", "net", "limit", "met", "failure": type or "", "human", "phases",
    "forecast", "worked"}; ``runs`` as history.read() gives them. A run that has no account of what it took has raw None.
    """
    found: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda one: str(one.get("began") or "")):
        if run.get("verb") != verb:
            continue
        told = _mapping(run.get("measured"))
        recovery = _mapping(told.get("recovery"))
        verdict = str(told.get("verdict") or run.get("verdict") or "interrupted")
        seconds = _number(told.get("seconds"))
        raw = _number(recovery.get("raw"))
        raw = seconds if raw is None else raw
        net = _number(recovery.get("net"))
        failure = str(_mapping(told.get("failure")).get("type") or ("interrupted" if verdict == "interrupted" else "")) if verdict in _UNDONE else ""
        phases = {
            str(phase): value for phase, one in _mapping(told.get("phases")).items() if (value := _number(_mapping(one).get("seconds"))) is not None
        }
        met = recovery.get("met")
        # nothing was left to do, since the attempt that failed had brought everything but the proof: the proof is the recovery
        proven_at_last = bool(found) and found[-1]["back"] is False and found[-1]["run"] in (told.get("chain") or [])
        found.append({
            "run": str(run.get("run")), "began": run.get("began"), "verdict": verdict, "noop": bool(recovery.get("noop")) and not proven_at_last,
            "back": True if verdict in _BACK else False if verdict in _UNDONE else None, "raw": raw, "net": raw if net is None else net,
            "limit": _number(recovery.get("limit")), "met": met if isinstance(met, bool) else None, "failure": failure,
            "human": _number(told.get("human_seconds")) or 0.0, "phases": phases, "forecast": _number(told.get("forecast")),
            "worked": round(sum(value for phase, value in phases.items() if phase not in _NOT_FORECAST), 3),
        })
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """A share of sorted or unsorted values, interpolated; the values are not empty."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def times(values: Sequence[float]) -> dict[str, float | int] | None:
    """{"count", "mean", "median", "p90", "longest"}; None of nothing."""
    if not values:
        return None
    return {
        "count": len(values), "mean": round(mean(values), 3), "median": round(median(values), 3), "p90": round(quantile(values, 0.9), 3),
        "longest": round(max(values), 3),
    }


def trend(values: Sequence[float]) -> dict[str, float] | None:
    """{"last", "previous", "change", "slope"} of values in order; None of fewer than two.

    slope: seconds per recovery, the median over all pairs of the newest ones, which one odd recovery does not turn around.
    """
    if len(values) < 2:
        return None
    newest = list(enumerate(values[-_WINDOW:]))
    slopes = [(later - earlier) / (second - first) for (first, earlier), (second, later) in combinations(newest, 2)]
    return {
        "last": round(values[-1], 3), "previous": round(values[-2], 3), "change": round(values[-1] - values[-2], 3), "slope": round(median(slopes), 3),
    }


def _tally(words: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _forecast(done: Sequence[Mapping[str, Any]]) -> dict[str, float | int] | None:
    errors = [abs(one["worked"] - one["forecast"]) / one["worked"] for one in done if one["forecast"] is not None and one["worked"] > 0]
    return {"count": len(errors), "median_error": round(median(errors), 4)} if errors else None


def _rates(listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The part that counts runs of services, whichever they are."""
    judged = [one for one in listed if one["back"] is not None]
    done = [one for one in listed if one["back"] and not one["noop"]]
    succeeded = sum(1 for one in judged if one["back"])
    return {
        "runs": len(judged), "succeeded": succeeded, "success_rate": round(succeeded / len(judged), 4) if judged else None,
        "rto": {"met": sum(1 for one in done if one["met"] is True), "missed": sum(1 for one in done if one["met"] is False)},
        "failures": _tally(one["failure"] or "internal" for one in judged if not one["back"]),
        "human_seconds": round(sum(one["human"] for one in done), 3), "forecast": _forecast(done),
    }


def _summary(recovered: Sequence[Mapping[str, Any]], listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    raw = [float(one["raw"]) for one in recovered]
    last = recovered[-1] if recovered else None
    return {
        "mttr": times(raw), "net": times([float(one["net"]) for one in recovered]), "trend": trend(raw),
        "last": {key: last[key] for key in ("run", "began", "raw", "net")} if last else None, **_rates(listed),
    }


def of_service(listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"mttr", "net": times(), "trend", "last", "runs", "succeeded", "success_rate", "rto": {"met", "missed"}, "failures": {type: n}, "human_seconds",
    "forecast": {"count", "median_error"} or None, "phases": {phase: median seconds}, "recoveries": the newest}; ``listed`` as outcomes()."""
    recovered = [one for one in listed if one["back"] and not one["noop"] and one["raw"] is not None]
    phases: dict[str, list[float]] = {}
    for one in recovered:
        for phase, seconds in one["phases"].items():
            phases.setdefault(phase, []).append(seconds)
    return {
        **_summary(recovered, listed), "phases": {phase: round(median(values), 3) for phase, values in phases.items()},
        "recoveries": [{key: one[key] for key in ("run", "began", "raw", "net", "met")} for one in recovered[-_WINDOW:]],
    }


def of_group(members: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The same, without phases, for services that belong together: a run counts when one of them came back in it and none failed."""
    by_run: dict[str, list[Mapping[str, Any]]] = {}
    for listed in members.values():
        for one in listed:
            by_run.setdefault(one["run"], []).append(one)
    recovered = []
    for run in sorted(by_run, key=lambda name: min(str(one["began"] or "") for one in by_run[name])):
        done = [one for one in by_run[run] if one["back"] and not one["noop"] and one["raw"] is not None]
        if done and all(one["back"] for one in by_run[run]):
            slowest = max(done, key=lambda one: float(one["raw"]))
            recovered.append({"run": run, "began": slowest["began"], "raw": slowest["raw"], "net": max(float(one["net"]) for one in done)})
    waited = sum(max((float(one["human"]) for one in listed if one["back"] and not one["noop"]), default=0.0) for listed in by_run.values())
    return {
        **_summary(recovered, [one for listed in members.values() for one in listed]), "human_seconds": round(waited, 3), "services": sorted(members),
    }


def report(
    runs: Mapping[str, Iterable[Mapping[str, Any]]], facts: Mapping[str, Mapping[str, Any]], ecosystem: str, made: str, verb: str = "restore",
    silent: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The document of a report: {"schema", "ecosystem", "made", "verb", "services", "domains", "tiers", "all", "silent": {service: why}}.

    runs: service -> its runs; facts: service -> {"domain", "tier", "rto"}, where known. silent: services whose history could not be read.
    """
    listed = {service: outcomes(own, verb) for service, own in runs.items()}
    groups: dict[str, dict[str, dict[str, Sequence[Mapping[str, Any]]]]] = {"domain": {}, "tier": {}}
    for service, own in listed.items():
        for kind, table in groups.items():
            name = facts.get(service, {}).get(kind)
            if name:
                table.setdefault(str(name), {})[service] = own
    return {
        "schema": SCHEMA, "ecosystem": ecosystem, "made": made, "verb": verb,
        "services": {
            service: {**of_service(own), **{key: facts.get(service, {}).get(key) for key in ("domain", "tier")}, "limit": facts.get(service, {}).get("rto")}
            for service, own in listed.items()
        },
        "domains": {name: of_group(members) for name, members in sorted(groups["domain"].items())},
        "tiers": {name: of_group(members) for name, members in sorted(groups["tier"].items())},
        "all": of_group(listed), "silent": dict(silent or {}),
    }
