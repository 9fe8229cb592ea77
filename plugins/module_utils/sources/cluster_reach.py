# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How far the log leads on from a snapshot of a cluster, told by positions and times alone; nothing of the log is opened but histories."""

from __future__ import annotations

import datetime
from typing import Any

from ..errors import KeyAccessError
from .cluster_lsn import Piece, on_way, parse_position, position_text, way
from .contract import Covered, Log


def log_range(facts: dict[str, Any], log: Log, timeline: str = "") -> Covered | None:
    """The newest timeline (or the one asked for) that can be reached, and how far on it; None when the log does not go on.

    facts: of the snapshot (start, stop, timeline, segment size). Where histories cannot be opened (no right to open data),
    only the snapshot's own timeline is looked at.
    """
    own, stop = int(facts["timeline"]), parse_position(str(facts["stop_lsn"]))
    ranges = log.coverage()
    try:
        histories = log.histories()
    except KeyAccessError:
        histories = {}
    for number in [int(timeline)] if timeline else sorted({own, *histories, *(found.timeline for found in ranges)}, reverse=True):
        try:
            pieces = [Piece(own, 0, None)] if number == own else way(number, histories)
        except (KeyError, ValueError):
            continue
        if on_way(pieces, own, stop):
            reached = _walk(pieces, own, stop, int(facts["segment_size"]), ranges)
            if reached is not None:
                return reached
    return None


def _walk(pieces: list[Piece], own: int, stop: int, segment: int, ranges: list[Covered]) -> Covered | None:
    """Follow the pieces from the snapshot's end as long as the log has every byte."""
    # the snapshot itself holds its last segment to the end
    position, slack = stop, -stop % segment
    for piece in [piece for piece in pieces if piece.timeline >= own]:
        found = [one for one in ranges if one.timeline == piece.timeline and one.start <= position + slack and one.end >= position]
        if not found:
            return None
        last = max(found, key=lambda one: one.end)
        if piece.end is None:
            return Covered(piece.timeline, stop, last.end, last.until)
        if last.end < piece.end:
            return None
        position, slack = piece.end, 0
    return None


def reachable(facts: dict[str, Any], position: dict[str, str], log: Log) -> str:
    """Why a restore of this snapshot cannot end at ``position``; "" when positions and times do not speak against it."""
    kind, value = position["kind"], position["value"]
    if kind == "immediate":
        return ""
    on = f" on timeline {position['timeline']}" if position["timeline"] else ""
    covered = log_range(facts, log, position["timeline"])
    if covered is None:
        return f"the log does not go on from the snapshot's end {facts['stop_lsn']}{on}"
    if kind == "lsn" and not covered.start <= parse_position(value) <= covered.end:
        return f"the log leads from {facts['stop_lsn']} to {position_text(covered.end)}{on}"
    if kind == "time":
        moment = _time(value)
        if moment < _time(str(facts["stop_time"])):
            return f"the snapshot was finished later, at {facts['stop_time']}"
        if moment > _time(covered.until):
            return f"the log is proven up to {covered.until}{on}"
    return ""


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
