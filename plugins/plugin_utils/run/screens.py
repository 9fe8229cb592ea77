# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What an operator reads first: the plan, the end of a run, and what an interruption leaves."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import causes, commands, document, forecasts, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

_TOUCHED = {
    "untouched": "not touched", "stopped": "stopped, its data not touched", "switching": "the switch was begun and its end not recorded",
    "switched": "live data switched", "restarted": "restarted, its data not touched",
}
_LIVE = {
    "switched": "restored data is live", "switching": "UNSURE, the switch was begun", "stopped": "old data, stopped", "restarted": "old data, restarted",
}

#: So many warnings at the end of a run; the report has all of them.
_WARNINGS = 10


def plan_text(plan: dict[str, Any], picked: list[str]) -> str:
    """The plan in a few lines, shown before anything is done."""
    table = words.table_of_services(plan.get("services"))
    lines = [f"Plan of {plan['run']['id']} for {words.one_line(plan.get('ecosystem') or 'the ecosystem')}:"]
    target = commands.target_of(plan)
    if target["asked"] or target["points"]:
        which = target["point"] or f"{len(set(target['points'].values()))} different points"
        lines.append(f"  target   {target['asked'] or '-'}" + (f": {which}, {target['time'] or 'time unknown'}" if target["points"] else ""))
    islands = plan.get("islands") or []
    lines.append(f"  services {len(picked)} in {len(islands) or len(picked)} island(s), in this order:")
    width = max([len(name) for name in picked] + [1])
    for number, name in enumerate(picked, 1):
        entry = table.get(name, {})
        requires = [
            (item.get("service", "") + (" (soft)" if item.get("kind") == "soft" else "")) if isinstance(item, dict) else str(item)
            for item in entry.get("waits_for", entry.get("requires")) or []
        ]
        extra = []
        if isinstance(entry.get("bytes"), (int, float)) and entry["bytes"]:
            extra.append(words.size(entry["bytes"]))
        if requires:
            extra.append("after " + ", ".join(requires))
        lines.append(f"  {number:>4}. {name:<{width}}  {words.one_line('; '.join(extra), 120)}".rstrip())
    forecast = plan.get("forecast")
    if isinstance(forecast, dict) and isinstance(forecast.get("seconds"), (int, float)):
        runs = forecast.get("runs") or 0
        lines.append(
            f"  forecast {words.duration(forecast['seconds'])}, between {words.duration(forecast.get('low'))} and {words.duration(forecast.get('high'))}"
            f" (from {runs} measured run{'s' if runs != 1 else ''}, by {' > '.join(words.one_line(name, 60) for name in plan['critical_path']['services'])});"
            " preflight measures it anew"
        )
    elif isinstance(forecast, dict):
        lines.append("  forecast none: " + words.one_line(forecast.get("reason") or "nothing was measured yet", 160))
    lines += _approval(plan)
    for item in plan.get("warnings") or []:
        lines.append(f"  warning: {words.one_line(item.get('what') if isinstance(item, dict) else item)}")
    if plan.get("resumes"):
        lines.append("  resumes  " + ", ".join(words.one_line(item, 80) for item in plan["resumes"]))
    return "\n".join(lines)


def _approval(plan: dict[str, Any]) -> list[str]:
    """Who approved it, or what to do so that somebody does."""
    found = plan.get("approval")
    if not isinstance(found, dict) or not (found["required"] or found["given"] or found["missing"]):
        return []
    if found["given"]:
        return [f"  approved by {', '.join(one['approver'] for one in found['given'])}, plan {found['digest']}"]
    missing = found["missing"] or {}
    persons = f", {found['persons']} persons with the operator" if found["persons"] > 1 else ""
    return [
        f"  approval needed from one of {', '.join(found['approvers'])}{persons}: {words.one_line(missing.get('what') or 'none was given', 300)}",
        f"           plan {found['digest']}",
        f"           approve it:  lifeboat audit approve --plan {plan.get('directory') or ''}/plan.json --key YOUR.KEY --out approval.json",
        "           carry it out: the same command without --check and with -e lifeboat_approval=approval.json",
    ]


def touched_text(found: dict[str, Any]) -> list[str]:
    """What was touched and what was not, one line per kind."""
    groups: dict[str, list[str]] = {}
    for name, item in found["services"].items():
        groups.setdefault(str(item["touched"]), []).append(name)
    return [f"{_TOUCHED[kind]}: {', '.join(groups[kind])}" for kind in ("switched", "switching", "stopped", "restarted", "untouched") if groups.get(kind)]


def ending(run: RunDirectory, found: dict[str, Any]) -> str:
    """The last lines of a run: the outcome, and for a failure its root cause, what was touched, and the next command."""
    outcome, reason = found["outcome"] or "unfinished", found["exit"]["reason"].removeprefix(f"{found['run']['verb']}: ")
    head = f"{found['run']['verb']} {found['run']['id']}: {outcome}, {reason}"
    lines = [head]
    if outcome != "success":
        lines += _causes(found)
        lines += ["  touched:     " + text if index == 0 else "               " + text for index, text in enumerate(touched_text(found))]
        next_step = found["next"]
        lines.append("  go on with:  " + next_step["resume"])
        if found["run"]["verb"] in ("restore", "drill") and any(item["touched"] in ("switched", "switching") for item in found["services"].values()):
            lines.append("  or undo it:  " + next_step["rollback"])
        lines.append("  status:      " + next_step["status"])
    foretold = forecasts.sentence(found.get("forecast"))
    if foretold and outcome == "success":
        lines.append("  forecast:    " + foretold)
    for name, item in found["services"].items():
        ends = {source: words.reached(facts.get("reached")) for source, facts in item["proof"]["sources"].items()}
        lines += [f"  reached:     {name}.{source}: {text}" for source, text in ends.items() if text]
    told = [f"{name}: {text}" for name, item in found["services"].items() for text in item["warnings"]]
    lines += [f"  warning:     {words.one_line(text, 300)}" for text in told[:_WARNINGS]]
    if len(told) > _WARNINGS:
        lines.append(f"  warning:     {len(told) - _WARNINGS} more, in the report")
    lines.append("  report:      " + run.file("report.html"))
    return "\n".join(lines)


def _causes(found: dict[str, Any]) -> list[str]:
    services: dict[str, dict[str, Any]] = found["services"]
    blocked: dict[str, list[str]] = {}
    for name, item in services.items():
        root = item["root"]
        if item["verdict"] == "blocked" and root and root["service"] != name:
            blocked.setdefault(root["service"], []).append(name)
    lines = []
    at_fault = {name for name, item in services.items()
                if item["verdict"] in ("failed", "interrupted", "degraded", None) or (item["verdict"] == "blocked" and not item["root"])}
    if not at_fault:  # what was skipped because of another's failure is no cause
        at_fault = {name for name, item in services.items() if item["verdict"] == "skipped"}
    for group in causes.failures({name: item for name, item in services.items() if name in at_fault}):
        item = group["item"]
        text = item["message"] or "no message"
        lines.append(f"  root cause:  {causes.names(group['names'], len(services))} {item['verdict'] or 'without verdict'} in phase {item['phase']}: {text}")
        if item["remedy"] and not text.endswith(item["remedy"]):
            lines.append(f"               do: {item['remedy']}")
        halted = [other for name in group["names"] for other in blocked.pop(name, [])]
        if halted:
            lines.append(f"               blocks: {', '.join(halted)}")
    for root_name, names in blocked.items():
        lines.append(f"  root cause:  {root_name}, which is not in this run; blocks: {', '.join(names)}")
    return lines


def interrupted(run: RunDirectory, why: str) -> str:
    """After Ctrl-C: what is live, what is old, and the exact commands to resume, to roll back and to look.

    Read from the run's own files: what runs on a host at this moment may still finish its step; status tells.
    """
    found = document.build(run)
    live = [name for name, item in found["services"].items() if item["touched"] in ("switched", "switching")]
    lines = [f"{why}: {run.run.get('verb')} {run.run.get('id')} has no end yet."]
    states = run.states()
    for name, item in found["services"].items():
        state = states.get(name) or {}
        where = item["verdict"] or f"in phase {state.get('phase') or 'plan'}"
        kind = _LIVE.get(item["touched"], "old data, not touched")
        lines.append(f"  {name:<20} {kind:<32} {where}")
    next_step = found["next"]
    lines.append("  resume:   " + next_step["resume"])
    if live:
        lines.append("  rollback: " + next_step["rollback"])
    lines.append("  status:   " + next_step["status"])
    return "\n".join(lines)
