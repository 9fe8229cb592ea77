# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a repository needs from the place where its objects live. Objects are write-once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, ClassVar, Iterable, Iterator, Sequence, TypeVar

from ..clocks import Skew
from ..errors import DamageError, LifeboatError, StorageError

T = TypeVar("T")


class NewObject(ABC):
    """An object being written; nothing is visible under its name before commit()."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Append bytes."""

    @abstractmethod
    def commit(self) -> None:
        """Make the object durable under its name, exactly once, and read it back.

        Raises ConflictError when the name is taken, StorageError when what was read back differs.
        """

    @abstractmethod
    def abort(self) -> None:
        """Forget what was written."""


class Backend(ABC):
    """A flat space of named, immutable objects. Names are relative, "/"-separated and safe.

    Reading an absent object raises FileNotFoundError; all other trouble is a StorageError.
    """

    #: The URL scheme in the catalog.
    scheme: ClassVar[str]

    @abstractmethod
    def prepare(self) -> bool:
        """Create the place if it is missing; True if something was made."""

    @abstractmethod
    def probe(self) -> None:
        """Try the guarantees the repository lives on (durable exclusive creation, reading back); StorageError if not kept."""

    @abstractmethod
    def new(self, name: str, subject: str) -> NewObject:
        """Begin an object; ``subject`` names its fault points."""

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes:
        """The whole object; StorageError when it is longer than ``limit`` bytes."""

    @abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, or fewer when the object ends before."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Size in bytes."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(name, size) of the objects below ``prefix`` ("a/b/"), in no order. Never proof that an object is absent."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room left, or None where the place has no such limit."""

    def older(self) -> Backend | None:
        """Older versions of the objects, to read, where the place keeps them."""
        return None

    def replace(self, name: str, subject: str) -> NewObject:
        """As new(), for an object that is there and damaged: commit() puts the sound one in its place. Only a repair does that."""
        raise StorageError("objects are not replaced there", name, "repair it by hand")

    def keep(self, names: Iterable[str]) -> None:
        """Make existing objects undeletable for as long as new ones are."""
        return  # where there are no locks

    def doubt(self, name: str, error: LifeboatError) -> bool:
        """What this thread read last of an object is not sound. True: another copy of it is read from now on, so try again."""
        return False  # where there is one copy

    def held(self, prefix: str) -> dict[str, set[str]]:
        """Where there are several places: name of each -> the objects below ``prefix`` that it lists."""
        return {}

    def told(self) -> Sequence[dict[str, Any]]:
        """What an operator must know of where things were read from, as error dicts."""
        return []

    def skew(self, clock: Callable[[], float], names: Sequence[str]) -> Skew | None:
        """How far the place's clock is ahead of ours, asked with the help of some objects that are there; None where it does not say."""
        return None

    def locked_until(self, name: str) -> str | None:
        """Until when the store itself keeps an object from being deleted, ISO 8601; None where it does not, or does not say."""
        return None  # where there are no locks

    def hold(self, names: Iterable[str], held: bool) -> None:
        """Let the place itself refuse to delete objects until they are no longer held, where it can."""
        return  # where there are no locks the record of the hold is what counts

    def create(self, name: str, data: bytes, subject: str) -> None:
        """Write a small object at once."""
        new = self.new(name, subject)
        try:
            new.write(data)
            new.commit()
        except BaseException:
            new.abort()
            raise


class ReadOnly(Backend):
    """A place that is never written through."""

    @abstractmethod
    def refused(self) -> StorageError:
        """What is said to whoever tries."""

    def prepare(self) -> bool:
        raise self.refused()

    def probe(self) -> None:
        raise self.refused()

    def new(self, name: str, subject: str) -> NewObject:
        raise self.refused()

    def free_bytes(self) -> int | None:
        return None


def soundly(backend: Backend, name: str, action: Callable[[], T]) -> T:
    """An action that reads one object, once more with each other copy of it while what it reads is damaged."""
    while True:
        try:
            return action()
        except DamageError as error:
            if not backend.doubt(name, error):
                raise
