# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What belongs to a cluster's files: everything below the data directory and its tablespaces, and what is left out and why.

Paths are relative to the data directory; the content of a tablespace is below ``pg_tblspc/<oid>/``. The order is by path
components as bytes, a directory before what is in it. ``global/pg_control`` and the files of ``pg_wal`` are not walked:
the first is read when everything else is, the others when the backup has ended.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import Iterator

from ..errors import SourceError

CONTROL = "global/pg_control"

#: Directories that the server empties or rebuilds when it starts, or that are another host's business; they stay, empty.
EMPTY = frozenset({
    "pg_dynshmem",    # shared memory of the running server
    "pg_notify",      # LISTEN queue, emptied at start
    "pg_replslot",    # slots of the original: a copy would hold back its log for consumers that are not its own
    "pg_serial",      # SSI, emptied at start
    "pg_snapshots",   # exported snapshots, removed at start
    "pg_stat_tmp",    # statistics of the running server
    "pg_subtrans",    # zeroed at start
    "pg_wal",         # only the segments that the snapshot needs are added at its end
})
#: Directories below pg_wal that the server expects.
WAL_DIRECTORIES = ("archive_status", "summaries")
#: Names at the top that are left out.
_TOP_FILES = frozenset({
    "postmaster.pid", "postmaster.opts",         # of the running server
    "postgresql.auto.conf.tmp", "current_logfiles.tmp", "autoprewarm.blocks.tmp",  # half-written
    "backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old", "backup_manifest",  # of another backup
    "standby.signal", "recovery.signal", "recovery.done",  # a restored copy decides by itself what it is
})
_TEMPORARY = "pgsql_tmp"           # sort and hash files of sessions
_CACHES = "pg_internal.init"       # relation cache, rebuilt; also as pg_internal.init.<pid>
_TEMPORARY_RELATION = re.compile(r"t\d+_\d+(_(vm|fsm))?(\.\d+)?\Z")
_RELATION = re.compile(r"(\d+)(?:_(init|vm|fsm))?(?:\.(\d+))?\Z")
_RELATION_DIRECTORY = re.compile(r"(base/\d+|pg_tblspc/\d+/PG_\d+_\d+/\d+)\Z")
#: Where a symbolic link would hide data from a backup.
_NO_LINKS = re.compile(r"(base|global|pg_(?!log/|log\Z)[a-z_]+|PG_VERSION)(/|\Z)")


@dataclass
class Relation:
    """What the name of a relation's file says: fork is "" (the table itself), "init", "vm" or "fsm"."""

    filenode: int
    fork: str
    segment: int


@dataclass
class Item:
    """One thing found: kind is "dir", "link" or "file"; relation only for files whose pages have a page header."""

    kind: str
    path: str
    full: str
    status: os.stat_result
    target: str = ""
    relation: Relation | None = None


def order_key(path: str) -> list[bytes]:
    """Sorts paths in the order of walk()."""
    return os.fsencode(path).split(b"/")


def relation_of(path: str) -> Relation | None:
    """The relation that a path's file belongs to, None for all other files."""
    directory, _slash, name = path.rpartition("/")
    if directory != "global" and not _RELATION_DIRECTORY.match(directory):
        return None
    found = _RELATION.match(name)
    return Relation(int(found.group(1)), found.group(2) or "", int(found.group(3) or 0)) if found else None


class Walk:
    """One pass over a cluster's files.

    data: the data directory. version_directory: the name below a tablespace that is this server's (PG_15_202209061).
    """

    def __init__(self, data: str, version_directory: str) -> None:
        self._data = data
        self._version = version_directory
        self._spaces: set[str] = set()
        #: Unlogged tables and their indexes whose content is left out (their files, all forks but the empty one).
        self.unlogged = 0

    def run(self) -> Iterator[Item]:
        """Everything that belongs to the snapshot, in order. A name that vanishes meanwhile is left out."""
        self._spaces = {os.path.realpath(f"{self._data}/pg_tblspc/{name}") for name in self._names(f"{self._data}/pg_tblspc")}
        yield from self._below(self._data, "")

    def _below(self, full: str, path: str) -> Iterator[Item]:
        names = self._names(full)
        relations = bool(_RELATION_DIRECTORY.match(path))
        unlogged = {name[:-5] for name in names if name.endswith("_init") and _RELATION.match(name)} if relations else set()
        for name in names:
            child, below = (f"{path}/{name}" if path else name), f"{full}/{name}"
            if self._left_out(path, name, child, relations, unlogged):
                continue
            try:
                status = os.lstat(below)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield Item("file", child, below, status, relation=relation_of(child))
            elif stat.S_ISLNK(status.st_mode):
                yield from self._link(child, below, status)
            elif stat.S_ISDIR(status.st_mode):
                yield Item("dir", child, below, status)
                yield from self._inside(child, below)
            # sockets and pipes belong to running programs

    def _inside(self, path: str, full: str) -> Iterator[Item]:
        if path == "pg_wal":
            for name in WAL_DIRECTORIES:
                try:
                    yield Item("dir", f"{path}/{name}", f"{full}/{name}", os.lstat(f"{full}/{name}"))
                except FileNotFoundError:
                    continue
        elif path not in EMPTY and not (self._spaces and os.path.realpath(full) in self._spaces and not path.startswith("pg_tblspc/")):
            # a tablespace inside the data directory is met once, under its link
            yield from self._below(full, path)

    def _link(self, path: str, full: str, status: os.stat_result) -> Iterator[Item]:
        try:
            target = os.readlink(full)
            behind = os.stat(full)
        except FileNotFoundError:
            if not os.path.islink(full):
                return
            target, behind = os.readlink(full), status
        directory = stat.S_ISDIR(behind.st_mode)
        if path == "pg_wal" and directory:
            yield Item("link", path, full, status, target)
            yield from self._inside(path, full)
        elif re.match(r"pg_tblspc/\d+\Z", path) and directory:
            yield Item("link", path, full, status, target)
            own, where = f"{full}/{self._version}", f"{path}/{self._version}"
            try:
                yield Item("dir", where, own, os.lstat(own))
            except FileNotFoundError:
                return
            yield from self._below(own, where)
        elif path in EMPTY and directory:
            yield Item("dir", path, full, behind)
        elif _NO_LINKS.match(path):
            raise SourceError("a symbolic link stands where the cluster's own data belongs", full,
                              "move the data back into the data directory, or into a tablespace")
        else:
            yield Item("link", path, full, status, target)

    def _left_out(self, parent: str, name: str, path: str, relations: bool, unlogged: set[str]) -> bool:
        if name.startswith((_TEMPORARY, _CACHES)) or path == CONTROL or (not parent and name in _TOP_FILES):
            return True
        if not relations:
            return False
        if _TEMPORARY_RELATION.match(name):
            return True
        if unlogged:
            found = _RELATION.match(name)
            if found and found.group(1) in unlogged and found.group(2) != "init":
                self.unlogged += 1
                return True
        return False

    @staticmethod
    def _names(full: str) -> list[str]:
        try:
            return sorted(os.listdir(full), key=os.fsencode)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SourceError(f"cannot read a directory ({error.strerror})", full, "run as the server's user or as root") from error
