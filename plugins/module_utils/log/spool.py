# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The spool: segments that pg_receivewal wrote and that are not proven in the repository yet."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass

from .. import durable
from ..errors import ConflictError, StorageError
from . import wal

PARTIAL = ".partial"


@dataclass
class SpoolFile:
    """One segment. complete: the receiver gave it its final name. received: it is the spool's own; else it is read where it is and stays there."""

    path: str
    timeline: int
    start: int
    complete: bool
    received: bool = True


class Spool:
    """``<directory>/wal`` is the receiver's; ``<directory>/lock`` is held by the one shipper."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.wal = os.path.join(directory, "wal")
        self._lock = -1

    def lock(self) -> None:
        """Be the only shipper of this spool; ConflictError."""
        path = os.path.join(self.directory, "lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            self._lock = -1
            raise ConflictError("another process ships this log already", path, "look at it with: lifeboat log status") from error

    def unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def files(self, size: int) -> list[SpoolFile]:
        """Segments of ``size`` bytes, by timeline and position. What holds no page yet is none: see begin_at() and prepare()."""
        found = []
        for name in self._names():
            complete = not name.endswith(PARTIAL)
            parsed = wal.parse_segment(name if complete else name[:-len(PARTIAL)], size)
            path = os.path.join(self.wal, name)
            if parsed is None or _empty(path):
                continue
            found.append(SpoolFile(path, parsed[0], parsed[1], complete))
        return sorted(found, key=lambda one: (one.timeline, one.start, not one.complete))

    def histories(self) -> dict[int, bytes]:
        """timeline -> content of the history files the receiver fetched."""
        found = {}
        for name in self._names():
            timeline = wal.parse_history(name)
            if timeline is not None:
                with contextlib.suppress(FileNotFoundError), open(os.path.join(self.wal, name), "rb") as handle:
                    found[timeline] = handle.read(1 << 20)
        return found

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.wal))
        except OSError as error:
            raise StorageError(f"cannot read the spool ({error.strerror})", self.wal, "check the disk and its permissions") from error

    def changed(self) -> int:
        """Another number when a file came, went or got its final name."""
        try:
            return os.stat(self.wal).st_mtime_ns
        except OSError:
            return 0  # listing it says what is wrong

    def used(self) -> int:
        """Bytes the spool takes on its disk."""
        total = 0
        for name in self._names():
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(self.wal, name)).st_blocks * 512
        return total

    def free(self) -> int:
        """Bytes left on the spool's disk for us."""
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def remove(self, path: str) -> None:
        """Remove what is proven; ValueError for what is not the spool's own."""
        if os.path.dirname(path) != self.wal:
            raise ValueError(f"not in the spool: {path}")
        durable.unlink(path, "spool")

    def drop_partials(self) -> None:
        """After the machine went down: a file that was never flushed may have holes. The slot keeps its segment on the server."""
        for name in self._names():
            if name.endswith(PARTIAL):
                durable.unlink(os.path.join(self.wal, name), "spool")

    def begin_at(self, timeline: int, position: int, size: int) -> None:
        """Let the receiver go on at the segment of a position: it takes the newest file that it finds, and by the time it looks, what lies
        there now may be shipped and gone."""
        self.forget_empty()
        self._make(timeline, position, size)

    def forget_empty(self) -> None:
        """Remove what holds no page. No receiver may run: it begins with the newest file it finds, whatever is in it."""
        for name in self._names():
            path = os.path.join(self.wal, name)
            if len(name) in (24, 24 + len(PARTIAL)) and _empty(path):
                os.unlink(path)

    def prepare(self, newest: SpoolFile, size: int, count: int) -> None:
        """Make the files of the next segments, without content: the receiver takes what has the right length as it is, and is spared
        writing and flushing each segment twice, the first time as zeros."""
        for number in range(1, count + 1):
            self._make(newest.timeline, newest.start + number * size, size)

    def _make(self, timeline: int, position: int, size: int) -> None:
        path = os.path.join(self.wal, wal.segment_name(timeline, position, size))
        if os.path.exists(path):
            return
        try:
            descriptor = os.open(path + PARTIAL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def _empty(path: str) -> bool:
    try:
        with open(path, "rb") as handle:
            return not handle.read(wal.PAGE).strip(b"\0")
    except FileNotFoundError:
        return False
