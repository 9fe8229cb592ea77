# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Rebuild a cluster's files from a snapshot: pages that the live cluster still holds are taken from there.

Whatever the files' times say, a page counts as the same only when its mark does. Every page that comes from the
repository is held against its mark once more before it is written, and pg_control is written when all else is on the disk.
A snapshot is hostile input: no path leaves its root, and nothing is written through a link that this module did not make.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .. import durable, faults
from ..errors import DamageError
from ..libraries import need
from . import cluster_pages as pages
from .cluster_places import CONTROL, Owner, inside, present, side
from .contract import Context, Entry, Reader

PAGE = pages.PAGE
#: Longest span a snapshot may hold.
_SPAN = 16 << 20
#: Chunks kept because several spans share them: at most 4 MiB each.
_CHUNKS = 12
#: Spans on their way at once, per thread.
_AHEAD = 4
_WRITEBACK = 1 << 20
_FICLONERANGE = 0x4020940D
#: A restored copy decides by itself what it is; a running server's files are not its.
_LEFT_OUT = frozenset({
    "standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts", "backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old",
})
_REMEDY = "the snapshot is damaged or hostile; choose another one"


class Rebuild:
    """Fills the staged directory of one stage record. live: where unchanged pages may be taken from, "" for nowhere.

    With ``record["in_place"]`` the staged directory holds the former cluster, whose pages are overwritten.
    """

    def __init__(self, context: Context, reader: Reader, record: dict[str, Any], owner: Owner) -> None:
        self._context = context
        self._reader = reader
        self._record = record
        self._owner = owner
        self._top = str(record["staged"])
        self._stage = str(record["stage_id"])
        self._in_place = bool(record.get("in_place")) and os.path.isdir(self._top)
        self._live = self._top if self._in_place else str(record["live"])
        self._spaces = {str(space["oid"]): str(space["to"]) for space in record["tablespaces"]}
        self._roots = [self._top]
        self._directories = {""}
        self._kept: set[str] = set()
        self._chunks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._clone = not self._in_place
        self.reused = 0
        self.fetched = 0

    def run(self) -> dict[str, int]:
        """Write everything durably; {"bytes_reused", "bytes_fetched"}. Raises DamageError, OSError."""
        if self._in_place:
            durable.unlink(os.path.join(self._top, CONTROL), "stage")
            durable.fsync_dir(os.path.join(self._top, "global"), "stage")
        else:
            durable.make_dirs(self._top, 0o700, "stage")
        self._owner.give(self._top)
        control = self._contents()
        if self._in_place:
            self._remove_others()
        os.chmod(self._top, self._record["mode"])
        for root in self._roots:
            durable.sync_tree(root, "stage")
        self._write_control(control)
        return {"bytes_reused": self.reused, "bytes_fetched": self.fetched}

    # -- the tree

    def _contents(self) -> list[Entry]:
        jobs: deque[Future[None]] = deque()
        control: list[Entry] = []
        current: _File | None = None
        with ThreadPoolExecutor(self._context.workers, thread_name_prefix="restore") as threads:
            try:
                for entry in self._reader.entries():
                    kind = entry["type"]
                    if kind == "head":
                        continue
                    path = str(entry["path"])
                    if path == CONTROL:
                        control.append(entry)
                        continue
                    if kind == "span":
                        if current is None or current.path != path:
                            raise DamageError("tree holds a span without its file", repr(path), _REMEDY)
                        current.begin()
                        jobs.append(threads.submit(self._span, current, entry))
                        while len(jobs) > _AHEAD * self._context.workers:
                            jobs.popleft().result()
                        continue
                    if current is not None:
                        current.done()
                        current = None
                    self._check_path(path)
                    if kind == "file" and path in _LEFT_OUT:
                        current = _File(path, -1, -1, 0)
                    elif kind == "file":
                        current = self._file(entry)
                    else:
                        self._other(entry)
                if current is not None:
                    current.done()
                while jobs:
                    jobs.popleft().result()
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise
        if not control:
            raise DamageError(f"tree holds no {CONTROL}", self._context.source, _REMEDY)
        return control

    def _check_path(self, path: str) -> None:
        parts = path.split("/")
        if path and (any(part in ("", ".", "..") for part in parts) or "\0" in path):
            raise DamageError("tree holds an unsafe path", repr(path), _REMEDY)
        if path and path.rpartition("/")[0] not in self._directories:
            raise DamageError("tree holds a path outside its directories", repr(path), _REMEDY)
        self._kept.add(path)

    def _other(self, entry: Entry) -> None:
        kind, path = entry["type"], str(entry["path"])
        full = f"{self._top}/{path}" if path else self._top
        if kind == "dir":
            self._directories.add(path)
            if path == "pg_wal" and self._record.get("wal_directory"):
                self._link_log(full)
            elif path:
                self._directory(full, int(entry["mode"]))
        elif kind == "link" and path == "pg_wal":
            self._directories.add(path)
            if self._record.get("wal_directory"):
                self._link_log(full)
            else:
                self._directory(full, 0o700)
        elif kind == "link" and path.startswith("pg_tblspc/"):
            self._directories.add(path)
            self._link_space(full, path)
        elif kind == "link":
            if present(full):
                os.unlink(full)
            os.symlink(str(entry["target"]), full)
            self._owner.give(full)
        elif kind == "label":
            if path == "backup_label":  # the links of tablespaces are made by us, so a map of them must not be there
                self._write_small(full, str(entry["content"]).encode(), 0o600)
        else:
            raise DamageError(f"tree holds an unknown kind of entry {kind!r}", repr(path), _REMEDY)

    def _directory(self, full: str, mode: int) -> None:
        if present(full) and (os.path.islink(full) or not os.path.isdir(full)):
            os.unlink(full)
        if not os.path.isdir(full):
            os.mkdir(full, 0o700)
        self._owner.give(full)
        os.chmod(full, mode & 0o777)

    def _link_space(self, full: str, path: str) -> None:
        location = self._spaces.get(path.rpartition("/")[2])
        if location is None:
            raise DamageError("tree holds a tablespace that its manifest does not name", repr(path), _REMEDY)
        self._side_link(full, inside(location, self._stage, "staged"), location)

    def _link_log(self, full: str) -> None:
        home = str(self._record["wal_directory"])
        self._side_link(full, side(home, self._stage, "staged"), os.path.dirname(home))

    def _side_link(self, link: str, place: str, parent: str) -> None:
        missing, above = [], parent
        while not os.path.isdir(above):
            missing.append(above)
            above = os.path.dirname(above)
        durable.make_dirs(parent, 0o700, "stage")
        for directory in missing:
            self._owner.give(directory)
        if not os.path.isdir(place):
            os.mkdir(place, 0o700)
            self._owner.give(place)
        if present(link):
            if os.path.islink(link) and os.readlink(link) == place:
                self._roots.append(place)
                return
            os.unlink(link) if os.path.islink(link) else shutil.rmtree(link)
        os.symlink(place, link)
        self._owner.give(link)
        self._roots.append(place)

    def _write_small(self, full: str, data: bytes, mode: int) -> None:
        if present(full):
            os.unlink(full)
        descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            durable.write_all(descriptor, data, full, "stage")
            os.fchmod(descriptor, mode)
            self._owner.give(descriptor)
            durable.fsync_file(descriptor, full, "stage")
        finally:
            os.close(descriptor)

    def _remove_others(self) -> None:
        """In place: what the former cluster had and the snapshot has not."""
        for folder, names, files in os.walk(self._top, topdown=False, followlinks=True):
            for name in names + files:
                full = os.path.join(folder, name)
                if os.path.relpath(full, self._top) in self._kept:
                    continue
                if os.path.isdir(full) and not os.path.islink(full):
                    shutil.rmtree(full)
                else:
                    os.unlink(full)

    # -- files

    def _file(self, entry: Entry, at_end: bool = False) -> _File:
        path, size, full = str(entry["path"]), int(entry["size"]), f"{self._top}/{entry['path']}"
        faults.point("stage.write.before")
        if self._in_place and not at_end and os.path.isfile(full) and not os.path.islink(full):
            target = os.open(full, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            former = target
        else:
            if self._in_place and present(full):
                shutil.rmtree(full) if os.path.isdir(full) and not os.path.islink(full) else os.unlink(full)
            target = os.open(full, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            former = -1
            # the log's segments are never the same twice, and a running server is at work on them
            if self._live and not self._in_place and not at_end and not path.startswith("pg_wal/"):
                former = self._open_live(f"{self._live}/{path}")
        if os.fstat(target).st_size != size:
            os.ftruncate(target, size)
        os.fchmod(target, int(entry["mode"]) & 0o777)
        self._owner.give(target)
        return _File(path, target, former, size)

    @staticmethod
    def _open_live(path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1

    def _write_control(self, entries: list[Entry]) -> None:
        full = os.path.join(self._top, CONTROL)
        self._directories.add("global")
        file = self._file(entries[0], at_end=True)
        for entry in entries[1:]:
            file.begin()
            self._span(file, entry)
        durable.fsync_file(file.target, full, "stage")
        file.done()
        durable.fsync_dir(os.path.dirname(full), "stage")

    def _span(self, file: _File, entry: Entry) -> None:
        try:
            if file.target >= 0:
                self._restore_span(file, int(entry["at"]), int(entry["length"]), entry)
        finally:
            file.done()

    def _restore_span(self, file: _File, at: int, length: int, entry: Entry) -> None:
        try:
            wanted = pages.decode_marks(entry["marks"])
        except ValueError as error:
            raise DamageError("tree holds marks that cannot be decoded", repr(file.path), _REMEDY) from error
        unit = int(entry.get("unit", PAGE))
        if not PAGE <= unit <= _SPAN or unit % PAGE:
            raise DamageError("tree holds a span with an impossible unit", repr(file.path), _REMEDY)
        count = -(-length // unit)
        if at < 0 or at % unit or not 0 < length <= _SPAN or at + length > file.size or len(wanted) != count * pages.MARK:
            raise DamageError("tree holds a span that does not fit its file", repr(file.path), _REMEDY)
        buffer = bytearray(length)
        cloned = False
        lacking: Any = range(count)
        if file.former >= 0:
            cloned = self._clone and self._cloned(file, at, length)
            have = self._read(file.target if cloned else file.former, buffer, at)
            with pages.CPU:
                found = pages.marks(self._context.digest_key, memoryview(buffer)[:have], unit)
            lacking = _differing(found, wanted)
        zero: set[int] = set()
        if len(lacking):
            runs = _runs(lacking)
            for first, last in runs:
                low, high = first * unit, min(last * unit, length)
                if file.former >= 0:
                    buffer[low:high] = bytes(high - low)
            zero = self._fetch(file, at, buffer, runs, entry["data"], unit)
            with pages.CPU:
                for first, last in runs:
                    got = pages.marks(self._context.digest_key, memoryview(buffer)[first * unit:last * unit], unit)
                    if got != wanted[first * pages.MARK:last * pages.MARK]:
                        raise DamageError("a page from the repository is not the one that was captured",
                                          f"{file.path!r} at byte {at + first * unit}", "the snapshot is damaged; choose another one")
        in_place = file.former == file.target
        if cloned or in_place:
            parts = _runs(lacking)
        else:
            parts = _runs([page for page in range(count) if page not in zero]) if zero else [(0, count)]
        written = 0
        for first, last in parts:
            written += self._write(file, memoryview(buffer)[first * unit:last * unit], at + first * unit)
        if written >= _WRITEBACK:
            durable.begin_writeback(file.target, at, length)
        fetched = sum(min(last * unit, length) - first * unit for first, last in _runs(lacking))
        with self._lock:
            self.fetched += fetched
            self.reused += length - fetched
        self._context.progress.add(length)

    @staticmethod
    def _read(descriptor: int, buffer: bytearray, at: int) -> int:
        view, have = memoryview(buffer), 0
        while have < len(buffer):
            got = os.preadv(descriptor, [view[have:]], at + have)
            if got <= 0:
                break
            have += got
        return have

    @staticmethod
    def _write(file: _File, view: memoryview, at: int) -> int:
        total = len(view)
        while view:
            written = os.pwrite(file.target, view, at)
            at += written
            view = view[written:]
        return total

    def _cloned(self, file: _File, at: int, length: int) -> bool:
        """Let the file system share the live file's blocks, where it can."""
        try:
            if os.fstat(file.former).st_size < at + length:
                return False
            fcntl.ioctl(file.target, _FICLONERANGE, struct.pack("qQQQ", file.former, at, length, at))
            return True
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS, errno.EPERM):
                self._clone = False
            return False

    def _fetch(self, file: _File, at: int, buffer: bytearray, runs: list[tuple[int, int]], data: list[list[int]], unit: int) -> set[int]:
        """Fill the runs of units from the repository; returns the units that no piece covers: they are zeros."""
        bare: set[int] = set()
        for first, last in runs:
            bare.update(range(first, last))
        for position, number, offset, length in data:
            low = position - at
            if low < 0 or length <= 0 or offset < 0 or low + length > len(buffer):
                raise DamageError("tree refers beyond the end of a span", repr(file.path), _REMEDY)
            chunk: memoryview | None = None
            for first, last in runs:
                start, end = max(low, first * unit), min(low + length, last * unit)
                if start >= end:
                    continue
                if chunk is None:
                    chunk = memoryview(self._chunk(number))
                    if offset + length > len(chunk):
                        raise DamageError("tree refers beyond the end of a chunk", repr(file.path), _REMEDY)
                buffer[start:end] = chunk[offset + start - low:offset + end - low]
                bare.difference_update(range(start // unit, -(-end // unit)))
        return bare

    def _chunk(self, number: int) -> bytes:
        """One chunk, fetched once for all spans that want it at about the same time."""
        with self._lock:
            future = self._chunks.get(number)
            mine = future is None
            if future is None:
                future = self._chunks[number] = Future()
                while len(self._chunks) > _CHUNKS:
                    self._chunks.popitem(last=False)
            else:
                self._chunks.move_to_end(number)
        if mine:
            try:
                future.set_result(self._reader.chunk(number))
            except BaseException as error:
                future.set_exception(error)
        return future.result()


class _File:
    """A file that several spans are written to; the last one closes it. target -1: a file that is left out."""

    def __init__(self, path: str, target: int, former: int, size: int) -> None:
        self.path, self.target, self.former, self.size = path, target, former, size
        self._lock = threading.Lock()
        self._open = 1

    def begin(self) -> None:
        with self._lock:
            self._open += 1

    def done(self) -> None:
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last and self.target >= 0:
            os.close(self.target)
            if self.former >= 0 and self.former != self.target:
                os.close(self.former)
            faults.point("stage.write.after")


def _differing(found: bytes, wanted: bytes) -> Any:
    """The numbers of the pages whose marks differ; pages beyond what was found differ."""
    if found == wanted:
        return []
    numpy = need("numpy")
    have, want = numpy.frombuffer(found, "<u8"), numpy.frombuffer(wanted, "<u8")
    same = min(len(have), len(want))
    return [*numpy.flatnonzero(have[:same] != want[:same]).tolist(), *range(same, len(want))]


def _runs(numbers: Any) -> list[tuple[int, int]]:
    """[first, last) runs of ascending numbers."""
    if isinstance(numbers, range):
        return [(numbers.start, numbers.stop)] if len(numbers) else []
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs
