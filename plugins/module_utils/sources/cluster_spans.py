# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Reading files of a cluster once: marked, compared page by page with the parent, verified, and what is new stored.

A job is a list of parts, mostly of many files; its new pages are packed together into chunks of about 1 MiB. A job needs
about ten MiB of memory whatever its size.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ..errors import SourceError
from ..libraries import need
from .cluster_blocks import BLOCK, Block, Run, ranges, read_into
from .cluster_pages import CPU, MARK, PAGE, SUM, SUMMED, bad_pages, decode_marks, encode_marks, marks, page_position, unit_of
from .cluster_parent import Piece, Reuse, cut, join
from .cluster_walk import Item
from .contract import Context, Entry, Writer

#: Bytes of a span.
SPAN = 4 << 20
#: Files up to this size are verified together, so many bytes of them at once.
_SMALL = 256 << 10
_TOGETHER = 1 << 20
#: Pauses before a page with a wrong checksum is read again, seconds: the server is writing it at this moment, or it is damaged.
_PAUSES = (0.0, 0.005, 0.02, 0.05, 0.1)
#: After so many pages that stayed wrong the further ones are read again without a pause.
_PATIENCE = 256


@dataclass
class Suspect:
    """A page whose checksum stayed wrong. block: its number in the relation. position: of the page's last change in the log."""

    path: str
    block: int
    position: int


class File:
    """One file of the cluster, opened when its first part is read and closed after its last one."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.status = item.status
        self._lock = threading.Lock()
        self._descriptor = -1
        self._left = 0
        self.vanished = False

    def expect(self, parts: int) -> None:
        """How many parts there will be."""
        self._left = parts

    def descriptor(self) -> int:
        """The open file; -1 when it is gone (also for every other part of it)."""
        with self._lock:
            if self._descriptor < 0 and not self.vanished:
                try:
                    self._descriptor = os.open(self.item.full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
                except FileNotFoundError:
                    self.vanished = True
                except OSError as error:
                    raise _unreadable(error, self.item.full) from error
            return self._descriptor

    def done(self) -> None:
        """One part is finished."""
        with self._lock:
            self._left -= 1
            if self._left == 0 and self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


@dataclass
class Part:
    """One span of a file. parent: the parent's span at the same place. unread: it may be taken over without reading.

    first: the file's entry comes with it. whole: it is all of the file.
    """

    file: File
    at: int
    length: int
    parent: Entry | None = None
    unread: bool = False
    first: bool = False
    whole: bool = False
    #: The content of a small file that was read and verified together with others.
    loaded: memoryview | None = None
    #: Something was wrong with it when it was: it is read again by itself.
    alone: bool = False


@dataclass
class Result:
    """What a job found: entries in order, pages to be judged, bytes that were read."""

    entries: list[Entry] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    read: int = 0
    files: int = 0
    bytes: int = 0


class Spans:
    """Shared by all jobs of a capture: what they need to know, and nothing that they change but under a lock.

    checksums: pages of relations are verified. segment: bytes of a relation's file segment.
    """

    def __init__(self, context: Context, writer: Writer, checksums: bool, segment: int) -> None:
        self._context = context
        self._key = context.digest_key
        self._writer = writer
        self._reuse = Reuse(writer)
        self._checksums = checksums
        self._segment = segment
        self._local = threading.local()
        self._zero: dict[int, bytes] = {}
        self._hopeless = 0

    def job(self, parts: list[Part | Entry]) -> Result:
        """Read and store parts; entries among them keep their place. Raises SourceError for what cannot be read."""
        result = Result()
        run = Run(self._writer)
        pending: list[tuple[Entry, list[Piece]]] = []
        for number, part in enumerate(parts):
            if isinstance(part, dict):
                result.entries.append(part)
                continue
            try:
                if part.loaded is None and not part.alone and self._small(part):
                    self._load(parts[number:number + _TOGETHER // PAGE])
                self._part(part, run, result, pending)
            finally:
                part.file.done()
        run.flush()
        for entry, pieces in pending:
            entry["data"] = join(pieces)
        return result

    def _small(self, part: Part) -> bool:
        return self._checksums and part.file.item.relation is not None and part.whole and 0 < part.length <= _SMALL and not part.unread

    def _load(self, parts: list[Part | Entry]) -> None:
        """Read many small files and verify their pages in one go, which costs hardly more than one page would.

        Called for the first part that was not tried yet, so everything loaded before was used and the buffer is free.
        """
        numpy = need("numpy")
        buffer = self._buffer("loaded", _TOGETHER)
        taken: list[tuple[Part, int, int]] = []
        numbers: list[int] = []
        for part in parts:
            if isinstance(part, dict) or not self._small(part):
                continue
            relation, descriptor, count = part.file.item.relation, part.file.descriptor(), part.length // PAGE
            start = len(numbers) * PAGE
            if relation is None or descriptor < 0 or part.length % PAGE or start + part.length > _TOGETHER:
                break
            try:
                read_into(descriptor, memoryview(buffer)[start:start + part.length], 0)
            except OSError as error:
                raise _unreadable(error, part.file.item.full) from error
            taken.append((part, len(numbers), count))
            first = relation.segment * (self._segment // PAGE)
            numbers += range(first, first + count)
        if not taken:
            return
        pages = numpy.frombuffer(buffer, numpy.uint8, len(numbers) * PAGE).reshape(-1, PAGE)
        with CPU:
            bad = set(bad_pages(pages, numpy.array(numbers, numpy.uint32)).tolist())
        for part, start, count in taken:
            if bad and not bad.isdisjoint(range(start, start + count)):
                part.alone = True
            else:
                part.loaded = memoryview(buffer)[start * PAGE:(start + count) * PAGE]

    def _part(self, part: Part, run: Run, result: Result, pending: list[tuple[Entry, list[Piece]]]) -> None:
        item = part.file.item
        # a span keeps the unit of its parent, so that they can be compared whatever became of the file's size
        unit = int(part.parent["unit"]) if part.parent else unit_of(item.status.st_size)
        span: Entry = {"type": "span", "path": item.path, "at": part.at, "length": part.length, "unit": unit, "data": []}
        if part.unread and part.parent is not None and self._take_over(part, span):
            if part.first:
                self._file(part, result)
            result.entries.append(span)
            self._context.progress.add(part.length, int(part.first))
            return
        descriptor = part.file.descriptor() if part.length or part.first else -1
        if descriptor < 0:
            return
        if part.whole:
            # a file that was replaced since it was listed is taken as it is now
            status = os.fstat(descriptor)
            if status.st_ino != part.file.status.st_ino or not item.relation:
                part.file.status, part.loaded = status, None
                part.length = span["length"] = min(status.st_size, SPAN)
        if part.first:
            self._file(part, result)
        if part.length:
            try:
                pending.append((span, self._read(part, descriptor, span, run, result)))
            except OSError as error:
                raise _unreadable(error, item.full) from error
            result.entries.append(span)
            result.read += part.length
        self._context.progress.add(0, int(part.first))

    def _file(self, part: Part, result: Result) -> None:
        item, status = part.file.item, part.file.status
        size = part.length if part.whole else status.st_size
        result.files += 1
        result.bytes += size
        result.entries.append({
            "type": "file", "path": item.path, "mode": status.st_mode & 0o7777, "mtime_ns": status.st_mtime_ns, "size": size,
            "seen": [status.st_ino, status.st_ctime_ns],
        })

    def _take_over(self, part: Part, span: Entry) -> bool:
        parent = part.parent
        if parent is None or parent["length"] != part.length or parent.get("bad"):
            return False
        taken, gone = self._reuse.take(parent["data"])
        if gone:
            return False
        span["data"], span["marks"] = taken, parent["marks"]
        if "sum" in parent:
            span["sum"] = parent["sum"]
        return True

    # -- one span

    def _read(self, part: Part, descriptor: int, span: Entry, run: Run, result: Result) -> list[Piece]:
        """Read a span; fills its marks. Returns its pieces, which are complete when the run was flushed."""
        pieces: list[Piece] = []
        buffer = self._buffer("block", BLOCK)
        known = decode_marks(part.parent["marks"]) if part.parent else b""
        old: list[Piece] = part.parent["data"] if part.parent else []
        doubtful = set(part.parent.get("bad", ())) if part.parent else set()
        unit: int = span["unit"]
        zero = self._zeros(unit)
        seen = []
        total = need("blake3").blake3(key=self._key) if part.length >= SUMMED else None
        bad: list[int] = []
        for offset in range(0, part.length, BLOCK):
            want = min(BLOCK, part.length - offset)
            view = memoryview(buffer)[:want] if part.loaded is None else part.loaded
            if part.loaded is None:
                read_into(descriptor, view, part.at + offset)
            block = Block(offset, view, buffer, unit)
            with CPU:
                block.marks = marks(self._key, view, unit)
            first = offset // unit * MARK
            before = known[first:first + len(block.marks)]
            again = [page - offset // PAGE for page in doubtful if offset <= page * PAGE < offset + want]
            fresh: list[tuple[int, int]]
            if before == block.marks and not again:
                fresh, kept = [], [(0, want)] if zero * block.units != before else []
            elif part.loaded is not None and not before and zero not in block.marks:
                fresh, kept = [(0, want)], []
            else:
                fresh, kept = self._compare(part, block, before, again, descriptor, result, bad)
            for low, high in kept:
                taken, gone = self._reuse.take(cut(old, part.at + offset + low, part.at + offset + high))
                pieces += taken
                fresh += [(at - part.at - offset, at - part.at - offset + length) for at, _number, _offset, length in gone]
            for low, high in sorted(fresh):
                run.add(pieces, part.at + offset + low, view[low:high])
            if not fresh:
                self._context.progress.add(want)
            seen.append(block.marks)
            if total is not None:
                total.update(view)
        span["marks"] = encode_marks(b"".join(seen))
        if total is not None:
            span["sum"] = encode_marks(total.digest(SUM))
        if bad:
            span["bad"] = bad
        return pieces

    def _compare(self, part: Part, block: Block, before: bytes, again: list[int], descriptor: int, result: Result,
                 bad: list[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(byte ranges to store, byte ranges to take over) of a block; pages with a wrong checksum are read again first."""
        numpy = need("numpy")
        now = numpy.frombuffer(block.marks, numpy.uint64)
        zero = numpy.frombuffer(self._zeros(block.unit), numpy.uint64)[0]
        changed = numpy.ones(block.units, bool)
        common = min(len(before) // MARK, block.units)
        changed[:common] = numpy.frombuffer(before, numpy.uint64)[:common] != now[:common]
        relation = part.file.item.relation
        if self._checksums and relation is not None and block.whole and part.loaded is None:
            check = numpy.repeat(changed & (now != zero), block.unit // PAGE)[:block.whole]
            check[[page for page in again if page < block.whole]] = True
            suspects = self._verify(part, block, numpy.flatnonzero(check), descriptor)
            first = (part.at + block.offset) // PAGE
            for page, position in suspects:
                number = relation.segment * (self._segment // PAGE) + first + page
                result.suspects.append(Suspect(part.file.item.path, number, position))
                bad.append(block.offset // PAGE + page)
            if block.patched:
                now = numpy.frombuffer(block.marks, numpy.uint64)
                changed[:common] = numpy.frombuffer(before, numpy.uint64)[:common] != now[:common]
        content = now != zero
        return ranges(changed & content, block), ranges(~changed & content, block)

    def _verify(self, part: Part, block: Block, check: Any, descriptor: int) -> list[tuple[int, int]]:
        """[(page, position in the log)] of pages whose checksum stays wrong however often they are read."""
        if not len(check):
            return []
        numpy = need("numpy")
        pages = numpy.frombuffer(block.buffer, numpy.uint8, block.whole * PAGE).reshape(-1, PAGE)
        relation = part.file.item.relation
        segment = relation.segment if relation is not None else 0
        numbers = numpy.arange(block.whole, dtype=numpy.uint32) + numpy.uint32(segment * (self._segment // PAGE) + (part.at + block.offset) // PAGE)

        def wrong(which: Any) -> Any:
            with CPU:
                if len(which) == block.whole:
                    return which[bad_pages(pages, numbers)]
                return which[bad_pages(pages[which], numbers[which])]

        found = wrong(check)
        for pause in _PAUSES:
            if not len(found):
                return []
            if pause and self._hopeless < _PATIENCE:
                time.sleep(pause)
            for page in found:
                start = int(page) * PAGE
                read_into(descriptor, block.view[start:start + PAGE], part.at + block.offset + start)
                block.patch(self._key, int(page))
            found = wrong(found)
        self._hopeless += len(found)
        return [(int(page), page_position(pages[page])) for page in found]

    def _zeros(self, unit: int) -> bytes:
        """The mark of a unit of zeros."""
        found = self._zero.get(unit)
        if found is None:
            found = self._zero[unit] = marks(self._key, bytes(unit), unit)
        return found

    def _buffer(self, name: str, size: int) -> bytearray:
        """One of the thread's own buffers."""
        buffer: bytearray | None = getattr(self._local, name, None)
        if buffer is None:
            buffer = bytearray(size)
            setattr(self._local, name, buffer)
        return buffer


def _unreadable(error: OSError, full: str) -> SourceError:
    return SourceError(f"cannot read a file ({error.strerror})", full, "check permissions and the disk, then run the same command again")
