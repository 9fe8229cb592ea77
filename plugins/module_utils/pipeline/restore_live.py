# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Cutover: each staged copy takes the place of the live data, which is kept under its displaced name."""

from __future__ import annotations

from typing import Any

from .. import durable, faults, state
from ..errors import ConflictError, StorageError
from ..ledger import now
from .restore_job import Job
from .restore_state import Restore, SourceState
from .taken import taken


def cut_service(job: Job, restore: Restore) -> bool:
    """Swap every staged source in, then write the origin marker. True if live data was changed by this call.

    Repeatable: a source that is live already is left alone, a swap that was begun is finished.
    """
    idle = [source.name for source in restore.sources.values() if not source.cutover and source.stage not in ("verified", "current")]
    if idle:
        raise ConflictError(
            "nothing was swapped: not every source is staged and verified", f"{job.spec.service}: {', '.join(idle)}", "stage the service first, then go live"
        )
    pending = [source.name for source in restore.sources.values() if source.cutover != "done" and source.stage != "current"]
    job.parallel(pending, lambda name: cut_source(job, restore, restore.sources[name]))
    if not restore.live:
        if restore.cut:
            _write_origin(job, restore)
            job.log("restore.live", restore.id, swapped=sorted(source.name for source in restore.cut))
        else:
            job.log("restore.current", restore.id)  # the live data is the target already: nothing was changed
        restore.live = True
    return bool(pending)


def cut_source(job: Job, restore: Restore, source: SourceState) -> None:
    """One source: intent in the ledger, swap, done in the ledger. The intent makes a kill in between repairable."""
    kind, context = job.source(source.name, digests=False)
    if source.cutover != "intent":
        job.log("cutover.intent", restore.id, source.name, snapshot=source.snapshot)
        source.cutover = "intent"
        faults.point("restore.cutover.intent")
    job.progress.say(f"{source.name}: swapping")
    facts = kind.cutover(context, source.record)
    faults.point("restore.cutover.swapped")
    job.log("cutover.done", restore.id, source.name, facts=facts)
    source.cutover, source.facts = "done", facts
    faults.point("restore.cutover.done")


def _write_origin(job: Job, restore: Restore) -> None:
    write_origin(job, {
        "service": job.spec.service, "restore": restore.id, "run": job.run["id"], "point": restore.point["id"],
        "point_time": restore.point.get("time"), "positions": restore.point.get("positions") or {},
        "snapshots": {name: source.snapshot for name, source in restore.sources.items()},
        "digests": {name: source.digest for name, source in restore.sources.items()}, "live_since": now(), "verdict": None,
        "places": restore.places, **{key: value for key, value in taken(job.spec.catalog, "").items() if key in ("ecosystem", "host")},
    })


def write_origin(job: Job, origin: dict[str, Any] | None) -> None:
    """Replace the origin marker, or remove it."""
    path = job.spec.path("origin.json")
    if origin is not None:
        state.write_json(path, origin, "origin")
        return
    try:
        durable.unlink(path, "origin")
        durable.fsync_dir(job.spec.service_dir, "origin")
    except OSError as error:
        raise StorageError(f"Failed to remove the origin marker ({error.strerror})", path, "fix permissions, then run again") from error
