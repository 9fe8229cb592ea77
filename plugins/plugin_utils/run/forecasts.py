# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The forecast of a run beside what came out: kept in run.json, from where the next forecast learns how far it may be off."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words


def compared(plan: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    """``forecast`` of run.json; None for a run without one.

    {"seconds", "low", "high", "runs", "reason", "elapsed", "pace", "links", "measured", "error" (forecast over measured, less 1), "inside",
    "services": {service: {"seconds", "low", "high", "measured", "moved": {"bytes", "reused", "written", "fetched"} or None,
    "phases": {phase: {"seconds", "low", "high", "measured"}}, all without waiting for others}}}.
    measured is null until every service has a verdict of success.
    """
    told = plan.get("forecast")
    if not isinstance(told, Mapping):
        return None
    entries = words.table_of_services(plan.get("services"))
    ends = [item["seconds"] for item in services.values() if item["verdict"] in words.SUCCESS["restore"] and item["seconds"] is not None]
    measured = round(max(ends), 3) if ends and len(ends) == len(services) else None
    return {
        **{key: told.get(key) for key in ("seconds", "low", "high", "runs", "reason", "elapsed", "pace", "links")}, **_against(told, measured),
        "services": {name: _service(entries.get(name, {}), item) for name, item in services.items()},
    }


def _against(told: Mapping[str, Any], measured: Optional[float]) -> dict[str, Any]:
    seconds = told.get("seconds")
    if not measured or not isinstance(seconds, (int, float)):
        return {"measured": measured, "error": None, "inside": None}
    return {"measured": measured, "error": round(seconds / measured - 1, 4), "inside": bool(told["low"] <= measured <= told["high"])}


def _service(entry: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    told, estimate = entry.get("forecast") or {}, entry.get("estimate")
    moved = {key: estimate.get(key) for key in ("bytes", "reused", "written", "fetched")} if isinstance(estimate, Mapping) else None
    took: dict[str, float] = {}
    for phase in item.get("phases") or []:
        waited = max((float(one["seconds"]) for one in phase["waited_for"]), default=0.0)
        took[phase["name"]] = round(took.get(phase["name"], 0.0) + max(0.0, float(phase["seconds"]) - waited), 3)
    phases = {phase: {**one, "measured": took.get(phase)} for phase, one in (told.get("phases") or {}).items()}
    return {**{key: told.get(key) for key in ("seconds", "low", "high")}, "measured": item["seconds"], "moved": moved, "phases": phases}


def sentence(found: Any) -> str:
    """Forecast and measured time in words; empty where there was no forecast."""
    if not isinstance(found, Mapping) or found.get("seconds") is None:
        return ""
    told = f"{words.duration(found['seconds'])}, between {words.duration(found['low'])} and {words.duration(found['high'])}"
    if not found.get("measured"):
        return told
    return f"{told}; it took {words.duration(found['measured'])}" + ("" if found["inside"] else ", which is outside")
