# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What earlier runs of this ecosystem took, read from their run.json: the only ground of a forecast."""

from __future__ import annotations

import json
import os
from typing import Any

from ..run.words import RUN_ID, SUCCESS

#: Runs that count: both bring the data back and check it.
VERBS = ("restore", "drill")
#: Newest runs looked at, and the size of a run.json that is still read.
MAX_RUNS = 100
MAX_BYTES = 32 * 1024 * 1024


def read(root: str, ecosystem: str) -> dict[str, list[dict[str, Any]]]:
    """Service -> its measured runs, oldest first: {"run", "bytes", "phases": {phase: seconds}}.

    root: the directory of run directories. Only services that succeeded count, and not those where nothing had to be
    done. A run that cannot be read is passed over: a forecast is not worth a failed restore.
    """
    try:
        names = sorted(name for name in os.listdir(root) if RUN_ID.match(name) and name.split("-")[1] in VERBS)
    except OSError:
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for name in names[-MAX_RUNS:]:
        document = _document(os.path.join(root, name, "run.json"))
        if document.get("ecosystem") != ecosystem or not isinstance(document.get("services"), dict):
            continue
        for service, item in document["services"].items():
            measured = _measured(item)
            if measured is not None:
                found.setdefault(service, []).append({"run": name, **measured})
    return found


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        value = json.loads(data) if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _measured(item: Any) -> dict[str, Any] | None:
    """The times of one service, if they are those of a whole, successful recovery."""
    if not isinstance(item, dict) or item.get("verdict") not in SUCCESS["restore"] or item.get("noop"):
        return None
    phases: dict[str, float] = {}
    listed = item.get("phases")
    for phase in listed if isinstance(listed, list) else []:
        seconds = phase.get("seconds") if isinstance(phase, dict) else None
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or seconds < 0 or phase.get("outcome") != "done":
            return None
        phases[str(phase.get("name"))] = phases.get(str(phase.get("name")), 0.0) + float(seconds)
    size = item.get("bytes", {}).get("source") if isinstance(item.get("bytes"), dict) else None
    return {"bytes": size if isinstance(size, int) else 0, "phases": phases} if phases else None
