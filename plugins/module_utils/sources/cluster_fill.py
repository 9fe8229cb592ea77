# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Fill one span of a staged file: what the live file still holds is copied from there, the rest comes from the repository.

Whatever a file's times say, bytes count as the same only when their hash does: the span's sum at first, which one long hash
tells, and the marks of its pages where it differs. What was written is read back from the staged file and held against the one
or the other once more. A snapshot is hostile input: nothing is written outside of a span.
"""

from __future__ import annotations

import base64
import binascii
import copy
import errno
import fcntl
import os
import struct
import threading
from collections import OrderedDict
from concurrent.futures import Future

from .. import durable, faults
from ..errors import DamageError
from ..libraries import need
from . import cluster_pages as pages
from .contract import Context, Entry, Reader

PAGE = pages.PAGE
REMEDY = "the snapshot is damaged or hostile; choose another one"
#: Longest span a snapshot may hold.
_SPAN = 16 << 20
#: Chunks kept because several spans share them: at most 4 MiB each.
_CHUNKS = 12
_WRITEBACK = 1 << 20
_FICLONERANGE = 0x4020940D
_CANNOT_SHARE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS, errno.EPERM})
_CANNOT_COPY = frozenset({*_CANNOT_SHARE, errno.EINVAL, errno.EBADF})


class Target:
    """A staged file that several spans are written to; the last one closes it.

    target: descriptor, -1 for a file that is left out. former: the live file, the same descriptor in place, -1 for none.
    seen: its size, times and inode when it was closed; None before.
    """

    def __init__(self, path: str, target: int, former: int, size: int) -> None:
        self.path, self.target, self.former, self.size = path, target, former, size
        self.seen: list[int] | None = None
        self._lock = threading.Lock()
        self._open = 1

    def begin(self) -> None:
        """One more span."""
        with self._lock:
            self._open += 1

    def done(self) -> None:
        """One span less, or all of them are known."""
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last and self.target >= 0:
            status = os.fstat(self.target)
            if status.st_size != self.size:  # it ends in zeros, which are not stored
                os.ftruncate(self.target, self.size)
                status = os.fstat(self.target)
            self.seen = seen(status)
            os.close(self.target)
            if self.former >= 0 and self.former != self.target:
                os.close(self.former)
            faults.point("stage.write.after")


def seen(status: os.stat_result) -> list[int]:
    """What changes whenever somebody writes to a file."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


class Wanted:
    """What a span entry promises, checked for sense. Raises DamageError."""

    def __init__(self, path: str, size: int, entry: Entry) -> None:
        self.path, self.at, self.length = path, int(entry["at"]), int(entry["length"])
        self.unit = int(entry.get("unit", PAGE))
        try:
            self.marks = pages.decode_marks(entry["marks"])
            self.sum = base64.b64decode(entry["sum"], validate=True) if "sum" in entry else b""
        except (ValueError, binascii.Error) as error:
            raise DamageError("tree holds marks that cannot be decoded", repr(path), REMEDY) from error
        if not PAGE <= self.unit <= _SPAN or self.unit % PAGE:
            raise DamageError("tree holds a span with an impossible unit", repr(path), REMEDY)
        self.count = -(-self.length // self.unit)
        if (self.at < 0 or self.at % self.unit or not 0 < self.length <= _SPAN or self.at + self.length > size
                or len(self.marks) != self.count * pages.MARK or len(self.sum) not in (0, pages.SUM)):
            raise DamageError("tree holds a span that does not fit its file", repr(path), REMEDY)

    def part(self, first: int, last: int) -> Wanted:
        """Some of its units."""
        found = copy.copy(self)
        found.at, found.sum = self.at + first * self.unit, b""
        found.length, found.count = min(last * self.unit, self.length) - first * self.unit, last - first
        found.marks = self.marks[first * pages.MARK:last * pages.MARK]
        return found

    def differing(self, key: bytes, view: memoryview) -> list[int]:
        """The numbers of the units that are others in ``view``, which is as long as the span."""
        if self.sum and pages.total(key, view) == self.sum:
            return []
        with pages.CPU:
            found = pages.marks(key, view, self.unit)
        if found != self.marks:
            numpy = need("numpy")
            different: list[int] = numpy.flatnonzero(numpy.frombuffer(found, "<u8") != numpy.frombuffer(self.marks, "<u8")).tolist()
            return different
        if self.sum:
            raise DamageError("tree holds a span whose sum and marks speak of different bytes", f"{self.path!r} at byte {self.at}", REMEDY)
        return []


class Filler:
    """Shared by all threads of a restore. reused, fetched: bytes so far."""

    def __init__(self, context: Context, reader: Reader, in_place: bool) -> None:
        self._context = context
        self._reader = reader
        self._in_place = in_place
        self._local = threading.local()
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, bool], Future[bytes]] = OrderedDict()
        self._share = self._copy = not in_place
        self.reused = 0
        self.fetched = 0

    def span(self, file: Target, entry: Entry) -> None:
        """One span of a file. Raises DamageError, OSError."""
        wanted = Wanted(file.path, file.size, entry)
        view = self._buffer(wanted.length)
        lacking = list(range(wanted.count))
        written = 0
        meter = self._context.progress.meter
        if file.former >= 0:
            if not self._in_place:
                with meter.during("write"):
                    written = self._take(file, wanted, view)
            with meter.during("verify"):
                self._read_back(file, wanted, view)
                lacking = wanted.differing(self._context.digest_key, view)
        fetched = 0
        if lacking:
            units = runs(lacking)
            fetched = sum(min(last * wanted.unit, wanted.length) - first * wanted.unit for first, last in units)
            with meter.during("write"):
                written += self._fetch(file, wanted, units, entry["data"])
            with meter.during("verify"):
                wrong = self._wrong(file, wanted, units, view)
            if wrong:
                self._blame(file, wanted, wrong, entry["data"])
        if written >= _WRITEBACK:
            durable.begin_writeback(file.target, wanted.at, wanted.length)
        with self._lock:
            self.fetched += fetched
            self.reused += wanted.length - fetched
        meter.add(written=written, reused=wanted.length - fetched)
        self._context.progress.add(wanted.length)

    def _wrong(self, file: Target, wanted: Wanted, units: list[tuple[int, int]], view: memoryview) -> list[int]:
        """Read back what was written; the units that are not what was captured. Those that were not written have been compared before."""
        if units == [(0, wanted.count)]:
            self._read_back(file, wanted, view)
            return wanted.differing(self._context.digest_key, view)
        wrong: list[int] = []
        for first, last in units:
            part = wanted.part(first, last)
            self._read_back(file, part, view[:part.length])
            wrong += [first + unit for unit in part.differing(self._context.digest_key, view[:part.length])]
        return wrong

    def equal(self, descriptor: int, wanted: Wanted) -> bool:
        """An open file holds at this place what the snapshot does."""
        view = self._buffer(wanted.length)
        return _read(descriptor, view, wanted.at) == wanted.length and not wanted.differing(self._context.digest_key, view)

    def _buffer(self, length: int) -> memoryview:
        """The thread's own buffer."""
        buffer: bytearray = getattr(self._local, "buffer", bytearray())
        if len(buffer) < length:
            buffer = self._local.buffer = bytearray(max(length, 4 << 20))
        return memoryview(buffer)[:length]

    @staticmethod
    def _read_back(file: Target, wanted: Wanted, view: memoryview) -> None:
        have = _read(file.target, view, wanted.at)
        if have < wanted.length:  # the file is made as long as it shall be at its end
            view[have:] = bytes(wanted.length - have)

    # -- from the live file

    def _take(self, file: Target, wanted: Wanted, view: memoryview) -> int:
        """Bring the live file's bytes to the staged one; bytes that were written for it. What the live file lacks stays zeros."""
        if self._share and self._shared(file, wanted):
            return 0
        done = 0
        while self._copy and done < wanted.length:
            try:
                got = os.copy_file_range(file.former, file.target, wanted.length - done, wanted.at + done, wanted.at + done)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                self._copy = False
                break
            if not got:
                return done
            done += got
        if done < wanted.length:
            have = _read(file.former, view[done:], wanted.at + done)
            _write(file.target, view[done:done + have], wanted.at + done)
            done += have
        return done

    def _shared(self, file: Target, wanted: Wanted) -> bool:
        """Let the file system share the live file's blocks, where it can."""
        try:
            if os.fstat(file.former).st_size < wanted.at + wanted.length:
                return False
            fcntl.ioctl(file.target, _FICLONERANGE, struct.pack("qQQQ", file.former, wanted.at, wanted.length, wanted.at))
            return True
        except OSError as error:
            if error.errno in _CANNOT_SHARE:
                self._share = False
            return False

    # -- from the repository

    def _fetch(self, file: Target, wanted: Wanted, units: list[tuple[int, int]], data: list[list[int]]) -> int:
        """Write runs of units straight from the chunks that hold them; zeros where no chunk does. Returns the bytes written."""
        unit, at = wanted.unit, wanted.at
        # the sum of a span that is read back as a whole proves as much as a chunk's id does; what overwrites live pages is proven before
        trusting = bool(wanted.sum) and not self._in_place and units == [(0, wanted.count)]
        areas = [(first * unit, min(last * unit, wanted.length)) for first, last in units]
        covered: list[tuple[int, int]] = []
        written = 0
        for position, number, offset, length in data:
            low = position - at
            if low < 0 or length <= 0 or offset < 0 or low + length > wanted.length:
                raise DamageError("tree refers beyond the end of a span", repr(file.path), REMEDY)
            chunk: memoryview | None = None
            for start, end in areas:
                start, end = max(low, start), min(low + length, end)
                if start >= end:
                    continue
                if chunk is None:
                    chunk = memoryview(self._chunk(number, trusting))
                    if offset + length > len(chunk):
                        raise DamageError("tree refers beyond the end of a chunk", repr(file.path), REMEDY)
                written += _write(file.target, chunk[offset + start - low:offset + end - low], at + start)
                covered.append((start, end))
        if file.former >= 0:
            for start, end in _gaps(areas, sorted(covered)):
                written += _write(file.target, memoryview(bytes(end - start)), at + start)
        return written

    def _chunk(self, number: int, trusting: bool) -> bytes:
        """One chunk, fetched once for all spans that want it at about the same time."""
        with self._lock:
            future = self._chunks.get((number, trusting))
            mine = future is None
            if future is None:
                future = self._chunks[number, trusting] = Future()
                while len(self._chunks) > _CHUNKS:
                    self._chunks.popitem(last=False)
            else:
                self._chunks.move_to_end((number, trusting))
        if mine:
            try:
                future.set_result(self._reader.chunk(number, read_back=trusting))
            except BaseException as error:
                future.set_exception(error)
        with self._context.progress.meter.during(""):
            return future.result()

    def _blame(self, file: Target, wanted: Wanted, wrong: list[int], data: list[list[int]]) -> None:
        """Say whose fault it is: a chunk that is not what its id says, or what was made of sound ones."""
        low, high = wrong[0] * wanted.unit, (wrong[0] + 1) * wanted.unit
        for position, number, _offset, length in data:
            if position - wanted.at < high and position - wanted.at + length > low:
                self._reader.chunk(number)
        raise DamageError("a page read back after it was written is not the one that was captured", f"{file.path!r} at byte {wanted.at + low}",
                          "the snapshot or this host's disk is damaged: check the disk, or choose another snapshot")


def _read(descriptor: int, view: memoryview, at: int) -> int:
    """Fill the view; how far it went before the file's end."""
    have = 0
    while have < len(view):
        got = os.preadv(descriptor, [view[have:]], at + have)
        if got <= 0:
            break
        have += got
    return have


def _write(descriptor: int, view: memoryview, at: int) -> int:
    total = len(view)
    while view:
        written = os.pwrite(descriptor, view, at)
        at += written
        view = view[written:]
    return total


def _gaps(areas: list[tuple[int, int]], covered: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of the areas is not covered; both in order."""
    found = []
    for start, end in areas:
        for low, high in covered:
            if high <= start or low >= end:
                continue
            if low > start:
                found.append((start, low))
            start = max(start, high)
        if start < end:
            found.append((start, end))
    return found


def runs(numbers: list[int]) -> list[tuple[int, int]]:
    """[first, last) runs of ascending numbers."""
    if numbers and numbers[-1] - numbers[0] + 1 == len(numbers):
        return [(numbers[0], numbers[-1] + 1)]
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found
