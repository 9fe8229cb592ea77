# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The restore of one service as a state machine whose only memory is the ledger on the service's host.

preflight -> stage -> go_live -> mark_verified, then commit or roll_back. Every call may be repeated after a kill at any
place, by the same run or by one that resumes it, and goes on where the ledger says the last one was.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Callable, Iterator, TypeVar

from .. import checks, faults, lease, policy, state
from ..errors import LifeboatError
from ..ledger import Ledger, now
from ..progress import Progress
from ..spec import Spec
from . import history, prewarm
from .inspect import Point
from .measured import note
from .restore_job import Job
from .restore_live import cut_service, write_origin
from .restore_ready import make_ready
from .restore_stage import origin_of, stage_service
from .restore_state import Restore
from .restore_undo import commit_service, pick, undo_service

T = TypeVar("T")

#: The closed list of verdicts a restore of a service may end with.
VERDICTS = ("verified", "restored", "degraded", "captured", "committed", "rolled_back", "blocked", "interrupted", "skipped", "failed")


def preflight(
    spec: Spec, target: str, run: dict[str, Any], depth: str = "exists", force: bool = False, accept: tuple[str, ...] = (),
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Everything that would keep the restore from working, changing nothing (see restore_preflight.look).

    depth: how far the snapshots are verified: exists, hash or decode. accept: what the operator said in advance. clock: this host's.
    """
    from .restore_preflight import look  # only here: it reaches all that verifies

    return {**look(Job(spec, run, "preflight"), target, depth, force, accept, clock), "ledger": []}


def stage(spec: Spec, target: str, run: dict[str, Any], force: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Build and verify all copies beside the live data.

    Returns {"changed", "noop", "data_current", "point", "restore", "sources", "warnings", "ledger"}. ``data_current``: the live
    data is the target already (origin marker and digest), so nothing was staged; ``noop``: and the service passes
    its checks now, so that nothing is left to do. A service without sources has nothing to stage.
    """
    return _attempts(spec, run, "stage", lambda: _stage(spec, target, run, force, progress))


def _stage(spec: Spec, target: str, run: dict[str, Any], force: bool, progress: Progress | None) -> dict[str, Any]:
    job = Job(spec, run, "stage", progress)
    with lease.hold(spec, job.ledger, run, "stage"), _measured(job):
        if not spec.source_names:
            told: dict[str, Any] = {"changed": False, "data_current": True, "warnings": []}
            restore, point = None, None
        else:
            restore, point, told = stage_service(job, target, force)
            told["warnings"] += _noticed(restore) + _fallen_back(job, restore)
        noop = bool(told["data_current"]) and not force and healthy_now(spec)
        if restore is not None and point is not None and not noop:
            prewarm.begin(job, restore, {name: manifest.data for name, manifest in point.snapshots.items()})
        return _result(job, restore, point, {**told, "noop": noop})


def go_live(spec: Spec, target: str, run: dict[str, Any], force: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Swap the staged copies in (staging them first where this run has not), keep what they displace, and make the data ready for the service.

    As stage() returns, with what make_ready() says where the service declares a migration or a schema version.
    """
    told, job, restore = _attempts(spec, run, "cutover", lambda: _cut(spec, target, run, force, progress))
    if restore is None:
        return told
    with lease.hold(spec, job.ledger, run, "cutover"):
        warmed = prewarm.noted(job, restore)
        ready = {**make_ready(job, restore), **({"prewarmed": warmed} if warmed else {})}
        return {**told, **ready, "changed": told["changed"] or bool(ready.get("migrated")), "ledger": job.ledger.appended}


def _cut(spec: Spec, target: str, run: dict[str, Any], force: bool, progress: Progress | None) -> tuple[dict[str, Any], Job, Restore | None]:
    job = Job(spec, run, "cutover", progress)
    with lease.hold(spec, job.ledger, run, "cutover"), _measured(job):
        if not spec.source_names:
            return _result(job, None, None, {"changed": False, "data_current": True, "noop": False, "warnings": []}), job, None
        restore = _ready(job, force)
        told: dict[str, Any] = {"changed": False, "data_current": False, "warnings": []}
        if restore is None:
            staged, _point, told = stage_service(job, target, force)
            if staged is None:
                raise AssertionError("staged")
            restore = staged
        changed = cut_service(job, restore)
        told["data_current"] = all(source.stage == "current" for source in restore.sources.values())
        told["warnings"] = [*told["warnings"], *_noticed(_find(job, restore.id)), *_fallen_back(job, restore), *history.publish(spec, job.ledger)]
        restore = _find(job, restore.id)
        return _result(job, restore, None, {**told, "changed": changed or told["changed"], "noop": False}), job, restore


def _attempts(spec: Spec, run: dict[str, Any], name: str, work: Callable[[], T]) -> T:
    """The work of a step under the service's policy; each further try stands in the ledger."""
    def note(tries: int, pause: float, error: LifeboatError) -> None:
        Ledger.for_spec(spec).append(run, name, "step.retried", {"step": name, "tries": tries, "pause": round(pause, 3), "error": error.as_dict()})

    return policy.attempts(policy.of(spec.entry, name), spec.service, work, note)


@contextlib.contextmanager
def _measured(job: Job) -> Iterator[None]:
    """A call that fails tells what it took, too."""
    try:
        yield
    except LifeboatError as error:
        error.result.setdefault("measured", job.progress.meter.told())
        raise


def _noticed(restore: Restore | None) -> list[str]:
    """What the stores said while the copies were built; kept in the ledger, so that a resumed restore tells it too."""
    return [f"{source.name}: {text}" for source in (restore.sources.values() if restore else ()) for text in source.facts.get("warnings") or []]


def _fallen_back(job: Job, restore: Restore | None) -> list[str]:
    """What was read from another repository than the service's own, and why; it is noted in the ledger too, object by object."""
    told = job.fallbacks()
    if told and restore is not None:
        job.log("restore.fallback", restore.id, repositories=told)
    return [f"{one['what']}: {one['where']}; {one['remedy']}" for one in told]


def mark_verified(spec: Spec, run: dict[str, Any], verdict: str, message: str = "", measured: dict[str, Any] | None = None) -> dict[str, Any]:
    """Record the verdict of a service in a run, note the proof of its point, and free the lease.

    verdict: one of VERDICTS; what is not in the list is recorded as ``failed``. measured: what the run measured, for the ledger (see
    measured.py). {"changed", "verdict", "warnings", "ledger"}.
    """
    word = verdict if verdict in VERDICTS else "failed"
    job = Job(spec, run, "verdict")
    with lease.hold(spec, job.ledger, run, "verdict"):
        mine = [restore for restore in job.restores() if run["id"] in restore.runs]
        changed = False
        if mine and run.get("verb") not in ("commit", "rollback"):
            restore = mine[-1]
            changed = restore.verdict != word
            _note_proof(job, restore, word)
            faults.point("restore.verdict")
            if changed:
                job.log("restore.verdict", restore.id, verdict=word, message=message)
        note(job.ledger, run, word, str(mine[-1].point.get("id")) if mine else None, measured)
        lease.release(spec, job.ledger, run, word, {"message": message} if message else None)
        return {"changed": changed, "verdict": word, "warnings": history.publish(spec, job.ledger), "ledger": job.ledger.appended}


def roll_back(spec: Spec, run: dict[str, Any], which: str = "last", progress: Progress | None = None) -> dict[str, Any]:
    """Put back what a restore displaced; the restored copy is set aside until commit.

    which: ``last`` or a run id. Returns {"changed", "writes": {source: {"known", "written", "differences"}}, "restore",
    "sources", "warnings", "ledger"}. Refused (ConflictError) after commit, and while a newer restore holds its copy.
    """
    return _settle(spec, run, which, "rollback", progress)


def commit(spec: Spec, run: dict[str, Any], which: str = "last", progress: Progress | None = None) -> dict[str, Any]:
    """Delete what a restore displaced, or a rollback set aside; {"changed", "freed": bytes, ...} as roll_back()."""
    return _settle(spec, run, which, "commit", progress)


def _settle(spec: Spec, run: dict[str, Any], which: str, verb: str, progress: Progress | None) -> dict[str, Any]:
    job = Job(spec, run, verb, progress)
    act = undo_service if verb == "rollback" else commit_service
    with lease.hold(spec, job.ledger, run, verb):
        try:
            restore = pick(job, which, "roll back" if verb == "rollback" else verb)
            told: dict[str, Any] = act(job, restore) if restore else {"changed": False, "warnings": [], "writes": {}, "freed": 0}
        except Exception as error:
            with contextlib.suppress(LifeboatError):  # the disk may be full: then the run stays unfinished and the next one says so
                note(job.ledger, run, "failed", error=error, phase=verb)
                lease.release(spec, job.ledger, run, "failed", {"message": str(error)})
            history.publish(spec, job.ledger)
            raise
        verdict = "rolled_back" if verb == "rollback" else "committed"
        note(job.ledger, run, verdict, str(restore.point.get("id")) if restore else None)
        lease.release(spec, job.ledger, run, verdict)
        told["warnings"] = [*told["warnings"], *history.publish(spec, job.ledger)]
        return _result(job, _find(job, restore.id) if restore else None, None, told)


def predict(spec: Spec, run: dict[str, Any], verb: str, which: str = "last") -> dict[str, Any]:
    """What roll_back or commit would do, changing nothing: as they return, without ledger entries.

    A service that is back in its former data and is not well is to change too: it is not rolled back before it runs.
    """
    job = Job(spec, run, verb)
    restore = pick(job, which, "roll back" if verb == "rollback" else verb)
    changed = restore is not None and (restore.undo != "done" if verb == "rollback" else restore.commit != "done")
    if restore is not None and verb == "rollback" and restore.commit:
        undo_service(job, restore)  # refuses, and says why, before it changes anything
    if verb == "rollback" and not changed:
        changed = not all(checks.run(spec, phase)["ok"] for phase in ("status", "health"))
    return _result(job, restore, None, {"changed": changed, "warnings": []})


def healthy_now(spec: Spec) -> bool:
    """Do status, health and invariants of the service pass right now? A service that declares none of them passes."""
    return bool(checks.run(spec, "all")["ok"])


def current_state(spec: Spec) -> dict[str, Any]:
    """Origin and digests of the live data as recorded, for diff: {"point", "snapshots", "digests"}."""
    origin = state.read_json(spec.path("origin.json")) or {}
    return {"point": origin.get("point"), "snapshots": origin.get("snapshots") or {}, "digests": origin.get("digests") or {}}


def _ready(job: Job, force: bool) -> Restore | None:
    """This run's own restore when all its sources can go live at once; None when something must be staged first."""
    mine = [restore for restore in job.restores() if not restore.abandoned]
    if not mine or job.run["id"] not in mine[-1].runs or not mine[-1].open:
        return None
    for source in mine[-1].sources.values():
        if source.cutover or (source.stage == "current" and not force):
            continue
        if source.stage != "verified" or source.verified_by != job.run["id"]:
            return None
    return mine[-1]


def _find(job: Job, restore_id: str) -> Restore:
    return next(restore for restore in job.restores() if restore.id == restore_id)


def _note_proof(job: Job, restore: Restore, verdict: str) -> None:
    """The origin marker learns the verdict; a verified point is proven on this host from now on."""
    origin = origin_of(job)
    standing = restore.live or restore.current
    if standing and origin is not None and origin.get("point") == restore.point.get("id") and origin.get("verdict") != verdict:
        write_origin(job, {**origin, "verdict": verdict, "verified_at": now()})
    if verdict == "verified" and standing:
        path = job.spec.path("proofs.json")
        proofs = state.read_json(path) or {}
        points = dict(proofs.get("points") or {})
        points[str(restore.point["id"])] = {"time": now(), "run": job.run["id"], "verdict": verdict}
        newest = dict(sorted(points.items(), key=lambda item: str(item[1].get("time")))[-1000:])
        state.write_json(path, {**proofs, "points": newest}, "origin")


def _result(job: Job, restore: Restore | None, point: Point | None, told: dict[str, Any]) -> dict[str, Any]:
    about = restore.state() if restore else {"restore": None, "sources": {}}
    return {
        **told, "restore": about, "sources": about["sources"],
        "point": point.as_dict() if point else (restore.point if restore else None), "ledger": job.ledger.appended,
        "measured": job.progress.meter.told(),
    }
