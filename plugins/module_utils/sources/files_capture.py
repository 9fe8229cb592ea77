# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Reading a directory tree into a snapshot: walked in order, read by many threads, written in order."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Tuple

from ..errors import SourceError
from ..repository.seal import keyed_hash
from .contract import Captured, Context, Entry, TreeReader, Writer
from .files_tree import BLOCK, HardLinks, TreeDigest, content_hash, describe, order_key, walk

#: Files up to this size are bundled: several share one chunk.
SMALL = 256 << 10
_BATCH_ENTRIES = 1024
#: A large file is read in jobs of this many bytes.
_SPAN = 16 << 20
#: Extents per entry; a file with more goes on in entries of type "data".
_EXTENTS = 4096
#: How often a file that changes while it is read is read again.
_ATTEMPTS = 3
#: A file changed this short before the last capture began may have changed again within the clock's grain.
_RACE_NS = 2_000_000_000

#: [offset in the file, chunk number, offset in the chunk, length]
Piece = List[int]
#: (block hashes, pieces, data ranges of a sparse file)
_Span = Tuple[List[bytes], List[Piece], List[List[int]]]


@dataclass
class _Content:
    hash: str
    pieces: list[Piece]
    status: os.stat_result
    size: int
    ranges: list[list[int]] | None = None
    changed: bool = False


#: (entry, full path of a file that must be read or "", content once it is known)
_Batch = List[Tuple[Entry, str, Optional[_Content]]]


@dataclass
class _Tally:
    files: int = 0
    bytes: int = 0
    entries: int = 0
    vanished: list[str] = field(default_factory=list)
    changing: list[str] = field(default_factory=list)
    sockets: int = 0
    owners: set[int] = field(default_factory=set)
    reread: str = ""


class Previous:
    """The parent tree, walked alongside the live one: what is recorded of a path that comes in order."""

    def __init__(self, tree: TreeReader | None) -> None:
        self._entries = iter(tree.entries()) if tree is not None else iter(())
        self._next: Entry | None = next(self._entries, None)
        self._key = order_key(self._next["path"]) if self._next else []
        self.facts: dict[str, Any] = {}

    def find(self, path: str) -> Entry | None:
        """The parent's entry of ``path`` with all its pieces; paths must be asked for in order."""
        key = order_key(path)
        while self._next is not None and self._key < key:
            self._advance()
        if self._next is None or self._next["path"] != path:
            return None
        found = self._next
        self._advance()
        while self._next is not None and self._next["type"] == "data" and self._next["path"] == path:
            found["data"] = found.get("data", []) + self._next["data"]
            self._advance()
        return found

    def _advance(self) -> None:
        self._next = next(self._entries, None)
        if self._next is not None:
            self._key = order_key(self._next["path"])


class FilesCapture:
    """One capture; run() returns what it proves."""

    def __init__(self, context: Context, writer: Writer, trust_times: str) -> None:
        self._context = context
        self._writer = writer
        self._top: str = context.config["path"]
        self._key = context.digest_key
        self._tally = _Tally(reread=trust_times)
        self._started_ns = time.time_ns()
        self._previous = Previous(writer.previous)
        self._before_ns = 0
        self._digest = TreeDigest(self._key)
        self._pending: deque[tuple[int, Future[_Batch] | Callable[[], _Batch]]] = deque()
        self._pending_bytes = 0
        self._batch: _Batch = []
        self._batch_bytes = 0
        self._threads = ThreadPoolExecutor(context.workers, thread_name_prefix="files")

    def run(self) -> Captured:
        try:
            head = self._previous.find("\0lifeboat")
            if head is not None:
                self._before_ns = int(head["started_ns"])
            if self._before_ns > self._started_ns and not self._tally.reread:
                self._tally.reread = "the clock went back since the parent snapshot"
            self._emit({"type": "head", "path": "\0lifeboat", "started_ns": self._started_ns}, counted=False)
            self._walk()
            self._flush_batch()
            while self._pending:
                self._pop()
        except BaseException:
            self._threads.shutdown(wait=True, cancel_futures=True)
            raise
        self._threads.shutdown()
        tally = self._tally
        facts: dict[str, Any] = {
            "entries": tally.entries, "files": tally.files, "bytes": tally.bytes, "owners": sorted(tally.owners)[:64],
            "vanished": len(tally.vanished), "changed_while_read": len(tally.changing), "sockets_left_out": tally.sockets,
        }
        if tally.reread:
            facts["all_read_because"] = tally.reread
        digest = {"algorithm": "blake3-keyed tree", "value": self._digest.hexdigest(), "entries": tally.entries}
        return Captured(digest, "content", facts)

    # -- walking

    def _walk(self) -> None:
        links = HardLinks()
        for full, path, status in walk(self._top):
            try:
                entry = describe(full, path, status)
            except FileNotFoundError:
                self._tally.vanished.append(path)
                continue
            except OSError as error:
                raise SourceError(f"cannot read attributes ({error.strerror})", full, "run as a user who may read it") from error
            kind = entry["type"]
            if kind == "socket":
                self._tally.sockets += 1
            elif kind == "unknown":
                raise SourceError("unknown kind of file", full, "remove it or move it out of the source")
            elif kind != "file":
                self._add(entry, "", None, 0)
            else:
                self._file(entry, full, status, links.earlier(path, status))

    def _file(self, entry: Entry, full: str, status: os.stat_result, first: str | None) -> None:
        if first is not None:
            self._add({**entry, "type": "hardlink", "link": first}, "", None, 0)
            return
        content = self._unchanged(entry, status)
        if content is not None:
            self._add(entry, "", content, 0)
        elif status.st_size <= SMALL:
            self._add(entry, full, None, status.st_size)
        else:
            self._flush_batch()
            spans = self._spans(full, status)
            self._queue(status.st_size, lambda: [(entry, full, self._join(full, status, spans))])

    def _add(self, entry: Entry, full: str, content: _Content | None, size: int) -> None:
        """Put an entry into the batch; a file that must be read comes with its path and its size."""
        self._batch.append((entry, full, content))
        self._batch_bytes += size
        if self._batch_bytes >= BLOCK or len(self._batch) >= _BATCH_ENTRIES:
            self._flush_batch()

    def _flush_batch(self) -> None:
        if self._batch:
            self._queue(self._batch_bytes, self._threads.submit(self._read_batch, self._batch))
            self._batch, self._batch_bytes = [], 0

    def _unchanged(self, entry: Entry, status: os.stat_result) -> _Content | None:
        """The parent's content, if every evidence says that it still is the file's; any oddity means reading."""
        old = self._previous.find(entry["path"])
        if old is None or self._tally.reread or old["type"] != "file":
            return None
        same = old.get("size") == entry["size"] and old["mtime_ns"] == entry["mtime_ns"] and old.get("seen") == entry["seen"]
        newest = max(status.st_mtime_ns, status.st_ctime_ns)
        if not same or newest >= self._before_ns - _RACE_NS or newest > self._started_ns:
            return None
        try:
            pieces = [[at, self._writer.reuse(number), offset, length] for at, number, offset, length in old.get("data", [])]
        except KeyError:
            return None
        return _Content(old["hash"], pieces, status, status.st_size, old.get("ranges"))

    # -- reading

    def _read_batch(self, batch: _Batch) -> _Batch:
        """Read the small files of a batch and store them together, mostly as one chunk."""
        done: _Batch = []
        part: list[tuple[int, bytes, os.stat_result, bool]] = []
        size = 0
        for entry, full, content in batch:
            if full and content is None:
                try:
                    data, status, changed = _read_small(full)
                except FileNotFoundError:
                    done.append((entry, full, None))
                    continue
                except OSError as error:
                    raise _unreadable(error, full) from error
                if size + len(data) > 2 * BLOCK:
                    self._store_small(part, done)
                    part, size = [], 0
                part.append((len(done), data, status, changed))
                size += len(data)
            done.append((entry, full, content))
        self._store_small(part, done)
        self._context.progress.add(0, len(batch))
        return done

    def _store_small(self, part: list[tuple[int, bytes, os.stat_result, bool]], done: _Batch) -> None:
        joined = b"".join(data for _at, data, _status, _changed in part)
        number = self._writer.put(joined) if joined else -1
        offset = 0
        for at, data, status, changed in part:
            pieces = [[0, number, offset, len(data)]] if data else []
            offset += len(data)
            content = _Content(keyed_hash(self._key, data).hex(), pieces, status, len(data), None, changed)
            done[at] = (done[at][0], done[at][1], content)

    def _read_span(self, full: str, status: os.stat_result, start: int, sparse: bool) -> _Span:
        """Store one span of a large file: (block hashes, pieces, data ranges)."""
        hashes, pieces, ranges = [], [], []
        end = min(start + _SPAN, status.st_size)
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if sparse:
                ranges = _data_ranges(descriptor, start, end)
            for offset in range(start, end, BLOCK):
                want = min(BLOCK, end - offset)
                if sparse and not any(low < offset + want and high > offset for low, high in ranges):
                    hashes.append(_zero_hash(self._key, want))
                    continue
                data = _pread(descriptor, want, offset)
                number = self._writer.put(data)
                hashes.append(self._writer.chunk_id(number))
                pieces.append([offset, number, 0, want])
        finally:
            os.close(descriptor)
        return hashes, pieces, ranges

    def _spans(self, full: str, status: os.stat_result) -> list[Future[_Span]]:
        sparse = status.st_blocks * 512 < status.st_size
        return [self._threads.submit(self._read_span, full, status, start, sparse) for start in range(0, status.st_size, _SPAN)]

    def _join(self, full: str, status: os.stat_result, spans: list[Future[_Span]]) -> _Content | None:
        """The content of a large file; None if it vanished meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                results = [span.result() for span in spans]
                after = os.lstat(full)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise _unreadable(error, full) from error
            changed = not _same(status, after)
            if not changed or attempt + 1 == _ATTEMPTS:
                break
            status = after
            spans = self._spans(full, status)
        hashes = [digest for part in results for digest in part[0]]
        pieces = [piece for part in results for piece in part[1]]
        sparse = status.st_blocks * 512 < status.st_size
        ranges = _merge([row for part in results for row in part[2]]) if sparse else None
        return _Content(content_hash(self._key, hashes), pieces, status, status.st_size, ranges, changed)

    # -- writing in order

    def _queue(self, size: int, result: Future[_Batch] | Callable[[], _Batch]) -> None:
        self._pending.append((size, result))
        self._pending_bytes += size
        while len(self._pending) > 16 or (self._pending_bytes > 4 * _SPAN and len(self._pending) > 1):
            self._pop()

    def _pop(self) -> None:
        size, result = self._pending.popleft()
        self._pending_bytes -= size
        for entry, full, content in result.result() if isinstance(result, Future) else result():
            if content is not None:
                self._finish_file(entry, content)
            elif not full:
                self._emit(entry)
            else:
                self._tally.vanished.append(entry["path"])

    def _finish_file(self, entry: Entry, found: _Content) -> None:
        if found.changed:
            self._tally.changing.append(entry["path"])
        status = found.status
        entry.update(size=found.size, mtime_ns=status.st_mtime_ns, seen=[status.st_ino, status.st_ctime_ns], hash=found.hash)
        if found.ranges is not None:
            entry["ranges"] = found.ranges
        self._tally.files += 1
        self._tally.bytes += found.size
        entry["data"] = found.pieces[:_EXTENTS]
        self._emit(entry)
        for start in range(_EXTENTS, len(found.pieces), _EXTENTS):
            self._writer.entry({"type": "data", "path": entry["path"], "data": found.pieces[start:start + _EXTENTS]})

    def _emit(self, entry: Entry, counted: bool = True) -> None:
        self._writer.entry(entry)
        if counted:
            self._tally.entries += 1
            self._tally.owners.add(entry["uid"])
            self._digest.add(entry)


def _unreadable(error: OSError, full: str) -> SourceError:
    return SourceError(f"cannot read a file ({error.strerror})", full, "check permissions and the disk, then run the same command again")


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino) == (
        after.st_size, after.st_mtime_ns, after.st_ctime_ns, after.st_ino)


def _read_small(full: str) -> tuple[bytes, os.stat_result, bool]:
    """(content, status, still changing) of a small file, read until two looks agree."""
    descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise FileNotFoundError(full)
        for _attempt in range(_ATTEMPTS):
            data = os.pread(descriptor, before.st_size + 1, 0) if before.st_size < BLOCK else os.pread(descriptor, BLOCK, 0)
            after = os.fstat(descriptor)
            if _same(before, after) and len(data) == after.st_size:
                return data, after, False
            before = after
        return data, after, True
    finally:
        os.close(descriptor)


def _pread(descriptor: int, want: int, offset: int) -> bytes:
    data = os.pread(descriptor, want, offset)
    while len(data) < want:
        more = os.pread(descriptor, want - len(data), offset + len(data))
        if not more:
            return data + bytes(want - len(data))  # it shrank: the second look at its status sees that
        data += more
    return data


def _data_ranges(descriptor: int, start: int, end: int) -> list[list[int]]:
    """Where a sparse file holds data within [start, end)."""
    ranges = []
    at = start
    while at < end:
        try:
            low = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            break
        if low >= end:
            break
        high = min(end, os.lseek(descriptor, low, os.SEEK_HOLE))
        ranges.append([low, high])
        at = high
    return ranges


def _merge(ranges: list[list[int]]) -> list[list[int]]:
    merged: list[list[int]] = []
    for low, high in ranges:
        if merged and merged[-1][1] >= low:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    return merged


_zero: dict[tuple[bytes, int], bytes] = {}


def _zero_hash(key: bytes, length: int) -> bytes:
    """The hash of a block of zeros that is not read because it lies in a hole."""
    found = _zero.get((key, length))
    if found is None:
        found = _zero[key, length] = keyed_hash(key, bytes(length))
    return found
