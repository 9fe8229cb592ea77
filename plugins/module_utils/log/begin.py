# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Beginning to receive: which server this is, the slot, and the position at which the receiver goes on."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SourceError
from . import wal
from .proven import Proven
from .server import Identity, LogServer, Sample
from .shipping import Divergence
from .spool import Spool


@dataclass
class Start:
    """timeline, position: where the receiver goes on. aside: files in the spool lead elsewhere."""

    timeline: int
    position: int
    aside: bool = False


def ensure_slot(server: LogServer) -> Sample:
    """The slot is there and keeps the log from some position on. A lost one is made anew: the gap shows where the log goes on."""
    sample = server.sample()
    if sample.slot["exists"] and sample.slot["wal_status"] == "lost":
        server.drop_slot()
    elif sample.slot["exists"]:
        return sample
    server.make_slot()
    return server.sample()


def plan(server: LogServer, identity: Identity, sample: Sample, spool: Spool, mark: Proven, refused: bool) -> Start:
    """Where to go on. refused: the receiver was told that the log it asked for is gone; asked only where the server does not let us look.

    Raises Divergence when the server does not continue what was proven, SourceError when it cannot be told."""
    size = identity.segment_size
    restart = wal.parse(sample.slot["restart"]) if sample.slot["restart"] else identity.position
    start = _wanted(spool, mark, identity, restart, size)
    where = server.client.place
    if mark.timeline > identity.timeline:
        raise Divergence(f"the server is on timeline {identity.timeline}, its log was followed to timeline {mark.timeline} already", where,
                         "this looks like a former primary: rebuild it, or point the source at the server that was promoted")
    if mark.timeline == identity.timeline and identity.position < mark.position:
        raise Divergence(f"the server is at {wal.text(identity.position)}, behind the proven {wal.text(mark.position)} of timeline {mark.timeline}", where,
                         "a standby that catches up is waited for; a server that was set back must begin a timeline of its own (restore it)")
    if start.timeline < identity.timeline:
        start = _switched(server, identity, start, size)
    return _there(server, identity, start, restart, size, refused)


def _wanted(spool: Spool, mark: Proven, identity: Identity, restart: int, size: int) -> Start:
    """What the receiver would take by itself (the newest file, see FindStreamingStart in pg_receivewal.c), else the proven position, else the slot's."""
    files = spool.files(size)
    if files:
        newest = max(files, key=lambda one: (one.start, one.timeline, one.complete))
        found = Start(newest.timeline, newest.start + (size if newest.complete else 0))
        if newest.timeline != mark.timeline or found.position >= mark.position // size * size:
            return found
        # older than what is proven: a power cut brought back what had been removed
    if mark.timeline:
        return Start(mark.timeline, mark.position // size * size)
    return Start(identity.timeline, restart // size * size)


def _switched(server: LogServer, identity: Identity, start: Start, size: int) -> Start:
    """The server is on a later timeline: follow it from where it left ours, or, if we are past that, on its own from there."""
    path = wal.ancestors(server.history(identity.timeline), identity.timeline)
    ends = dict(path)
    if start.timeline in ends and start.position <= ends[start.timeline]:
        return start
    later = [*[number for number, _end in path], identity.timeline]
    after = later[later.index(start.timeline) + 1] if start.timeline in ends else identity.timeline
    left = ends[later[later.index(after) - 1]]
    return Start(after, left // size * size, aside=True)


def _there(server: LogServer, identity: Identity, start: Start, restart: int, size: int, refused: bool) -> Start:
    """The server still has the log from there on; else from where its slot keeps it."""
    if start.position >= identity.position // size * size:
        return start
    there = server.has_segment(start.position, size)
    if there or (there is None and not refused):
        return start
    if restart // size * size <= start.position:
        # the receiver's own request moved the slot there; it keeps nothing any more
        server.drop_slot()
        restart = wal.parse(ensure_slot(server).slot["restart"] or "0/0")
    oldest = restart // size * size
    if oldest <= start.position:
        raise SourceError(f"the server no longer has its log at {wal.text(start.position)}, which its slot should keep", server.client.place,
                          f"look at {server.slot} in pg_replication_slots; drop it to begin anew, and take a full snapshot")
    return Start(identity.timeline, oldest, start.aside)
