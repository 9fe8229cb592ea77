# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The ledger's entry ``measured``: what one run took on one service. One per run, written just before the run ends there.

{"verb", "target", "point", "verdict", "started", "seconds", "phases": {phase: {"seconds", "waited_for": service or null}},
"steps": {step: {"seconds", "busy"}} (parts of the stage, side by side: see meter.py), "bytes": {"fetched", "written", "reused"},
"usage": {"cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes"}, "failure": {"type", "phase"} or null (see failures.py),
"human_seconds"}. A run of a controller adds "before": {"detect", "queue"} in seconds, "recovery": {"raw", "net", "limit", "met"} (seconds from the
incident to the verdict, with and without waiting for people), "chain": the runs that it went on with, and "forecast": seconds where the plan had one.
"""

from __future__ import annotations

import datetime
from typing import Any

from ..errors import LifeboatError
from ..failures import classify
from ..ledger import Entry, Ledger, canonical, now
from ..meter import BYTES, combined_usage, usage

EVENT = "measured"
#: What a controller may tell; the rest of what it sends is not written down.
GIVEN = ("verdict", "phases", "steps", "bytes", "usage", "failure", "human_seconds", "before", "recovery", "chain", "seconds", "forecast")
#: The largest account of a controller that is written down.
_LIMIT = 64 << 10
#: Entries that a kill, a resume or a neighbour may leave between the first and the last of a phase are no work.
_NO_WORK = ("run.interrupted", "ledger.repair", EVENT)


def note(
    ledger: Ledger, run: dict[str, Any], verdict: str, point: str | None = None, given: dict[str, Any] | None = None,
    error: BaseException | None = None, phase: str = "",
) -> Entry | None:
    """Write the entry, once per run; None when it is there. given: what the run's controller measured, else the ledger's own times speak.

    error, phase: why and where a run without a controller failed.
    """
    mine = ledger.entries(str(run["id"]))
    if not mine or any(entry["event"] == EVENT for entry in mine):
        return None
    told = {key: given[key] for key in GIVEN if key in given} if given else {}
    if len(canonical(told)) > _LIMIT:
        told = {}
    used = combined_usage([told["usage"], usage()]) if isinstance(told.get("usage"), dict) else usage()
    data: dict[str, Any] = {
        "verb": run.get("verb", ""), "target": run.get("target"), "point": point, "verdict": verdict,
        "started": run.get("started") or mine[0]["time"], "seconds": _seconds(str(mine[0]["time"]), now()), "phases": _phases(mine), "steps": {},
        "bytes": dict.fromkeys(BYTES, 0), "failure": _failure(error, phase), "human_seconds": 0.0, **told, "usage": used,
    }
    return ledger.append(run, "verdict", EVENT, data)


def _failure(error: BaseException | None, phase: str) -> dict[str, str] | None:
    if error is None:
        return None
    if isinstance(error, LifeboatError):
        return {"type": classify(error.code, phase, error.cause), "phase": phase}
    return {"type": classify("", phase), "phase": phase}


def _phases(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """Seconds from the first to the last entry of each phase."""
    spans: dict[str, tuple[str, str]] = {}
    for entry in entries:
        phase = str(entry["phase"])
        if phase and phase != "verdict" and entry["event"] not in _NO_WORK:
            spans[phase] = (spans[phase][0] if phase in spans else str(entry["time"]), str(entry["time"]))
    return {phase: {"seconds": _seconds(*span), "waited_for": None} for phase, span in spans.items()}


def _seconds(first: str, last: str) -> float:
    try:
        begin, end = (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (first, last))
    except ValueError:
        return 0.0
    return round(max(0.0, (end - begin).total_seconds()), 3)
