# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a repository holds of a source's log, told by names and signed records; no key is opened here."""

from __future__ import annotations

import bisect
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

from ..errors import DamageError, LifeboatError
from . import layout, signed
from .backend import soundly
from .log_piece import HEADER, PIECE_LIMIT, captured

if TYPE_CHECKING:
    from ..keys.provider import KeyProvider
    from .backend import Backend

RECORD_LIMIT = 1 << 20
#: Pieces of an epoch above which those that a larger one contains are forgotten while listing: a log of a year has tens of millions.
_MANY = 8192
_PIECE = re.compile(r"([0-9A-F]{8})-([0-9A-F]{16})-([0-9A-F]{16})\.log\Z")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history\Z")
_EPOCH = re.compile(r"\d{12}\Z")
_FIELDS = {
    "format": int, "kind": str, "repository": str, "service": str, "source": str, "epoch": int, "key": str, "started": str,
    "system": str, "timeline": int, "segment_size": int,
}


class Piece(NamedTuple):
    """One object: the bytes [start, end) of a timeline as an epoch wrote them; size is the object's."""

    start: int
    end: int
    epoch: int
    size: int


@dataclass
class Epoch:
    """An epoch's record that was read, its signature checked."""

    number: int
    record: dict[str, Any]
    digest: str

    @property
    def system(self) -> str:
        return str(self.record["system"])

    @property
    def timeline(self) -> int:
        return int(self.record["timeline"])

    @property
    def key_id(self) -> str:
        return str(self.record["key"])


def read_record(backend: Backend, provider: KeyProvider, repository: str, service: str, source: str, number: int) -> Epoch:
    """Read an epoch's record and check signature, owner and place; DamageError names it."""
    name = layout.log_record(service, source, number)
    return soundly(backend, name, lambda: _read_record(backend, provider, (repository, service, source, number), name))


def _read_record(backend: Backend, provider: KeyProvider, place: tuple[str, str, str, int], name: str) -> Epoch:

    def damaged(what: str) -> DamageError:
        return DamageError(f"record of a log epoch {what}", name, "the log of this epoch cannot be used; take a new snapshot to be safe from here on")

    try:
        raw = backend.read(name, RECORD_LIMIT)
    except FileNotFoundError as error:
        raise damaged("is missing") from error
    except LifeboatError as error:
        raise damaged(f"cannot be read ({error.what})") from error
    data, text = signed.load(raw, "epoch", provider, damaged)
    if data.get("format") != layout.FORMAT or data.get("kind") != "log epoch":
        raise damaged(f"has format {data.get('format')!r}, this version reads {layout.FORMAT}")
    for key, kind in _FIELDS.items():
        if not isinstance(data.get(key), kind):
            raise damaged(f"lacks a valid {key}")
    if (data["repository"], data["service"], data["source"], data["epoch"]) != place:
        raise damaged("belongs to another place (moved or replayed)")
    return Epoch(place[3], data, hashlib.sha256(text.encode()).hexdigest())


@dataclass
class Stretch:
    """A gap-free range and the piece that ends it."""

    timeline: int
    start: int
    end: int
    last: Piece


@dataclass
class LogIndex:
    """Epochs, pieces and history files of one source. ``problems``: what is wrong with them, each naming its object."""

    service: str
    source: str
    epochs: dict[int, Epoch] = field(default_factory=dict)
    #: epoch -> timeline -> its pieces as listed
    listed: dict[int, list[tuple[int, Piece]]] = field(default_factory=dict)
    #: (epoch, timeline) of the history files
    histories: list[tuple[int, int]] = field(default_factory=list)
    problems: list[LifeboatError] = field(default_factory=list)
    #: Keep what is superseded, however much it is.
    everything: bool = False
    _grown: dict[int, int] = field(default_factory=dict)

    def add(self, number: int, timeline: int, piece: Piece) -> None:
        """Take in a listed piece."""
        pieces = self.listed.setdefault(number, [])
        pieces.append((timeline, piece))
        if not self.everything and len(pieces) >= self._grown.get(number, 0) + _MANY:
            pieces.sort(key=lambda one: (one[0], one[1].start, -one[1].end))
            kept: list[tuple[int, Piece]] = []
            for one in pieces:
                if not kept or kept[-1][0] != one[0] or one[1].end > kept[-1][1].end:
                    kept.append(one)
            self.listed[number] = kept
            self._grown[number] = len(kept)

    @property
    def newest(self) -> tuple[int, str | None]:
        """Number and digest of the newest epoch; the digest is None where its record cannot be used."""
        numbers = [*self.epochs, *self.listed]
        number = max(numbers, default=0)
        return number, self.epochs[number].digest if number in self.epochs else None

    def pieces(self, system: str) -> dict[int, list[Piece]]:
        """timeline -> the pieces of one cluster, by position."""
        found: dict[int, list[Piece]] = {}
        for number, epoch in self.epochs.items():
            if epoch.system == system:
                for timeline, piece in self.listed.get(number, []):
                    if timeline == epoch.timeline:
                        found.setdefault(timeline, []).append(piece)
        for pieces in found.values():
            pieces.sort(key=lambda piece: (piece.start, -piece.end, -piece.epoch))
        return found

    def stretches(self, system: str) -> list[Stretch]:
        """The gap-free ranges of one cluster's log, by timeline and position. Built of names: what is listed touches or it does not."""
        found = []
        for timeline, pieces in sorted(self.pieces(system).items()):
            current: Stretch | None = None
            for piece in pieces:
                if current is not None and piece.start <= current.end:
                    if piece.end > current.end:
                        current.end, current.last = piece.end, piece
                    continue
                current = Stretch(timeline, piece.start, piece.end, piece)
                found.append(current)
        return found

    def gaps(self, system: str) -> list[tuple[int, int, int]]:
        """(timeline, start, end) of what lies between two stretches of one timeline."""
        found, before = [], None
        for stretch in self.stretches(system):
            if before is not None and before.timeline == stretch.timeline:
                found.append((stretch.timeline, before.end, stretch.start))
            before = stretch
        return found

    def missing_name(self, system: str, timeline: int, start: int, end: int) -> str:
        """The name of the object that would fill a hole: the whole segment where the hole ends with one, else the very range."""
        pieces = self.pieces(system).get(timeline, [])
        epochs = [epoch for epoch in self.epochs.values() if epoch.system == system and epoch.timeline == timeline]
        before = [piece.epoch for piece in pieces if piece.end <= start] or [epoch.number for epoch in epochs if epoch.record.get("begins") == text(start)]
        number = max(before, default=max((epoch.number for epoch in epochs), default=1))
        size = min(PIECE_LIMIT, int(epochs[0].record["segment_size"])) if epochs else 0
        if size and end % size == 0 and end - start // size * size == size:
            start = start // size * size
        return layout.log_piece(self.service, self.source, number, timeline, start, end)

    def end_of(self, system: str, timeline: int) -> int | None:
        """The highest position held of a timeline."""
        return max((stretch.end for stretch in self.stretches(system) if stretch.timeline == timeline), default=None)


def text(position: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def at(pieces: list[Piece], position: int) -> Iterator[Piece]:
    """The pieces that hold the byte at a position, those that reach farthest first."""
    last = bisect.bisect_right(pieces, (position + 1,))
    first = bisect.bisect_left(pieces, (position + 1 - PIECE_LIMIT,))
    yield from sorted((piece for piece in pieces[first:last] if piece.start <= position < piece.end), key=lambda p: (-p.end, p.start, -p.epoch))


def load(backend: Backend, provider: KeyProvider, repository: str, service: str, source: str, after: int = 0, everything: bool = False) -> LogIndex:
    """List a source's log. A list may omit objects, so epochs are also asked for by number. ``after``: only epochs above it.

    everything: also the many pieces that whole segments superseded.
    """
    index = LogIndex(service, source, everything=everything)
    prefix = layout.logs(service, source)
    if not after:
        names = backend.list(prefix)
    else:
        names = iter(())
    sealed: set[int] = set()
    for name, size in names:
        directory, _slash, last = name[len(prefix):].partition("/")
        if _EPOCH.match(directory):
            _take(index, int(directory), last, size, sealed)
        else:
            index.problems.append(_stranger(name))
    _records(index, backend, provider, repository, sealed, after)
    if after:
        for number in list(index.epochs):
            for name, size in backend.list(layout.log_epoch(service, source, number)):
                _take(index, number, name.rsplit("/", 1)[1], size, sealed)
    return index


def _take(index: LogIndex, number: int, last: str, size: int, sealed: set[int]) -> None:
    where = layout.log_epoch(index.service, index.source, number) + last
    piece, history = _PIECE.match(last), _HISTORY.match(last)
    if piece:
        timeline, start, end = (int(word, 16) for word in piece.groups())
        if 0 <= start < end <= start + PIECE_LIMIT:
            index.add(number, timeline, Piece(start, end, number, size))
            return
    elif history:
        index.histories.append((number, int(history.group(1), 16)))
        index.listed.setdefault(number, [])
        return
    elif last == "epoch.json":
        sealed.add(number)
        return
    index.problems.append(_stranger(where))


def _stranger(name: str) -> DamageError:
    return DamageError("an object in a log has a name that no log has", name, "look at who put it there; it is not used")


def _records(index: LogIndex, backend: Backend, provider: KeyProvider, repository: str, sealed: set[int], after: int) -> None:
    known = sealed | set(index.listed)
    top = max(known, default=after)
    number = after
    while True:
        number += 1
        if number > top:
            # epochs are numbered without gaps: one that the list omitted is found by asking for the next
            try:
                backend.size(layout.log_record(index.service, index.source, number))
            except FileNotFoundError:
                break
            top = number
        try:
            index.epochs[number] = read_record(backend, provider, repository, index.service, index.source, number)
        except DamageError as error:
            index.problems.append(error)
    for number, epoch in index.epochs.items():
        before, claimed = index.epochs.get(number - 1), epoch.record.get("previous")
        if before is not None and claimed is not None and claimed != before.digest:
            index.problems.append(DamageError(
                "record of a log epoch does not follow its predecessor", layout.log_record(index.service, index.source, number),
                "one of the two was replaced; take a new snapshot to be safe from here on"))
        index.problems += [
            DamageError("a piece lies in an epoch of another timeline", layout.log_piece(index.service, index.source, number, timeline, piece.start, piece.end),
                        "look at who put it there; it is not used")
            for timeline, piece in index.listed.get(number, []) if timeline != epoch.timeline]


def list_epoch(backend: Backend, index: LogIndex, number: int) -> None:
    """List one epoch anew, with everything that is in it."""
    index.everything = True
    index.listed[number] = []
    index.histories = [one for one in index.histories if one[0] != number]
    for name, size in backend.list(layout.log_epoch(index.service, index.source, number)):
        _take(index, number, name.rsplit("/", 1)[1], size, set())


def captured_at(backend: Backend, index: LogIndex, timeline: int, piece: Piece) -> int:
    """When a piece was captured (ns), as its header says; DamageError names the object."""
    name = layout.log_piece(index.service, index.source, piece.epoch, timeline, piece.start, piece.end)
    return soundly(backend, name, lambda: _captured(backend, name))


def _captured(backend: Backend, name: str) -> int:
    try:
        return captured(backend.read_range(name, 0, HEADER))
    except (FileNotFoundError, ValueError) as error:
        raise DamageError("a piece of the log is damaged", name, "verify the service; take a new snapshot to be safe from here on") from error


def whole(objects: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The objects (name, size) of one epoch without the pieces that lie inside larger ones."""
    kept: list[tuple[str, int]] = []
    pieces: list[tuple[int, int, int, tuple[str, int]]] = []
    for one in objects:
        match = _PIECE.match(one[0].rsplit("/", 1)[1])
        if match:
            timeline, start, end = (int(word, 16) for word in match.groups())
            pieces.append((timeline, start, -end, one))
        else:
            kept.append(one)
    reached = (-1, -1)
    for timeline, _start, end, one in sorted(pieces):
        if (timeline, -end) > reached or timeline != reached[0]:
            kept.append(one)
            reached = (timeline, -end)
    return kept
