# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a repository holds of a service: snapshots and points (what a target means among them: resolve.py)."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .. import state
from ..errors import DamageError, LifeboatError
from ..repository import layout
from ..repository.log_reader import SourceLog, open_log
from ..repository.manifest import Chain, StoredManifest
from .targets import Position, parse_time

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore
    from ..sources.contract import Covered
    from ..spec import Spec


@dataclass
class Point:
    """One restorable cut of a service: a snapshot of each of its sources, taken by one run.

    positions: where in their logs sources end that have one; it is then part of ``id`` ("POINT@POSITION").
    """

    id: str
    service: str
    time: str
    wanted: list[str]
    snapshots: dict[str, StoredManifest] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        return [source for source in self.wanted if source not in self.snapshots]

    @property
    def complete(self) -> bool:
        return not self.missing

    def as_dict(self) -> dict[str, Any]:
        starts = [parse_time(manifest.data["started"]) for manifest in self.snapshots.values()]
        return {
            "id": self.id, "service": self.service, "time": self.time, "complete": self.complete, "missing": self.missing,
            "snapshots": {source: manifest.id for source, manifest in sorted(self.snapshots.items())},
            "finished": max((str(manifest.data["finished"]) for manifest in self.snapshots.values()), default=self.time),
            "skew_seconds": round((max(starts) - min(starts)).total_seconds(), 3) if starts else 0.0,
            "bytes": sum(int(manifest.data["bytes"].get("source", 0)) for manifest in self.snapshots.values()),
            **({"positions": {source: str(position) for source, position in sorted(self.positions.items())}} if self.positions else {}),
        }


def summary(manifest: StoredManifest) -> dict[str, Any]:
    """A snapshot as modules, points and run.json show it."""
    data = manifest.data
    return {
        "id": data["id"], "service": data["service"], "source": data["source"], "type": data["type"], "sequence": data["sequence"],
        "point": data["point"].get("id"), "time": data["started"], "finished": data["finished"], "mode": data["mode"],
        "digest": {key: data["digest"].get(key) for key in ("algorithm", "value")}, "proof": data["proof"],
        "bytes_source": data["bytes"].get("source", 0), "bytes_stored": data["bytes"].get("stored", 0),
        "chunks_new": data["bytes"].get("chunks_new", 0), "chunks_reused": data["bytes"].get("chunks_reused", 0),
        "duration": data["bytes"].get("seconds", 0.0), "facts": data["facts"], "manifest_digest": manifest.digest,
    }


def read_marks(spec: Spec, repository_id: str) -> dict[str, dict[str, Any]] | None:
    """The host's high-water marks, source -> {"sequence", "digest"}; None where this host has none. Of a copy: how far it was copied."""
    found: Any = (state.read_json(spec.path("copies.json" if spec.repository.get("copy_of") else "marks.json")) or {}).get(repository_id)
    if spec.repository.get("copy_of") and isinstance(found, dict):
        found = (found.get(str(spec.repository.get("name"))) or {}).get("marks")
    return found if isinstance(found, dict) else None


def read_log_marks(spec: Spec, repository: str) -> dict[str, dict[str, Any]]:
    """source -> the proven position that this host remembers of this repository."""
    found = {}
    for source in spec.source_names:
        document = state.read_json(os.path.join(spec.service_dir, "log", source, "proven.json")) or {}
        mark = document.get(str(spec.repository["url"]))
        if isinstance(mark, dict) and mark.get("repository") == repository:
            found[source] = mark
    return found


def missing_tail(chains: list[Chain], marks: dict[str, dict[str, Any]] | None) -> list[LifeboatError]:
    """Snapshots that this host wrote or saw and that the repository no longer shows."""
    newest = {chain.source: chain.manifests[-1].data["sequence"] if chain.manifests else 0 for chain in chains}
    problems: list[LifeboatError] = []
    for source, mark in sorted((marks or {}).items()):
        have = int(newest.get(source, 0))
        if have < int(mark["sequence"]):
            problems.append(DamageError(
                f"newest manifest of source {source} is missing: number {mark['sequence']} was written, {have or 'none'} is the newest readable",
                str(mark.get("name", source)), "someone or something removed it; look at who deleted it before you trust the rest"))
    return problems


def points(chains: list[Chain], service: str) -> list[Point]:
    """The points of a service, oldest first. An incomplete one lists what is missing."""
    found: dict[str, Point] = {}
    for chain in chains:
        for manifest in chain.manifests:
            about = manifest.data["point"]
            point = found.get(about["id"])
            if point is None:
                wanted = [str(source) for source in about.get("sources", [])]
                point = found[about["id"]] = Point(about["id"], service, manifest.data["started"], wanted)
            point.snapshots[chain.source] = manifest
            point.time = min(point.time, manifest.data["started"])
    return sorted(found.values(), key=lambda point: max(m.data["sequence"] for m in point.snapshots.values()))


def open_logs(spec: Spec, store: ServiceStore, point: Point) -> dict[str, SourceLog]:
    """The logs of those sources of a point that have one in the repository."""
    found: dict[str, SourceLog] = {}
    for name, manifest in point.snapshots.items():
        log = open_log(store, name, manifest.data["facts"].get("system_identifier")) if name in spec.source_names else None
        if log is not None:
            found[name] = log
    return found


def log_ranges(spec: Spec, store: ServiceStore, point: Point) -> dict[str, Covered]:
    """How far the logs lead on from a point, per source; without those that do not."""
    found = {}
    for name, log in open_logs(spec, store, point).items():
        covered = spec.source(name)[0].log_range(point.snapshots[name].data, log)
        if covered is not None:
            found[name] = covered
    return found


def _holders(held: dict[str, set[str]], point: Point) -> list[str]:
    """The repositories that hold all snapshots of a point: a manifest is written last, so where it is everything is."""
    names = {manifest.name for manifest in point.snapshots.values()}
    return [place for place, objects in held.items() if names <= objects]


def list_snapshots(spec: Spec) -> dict[str, Any]:
    """{"snapshots": [Summary], "points": [Point], "warnings": [error dicts]} of one service, oldest first."""
    store = spec.reading_store()
    chains = store.chains()
    marks = read_marks(spec, store.repository.id)
    warnings = [problem for chain in chains for problem in chain.problems] + missing_tail(chains, marks)
    proven = (state.read_json(spec.path("proofs.json")) or {}).get("points", {})
    held = store.backend.held(layout.snapshots(spec.service))
    shown = []
    for point in points(chains, spec.service):
        logs = {name: asdict(covered) for name, covered in log_ranges(spec, store, point).items()}
        where = {"repositories": _holders(held, point)} if held else {}
        shown.append({**point.as_dict(), "proven": point.id in proven, **({"logs": logs} if logs else {}), **where})
    return {
        "snapshots": [summary(manifest) for chain in chains for manifest in chain.manifests],
        "points": shown,
        "warnings": [*(problem.as_dict() for problem in warnings), *store.backend.told()],
        "mark": marks is not None,
    }
