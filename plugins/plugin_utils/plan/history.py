# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What earlier runs of this ecosystem took: the only ground of a forecast. Read from their run.json, and from what hosts recorded."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, Mapping

from ..run.words import RUN_ID, SUCCESS, WAITING_PHASES

#: Runs that count: both bring the data back and check it.
VERBS = ("restore", "drill")
#: Newest runs looked at, measured runs of a service that are enough, and the size of a run.json that is still read.
MAX_RUNS = 100
ENOUGH = 12
MAX_BYTES = 32 * 1024 * 1024

#: One earlier run: {"run", "seconds" (begin to the last verdict) or None, "forecast": {"seconds", "low", "high", "elapsed", "pace", "links"} or None,
#: "services": {service: {"bytes", "phases": {phase: seconds}, "waited": {phase: seconds}, "offset": seconds from the run's begin to its
#: stage or None, "moved": {"written", "fetched"} or None}}}. Only services that succeeded, and had something to do, are in it.
Past = Mapping[str, Any]


def runs(root: str, ecosystem: str, wanted: Iterable[str] = (), recorded: Mapping[str, Iterable[Any]] | None = None) -> list[Past]:
    """The earlier runs, oldest first.

    root: the directory of run directories. wanted: no more runs are read than these services need. recorded: service -> its runs as
    service_state tells them, each with "run" and "measured", for what other controllers did. A run that cannot be read is passed
    over: a forecast is not worth a failed restore.
    """
    found: dict[str, dict[str, Any]] = {}
    lacking = dict.fromkeys(wanted, ENOUGH)
    for name in _names(root)[:-MAX_RUNS - 1:-1]:
        document = _document(os.path.join(root, name, "run.json"))
        if document.get("ecosystem") != ecosystem or not isinstance(document.get("services"), dict):
            continue
        found[name] = _past(name, document)
        for service in found[name]["services"]:
            if lacking.get(service, 0) > 0:
                lacking[service] -= 1
        if lacking and not any(lacking.values()):
            break
    known = set(found)
    for service, entries in (recorded or {}).items():
        for entry in entries:
            name, item = _recorded(entry)
            if item is not None and name not in known:
                run = found.setdefault(name, {"run": name, "seconds": None, "forecast": None, "services": {}})
                run["services"][service] = item
    return [found[name] for name in sorted(found) if found[name]["services"]]


def by_service(past: Iterable[Past]) -> dict[str, list[dict[str, Any]]]:
    """Service -> its measured runs, oldest first: {"run", "bytes", "phases", …} as in Past."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in past:
        for service, item in run["services"].items():
            found.setdefault(service, []).append({"run": run["run"], **item})
    return found


def from_services(history: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Past]:
    """The reverse, for whoever has only "bytes" and "phases" per service; items without a "run" belong together by their place in the lists."""
    found: dict[str, dict[str, Any]] = {}
    for service, items in history.items():
        listed = list(items)
        for number, item in enumerate(listed):
            if isinstance(item.get("phases"), Mapping) and item["phases"]:
                name = str(item.get("run") or f"{number - len(listed) + 10 ** 6:08d}")
                run = found.setdefault(name, {"run": name, "seconds": None, "forecast": None, "services": {}})
                run["services"][service] = {"bytes": 0, "waited": dict.fromkeys(WAITING_PHASES, 1e9), "offset": None, "moved": None, **item}
    return [found[name] for name in sorted(found)]


def _names(root: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root) if RUN_ID.match(name) and name.split("-")[1] in VERBS)
    except OSError:
        return []


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        value = json.loads(data) if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9 else None


def _past(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    forecast = _mapping(document.get("forecast"))
    inputs = _mapping(forecast.get("services"))
    services, ends = {}, []
    for service, item in document["services"].items():
        measured = _measured(item)
        if measured is not None:
            services[service] = {**measured, "moved": _moved(_mapping(inputs.get(service)).get("moved"))}
            ends.append(_seconds(item.get("seconds")))
    whole = len(services) == len(document["services"]) and bool(ends) and None not in ends
    told = {key: _seconds(forecast.get(key)) for key in ("seconds", "low", "high", "elapsed", "pace")}
    links = {str(host): rate for host, value in _mapping(forecast.get("links")).items() if (rate := _seconds(value))}
    return {
        "run": name, "seconds": max(end for end in ends if end is not None) if whole else None,
        "forecast": {**told, "links": links} if forecast else None, "services": services,
    }


def _moved(value: Any) -> dict[str, float] | None:
    moved = {key: _seconds(_mapping(value).get(key)) for key in ("written", "fetched")}
    return {key: number for key, number in moved.items() if number is not None} if None not in moved.values() else None


def _measured(item: Any) -> dict[str, Any] | None:
    """The times of one service, if they are those of a whole, successful recovery."""
    if not isinstance(item, dict) or item.get("verdict") not in SUCCESS["restore"] or item.get("noop"):
        return None
    phases: dict[str, float] = {}
    waited: dict[str, float] = {}
    offset = None
    listed = item.get("phases")
    for phase in listed if isinstance(listed, list) else []:
        seconds = _seconds(phase.get("seconds")) if isinstance(phase, dict) else None
        if seconds is None or phase.get("outcome") != "done":
            return None
        name = str(phase.get("name"))
        if name == "stage" and offset is None:
            offset = _seconds(phase.get("offset"))
        phases[name] = phases.get(name, 0.0) + seconds
        waits = [_seconds(_mapping(one).get("seconds")) or 0.0 for one in phase.get("waited_for") or []]
        waited[name] = waited.get(name, 0.0) + min(seconds, max(waits, default=0.0))
    size = _mapping(item.get("bytes")).get("source")
    return {"bytes": size if isinstance(size, int) else 0, "phases": phases, "waited": waited, "offset": offset} if phases else None


def _recorded(entry: Any) -> tuple[str, dict[str, Any] | None]:
    """(run, what it took) of a run as hosts have it on record."""
    entry = _mapping(entry)
    data, name = _mapping(entry.get("measured")), str(entry.get("run") or "")
    undone = data.get("failure") or _mapping(data.get("recovery")).get("noop")
    if not RUN_ID.match(name) or data.get("verb") not in VERBS or data.get("verdict") not in SUCCESS["restore"] or undone:
        return name, None
    phases: dict[str, float] = {}
    waited: dict[str, float] = {}
    for phase, one in _mapping(data.get("phases")).items():
        seconds = _seconds(_mapping(one).get("seconds"))
        if seconds is None:
            return name, None
        phases[str(phase)] = seconds
        waited[str(phase)] = seconds if _mapping(one).get("waited_for") else 0.0  # how much of it was waiting is not on record
    size = {key: _seconds(_mapping(data.get("bytes")).get(key)) or 0.0 for key in ("written", "reused", "fetched")}
    if not phases:
        return name, None
    return name, {
        "bytes": int(size["written"] + size["reused"]), "phases": phases, "waited": waited, "offset": None,
        "moved": {"written": size["written"], "fetched": size["fetched"]},
    }
