# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a log once held and the repository does not show: told by the signed records of its epochs, and by what a host remembers.

A gap that a record tells of is a loss that was noticed when it happened. Everything else was removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

from ..errors import DamageError, LifeboatError
from . import layout
from .log_index import Epoch, LogIndex, Piece, at, text

REMEDY = "take a new snapshot: from it on nothing needs this; before it, targets beyond this place cannot be reached"


@dataclass
class Missing:
    """end: the position behind the hole. told: a record says that this was never received."""

    end: int
    error: LifeboatError
    told: bool = False


def parse(position: str) -> int:
    """A position that PostgreSQL or a record wrote."""
    high, _slash, low = position.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def pieces(index: LogIndex, system: str) -> Iterator[Missing]:
    """Holes and cut ends of one cluster's log."""
    held = index.pieces(system)
    epochs = [epoch for _number, epoch in sorted(index.epochs.items()) if epoch.system == system]
    yield from _gaps(index, system, epochs)
    yield from _begun(index, epochs, held)
    yield from _followed(index, system, epochs, held)


def _gaps(index: LogIndex, system: str, epochs: list[Epoch]) -> Iterator[Missing]:
    """What is missing between two pieces: an epoch's record says so, or somebody removed it."""
    told = {(gap.get("timeline"), gap.get("from"), gap.get("to")) for epoch in epochs for gap in epoch.record.get("gaps") or []}
    for timeline, start, behind in index.gaps(system):
        if (timeline, text(start), text(behind)) in told:
            name = index.missing_name(system, timeline, start, behind)
            yield Missing(behind, DamageError(f"the log was not received from {text(start)} to {text(behind)}", name, REMEDY), True)
        else:
            yield _removed(index, system, timeline, start, behind)


def _removed(index: LogIndex, system: str, timeline: int, start: int, behind: int) -> Missing:
    name = index.missing_name(system, timeline, start, behind)
    return Missing(behind, DamageError("a piece of the log is missing", f"{name} or parts of it", REMEDY))


def _begun(index: LogIndex, epochs: list[Epoch], held: dict[int, list[Piece]]) -> Iterator[Missing]:
    """A record says at which position its epoch begins: if the epoch has pieces at all, one was there."""
    for epoch in epochs:
        begins, found = epoch.record.get("begins"), held.get(epoch.timeline, [])
        if begins and index.listed.get(epoch.number):
            start = parse(str(begins))
            if not any(at(found, start)):
                yield _removed(index, epoch.system, epoch.timeline, start, min((piece.start for piece in found if piece.start > start), default=start + 1))


def _followed(index: LogIndex, system: str, epochs: list[Epoch], held: dict[int, list[Piece]]) -> Iterator[Missing]:
    """A record says how far the log was proven when its epoch began: so far it must still reach, from where it began on that timeline."""
    begun: dict[int, int] = {}
    wanted: dict[int, int] = {}
    for epoch in epochs:
        follows = epoch.record.get("follows")
        if isinstance(follows, dict):
            timeline, position = int(follows["timeline"]), parse(str(follows["position"]))
            wanted[timeline] = max(wanted.get(timeline, 0), position)
        if epoch.record.get("begins"):
            start = parse(str(epoch.record["begins"]))
            begun[epoch.timeline] = min(begun.get(epoch.timeline, start), start)
    for timeline, position in sorted(wanted.items()):
        reached, found = index.end_of(system, timeline), held.get(timeline, [])
        if found and begun.get(timeline, position) < position <= found[0].start:
            # all pieces of the first epochs are gone: that leaves no gap between two pieces
            yield _removed(index, system, timeline, begun[timeline], found[0].start)
        if reached is not None and reached < position:
            yield Missing(position, _ends_early(index, system, timeline, reached, position))


def _ends_early(index: LogIndex, system: str, timeline: int, reached: int, wanted: int) -> DamageError:
    return DamageError(f"the log of timeline {timeline} was proven up to {text(wanted)} and ends at {text(reached)}",
                       index.missing_name(system, timeline, reached, wanted) + " or parts of it", REMEDY)


def end(index: LogIndex, mark: dict[str, Any]) -> Missing | None:
    """The end of a log that this host knows to be proven and the repository does not show."""
    if not mark.get("timeline"):
        return None
    system, timeline, wanted = str(mark["system"]), int(mark["timeline"]), int(mark["position"])
    reached = index.end_of(system, timeline) or int(mark["begin"])
    return Missing(wanted, _ends_early(index, system, timeline, reached, wanted)) if reached < wanted else None


def unexplained(index: LogIndex, system: str, mark: dict[str, Any], after: int | None) -> LifeboatError | None:
    """What was removed or damaged of a cluster's log behind a position (None: anywhere), so that its end cannot be told; None where everything is explained.

    mark: what this host knows to be proven.
    """
    ours = [number for number, epoch in index.epochs.items() if epoch.system == system] if after is not None else []
    first = min((number for number in ours for _timeline, piece in index.listed.get(number, []) if piece.end > (after or 0)), default=1)
    records = {layout.log_record(index.service, index.source, number) for number in range(first, index.newest[0] + 1)}
    for problem in index.problems:
        if problem.where in records:
            return problem
    tail = end(index, mark) if mark.get("system") == system else None
    lost = [*(one for one in pieces(index, system) if not one.told), *([tail] if tail else [])]
    return next((one.error for one in lost if one.end > (after or 0)), None)
