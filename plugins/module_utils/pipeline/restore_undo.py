# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Rollback puts the displaced data back and sets the restored copy aside; commit deletes what is kept.

Both find their restore in the host's ledger and need neither repository nor keys. ``last`` is the newest restore that
replaced data, whatever became of it: so the same command again after a kill never reaches for the one before.
"""

from __future__ import annotations

from typing import Any

from .. import faults
from ..errors import ConflictError, LifeboatError, TargetError
from .restore_job import Job
from .restore_live import cut_source, write_origin
from .restore_stage import discard
from .restore_state import Restore, SourceState, find, held_bytes

#: Verdicts of a service that runs as the restore wanted it.
_WELL = ("verified", "restored", "degraded")


def pick(job: Job, which: str, verb: str) -> Restore | None:
    """The restore to act on; None for a service without sources, one that took no part (``which`` is ""), or that the named run found as it should be.

    A named restore that never came to its cutover counts for a rollback: the service was stopped for it. Raises TargetError when there is none.
    """
    if not job.spec.source_names or not which:
        return None
    restore = find(job.restores(), which, job.spec.service)
    if restore is not None and not restore.cut and restore.current and restore.verdict in _WELL:
        return None
    if restore is None or (not restore.cut and (restore.abandoned or (verb == "commit" and not restore.open))):
        raise TargetError(
            f"nothing to {verb}: no restore on record has replaced live data", f"service {job.spec.service}",
            "the status playbook shows what each service holds",
        )
    return restore


def undo_service(job: Job, restore: Restore) -> dict[str, Any]:
    """Roll one restore back; {"changed", "writes": {source: {...}}, "warnings"}. Refused once it is committed."""
    if restore.commit:
        word = "was committed" if restore.commit == "done" else "is being committed"
        raise ConflictError(
            f"restore {restore.id} {word} at {restore.ended_at}: what it displaced is gone", f"service {job.spec.service}",
            "restore an earlier point instead (points playbook)",
        )
    newer = [other for other in job.restores() if other.cut and other.undo != "done" and other.commit != "done"]
    newer = newer[[other.id for other in newer].index(restore.id) + 1:] if restore.id in [other.id for other in newer] else []
    if newer:
        raise ConflictError(
            f"restore {newer[-1].id} was made after {restore.id} and holds its copy", f"service {job.spec.service}",
            f"roll back {newer[-1].id} first, or commit it",
        )
    if restore.undo == "done":
        return {"changed": False, "writes": restore.writes, "warnings": []}
    writes = restore.writes if restore.undo == "intent" else _writes(job, restore)
    if restore.undo != "intent":
        job.log("rollback.intent", restore.id, sources=[source.name for source in restore.cut], writes=writes)
        faults.point("rollback.intent")
    job.parallel([source.name for source in restore.cut if source.undo != "done"], lambda name: _undo_source(job, restore, restore.sources[name]))
    staged = [source.name for source in restore.sources.values() if not source.cutover and source.record and source.stage != "discarded"]
    job.parallel(staged, lambda name: discard(job, restore, restore.sources[name], "rolled back before its cutover"))
    write_origin(job, restore.origin_before)
    job.log("rollback.done", restore.id, writes=writes)
    faults.point("rollback.done")
    return {"changed": True, "writes": writes, "warnings": []}


def _undo_source(job: Job, restore: Restore, source: SourceState) -> None:
    kind, context = job.source(source.name, digests=False)
    if source.cutover == "intent" and not source.undo:
        cut_source(job, restore, source)  # a swap cut short has two halves; rollback knows the whole one
    if not source.undo:
        job.log("rollback.source.intent", restore.id, source.name)
        source.undo = "intent"
    job.progress.say(f"{source.name}: putting the former data back")
    facts = kind.rollback(context, source.record)
    faults.point("rollback.swapped")
    job.log("rollback.source.done", restore.id, source.name, facts=facts)


def _writes(job: Job, restore: Restore) -> dict[str, dict[str, Any]]:
    """Per source: is the live data still the restored one, or what was written since cutover (and is set aside now)?

    A courtesy that needs repository and index key; without them it says so and rollback goes on.
    """
    told: dict[str, dict[str, Any]] = {}
    try:
        point, _problems = job.point(str(restore.point["id"]))
    except LifeboatError as error:
        return {source.name: {"known": False, "reason": str(error)} for source in restore.cut}
    for source in restore.cut:
        if source.cutover != "done":
            told[source.name] = {"known": False, "reason": "its swap was cut short"}
            continue
        try:
            manifest = point.snapshots[source.name]
            kind, context = job.source(source.name)
            comparison = kind.verify_live(context, job.store.tree(manifest), manifest.data)
            told[source.name] = {"known": True, "written": not comparison.equal, "differences": comparison.differences[:20]}
        except (LifeboatError, OSError, KeyError) as error:
            told[source.name] = {"known": False, "reason": str(error)}
    return told


def commit_service(job: Job, restore: Restore) -> dict[str, Any]:
    """Delete what one restore displaced (or, rolled back, set aside); {"changed", "freed": bytes, "warnings"}."""
    if restore.commit == "done":
        return {"changed": False, "freed": 0, "warnings": []}
    warnings: list[str] = []
    if restore.undo == "intent":
        raise ConflictError(f"the rollback of restore {restore.id} is unfinished", f"service {job.spec.service}", "run the same rollback again first")
    if not restore.undo and not restore.live:
        raise ConflictError(
            f"restore {restore.id} is not live yet: {', '.join(f'{s.name} {s.word}' for s in restore.sources.values())}", f"service {job.spec.service}",
            "run the same restore again to finish it, or roll it back",
        )
    if not restore.undo and restore.verdict not in ("verified", "restored", "degraded"):
        warnings.append(f"restore {restore.id} of {job.spec.service} was committed although its verdict is {restore.verdict or 'missing'}")
    if restore.commit != "intent":
        held = {source.name: held_bytes(source) for source in restore.cut}
        job.log("commit.intent", restore.id, sources=[source.name for source in restore.cut], held=held)
        faults.point("commit.intent")

    def commit(name: str) -> int:
        source = restore.sources[name]
        kind, context = job.source(name, digests=False)
        facts = kind.commit(context, source.record)
        job.log("commit.source.done", restore.id, name, facts=facts)
        faults.point("commit.source.done")
        return int(facts.get("freed", 0))

    before = sum(int(source.facts.get("freed", 0)) for source in restore.cut if source.commit == "done")
    freed = before + sum(job.parallel([source.name for source in restore.cut if source.commit != "done"], commit).values())
    job.log("commit.done", restore.id, freed=freed)
    faults.point("commit.done")
    return {"changed": True, "freed": freed, "warnings": warnings}
