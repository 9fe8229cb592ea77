# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How far a log leads on from a snapshot, on which timeline, and whether a target lies on the way.

A timeline is followed by its history file only, never by its number. Old timelines count up to where they were left; in
the segment where a timeline was left its child's copy holds the same bytes.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from ..errors import KeyAccessError, TargetError
from .cluster_lsn import Piece, on_way, parse_position, parse_timeline, position_text, segment_name, way
from .contract import Covered, Log


def parse_time(text: str) -> datetime.datetime:
    """An ISO 8601 time with zone; ValueError without one."""
    value = datetime.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    if value.tzinfo is None:
        raise ValueError("no time zone")
    return value


@dataclass
class Reach:
    """The way from a snapshot to the end of one timeline.

    pieces: of all timelines, oldest first. end: last position without a hole before it; equal to ``stop`` when the log does
    not lead on. until: when the last byte was captured. hole: (from, to) when there is more log behind a hole.
    """

    timeline: int
    pieces: list[Piece]
    ranges: list[Covered]
    segment: int
    start: int
    stop: int
    end: int
    until: str
    hole: tuple[int, int] | None

    @property
    def arrived(self) -> bool:
        """The log leads to the timeline itself, not only to one of its parents."""
        return self.end > self.pieces[-1].start

    def part(self, position: int) -> tuple[int, int]:
        """(timeline, end) of the covered range on the way that holds a position and reaches farthest; end == position: none does."""
        best = (0, position)
        for piece in self.pieces:
            for found in self.ranges:
                high = found.end if piece.end is None else min(found.end, piece.end)
                if found.timeline == piece.timeline and found.start <= position < high and high > best[1]:
                    best = (piece.timeline, high)
        return best

    def extent(self, position: int) -> int:
        """How far the log goes on from a position without a hole."""
        while True:
            _timeline, end = self.part(position)
            if end == position:
                return position
            position = end

    def behind_hole(self) -> str:
        """Where the hole is, and what of the log lies behind it; "" without a hole."""
        if self.hole is None:
            return ""
        count, last = 0, self.until
        for piece in self.pieces:
            for found in self.ranges:
                low, high = max(found.start, piece.start, self.hole[1]), found.end if piece.end is None else min(found.end, piece.end)
                if found.timeline == piece.timeline and low < high:
                    count, last = count + high - low, max(last, found.until, key=parse_time)
        minutes = (parse_time(last) - parse_time(self.until)).total_seconds() / 60
        return (f"the log has a hole from {position_text(self.hole[0])} to {position_text(self.hole[1])} on the way along timeline {self.timeline}, "
                f"proven up to {self.until}: {count} later bytes, the log of {minutes:.1f} minutes up to {last}, cannot be reached")

    def name(self, number: int) -> str:
        """The name under which recovery asks first for a segment: that of the newest timeline in it."""
        timeline = max(piece.timeline for piece in self.pieces if piece.start // self.segment <= number)
        return segment_name(timeline, number, self.segment)

    def against(self, position: dict[str, str], facts: dict[str, Any]) -> str:
        """Why a target is not on the way, as far as positions and times tell; "" if they do not."""
        kind, value = position["kind"], position.get("value", "")
        on = f" on timeline {self.timeline}"
        if self.hole:
            on += f", where it has a hole up to {position_text(self.hole[1])}"
        if kind == "immediate":
            return ""
        if kind == "time":
            moment = parse_time(value)
            if moment < parse_time(str(facts["stop_time"])):
                return f"the snapshot was finished later, at {facts['stop_time']}"
        if self.end <= self.stop and not (kind == "lsn" and parse_position(value) == self.stop):
            return f"the log does not go on from the snapshot's end {facts['stop_lsn']}{on}"
        if kind == "lsn" and not self.stop <= parse_position(value) <= self.end:
            return f"the log leads from {facts['stop_lsn']} to {position_text(self.end)}{on}"
        if kind == "time" and moment > parse_time(self.until):
            return f"the log is proven up to {self.until}{on}"
        return ""


def reaches(facts: dict[str, Any], log: Log | None, timeline: str = "") -> list[Reach]:
    """The ways on from a snapshot, that of the newest timeline first; only the named timeline's when one is named.

    Raises TargetError when the named one does not descend from the snapshot, or its history is not known.
    """
    ranges = log.coverage() if log is not None else []
    try:
        histories = log.histories() if log is not None else {}
    except KeyAccessError:
        histories = {}  # without the right to open data only the snapshot's own timeline can be looked at
    own, stop = int(facts["timeline"]), parse_position(str(facts["stop_lsn"]))
    known = {own, *histories, *(found.timeline for found in ranges)}
    if timeline:
        try:
            wanted = parse_timeline(timeline)
        except ValueError as error:
            raise TargetError(str(error), "target", "give a number like 3") from error
        if wanted not in known:
            raise TargetError(f"the log does not go on from the snapshot's end {facts['stop_lsn']} on timeline {wanted}", "target",
                              f"known: {', '.join(map(str, sorted(known)))}")
        known = {wanted}
    found = []
    for number in sorted(known, reverse=True):
        try:
            pieces = [Piece(own, 0, None)] if number == own and number not in histories else way(number, histories)
        except KeyError:
            if timeline:
                raise TargetError(f"the history of timeline {number} is not in the log", "target", "choose another timeline, or a later snapshot") from None
            continue
        except ValueError as error:
            raise TargetError(f"the history of timeline {number} cannot be read ({error})", "log", "choose another timeline") from error
        if not on_way(pieces, own, stop):
            if timeline:
                raise TargetError(
                    f"timeline {number} does not descend from the snapshot (timeline {own}, {position_text(stop)})", "target",
                    "choose another timeline, or a snapshot taken before it branched off",
                )
            continue
        found.append(_reach(facts, number, pieces, ranges))
    return found


def along(facts: dict[str, Any], log: Log | None, timeline: int, pieces: list[Piece]) -> Reach:
    """How far the log leads along a way that somebody else told: that of a server that runs."""
    return _reach(facts, timeline, pieces, log.coverage() if log is not None else [])


def _reach(facts: dict[str, Any], timeline: int, pieces: list[Piece], ranges: list[Covered]) -> Reach:
    segment = int(facts["segment_size"])
    start, stop = parse_position(str(facts.get("start_lsn") or facts["stop_lsn"])), parse_position(str(facts["stop_lsn"]))
    reach = Reach(timeline, pieces, ranges, segment, start, stop, stop, str(facts["stop_time"]), None)
    end = reach.extent(stop)
    if end == stop and not facts.get("from_standby"):
        behind = -(-stop // segment) * segment  # the snapshot holds the whole segment in which it ends
        if reach.extent(behind) > behind:
            end = reach.extent(behind)
    reach.end = end
    if end > stop:
        reach.until = max((
            found.until for found in ranges
            if found.start < end and any(found.timeline == piece.timeline and (piece.end is None or found.start < piece.end) for piece in pieces)
        ), key=parse_time)
    later = [
        max(found.start, piece.start) for piece in pieces for found in ranges
        if found.timeline == piece.timeline and max(found.start, piece.start) > end and (piece.end is None or found.start < piece.end)
    ]
    if later:
        reach.hole = (end, min(later))
        reach.until = min((found.until for found in ranges if found.end >= end > found.start), key=parse_time, default=reach.until)
    return reach


def log_range(facts: dict[str, Any], log: Log, timeline: str = "") -> Covered | None:
    """As Source.log_range: the newest timeline (or the named one) on which the log leads on, and how far."""
    try:
        found = [reach for reach in reaches(facts, log, timeline) if reach.end > reach.stop and reach.arrived]
    except TargetError:
        return None
    return Covered(found[0].timeline, found[0].stop, found[0].end, found[0].until) if found else None


def log_bytes(facts: dict[str, Any], position: dict[str, str], log: Log) -> int:
    """As Source.log_bytes: to a position as it says, to a time by its part of the time between; else all there is, which is at most that."""
    found = log_range(facts, log, position.get("timeline", ""))
    if found is None or position["kind"] == "immediate":
        return 0
    whole = found.end - found.start
    try:
        if position["kind"] == "lsn":
            return min(whole, max(0, parse_position(position["value"]) - found.start))
        if position["kind"] == "time":
            begin, end, wanted = (parse_time(text).timestamp() for text in (str(facts["stop_time"]), found.until, position["value"]))
            return round(whole * min(1.0, max(0.0, (wanted - begin) / (end - begin)))) if end > begin else whole
    except ValueError:
        return whole  # preflight says what is wrong with it
    return whole


def reachable(facts: dict[str, Any], position: dict[str, str], log: Log) -> str:
    """As Source.reachable."""
    return candidates(facts, log, position)[1]


def lost_behind(facts: dict[str, Any], position: dict[str, str], log: Log) -> str:
    """As Source.lost_behind."""
    fitting, _reason = candidates(facts, log, position)
    for reach in reaches(facts, log, position.get("timeline", "")):  # the newest timeline first: a hole may be why it is not the one
        if reach.hole or (fitting and reach.timeline == fitting[0].timeline):
            return reach.behind_hole()
    return ""


def candidates(facts: dict[str, Any], log: Log | None, position: dict[str, str]) -> tuple[list[Reach], str]:
    """The ways on which nothing speaks against a target, and the first reason against when there is none.

    ``latest`` means the newest timeline that the log leads to, whatever its parents hold beyond the place where they were left.
    """
    reason = ""
    fitting = []
    try:
        for reach in reaches(facts, log, position.get("timeline", "")):
            against = reach.against(position, facts)
            if not against and (reach.arrived or position["kind"] == "immediate"):
                fitting.append(reach)
            reason = reason or against
    except ValueError as error:
        return [], f"{position.get('value')!r} cannot be read ({error})"
    except TargetError as error:
        return [], error.what
    if fitting and position["kind"] == "latest":
        fitting = fitting[:1]
    return fitting, "" if fitting else reason or f"the log does not go on from the snapshot's end {facts['stop_lsn']}"
