# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The closed lists of words that a run speaks in, and small helpers for times and numbers."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils.cli import text as cli_text

#: Seconds as people read them, in the words of the host command.
duration = cli_text.duration

#: Phases in the order in which a service goes through them. The first thirteen are those of a restore;
#: the last four belong to verbs whose only work is that phase.
PHASES = (
    "plan", "preflight", "stage", "island", "stop", "gate", "cutover", "migrate", "start", "health", "invariants", "protect", "verdict",
    "capture", "verify", "commit", "rollback",
)

#: Phases in which a service only waits for others.
WAITING_PHASES = ("island", "gate")

#: Every verdict there is; anything else is ``failed``.
VERDICTS = (
    "verified", "restored", "degraded", "captured", "committed", "rolled_back", "blocked", "interrupted", "skipped", "failed",
)

#: The verdicts that make a verb a success.
SUCCESS = {
    "restore": ("verified", "restored"),
    "drill": ("verified", "restored"),
    "rollback": ("rolled_back",),
    "backup": ("captured",),
    "commit": ("committed",),
    "verify": ("verified",),
    "extract": ("verified",),
    "reseed": ("verified",),
    "copy": ("verified",),
    "rotate_keys": ("verified",),
}

#: Verdicts of a service that itself runs well: a hard gate may open on them.
USABLE = ("verified", "restored", "degraded", "captured", "committed", "rolled_back")

#: Verdicts of a service that did not come to what it was asked for.
UNDONE = ("failed", "blocked", "interrupted")

EXIT_SUCCESS = 0
EXIT_DEGRADED = 2
EXIT_FAILED = 3

RUN_ID = re.compile(r"^\d{8}T\d{6}Z-[a-z_]+-[0-9a-f]{6}$")
SERVICE_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")


def iso(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: Any) -> Optional[float]:
    """Unix seconds of an ISO 8601 time with a zone; None when it is not one."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


def size(count: Optional[float]) -> str:
    """Bytes for people, in powers of 1024."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.95:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def one_line(text: Any, limit: int = 400) -> str:
    """Any value as one printable line: control characters shown, never obeyed, and a bounded length."""
    out = "".join(c if c.isprintable() else ("\\n" if c == "\n" else f"\\x{ord(c):02x}") for c in str(text))
    return out if len(out) <= limit else out[: limit - 1] + "…"


def table_of_services(services: Any) -> dict[str, dict[str, Any]]:
    """``services`` of a plan as name -> entry, whether it came as a mapping or as a list with ``service`` or ``name``."""
    if isinstance(services, dict):
        return {str(k): (v if isinstance(v, dict) else {}) for k, v in services.items()}
    table: dict[str, dict[str, Any]] = {}
    for item in services if isinstance(services, list) else []:
        if isinstance(item, dict):
            table[str(item.get("service", item.get("name", "")))] = item
        else:
            table[str(item)] = {}
    return table


def reached(told: Any) -> str:
    """Where recovery of a log ended, in words; empty for what has no log."""
    if not isinstance(told, dict) or not told.get("position"):
        return ""
    last = f", last commit {one_line(told['last_commit'], 60)}" if told.get("last_commit") else ""
    return f"recovery ended at {one_line(told['position'], 40)} of timeline {one_line(told.get('from_timeline'), 20)}{last}"
