# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One repository at several places: what one of them lacks or holds damaged is read from the next, and that is told.

A copy is the same repository, with the same id and the same objects under the same names, so nothing that is read needs to know
where it came from. Who wrote last is the first place in the catalog's order that answers; only it decides that an object is absent.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence, TypeVar

from ..clocks import Skew
from ..errors import DamageError, LifeboatError, StorageError
from . import checked
from .backend import Backend, ReadOnly

T = TypeVar("T")

#: A place that failed so often in a row is asked last.
_PATIENCE = 2
#: Objects of which a thread remembers where it read them.
_REMEMBERED = 64
#: Names that a warning lists.
_SHOWN = 5


@dataclass
class Place:
    """One repository of the catalog, or what a versioned bucket (``base``) still holds of older versions; ``error`` says why it cannot be used."""

    name: str
    config: dict[str, Any]
    backend: Backend | None = None
    error: LifeboatError | None = None
    failures: int = 0
    base: int | None = None
    gone: bool = False


@dataclass
class _Note:
    """Objects that one place gave instead of another."""

    asked: str
    gave: str
    count: int = 0
    shown: list[str] = field(default_factory=list)


class FallbackBackend(ReadOnly):
    """Reads only. opener: config -> (backend, repository id), raising LifeboatError where there is no usable repository."""

    scheme = ""

    def __init__(self, configs: Sequence[dict[str, Any]], opener: Callable[[dict[str, Any]], tuple[Backend, str]]) -> None:
        self.places = [Place(str(config.get("name") or config.get("url")), config) for config in configs]
        self.places += [Place(f"{place.name} (older versions)", place.config, base=number) for number, place in enumerate(self.places)]
        self._opener = opener
        self._guard = threading.RLock()
        self._local = threading.local()
        self._doubted: dict[str, dict[int, str]] = {}
        self._notes: dict[tuple[int, int], _Note] = {}
        self.repository_id = ""
        self._first = self._find_first()

    def _find_first(self) -> int:
        for number, place in enumerate(self.places):
            if place.base is not None:
                break
            try:
                place.backend, self.repository_id = self._opener(place.config)
                return number
            except LifeboatError as error:
                place.error = error
        first = self.places[0].error
        raise first if first else AssertionError("no places")

    def _opened(self, number: int) -> Backend | None:
        """A place, opened when it is first needed; None when it cannot be used."""
        place = self.places[number]
        with self._guard:
            if place.base is not None and place.backend is None and not place.gone:
                base = self._opened(place.base)
                place.backend = base.older() if base is not None else None
                place.gone = place.backend is None
            elif place.backend is None and place.error is None and not place.gone:
                try:
                    # whether it answers at all is asked with little patience: a restore does not wait long for what it may not need
                    self._opener({**place.config, "attempts": 2})
                    backend, found = self._opener(place.config)
                    if found != self.repository_id:
                        raise StorageError(f"another repository is there, not a copy of {self.places[self._first].name}", str(place.config.get("url")),
                                           "give the copy a place of its own")
                    place.backend = backend
                except LifeboatError as error:
                    place.error = error
            return place.backend

    def _order(self, name: str) -> list[int]:
        with self._guard:
            doubted = self._doubted.get(name, {})
            numbers = [number for number, place in enumerate(self.places) if number not in doubted and place.error is None and not place.gone]
            return sorted(numbers, key=lambda number: (self.places[number].failures >= _PATIENCE, number))

    def _ask(self, name: str, action: Callable[[Backend], T], used: bool) -> T:
        """The answer of the first place that has one. used: what is answered will be used, so it is told where it comes from."""
        failure: StorageError | None = None
        for number in self._order(name):
            backend = self._opened(number)
            if backend is None:
                continue
            place = self.places[number]
            try:
                found = action(backend)
            except FileNotFoundError:
                continue
            except StorageError as error:
                place.failures += 1
                if number == self._first:
                    failure = error
                continue
            place.failures = 0
            self._last(name, number)
            if used and number != self._first:
                self._note(name, number, failure)
            return found
        if failure is not None:
            raise failure  # the others may be behind: what they lack is not absent
        raise FileNotFoundError(name)

    def _note(self, name: str, number: int, failure: StorageError | None) -> None:
        with self._guard:
            why = failure.what if failure else self._doubted.get(name, {}).get(self._first, "missing")
            note = self._notes.setdefault((self._first, number), _Note(self.places[self._first].name, self.places[number].name))
            shown = f"{name} ({why})"
            if shown not in note.shown:
                note.count += 1
                if len(note.shown) < 1000:
                    note.shown.append(shown)

    def _last(self, name: str, number: int | None = None) -> int:
        """From which place this thread read an object last; with a number: it was read from there. Another thread may be farther already."""
        mine: dict[str, int] = self._local.__dict__.setdefault("read", {})
        if number is not None:
            if len(mine) >= _REMEMBERED:
                mine.clear()
            mine[name] = number
        return mine.get(name, self._first)

    def doubt(self, name: str, error: LifeboatError) -> bool:
        number = self._last(name)
        backend = self.places[number].backend
        if backend is not None and backend.doubt(name, error):
            return True
        with self._guard:
            self._doubted.setdefault(name, {})[number] = error.what
        for other in self._order(name):
            backend = self._opened(other)
            try:
                if backend is not None:
                    backend.size(name)
                    return True
            except (FileNotFoundError, StorageError):
                continue
        with self._guard:
            self._doubted[name].pop(number, None)  # nobody has a better one
        return False

    # -- what a reader calls

    def read(self, name: str, limit: int) -> bytes:
        raw = self._ask(name, lambda backend: backend.read(name, limit), True)
        # a data key carries its own hash, so it is judged here and not by everybody who opens one
        while name.split("/")[2:3] == ["keys"] and not _intact(raw) and self.doubt(name, DamageError("data key is damaged", name)):
            raw = self._ask(name, lambda backend: backend.read(name, limit), True)
        return raw

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._ask(name, lambda backend: backend.read_range(name, offset, length), True)

    def size(self, name: str) -> int:
        return self._ask(name, lambda backend: backend.size(name), False)

    def skew(self, clock: Callable[[], float], names: Sequence[str]) -> Skew | None:
        first = self._opened(self._first)
        return first.skew(clock, names) if first is not None else None

    def locked_until(self, name: str) -> str | None:
        return self._ask(name, lambda backend: backend.locked_until(name), False)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Of all places together. Directories are listed side by side, so that only the names of one (of a log: a day) are in memory."""
        known: set[str] = set()
        for number in range(len(self.places)):
            mine: set[str] = set()
            directory = ""
            seen: set[str] = set()
            for name, size in self._listed(number, prefix):
                here = name[:name.rfind("/") + 1]
                if here != directory:
                    yield from self._elsewhere(number, directory, seen)
                    directory, seen = here, set()
                    mine.add(here)
                if here not in known:
                    seen.add(name)
                    yield name, size
            yield from self._elsewhere(number, directory, seen)
            known |= mine

    def _elsewhere(self, number: int, directory: str, seen: set[str]) -> Iterator[tuple[str, int]]:
        """What the places behind one list in a directory of it."""
        for other in range(number + 1, len(self.places)) if seen else ():
            for name, size in self._listed(other, directory):
                if name not in seen and name.rfind("/") + 1 == len(directory):
                    seen.add(name)
                    yield name, size

    def _listed(self, number: int, prefix: str) -> Iterator[tuple[str, int]]:
        """The list of one place; nothing of one that fails, unless it is the one that decides."""
        backend = self._opened(number)
        try:
            if backend is not None:
                yield from backend.list(prefix)
        except StorageError:
            self.places[number].failures += 1
            if number == self._first:
                raise

    def held(self, prefix: str) -> dict[str, set[str]]:
        """Name of a place -> the objects below a prefix that it lists; without the places that cannot be used."""
        found: dict[str, set[str]] = {}
        for number, place in enumerate(self.places):
            if place.base is None and self._opened(number) is not None:
                found[place.name] = {name for name, _size in self._listed(number, prefix)}
        return found

    def told(self) -> Sequence[dict[str, Any]]:
        """What an operator must know of where things came from, as error dicts; "objects" lists them as far as they fit."""
        with self._guard:
            first = self.places[self._first].name
            found: list[dict[str, Any]] = []
            for number, place in enumerate(self.places):
                if place.error is not None:
                    behind = number < self._first
                    found.append({
                        **place.error.as_dict(),
                        "what": f"repository {place.name} cannot be used ({place.error.what})" + (f", {first} is read instead" if behind else ""),
                        "remedy": (f"what was captured after the last copy to {first} is not there; " if behind else "nothing falls back to it; ")
                        + place.error.remedy,
                    })
            for note in self._notes.values():
                more = f" and {note.count - _SHOWN} more" if note.count > _SHOWN else ""
                found.append({
                    "code": DamageError.code, "what": f"{note.count} {'object was' if note.count == 1 else 'objects were'} read from repository {note.gave},"
                    f" because {note.asked} does not have {'it' if note.count == 1 else 'them'} sound",
                    "where": ", ".join(note.shown[:_SHOWN]) + more,
                    "remedy": f"find out what happened to {note.asked}, then bring them back: lifeboat copy --repair --to {note.asked}",
                    "objects": list(note.shown),
                })
            return found

    def refused(self) -> StorageError:
        return StorageError("a repository is written at its own place only", self.places[0].name, "this is a fault of the program; please report it")


def _intact(raw: bytes) -> bool:
    try:
        checked.load(raw)
    except ValueError:
        return False
    return True
