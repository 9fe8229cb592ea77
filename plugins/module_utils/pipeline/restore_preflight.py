# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Preflight of a restore: everything that would keep it from working, all at once. Changes nothing anywhere."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Callable

from .. import identity
from ..errors import LifeboatError, TargetError
from . import preflight_host as host
from . import preflight_target as aim
from .estimate import Estimate
from .inspect import Point
from .preflight_host import Found
from .restore_job import Job
from .restore_stage import check_point, choose, data_current
from .restore_state import Restore
from .verify import verify_service

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore

#: Chunks of each snapshot that are decoded as the restore will, the first and the last among them, where not all are.
_SAMPLE = 4
_SEQUENCE = re.compile(r"/([^/]+)/(\d+)\.json$")


def look(
    job: Job, target: str, depth: str, force: bool, accept: tuple[str, ...] = (), clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """{"ok", "findings", "warnings", "point", "resumes": restore id or None, "data_current", "changed": prediction} and, for the judge of
    all services: "host", "clock", "places", "needs", "estimate".

    estimate: what it would move, as Estimate.result(); None where findings kept it from being told.
    Findings are as findings.finding(). accept: words of preflight_target.WORDS that the operator gave. clock: this host's.
    """
    began = clock()
    found = Found()
    job.clock = clock
    host.look(job, found)
    told: dict[str, Any] = {
        "point": None, "resumes": None, "data_current": False, "changed": True, "warnings": [], "estimate": None,
        "host": identity.host(), "places": [], "needs": [],
    }
    if not job.spec.source_names:
        told.update(data_current=True, changed=False)
    else:
        opened = _open(job, found)
        try:
            if opened:
                job.metered()
                _look_at_data(job, target, depth, force, accept, found, told)
        except LifeboatError as error:
            found.add(error, cause=_cause(job, error))
    for one in job.fallbacks():
        found.all.append({"level": "warning", "kind": "repository", "source": None, "cause": "", **_short(one)})
    told["findings"] = found.told()
    told["clock"] = {"began": began, "ended": clock()}
    told["ok"] = not any(finding["level"] == "error" for finding in told["findings"])
    return told


def _open(job: Job, found: Found) -> bool:
    """Reach the repository and the keys along the restore's own ways: read an object of the one, ask the other. False: no repository."""
    try:
        store: ServiceStore | None = job.store
    except LifeboatError as error:
        kind = "repository" if error.kind == "catalog" else error.kind
        found.add(error, kind=kind, cause=str(job.spec.repository.get("url", "")))
        store = None
    try:
        _index_key(job, store)
    except LifeboatError as error:
        found.add(error, cause=_cause(job, error))
    return store is not None


def _index_key(job: Job, store: ServiceStore | None) -> bytes:
    return store.index_key if store is not None else job.spec.provider().index_key()


def _cause(job: Job, error: LifeboatError) -> str:
    """What several services may suffer from together."""
    if error.kind == "key" and job.spec.keys.get("url"):
        return str(job.spec.keys["url"])
    return str(job.spec.repository.get("url", "")) if error.kind == "repository" else ""


def _look_at_data(job: Job, target: str, depth: str, force: bool, accept: tuple[str, ...], found: Found, told: dict[str, Any]) -> None:
    restore, point, told["warnings"], problems = choose(job, target, force)
    told["point"], told["resumes"] = point.as_dict(), restore.id if restore else None
    # a plan may have resolved ``latest`` already; what was asked for stands in the run
    asked = str(job.run.get("target") or target)
    for problem in problems:
        if restore is None and asked == "latest" and _newer(problem, point):
            found.add(TargetError(
                f"the latest point cannot be told: {problem.what}", problem.where,
                f"find out what removed or damaged it; to accept point {point.id} instead, ask for it by this name",
            ))
        else:
            found.add(problem, None, "warning")
    check_point(job, point)
    estimate = Estimate()
    _check_snapshots(job, point, depth, found, estimate)
    left = _check_sources(job, restore, point, found)
    told.update(_predict(job, restore, point, force))
    told["estimate"] = estimate.result(job.store, point, restore, bool(told["data_current"]))
    touched = aim.footprints(job, point, list(point.snapshots), found)
    told["places"] = aim.places(touched)
    # what is staged already, or need not be, takes no more room
    told["needs"] = aim.needs(job, {name: footprint for name, footprint in touched.items() if name in left and not told["data_current"]}, found)
    aim.check_identity(job, point, touched, accept, found)
    aim.check_clocks(job, point, asked, job.clock, found)


def _short(warning: dict[str, Any]) -> dict[str, Any]:
    return {key: warning[key] for key in ("code", "what", "where", "remedy")}


def _newer(problem: LifeboatError, point: Point) -> bool:
    """Is this about a manifest newer than the point's? Then ``latest`` would silently mean an older state than it should."""
    place = _SEQUENCE.search(problem.where)
    if place is None:
        return False
    manifest = point.snapshots.get(place.group(1))
    return manifest is not None and int(place.group(2)) > int(manifest.data["sequence"])


def _check_snapshots(job: Job, point: Point, depth: str, found: Found, estimate: Estimate) -> None:
    """Objects exist in the right size (or deeper), the tree reads, the data keys open, a sample of the content decodes; and what a restore would move."""
    mine = {manifest.id: name for name, manifest in point.snapshots.items()}
    damaged = set()
    for one in verify_service(job.spec, point.id, depth, job.progress, job.store)["findings"]:
        hurt = [mine[snapshot] for snapshot in one["snapshots"] if snapshot in mine]
        damaged.update(hurt)
        error = {key: one[key] for key in ("code", "what", "where", "remedy")}
        if hurt:
            error["where"] = f"{error['where']}, needed by snapshot {', '.join(s for s in one['snapshots'] if s in mine)}"
        level = one["level"] if hurt else "warning"
        found.all.append({"level": level, "kind": one["kind"], "source": hurt[0] if hurt else None, "cause": "", **error})

    def read(name: str) -> None:
        reader = job.store.reader(point.snapshots[name])
        reader.open_keys()
        source, context = job.source(name)
        local = source.local_share(context, point.snapshots[name].data)
        for entry in reader.entries():
            if local is not None:
                local.see(entry)
        if depth != "decode" and name not in damaged:  # else each chunk was decoded, or need not be
            count = reader.count()
            for number in sorted({part * (count - 1) // max(1, _SAMPLE - 1) for part in range(_SAMPLE)}) if count else ():
                reader.chunk(number)
        position = point.positions.get(name)
        log = source.log_bytes(point.snapshots[name].data, position.as_dict(), reader.log) if position and reader.log else 0
        estimate.source(name, reader, local, log)

    for name in point.snapshots:
        try:
            read(name)
        except LifeboatError as error:
            found.add(error, name, cause=_cause(job, error))


def _check_sources(job: Job, restore: Restore | None, point: Point, found: Found) -> list[str]:
    """What each source itself has to say, unless its copy is staged or live already; the names of those that were asked."""
    def ask(name: str) -> None:
        try:
            source, context = job.source(name)
            position = point.positions.get(name)
            context.target = position.as_dict() if position else None
            for one in source.preflight_restore(context, point.snapshots[name].data):
                found.add(one.error, name, one.level, one.kind)
        except LifeboatError as error:
            found.add(error, name)

    done = {name for name, state in (restore.sources.items() if restore else ()) if state.cutover or state.stage in ("verified", "current")}
    left = [name for name in point.snapshots if name not in done]
    job.parallel(left, ask)
    return left


def _predict(job: Job, restore: Restore | None, point: Point, force: bool) -> dict[str, Any]:
    if restore is not None:
        rest = [source for source in restore.sources.values() if source.cutover != "done"]
        current = bool(rest) and all(source.stage == "current" for source in rest) and not force and data_current(job, point)
        return {"data_current": current, "changed": bool(rest) and not current}
    current = not force and data_current(job, point)
    return {"data_current": current, "changed": not current}
