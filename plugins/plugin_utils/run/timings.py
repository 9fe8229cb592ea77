# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Phases with measured times, made of the marks that a run left in timings.jsonl."""

from __future__ import annotations

import time
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils.lease import boot_id
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words

Mark = dict[str, Any]


def now_mark() -> Mark:
    """This moment."""
    return {"time": time.time(), "mono": time.monotonic(), "boot": boot_id()}


def seconds_between(start: Mark, end: Mark) -> float:
    """Seconds from one mark to another: by the monotonic clock when both are of one boot, else by the wall clock, never negative."""
    if start.get("boot") and start.get("boot") == end.get("boot"):
        value = float(end.get("mono", 0.0)) - float(start.get("mono", 0.0))
    else:
        value = float(end.get("time", 0.0)) - float(start.get("time", 0.0))
    return round(max(0.0, value), 3)


def clean(marks: list[Mark]) -> list[Mark]:
    """The marks that can be used: those with numbers for times and text for names, in the order of writing."""
    return [
        mark for mark in marks
        if isinstance(mark.get("time"), (int, float)) and isinstance(mark.get("mono", 0.0), (int, float))
        and isinstance(mark.get("service"), str) and isinstance(mark.get("phase"), str) and isinstance(mark.get("event"), str)
    ]


def phases(marks: list[Mark], service: str, origin: Mark, last: Mark) -> list[dict[str, Any]]:
    """The phases of a service in order: {name, start, end, offset, seconds, outcome, waited_for: [{service, seconds}]}.

    ``offset``: seconds from ``origin`` (the run's begin). A phase without an end lasts until ``last`` and has outcome ``open``.
    Marks of a phase that came twice (a retry) give two phases.
    """
    result: list[dict[str, Any]] = []
    opened: Optional[Mark] = None
    waits: list[dict[str, Any]] = []

    def close(end: Mark, outcome: str) -> None:
        nonlocal opened, waits
        if opened is None:
            return
        result.append({
            "name": opened["phase"], "start": words.iso(opened["time"]), "end": words.iso(end["time"]),
            "offset": seconds_between(origin, opened), "seconds": seconds_between(opened, end), "outcome": outcome, "waited_for": waits,
        })
        opened, waits = None, []

    for mark in marks:
        if mark["service"] != service:
            continue
        event = mark["event"]
        if event == "start":
            close(mark, "done")
            opened = mark
        elif event == "wait":
            waits.append({"service": str(mark.get("on", "")), "seconds": round(float(mark.get("seconds") or 0.0), 3)})
        elif event == "end" and opened is not None and opened["phase"] == mark["phase"]:
            close(mark, str(mark.get("outcome") or "done"))
    close(last, "open")
    return result


def human_wait(marks: list[Mark], last: Mark) -> float:
    """Seconds in which the run waited for people: between ``human_start`` and ``human_end`` marks, overlaps counted once."""
    total, depth, since = 0.0, 0, None
    for mark in marks:
        if mark["event"] == "human_start":
            if depth == 0:
                since = mark
            depth += 1
        elif mark["event"] == "human_end" and depth:
            depth -= 1
            if depth == 0 and since is not None:
                total += seconds_between(since, mark)
                since = None
    if since is not None:
        total += seconds_between(since, last)
    return round(total, 3)


def verdict_mark(marks: list[Mark], service: str) -> Optional[Mark]:
    """When a service got its verdict; None when it has none yet."""
    for mark in marks:
        if mark["service"] == service and mark["event"] == "verdict":
            return mark
    return None
