# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Writing a snapshot of a directory tree into an empty place, and comparing a tree with a snapshot.

A snapshot is hostile input: no path leaves its root, nothing is written through a link, sizes are bounded by what
was recorded. Content first, then hard links, then the metadata of directories.
"""

from __future__ import annotations

import base64
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Iterator

from .. import durable, faults
from ..errors import DamageError, SourceError
from ..repository.seal import keyed_hash
from .contract import Comparison, Context, Entry, Reader, TreeReader
from .files_tree import BLOCK, HardLinks, content_hash, describe, difference, order_key, walk

#: Differences named one by one; the rest is counted.
_NAMED = 20
#: A job writes pieces of this many bytes of a large file.
_SPAN_PIECES = 16
_JOBS = 64
#: Jobs that wrote this many bytes have them written out while the next ones are decoded.
_WRITEBACK = 1 << 20
#: Entries kept for the end instead of reading the tree again.
_LATE = 100_000
#: Entries whose content one job hashes.
_BATCH = 512


def whole_entries(tree: TreeReader) -> Iterator[tuple[Entry, list[list[int]]]]:
    """The entries with the first part of their pieces; entries of type "data" follow their file with the rest."""
    for entry in tree.entries():
        if entry["type"] != "head":
            yield entry, entry.get("data", [])


def check_path(path: str, directories: set[str]) -> None:
    """Refuse a path that would leave the root or pass through anything but a directory of this tree."""
    parts = path.split("/")
    if path and (path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path):
        raise DamageError("tree holds an unsafe path", repr(path), "the snapshot is damaged or hostile; choose another one")
    parent = path.rpartition("/")[0]
    if path and parent not in directories:
        raise DamageError("tree holds a path outside its directories", repr(path), "the snapshot is damaged or hostile; choose another one")


class FilesRestore:
    """Fills one empty directory from one snapshot."""

    def __init__(self, context: Context, reader: Reader, target: str) -> None:
        self._context = context
        self._reader = reader
        self._target = target
        self._lock = threading.Lock()
        self._directories: set[str] = set()
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        #: Hard links and directories, which come last; None when there are too many to keep.
        self._late: list[Entry] | None = []
        self._jobs: deque[Future[None]] = deque()
        #: Small files that share a chunk, with the chunk on its way.
        self._groups: deque[tuple[Future[bytes], list[tuple[Entry, list[int]]]]] = deque()

    def run(self) -> None:
        """Write everything; the target directory exists and is empty, and nothing is durable yet."""
        with ThreadPoolExecutor(self._context.workers, thread_name_prefix="restore") as threads:
            try:
                self._contents(threads)
                self._write_groups(0)
                while self._jobs:
                    self._jobs.popleft().result()
            except BaseException:
                for job in self._jobs:
                    job.cancel()
                for chunk, _group in self._groups:
                    chunk.cancel()
                raise
        for kind, finish in (("hardlink", self._link), ("dir", self._finish_directory)):
            for entry in self._late if self._late is not None else (entry for entry, _pieces in whole_entries(self._reader)):
                if entry["type"] == kind:
                    finish(entry)

    def _full(self, path: str) -> str:
        return f"{self._target}/{path}" if path else self._target

    def _submit(self, threads: ThreadPoolExecutor, *arguments: Any) -> None:
        self._jobs.append(threads.submit(*arguments))
        while len(self._jobs) > _JOBS:
            self._jobs.popleft().result()

    def _contents(self, threads: ThreadPoolExecutor) -> None:
        group: list[tuple[Entry, list[int]]] = []
        large: _LargeFile | None = None
        for entry, pieces in whole_entries(self._reader):
            kind, path = entry["type"], entry["path"]
            if kind != "data":
                if large is not None:
                    large.end(self._jobs)
                    large = None
                check_path(path, self._directories)
            if kind in ("dir", "hardlink") and self._late is not None:
                self._late.append(entry)
                if len(self._late) > _LATE:
                    self._late = None
            if kind == "dir":
                self._directories.add(path)
                if path:
                    os.mkdir(self._full(path), 0o700)
                continue
            if kind == "data":
                if large is None or large.path != path:
                    raise DamageError("tree holds data without its file", repr(path), "choose another snapshot")
                self._span(threads, large, pieces)
            elif kind == "file" and len(pieces) == 1 and pieces[0][0] == 0 and pieces[0][3] == entry["size"] and not entry.get("ranges"):
                if group and group[-1][1][1] != pieces[0][1]:
                    self._fetch_group(threads, group)
                    group = []
                group.append((entry, pieces[0]))
            elif kind == "file":
                large = _LargeFile(self, entry, self._full(path))
                self._span(threads, large, pieces)
            elif kind != "hardlink":
                self._special(entry)
        if large is not None:
            large.end(self._jobs)
        if group:
            self._fetch_group(threads, group)

    def _span(self, threads: ThreadPoolExecutor, large: _LargeFile, pieces: list[list[int]]) -> None:
        for start in range(0, len(pieces), _SPAN_PIECES):
            part = pieces[start:start + _SPAN_PIECES]
            large.begin()
            self._submit(threads, large.write, part)

    def _fetch_group(self, threads: ThreadPoolExecutor, group: list[tuple[Entry, list[int]]]) -> None:
        self._groups.append((threads.submit(self._reader.chunk, group[0][1][1], True), group))
        self._write_groups(2 * self._context.workers)

    def _write_groups(self, ahead: int) -> None:
        """Create the files of the oldest groups, in this thread alone: two that create in one directory fight for its lock."""
        while len(self._groups) > ahead:
            chunk, group = self._groups.popleft()
            data = memoryview(chunk.result())
            with self._context.progress.meter.during("write"):
                self._write_group(data, group)

    def _write_group(self, data: memoryview, group: list[tuple[Entry, list[int]]]) -> None:
        """Write small files that share one chunk."""
        for entry, (_at, _number, offset, length) in group:
            if offset < 0 or length < 0 or offset + length > len(data):
                raise DamageError("tree refers beyond the end of a chunk", repr(entry["path"]), "choose another snapshot")
            full = self._full(entry["path"])
            faults.point("stage.write.before")
            # the staged tree is closed to others (0700), so a file may have its own mode from the beginning
            created = entry["mode"] & 0o777 & ~self._umask
            descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, created)
            try:
                view = data[offset:offset + length]
                while view:
                    view = view[os.write(descriptor, view):]
                self.apply(entry, descriptor, created)
            finally:
                os.close(descriptor)
            faults.point("stage.write.after")
        size = sum(piece[3] for _entry, piece in group)
        self._context.progress.meter.add(written=size)
        self._context.progress.add(size, len(group))

    def _special(self, entry: Entry) -> None:
        full, kind = self._full(entry["path"]), entry["type"]
        if kind == "symlink":
            os.symlink(entry["target"], full)
        elif kind == "fifo":
            os.mkfifo(full, 0o600)
        elif kind in ("char", "block"):
            os.mknod(full, (0o020000 if kind == "char" else 0o060000) | 0o600, entry["device"])
        else:
            raise DamageError(f"tree holds an unknown kind of entry {kind!r}", repr(entry["path"]), "choose another snapshot")
        self.apply(entry, full)

    def _link(self, entry: Entry) -> None:
        check_path(entry["link"], self._directories)
        os.link(self._full(entry["link"]), self._full(entry["path"]), follow_symlinks=False)

    def _finish_directory(self, entry: Entry) -> None:
        self.apply(entry, self._full(entry["path"]))

    def apply(self, entry: Entry, target: int | str, created: int = -1) -> None:
        """Owner, mode, xattrs, times, in the order in which the kernel keeps them. ``created``: the mode it has already."""
        path = entry["path"]
        follow = isinstance(target, int)
        options: dict[str, Any] = {} if follow else {"follow_symlinks": False}
        try:
            if entry["uid"] != self._uid or entry["gid"] != self._gid:
                os.chown(target, entry["uid"], entry["gid"], **options)
                created = -1  # a change of owner takes set-user-id away
            if entry["type"] != "symlink" and entry["mode"] != created:
                os.chmod(target, entry["mode"])
            for name, value in entry.get("xattrs", {}).items():
                os.setxattr(target, name, base64.b64decode(value), **options)
            os.utime(target, ns=(entry["mtime_ns"], entry["mtime_ns"]), **options)
        except OSError as error:
            raise SourceError(f"cannot restore owner, mode or attributes ({error.strerror})", self._full(path),
                              "run the restore as root, or as the owner of the data, on a file system with the same attributes") from error


class _LargeFile:
    """A file written by several jobs; the last one applies its metadata."""

    def __init__(self, restore: FilesRestore, entry: Entry, full: str) -> None:
        self._restore = restore
        self._entry = entry
        self.path: str = entry["path"]
        self._lock = threading.Lock()
        self._open = 1
        self._ranges: list[list[int]] | None = entry.get("ranges")
        faults.point("stage.write.before")
        self._descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._descriptor, entry["size"])

    def begin(self) -> None:
        with self._lock:
            self._open += 1

    def write(self, pieces: list[list[int]]) -> None:
        meter = self._restore._context.progress.meter
        try:
            size = 0
            for at, number, offset, length in pieces:
                size += length
                data = memoryview(self._restore._reader.chunk(number, read_back=True))
                if offset < 0 or offset + length > len(data) or at < 0 or at + length > self._entry["size"]:
                    raise DamageError("tree refers beyond the end of a chunk or file", repr(self.path), "choose another snapshot")
                with meter.during("write"):
                    for low, high in self._parts(at, at + length):
                        view = data[offset + low - at:offset + high - at]
                        meter.add(written=len(view))
                        while view:
                            written = os.pwrite(self._descriptor, view, low)
                            low += written
                            view = view[written:]
                self._restore._context.progress.add(length)
            if size >= _WRITEBACK:
                durable.begin_writeback(self._descriptor, pieces[0][0], size)
        finally:
            self._done()

    def _parts(self, start: int, end: int) -> list[tuple[int, int]]:
        if self._ranges is None:
            return [(start, end)]
        return [(max(start, low), min(end, high)) for low, high in self._ranges if low < end and high > start]

    def end(self, jobs: deque[Future[None]]) -> None:
        """No more pieces will come."""
        self._done()

    def _done(self) -> None:
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last:
            try:
                self._restore.apply(self._entry, self._descriptor)
            finally:
                os.close(self._descriptor)
            faults.point("stage.write.after")


# -- comparing


def _hash_file(key: bytes, full: str, size: int) -> str:
    """A file's content digest, block by block. ``size``: what lstat said; a small file needs no large buffer, one byte more tells growth."""
    hashes: list[bytes] = []
    want = min(BLOCK, size + 1)
    descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while True:
            data = os.read(descriptor, want)
            if hashes and not data:
                break
            hashes.append(keyed_hash(key, data))
            if len(data) < BLOCK:
                break
    finally:
        os.close(descriptor)
    return content_hash(key, hashes)


def _hash_batch(context: Context, batch: list[tuple[Entry, str]]) -> list[Entry]:
    """Settle the content digests of a batch; "" where an entry is no file to be read."""
    for entry, full in batch:
        if full:
            entry["hash"] = _hash_file(context.digest_key, full, entry["size"])
    context.progress.add(sum(entry["size"] for entry, full in batch if full), len(batch))
    return [entry for entry, _full in batch]


def actual_entries(context: Context, top: str) -> Iterator[Entry]:
    """The entries of a live tree with content digests, in order, hashed by many threads with bounded look-ahead."""
    links = HardLinks()
    pending: deque[Future[list[Entry]]] = deque()
    batch: list[tuple[Entry, str]] = []
    size = 0
    with ThreadPoolExecutor(context.workers, thread_name_prefix="digest") as threads:
        try:
            for full, path, status in walk(top):
                entry = describe(full, path, status)
                read = ""
                if entry["type"] == "socket":
                    continue
                if entry["type"] == "file":
                    first = links.earlier(path, status)
                    if first is not None:
                        entry.update(type="hardlink", link=first)
                    else:
                        read = full
                        size += status.st_size
                batch.append((entry, read))
                if size >= BLOCK or len(batch) >= _BATCH:
                    pending.append(threads.submit(_hash_batch, context, batch))
                    batch, size = [], 0
                if len(pending) > 4 * context.workers:
                    yield from pending.popleft().result()
            pending.append(threads.submit(_hash_batch, context, batch))
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def compare_tree(context: Context, tree: TreeReader, top: str) -> Comparison:
    """Hold a live tree against a snapshot's entries; every difference is named by path, up to a bound."""
    differences: list[str] = []
    count = items = 0

    def note(text: str) -> None:
        nonlocal count
        count += 1
        if len(differences) < _NAMED:
            differences.append(text)

    expected = (entry for entry, _pieces in whole_entries(tree) if entry["type"] != "data")
    actual = actual_entries(context, top)
    want, have = next(expected, None), next(actual, None)
    while want is not None or have is not None:
        if want is not None and have is not None and want["path"] == have["path"]:
            items += 1
            parts = difference(want, have)
            if parts:
                note(f"{want['path']!r} differs in {', '.join(parts)}")
            want, have = next(expected, None), next(actual, None)
        elif want is not None and (have is None or order_key(want["path"]) < order_key(have["path"])):
            note(f"{want['path']!r} is missing")
            want = next(expected, None)
        elif have is not None:
            note(f"{have['path']!r} was not captured")
            have = next(actual, None)
    if count > len(differences):
        differences.append(f"and {count - len(differences)} more")
    return Comparison(count == 0, differences, items)
