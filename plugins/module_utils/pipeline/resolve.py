# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which point, and which position in the logs behind it, a target means for one service."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .. import state
from ..errors import DamageError, LifeboatError, TargetError
from ..repository import layout
from ..repository.manifest import Chain
from .inspect import Point, missing_tail, open_logs, points, read_log_marks, read_marks
from .targets import Position, parse_time, split

if TYPE_CHECKING:
    from ..repository.log_reader import SourceLog
    from ..repository.repository import ServiceStore
    from ..spec import Spec


def resolve_target(spec: Spec, store: ServiceStore, target: str) -> tuple[Point, list[LifeboatError]]:
    """The complete point that ``target`` means, and what is wrong with the service's chains.

    target: latest | proven | ISO time with zone | point id | snapshot id, or a position (see targets.py). ``latest`` and a
    time go on along the logs of the sources that have one. TargetError names the candidates.
    """
    return _Resolver(spec, store).resolve(target)


class _Resolver:
    """One question to one service's part of a repository."""

    def __init__(self, spec: Spec, store: ServiceStore) -> None:
        self._spec = spec
        self._store = store
        self._chains = store.chains()
        self._marks = read_marks(spec, store.repository.id)
        self._problems = [problem for chain in self._chains for problem in chain.problems] + missing_tail(self._chains, self._marks)
        self._points = points(self._chains, spec.service)
        self._complete = [point for point in self._points if point.complete]
        self._opened: dict[str, dict[str, SourceLog]] = {}

    def resolve(self, target: str) -> tuple[Point, list[LifeboatError]]:
        named = self._named(target)
        if named is not None:
            return named, self._problems
        try:
            base, position = split(target)
        except ValueError as error:
            raise self._refuse(f"target {target!r} cannot be understood: {error}") from error
        if position is None:
            return self._plain(base), self._problems
        if base:
            point = self._named(base) or self._plain(base, logs=False)
            return self._at(point, position), self._problems
        return self._newest_reaching(position), self._problems

    def _refuse(self, what: str) -> TargetError:
        newest = ", ".join(point.id for point in reversed(self._complete[-3:])) or "none"
        return TargetError(what, f"service {self._spec.service}, repository {self._spec.repository.get('url')}",
                           f"complete points, newest first: {newest}")

    def _named(self, name: str) -> Point | None:
        """The point of that id, or the one of that snapshot id."""
        for point in self._points:
            if name == point.id or name in [manifest.id for manifest in point.snapshots.values()]:
                if not point.complete:
                    raise self._refuse(f"point {point.id} is torn, it lacks {', '.join(point.missing)}")
                return point
        return None

    def _plain(self, target: str, logs: bool = True) -> Point:
        if target == "latest":
            return self._latest(logs)
        if target == "proven":
            proven = (state.read_json(self._spec.path("proofs.json")) or {}).get("points", {})
            found = [point for point in self._complete if point.id in proven]
            if not found:
                raise self._refuse("no point was proven by a restore or drill on this host yet")
            return found[-1]
        try:
            moment = parse_time(target)
        except ValueError as error:
            raise self._refuse(f"target {target!r} is no known point or snapshot, and no ISO time with zone") from error
        before = [point for point in self._complete if parse_time(point.time) <= moment]
        if not before:
            raise self._refuse(f"no complete point at or before {target}")
        if logs and self._logs(before[-1]):
            return self._newest_reaching(Position("time", target))
        return before[-1]

    def _latest(self, logs: bool) -> Point:
        if not self._complete:
            raise self._refuse("there is no complete point to restore")
        newest = self._complete[-1]
        gone = _newer_than(newest, self._chains, self._marks)
        if gone:
            names = ", ".join(point.id for point in reversed(self._complete[-3:]))
            raise TargetError("the latest point cannot be used: its manifest is missing or damaged", f"service {self._spec.service}, object {gone}",
                              f"look at who removed it; to accept the loss name an older point: {names}")
        position = Position("latest")
        if not logs or not self._logs(newest):
            return newest
        self._refuse_unexplained(newest)
        if self._against(newest, position):
            self._tell_holes(newest, position)
            return newest
        return self._at(newest, position)

    # -- logs

    def _logs(self, point: Point) -> dict[str, SourceLog]:
        """Those of a point's sources; listed once for one question."""
        if point.id not in self._opened:
            self._opened[point.id] = open_logs(self._spec, self._store, point)
        return self._opened[point.id]

    def _refuse_unexplained(self, newest: Point) -> None:
        """A log that was cut or torn by another hand would make ``latest`` silently mean an older state. A gap that the log tells of is told, see below."""
        marks = read_log_marks(self._spec, self._store.repository.id)
        for name, log in self._logs(newest).items():
            covered = self._spec.source(name)[0].log_range(newest.snapshots[name].data, log)
            lost = log.unexplained(marks.get(name) or {}, covered.start if covered else None)
            if lost is not None:
                raise TargetError(f"the latest point cannot be told: {lost.what}", f"service {self._spec.service}, object {lost.where}",
                                  f"look at who removed or changed it; to go as far as the log still leads, ask for {newest.id}@latest")

    def _against(self, point: Point, position: Position) -> str:
        """What speaks against a restore of this point to this position; "" if nothing does."""
        logs = self._logs(point)
        if not logs and position.kind != "immediate":
            return f"no source of point {point.id} has a log"
        for name, log in logs.items():
            reason = self._spec.source(name)[0].reachable(point.snapshots[name].data, position.as_dict(), log)
            if reason:
                return f"source {name}: {reason}"
        return ""

    def _at(self, point: Point, position: Position) -> Point:
        reason = self._against(point, position)
        if reason:
            raise self._refuse(f"position {position} cannot be reached from point {point.id}: {reason}")
        if position.kind == "latest":
            self._tell_holes(point, position)
        sources = sorted(self._logs(point))
        return dataclasses.replace(point, id=f"{point.id}@{position}", positions=dict.fromkeys(sources, position))

    def _tell_holes(self, point: Point, position: Position) -> None:
        """``latest`` means as far as the log leads: where it could have led farther, that is told before anything is touched."""
        for name, log in self._logs(point).items():
            lost = self._spec.source(name)[0].lost_behind(point.snapshots[name].data, position.as_dict(), log)
            if lost:
                self._problems.append(DamageError(lost, f"log of {self._spec.service}.{name}", "take a full snapshot: behind it the log counts again"))

    def _newest_reaching(self, position: Position) -> Point:
        first = ""
        for point in reversed(self._complete):
            reason = self._against(point, position)
            if not reason:
                return self._at(point, position)
            first = first or f"point {point.id}: {reason}"
        raise self._refuse(f"position {position} cannot be reached from any point: {first}" if first else "there is no complete point to restore")


def _newer_than(point: Point, chains: list[Chain], marks: dict[str, dict[str, Any]] | None) -> str:
    """A snapshot that was taken after ``point`` and cannot be read any more, as the name of its manifest; else nothing."""
    for chain in chains:
        have = point.snapshots.get(chain.source)
        if have is None:
            continue
        mark = (marks or {}).get(chain.source)
        lost = [*chain.lost, int(mark["sequence"])] if mark and int(mark["sequence"]) not in _numbers(chain) else chain.lost
        newer = [number for number in lost if number > int(have.data["sequence"])]
        if newer:
            return layout.manifest(point.service, chain.source, max(newer))
    return ""


def _numbers(chain: Chain) -> set[int]:
    return {int(manifest.data["sequence"]) for manifest in chain.manifests}
