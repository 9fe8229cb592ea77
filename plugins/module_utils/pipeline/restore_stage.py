# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Stage: every source of the target built beside the live data and read back; live data is not touched.

What an earlier, unfinished run of the same target left is gone on with: its target is kept, a staged copy that was
verified is verified again and used, a swap that was begun is finished (by go_live).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import faults, limits, state
from ..errors import CheckError, LifeboatError, TargetError
from ..sources.contract import Context, Source
from . import controls
from .escrowed import escrow_used
from .inspect import Point
from .restore_job import Job
from .restore_state import Restore, SourceState, short_digest


def origin_of(job: Job) -> dict[str, Any] | None:
    """The origin marker: which point the live data was restored from; None when it never was."""
    return state.read_json(job.spec.path("origin.json"))


def data_current(job: Job, point: Point) -> bool:
    """Does the origin marker name this point, and is the live data still exactly that? Reads all live data."""
    origin = origin_of(job)
    wanted = {name: manifest.id for name, manifest in point.snapshots.items()}
    if origin is None or origin.get("snapshots") != wanted or set(wanted) != set(job.spec.source_names):
        return False
    if (origin.get("positions") or {}) != (point.as_dict().get("positions") or {}):
        return False

    def same(name: str) -> bool:
        source, context = job.source(name)
        position = point.positions.get(name)
        context.target = position.as_dict() if position else None
        try:
            return source.verify_live(context, job.store.tree(point.snapshots[name]), point.snapshots[name].data).equal
        except LifeboatError:
            return False  # a store that cannot be read is not known to hold the target

    return all(job.parallel(job.spec.source_names, same).values())


def choose(job: Job, target: str, force: bool) -> tuple[Restore | None, Point, list[str], list[LifeboatError]]:
    """(restore to go on with or None, point, warnings, problems of the chains). Changes nothing.

    An unfinished run's target is kept even when ``latest`` moved meanwhile; one that ended in failure is gone
    on with only when the target still means the same point.
    """
    last = _last(job)
    warnings: list[str] = []
    if last is not None and last.open and last.sources and not (force and last.live):
        resumable = set(last.sources) == set(job.spec.source_names)
        if resumable and not last.verdict and target == last.asked:
            try:
                point, problems = job.point(str(last.point["id"]))
            except TargetError as error:
                if last.cut:
                    raise
                warnings.append(f"the unfinished restore {last.id} cannot be gone on with ({error.what}); its target is chosen anew")
            else:
                newer = _moved(job, target, point)
                if newer:
                    warnings.append(f"the unfinished run's point {point.id} is kept, although {target!r} now means {newer}")
                return last, point, warnings, problems
        point, problems = job.point(target)
        if resumable and point.id == last.point["id"] and _same(last, point):
            return last, point, warnings, problems
        return None, point, warnings, problems
    point, problems = job.point(target)
    return None, point, warnings, problems


def _last(job: Job) -> Restore | None:
    restores = [restore for restore in job.restores() if not restore.abandoned]
    return restores[-1] if restores else None


def _same(restore: Restore, point: Point) -> bool:
    return {name: source.snapshot for name, source in restore.sources.items()} == {name: m.id for name, m in point.snapshots.items()}


def _moved(job: Job, target: str, point: Point) -> str:
    try:
        now, _problems = job.point(target)
    except LifeboatError:
        return ""
    return now.id if now.id != point.id else ""


def check_point(job: Job, point: Point) -> None:
    """Refuse a point that does not hold what the service declares today."""
    lacking = sorted(set(job.spec.source_names) - set(point.snapshots))
    extra = sorted(set(point.snapshots) - set(job.spec.source_names))
    if lacking or extra:
        what = f"the point has no snapshot of {', '.join(lacking)}" if lacking else f"the catalog no longer declares {', '.join(extra)}"
        raise TargetError(what, f"point {point.id} of {job.spec.service}", "choose a point that fits the catalog, or the catalog that fits the point")


def stage_service(job: Job, target: str, force: bool) -> tuple[Restore | None, Point, dict[str, Any]]:
    """Stage under the lease; returns (restore, point, {"changed", "data_current", "warnings", "controls": as observed()})."""
    escrowed = escrow_used(job.spec, job.store, job.ledger, job.run)
    restore, point, warnings, problems = choose(job, target, force)
    check_point(job, point)
    warnings += [*escrowed, *(str(problem) for problem in problems)]
    protected = controls.observed(job.store, point.snapshots.values())
    told: dict[str, Any] = {"changed": False, "data_current": False, "warnings": warnings, "controls": protected}
    resumed, current = restore, False
    if resumed is None:
        _give_up_last(job)
    if resumed is None or _untouched(resumed):
        current = not force and data_current(job, point)  # nothing was staged yet, so the live data may be the target already
    restore = resumed or _begin(job, target, point, protected)
    if resumed is not None:
        held = [source for source in resumed.sources.values() if source.stage == "current" and not source.cutover]
        if held and (force or (job.run["id"] != resumed.runs[-1] and not data_current(job, point))):
            for source in held:
                source.stage = ""  # equal then, but not now, or not to be relied on
        if job.run["id"] not in resumed.runs or resumed.verdict:
            job.log("restore.resumed", resumed.id, runs=resumed.runs)
    told["data_current"] = current
    if current:
        for name in point.snapshots:
            job.log("stage.current", restore.id, name, **_about(point.snapshots[name].data))
        return _again(job, restore.id), point, told
    for name in point.snapshots:
        job.spec.prepare_work_dir(name)

    working = restore

    def stage(name: str) -> bool:
        return _stage_source(job, working, working.sources[name], point)

    done = job.parallel(point.snapshots, stage)
    told["changed"] = any(done.values())
    restore = _again(job, working.id)
    told["data_current"] = all(source.stage == "current" for source in restore.sources.values())
    return restore, point, told


def _untouched(restore: Restore) -> bool:
    """Whether it ended before it had staged anything or had found all sources to be the target already."""
    sources = restore.sources.values()
    return not any(source.cutover or source.stage not in ("", "current") for source in sources) and not restore.current


def _again(job: Job, restore_id: str) -> Restore:
    return next(restore for restore in job.restores() if restore.id == restore_id)


def _begin(job: Job, target: str, point: Point, protected: dict[str, Any]) -> Restore:
    taken = {restore.id for restore in job.restores()}
    name, number = str(job.run["id"]), 1
    while name in taken:
        number += 1
        name = f"{job.run['id']}.{number}"
    # what the operator asked for, not what the plan made of it: whoever asks for the same again goes on with this point
    job.log("restore.target", name, asked=str(job.run.get("target") or target), point=point.as_dict(), origin_before=origin_of(job),
            manifests={source: manifest.digest for source, manifest in point.snapshots.items()}, controls=protected, places=_places(job, point))
    return _again(job, name)


def _places(job: Job, point: Point) -> dict[str, str]:
    """Source -> its live data in one word, as far as the sources can tell; the origin marker keeps whose data it is."""
    found = {}
    for name, manifest in point.snapshots.items():
        source, context = job.source(name)
        with contextlib.suppress(LifeboatError):
            footprint = source.footprint(context, manifest.data)
            if footprint is not None and footprint.live:
                found[name] = footprint.live
    return found


def _give_up_last(job: Job) -> None:
    """Another target than the unfinished one's: finish swaps that were begun, throw away copies that were only staged."""
    last = _last(job)
    if last is None or not last.open:
        return
    from .restore_live import cut_source

    swapping = [source.name for source in last.sources.values() if source.cutover == "intent"]
    staged = [source.name for source in last.sources.values() if not source.cutover and source.record and source.stage != "discarded"]
    job.parallel(swapping, lambda name: cut_source(job, last, last.sources[name]))
    job.parallel(staged, lambda name: discard(job, last, last.sources[name], "another target was asked for"))
    job.log("restore.abandoned", last.id, by=job.run["id"])


def discard(job: Job, restore: Restore, source: SourceState, reason: str) -> None:
    """Throw away a staged copy and say why."""
    kind, context = job.source(source.name, digests=False)
    with limits.lifted():
        kind.discard(context, source.record)
    job.log("stage.discarded", restore.id, source.name, reason=reason)
    source.stage, source.record = "discarded", {}


def _clear_away(job: Job, restore: Restore, source: SourceState) -> None:
    """A half-built copy is worth nothing, and on a full disk it starves the live data beside it."""
    try:
        discard(job, restore, source, "staging failed")
    except LifeboatError:
        pass  # the first error is the one to tell; the next try throws the copy away


def stage_id(restore_id: str, source: SourceState) -> str:
    """A short name, unique per restore, source and attempt, of letters, digits and _ (it becomes part of database names)."""
    stamp = re.match(r"(\d{8})T(\d{6})", restore_id)
    digest = hashlib.sha256(f"{restore_id}/{source.name}/{source.attempts}".encode()).hexdigest()[:8]
    return f"{stamp.group(1)}_{stamp.group(2)}_{digest}" if stamp else digest


def _stage_source(job: Job, restore: Restore, source: SourceState, point: Point) -> bool:
    """One source, from whatever the ledger says was done already. True if anything was changed on the host."""
    if source.cutover or source.stage == "current":
        return False
    kind, context = job.source(source.name)
    position = point.positions.get(source.name)
    context.target = position.as_dict() if position else None
    reader = job.store.reader(point.snapshots[source.name])
    if source.stage == "verified" and source.verified_by == job.run["id"]:
        return False  # the same call again
    if source.stage == "verified":
        job.progress.say(f"{source.name}: verifying the staged copy")
        try:
            with job.progress.meter.during("verify"):
                comparison = kind.verify_staged(context, reader, source.record)
            broken = "" if comparison.equal else "; ".join(comparison.differences[:3])
        except LifeboatError as error:
            comparison, broken = None, str(error)
        if comparison is not None and not broken:
            job.log("stage.verified", restore.id, source.name, items=comparison.items, again=True, **_about(reader.manifest), **_noticed(source.record))
            return False
        discard(job, restore, source, f"the staged copy no longer holds the snapshot ({broken})")
    if source.stage in ("", "discarded"):
        _refuse(kind.preflight_restore(context, reader.manifest))
        source.record = kind.plan_stage(context, reader.manifest, stage_id(restore.id, source))
        job.log("stage.intent", restore.id, source.name, snapshot=source.snapshot, record=source.record, **_about(reader.manifest))
    reader.open_keys()  # before anything is built: from here on the keys' provider may go away
    faults.point("restore.stage.begin")
    acted = kind.prepare(context, source.record)
    job.log("stage.provisioned", restore.id, source.name, acted=acted)
    faults.point("restore.stage.provisioned")
    job.progress.say(f"{source.name}: staging")
    try:
        kind.stage(context, reader, source.record)
    except LifeboatError:
        _clear_away(job, restore, source)
        raise
    job.log("stage.filled", restore.id, source.name)
    faults.point("restore.stage.filled")
    job.progress.say(f"{source.name}: verifying the staged copy")
    with ThreadPoolExecutor(1, thread_name_prefix="settle") as beside:
        settled = beside.submit(_settle, job, kind, context, source.record)
        with job.progress.meter.during("verify"):
            comparison = kind.verify_staged(context, reader, source.record)
    try:
        settled.result()
    except LifeboatError:
        _clear_away(job, restore, source)
        raise
    if not comparison.equal:
        differences = "; ".join(comparison.differences[:3])
        discard(job, restore, source, f"the staged copy is not what was captured ({differences})")
        raise CheckError(
            f"the staged copy is not what was captured ({differences})", f"snapshot {source.snapshot}",
            "live data is as it was; verify the snapshot and choose another point",
        )
    job.log("stage.verified", restore.id, source.name, items=comparison.items, **_about(reader.manifest), **_noticed(source.record))
    faults.point("restore.stage.verified")
    return True


def _settle(job: Job, kind: Source, context: Context, record: dict[str, Any]) -> None:
    with job.progress.meter.during("write"):
        kind.settle(context, record)


def _about(manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": manifest.get("type", ""), "proof": manifest.get("proof", ""), "digest": short_digest(manifest["digest"]),
        "bytes": int((manifest.get("bytes") or {}).get("source", 0)),
    }


def _noticed(record: dict[str, Any]) -> dict[str, Any]:
    """What a source found out while it staged: where recovery ended ("reached"), and its warnings."""
    facts = {key: record[key] for key in ("reached", "warnings") if record.get(key)}
    return {"facts": facts} if facts else {}


def _refuse(findings: list[Any]) -> None:
    errors = [finding.error for finding in findings if finding.level == "error"]
    if errors:
        raise errors[0]
