# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The tables of the verbs status and points, from what the hosts answered."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any, Mapping

from ansible_collections.lifeboat.recovery.plugins.module_utils.cli.text import age, size, table

from ..run import words
from ..run.directory import RunDirectory
from .pick import command
from .target import candidates


def _silent(answer: Mapping[str, Any]) -> str:
    """Why a host gave no answer; empty when it did."""
    if answer.get("unreachable"):
        return "its host does not answer"
    if answer.get("failed"):
        return words.one_line(answer.get("msg") or "failed", 200)
    return ""


def status(answers: Mapping[str, Mapping[str, Any]], inventory: str = "", root: str = "", clusters: Mapping[str, Mapping[str, Any]] | None = None) -> list[str]:
    """One row per service, then what needs somebody: who works, what is unfinished, what is not committed. clusters: service -> its cluster_choice."""
    rows, notes = [], []
    held = 0
    for service, answer in answers.items():
        cluster = (clusters or {}).get(service) or {}
        notes += [words.one_line(f"{service}: server {text}", 200) for text in cluster.get("said") or []]
        notes += [words.one_line(f"{service}: WRONG: {text}", 400) for text in cluster.get("warnings") or []]
        silent = _silent(answer)
        if silent:
            rows.append([service, "?", "?", "?", "?"])
            notes.append(f"{service}: {silent}")
            continue
        lease, unfinished, origin = answer.get("lease") or {}, answer.get("unfinished") or {}, answer.get("origin") or {}
        proof, uncommitted = answer.get("proof") or {}, answer.get("uncommitted") or []
        working = f"{lease.get('verb')}, {lease.get('phase')}" if lease.get("alive") else "unfinished " + str(unfinished.get("verb")) if unfinished else ""
        kept = int(answer.get("held_bytes") or 0)
        held += kept
        rows.append([
            service, working, f"{origin.get('point')}, live since {age(origin.get('live_since'))}" if origin.get("point") else "",
            f"{proof.get('point')}, {age(proof.get('time'))}" if proof else "never", f"{len(uncommitted)}, {size(kept)}" if uncommitted else "",
        ])
        if lease.get("alive"):
            notes.append(f"{service}: {lease.get('user') or 'somebody'} on {lease.get('controller') or 'an unknown controller'} works on it since "
                         f"{lease.get('since')}, run {lease.get('run')}, phase {lease.get('phase')}")
        elif unfinished:
            notes.append(f"{service}: run {unfinished.get('run')} ({unfinished.get('verb')}) of {unfinished.get('since')} never ended; "
                         f"go on with: {command(str(unfinished.get('verb')), inventory, services=service)}")
        for source, log in (answer.get("logs") or {}).items():
            where = f"proven up to {log.get('position')} of timeline {log.get('timeline')}" if log.get("position") else "nothing proven yet"
            wrong = f", WRONG: {', '.join(log.get('alarms') or [])}; look at it on its host: lifeboat log status {service}" if log.get("alarms") else ""
            notes.append(f"{service}: log of {source}: {log.get('state')}, {where}{wrong}")
    lines = table(["service", "now", "live data restored from", "last proof", "kept until commit"], rows).splitlines()
    lines += [""] + notes if notes else []
    runs = sorted({str(name) for answer in answers.values() for name in answer.get("uncommitted") or []})
    if runs:
        lines += ["", f"not committed, {size(held)} held by files: {', '.join(runs)}",
                  f"  keep what was restored: {command('commit', inventory, run=runs[-1])}",
                  f"  put the former back:    {command('rollback', inventory, run=runs[-1])}"]
    lines += _runs(root)
    return lines


def shippers(services: Mapping[str, Any]) -> list[str]:
    """What must be kept running, where nothing else does it."""
    return [f"{service}: nothing ships the log of {source} until you keep this running: lifeboat log run {service} {source}"
            for service, names in services.items() for source in names]


def _runs(root: str) -> list[str]:
    """Runs of this controller that have no end."""
    found = []
    for name in sorted(os.listdir(root)) if root and os.path.isdir(root) else []:
        run = RunDirectory(os.path.join(root, name))
        if words.RUN_ID.match(name) and run.exists() and not run.sealed() and not run.plan.get("check"):
            living = {True: "runs now", False: "was lost", None: "belongs to another controller"}[run.alive()]
            found.append(f"  {name}: {living}, by {run.run.get('user')}, {', '.join(run.picked())}")
    return ["", "runs of this controller without an end:", *found] if found else []


def points(answers: Mapping[str, Mapping[str, Any]], inventory: str = "", newest: int = 10) -> list[str]:
    """The newest points of each service: age, what going there would lose, size, proof."""
    now = datetime.now(timezone.utc)
    rows, notes = [], []
    for service, answer in answers.items():
        silent = _silent(answer)
        if silent:
            notes.append(f"{service}: {silent}")
            continue
        own = candidates(answer.get("points") or [], now)
        for point in own[:newest]:
            lost = point.get("lost_seconds")
            held = ", ".join(point.get("repositories") or [])
            lacks = ", ".join(point.get("missing") or ["?"])
            rows.append([
                service, point["id"], age(point["time"]), words.duration(point.get("age_seconds")), "" if not lost else f"{words.duration(lost)} more",
                size(point.get("bytes")), "proven" if point.get("proven") else "", "" if point.get("complete") else f"torn: lacks {lacks}", held,
            ])
        if len(own) > newest:
            notes.append(f"{service}: {len(own) - newest} older points not shown (lifeboat_newest)")
        if not own and answer.get("mark") is not None:
            notes.append(f"{service}: no point yet; {command('backup', inventory, services=service)}")
        for item in answer.get("notes") or []:
            text = f"{item.get('what')}: {item.get('where')}; {item.get('remedy')}" if isinstance(item, Mapping) else str(item)
            notes.append(f"{service}: {words.one_line(text)}")
    head = ["service", "point", "taken", "loses", "than latest", "size", "proof", ""]
    if any(row[-1] for row in rows):
        lines = table([*head, "in"], rows).splitlines()
    else:
        lines = table(head, [row[:-1] for row in rows]).splitlines()
    return [*lines, "", *notes] if notes else lines
