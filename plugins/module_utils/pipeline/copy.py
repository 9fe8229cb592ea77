# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Bring the copies of a service's repository up to date.

``copies.json`` in the service's state directory: {repository id: {name of the copy: {"finished": ISO UTC, "marks": {source: {"sequence",
"digest", "name"}}}}}: when a copy was last complete, and how far. It decides when the next one is due, and by it a missing end of a copy is noticed.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from .. import state
from ..errors import ConfigError, LifeboatError, StorageError
from ..ledger import Ledger
from ..progress import Progress
from ..repository.copying import Copier, Report
from ..repository.repository import NoRepository, Repository, ServiceStore
from .capture import default_workers
from .targets import parse_time

if TYPE_CHECKING:
    from ..spec import Spec

#: A copy that is due within this many seconds is made at once: a backup that runs as often as its copy must not miss every second one.
_EARLY = 60.0


def _chosen(spec: Spec, origin: str, to: list[str], repair: bool = False) -> tuple[str, list[str]]:
    if repair and (origin or not to):
        raise ConfigError("a repair takes sound objects from wherever they are, and needs the name of what is repaired", f"service {spec.service}",
                          f"name one of {', '.join(spec.places())} as the target, and no origin")
    names = list(spec.places())
    for name in [origin, *to]:
        spec.at(name)
    origin = origin or names[0]
    targets = to or [name for name in names if name != origin]
    if origin in targets and not repair:
        raise ConfigError("a repository is not copied to itself", origin, "name another one")
    return origin, targets


def copy_service(
    spec: Spec, run: dict[str, Any], progress: Progress, to: list[str] | None = None, origin: str = "", due: bool = False, repair: bool = False,
) -> dict[str, Any]:
    """Copy what the service's copies lack; from ``origin`` (default: the repository itself) to each of ``to`` (default: all others).

    due: only those whose interval is over. repair: read everything that is there and replace what is damaged, from wherever it is sound:
    any other repository of the service, or an older version in the same bucket; ``to`` may name the repository itself then.
    Returns {"changed", "ok", "copies": [{"name", "from", "objects", "bytes", "snapshots": ids that are complete there since now,
    "problems": [error dicts]}], "warnings", "ledger"}. A copy that cannot be made is a problem of its own; the others go on.
    """
    ledger = Ledger.for_spec(spec)
    told: list[dict[str, Any]] = []
    if spec.source_names:
        origin, targets = _chosen(spec, origin, list(to or []), repair)
        for name in targets:
            if due and not _is_due(spec, name):
                continue
            report = Report()
            try:
                if repair:
                    _repair(spec, name, progress, report)
                else:
                    _copy(spec, origin, name, progress, report)
            except LifeboatError as error:
                report.problems.append(error)
            problems = [problem.as_dict() for problem in report.problems]
            one = {"name": name, "from": "" if repair else origin, "objects": report.objects, "bytes": report.bytes}
            if report.objects or problems:
                ledger.append(run, "copy", "copy.end", {**one, "problems": problems[:20], "snapshots": report.manifests[:100]})
            told.append({**one, "snapshots": report.manifests, "problems": problems})
    return {
        "changed": any(one["objects"] for one in told), "ok": not any(one["problems"] for one in told), "copies": told, "warnings": [],
        "ledger": ledger.appended,
    }


def _copy(spec: Spec, origin: str, name: str, progress: Progress, report: Report) -> None:
    store = spec.at(origin).store(default_workers())
    target = Repository.open_copy(store.repository, spec.places()[name])
    progress.say(f"copying {origin} to {name}")
    began = datetime.datetime.now(datetime.timezone.utc)
    Copier(store, target.backend, (origin, name), progress, default_workers(), report).run()
    if not report.problems:
        _remember(spec, store.repository.id, name, began, report)


def _repair(spec: Spec, name: str, progress: Progress, report: Report) -> None:
    target = Repository.open(spec.places()[name])
    others = [config for place, config in spec.places().items() if place != name]
    source = Repository.open_all([*others, spec.places()[name]])
    if source.id != target.id:
        raise ConfigError("the repositories of this service are not copies of each other", f"{name}: {target.id}, others: {source.id}", "correct the catalog")
    progress.say(f"repairing {name}")
    store = ServiceStore(source, spec.service, spec.provider(), default_workers())
    Copier(store, target.backend, ("any of " + ", ".join(spec.places()), name), progress, default_workers(), report, repair=True).run()


def preview(spec: Spec, to: list[str] | None = None, origin: str = "") -> dict[str, Any]:
    """What copy_service would do, changing nothing: {"changed", "ok", "copies": [{"name", "from", "snapshots": ids that are not there, …}]}."""
    told: list[dict[str, Any]] = []
    origin, targets = _chosen(spec, origin, list(to or [])) if spec.source_names else ("", [])
    for name in targets:
        report = Report()
        store = spec.at(origin).store()
        try:
            target = Repository.open(spec.places()[name])
            found = [manifest.id for manifest in Copier(store, target.backend, (origin, name), Progress(spec.service, "copy"), 1, report).lacking()]
        except NoRepository:
            found = [manifest.id for chain in store.chains() for manifest in chain.manifests]
        told.append({"name": name, "from": origin, "objects": 0, "bytes": 0, "snapshots": found,
                     "problems": [problem.as_dict() for problem in report.problems]})
    return {"changed": any(one["snapshots"] for one in told), "ok": not any(one["problems"] for one in told), "copies": told, "warnings": []}


def _remember(spec: Spec, repository: str, name: str, began: datetime.datetime, report: Report) -> None:
    known = state.read_json(spec.path("copies.json")) or {}
    mine = known.setdefault(repository, {})
    mine[name] = {"finished": began.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "marks": report.newest}
    state.ensure_private(spec.service_dir)
    state.write_json(spec.path("copies.json"), known, "mark")


def remembered(spec: Spec) -> dict[str, dict[str, Any]]:
    """Name of a copy -> {"finished", "marks"} as this host remembers it."""
    known = state.read_json(spec.path("copies.json")) or {}
    found: dict[str, dict[str, Any]] = {}
    for copies in known.values():
        found.update(copies)
    return found


def _is_due(spec: Spec, name: str) -> bool:
    every = spec.places()[name].get("every")
    last = (remembered(spec).get(name) or {}).get("finished")
    if not every or not last:
        return True
    age = (datetime.datetime.now(datetime.timezone.utc) - parse_time(str(last))).total_seconds()
    return not 0 <= age < float(every) - _EARLY


def overdue(spec: Spec) -> list[dict[str, Any]]:
    """Copies that this host has not made for more than twice their interval, as error dicts."""
    found = []
    for name, place in spec.places().items():
        last = (remembered(spec).get(name) or {}).get("finished")
        if place.get("every") and last:
            age = (datetime.datetime.now(datetime.timezone.utc) - parse_time(str(last))).total_seconds()
            if age > 2 * float(place["every"]):
                found.append(StorageError(f"the copy {name} is behind: it was last complete at {last}", str(place["url"]), "run the copy playbook").as_dict())
    return found


def after_backup(spec: Spec, run: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """Make the copies that are due; what went wrong as warnings, since the backup itself is there."""
    told = copy_service(spec, run, progress, due=True)
    return [
        {**problem, "what": f"the copy to {one['name']} is not complete ({problem['what']})",
         "remedy": f"{problem['remedy']}; then run the copy playbook" if problem["remedy"] else "run the copy playbook"}
        for one in told["copies"] for problem in one["problems"]
    ]
