# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Rebuild a cluster's files from a snapshot: directories, links and files in the tree's order, spans filled in parallel.

pg_control is written when all else is. The digest of what the tree said is held against the manifest's, so that files whose
spans fit are what was captured. A snapshot is hostile input: no path leaves its root, and nothing is written through a link
that this module did not make.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable

from .. import durable, faults
from ..errors import DamageError
from .cluster_fill import REMEDY as _REMEDY
from .cluster_fill import Filler, Target
from .cluster_pages import PageDigest
from .cluster_places import CONTROL, Owner, inside, present, side, spaces
from .contract import Context, Entry, Reader

#: Jobs on their way at once, per thread.
_AHEAD = 4
#: A file up to this size is made as a whole by one thread, and as many of them in one job as come to this size.
_SMALL = 1 << 20
_TOGETHER = 64
#: A restored copy decides by itself what it is; a running server's files are not its.
_LEFT_OUT = frozenset({
    "standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts", "backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old",
})


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
        self._filler = Filler(context, reader, self._in_place)
        self._files: list[Target] = []
        #: Files with pages whose checksum was wrong when they were captured: the log mends them, or they are named in the manifest.
        self.doubtful: set[str] = set()

    def run(self) -> dict[str, int]:
        """Write everything, in place durably; {"bytes_reused", "bytes_fetched"}. Raises DamageError, OSError."""
        if self._in_place:
            durable.unlink(os.path.join(self._top, CONTROL), "stage")
            durable.fsync_dir(os.path.join(self._top, "global"), "stage")
        else:
            durable.make_dirs(self._top, 0o700, "stage")
        self._owner.give(self._top)
        control = self._contents()
        if self._in_place:
            self._remove_others()
            durable.sync_trees(self._roots, "stage")  # beside, nobody starts a copy that was not finished
        os.chmod(self._top, self._record["mode"])
        self._write_control(control)
        return {"bytes_reused": self._filler.reused, "bytes_fetched": self._filler.fetched}

    def seen(self) -> dict[str, list[int]]:
        """path -> what tells whether somebody wrote to the file since (see cluster_fill.seen)."""
        return {file.path: file.seen for file in self._files if file.seen is not None}

    # -- the tree

    def _contents(self) -> list[Entry]:
        jobs: deque[Future[None]] = deque()
        control: list[Entry] = []
        current: Target | _Small | None = None
        batch: list[_Small] = []
        promised = self._reader.manifest.get("digest") or {}
        total = PageDigest(self._context.digest_key) if promised.get("algorithm") == PageDigest.ALGORITHM else None
        with ThreadPoolExecutor(self._context.workers, thread_name_prefix="restore") as threads:

            def submit(call: Callable[..., None], *arguments: Any) -> None:
                jobs.append(threads.submit(call, *arguments))
                while len(jobs) > _AHEAD * self._context.workers:
                    jobs.popleft().result()

            def end(last: Target | _Small | None) -> None:
                if isinstance(last, Target):
                    last.done()
                elif last is not None:
                    batch.append(last)
                if last is None or len(batch) == _TOGETHER or sum(small.size for small in batch) >= _SMALL:
                    submit(self._batch, batch[:])
                    batch.clear()

            try:
                for entry in self._reader.entries():
                    kind = entry["type"]
                    if kind == "head":
                        continue
                    if total is not None:
                        total.add(entry)
                    path = str(entry["path"])
                    if path == CONTROL:
                        control.append(entry)
                        continue
                    if kind == "span":
                        if current is None or current.path != path:
                            raise DamageError("tree holds a span without its file", repr(path), _REMEDY)
                        if entry.get("bad"):
                            self.doubtful.add(path)
                        if isinstance(current, _Small):
                            current.add(entry)
                        else:
                            current.begin()
                            submit(self._span, current, entry)
                        continue
                    if current is not None:
                        end(current)
                        current = None
                    self._check_path(path)
                    if kind == "file" and path in _LEFT_OUT:
                        current = Target(path, -1, -1, 0)
                    elif kind == "file":
                        current = _Small(entry) if int(entry["size"]) <= _SMALL else self._file(entry)
                    else:
                        self._other(entry)
                if current is not None:
                    end(current)
                end(None)
                while jobs:
                    jobs.popleft().result()
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise
        if not control:
            raise DamageError(f"tree holds no {CONTROL}", self._context.source, _REMEDY)
        if total is not None and total.result() != promised:
            raise DamageError("tree is not the one that the manifest's digest speaks of", f"{self._context.service}.{self._context.source}", _REMEDY)
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
        """In place: what the former cluster had and the snapshot has not. Only links are followed that lead to parts of this stage."""
        log = f"{self._top}/pg_wal"
        sides = [(link, place) for link, place in spaces(self._top) if place == inside(os.path.dirname(place), self._stage, "staged")]
        if os.path.islink(log) and os.readlink(log).endswith(f".lifeboat-{self._stage}.staged"):
            sides.append((log, os.readlink(log)))
        for name, place in [*sides, (self._top, self._top)]:
            for folder, names, files in os.walk(place, topdown=False):
                for found in names + files:
                    full = f"{folder}/{found}"
                    if (name + full[len(place):])[len(self._top) + 1:] in self._kept:
                        continue
                    if os.path.isdir(full) and not os.path.islink(full):
                        shutil.rmtree(full)
                    else:
                        os.unlink(full)

    # -- files

    def _file(self, entry: Entry, at_end: bool = False) -> Target:
        path, size, full, mode = str(entry["path"]), int(entry["size"]), f"{self._top}/{entry['path']}", int(entry["mode"]) & 0o777
        faults.point("stage.write.before")
        former = target = -1
        if self._in_place and not at_end:
            former = target = self._open_plain(full, os.O_RDWR)
        if target < 0:
            if self._in_place and present(full):
                shutil.rmtree(full) if os.path.isdir(full) and not os.path.islink(full) else os.unlink(full)
            target = os.open(full, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            # the log's segments are never the same twice, and a running server is at work on them
            if self._live and not self._in_place and not at_end and not path.startswith("pg_wal/"):
                former = self._open_plain(f"{self._live}/{path}", os.O_RDONLY)
            if mode != 0o600:
                os.fchmod(target, mode)
            self._owner.give(target)
        else:
            status = os.fstat(target)
            if status.st_size > size:
                os.ftruncate(target, size)
            if status.st_mode & 0o7777 != mode:
                os.fchmod(target, mode)
            if (status.st_uid, status.st_gid) != (self._owner.uid, self._owner.gid):
                self._owner.give(target)
        file = Target(path, target, former, size)
        self._files.append(file)
        return file

    @staticmethod
    def _open_plain(path: str, flags: int) -> int:
        """A plain file that a cluster has; -1 where there is none."""
        try:
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
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

    def _batch(self, files: list[_Small]) -> None:
        for small in files:
            file = self._file(small.entry)
            try:
                for entry in small.spans:
                    self._filler.span(file, entry)
            finally:
                file.done()

    def _span(self, file: Target, entry: Entry) -> None:
        try:
            if file.target >= 0:
                self._filler.span(file, entry)
        finally:
            file.done()


class _Small:
    """A file that is made as a whole."""

    def __init__(self, entry: Entry) -> None:
        self.path, self.size, self.entry = str(entry["path"]), int(entry["size"]), entry
        self.spans: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """One of its spans."""
        if len(self.spans) > _SMALL // 8192:
            raise DamageError("tree holds more spans than their file has pages", repr(self.path), _REMEDY)
        self.spans.append(entry)
