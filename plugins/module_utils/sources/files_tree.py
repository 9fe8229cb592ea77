# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a directory tree is to us: entries in one fixed order, and the digest over them.

Paths are relative, "/"-separated, "" for the top; bytes that are no UTF-8 travel as surrogate escapes. The order is
by path components as bytes, a directory before what is in it, so that two trees can be compared in one pass.
"""

from __future__ import annotations

import base64
import errno
import grp
import json
import os
import pwd
import stat
from functools import lru_cache
from typing import Any, Iterator

from ..errors import SourceError
from ..libraries import need
from ..repository.seal import keyed_hash
from .contract import Entry

#: Blocks in which files are read, hashed and stored; a larger file's digest is over its blocks' digests.
BLOCK = 1 << 20

_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
}


@lru_cache(maxsize=4096)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache(maxsize=4096)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def read_xattrs(path: str | bytes) -> dict[str, str]:
    """Extended attributes (POSIX ACLs among them), name -> base64; empty where the file system has none."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOENT, errno.EPERM):
            return {}
        raise
    found = {}
    for name in names:
        try:
            found[name] = base64.b64encode(os.getxattr(path, name, follow_symlinks=False)).decode()
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return found


def describe(full: str, path: str, status: os.stat_result) -> Entry:
    """An entry with everything but content: type, owner, mode, times, xattrs, link target."""
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "unknown")
    entry: Entry = {
        "type": kind, "path": path, "mode": stat.S_IMODE(status.st_mode), "uid": status.st_uid, "gid": status.st_gid,
        "user": _user(status.st_uid), "group": _group(status.st_gid), "mtime_ns": status.st_mtime_ns,
    }
    if kind == "symlink":
        entry["target"] = os.readlink(full)
    elif kind == "file":
        entry["size"] = status.st_size
        entry["seen"] = [status.st_ino, status.st_ctime_ns]
    elif kind in ("char", "block"):
        entry["device"] = status.st_rdev
    xattrs = read_xattrs(full)
    if xattrs:
        entry["xattrs"] = xattrs
    return entry


def order_key(path: str) -> list[bytes]:
    """Sorts paths in the order of walk()."""
    return os.fsencode(path).split(b"/") if path else []


def walk(top: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """(full path, relative path, lstat) of everything below and including ``top``, in order.

    A name that vanishes while walking is left out by the caller's own lstat; a directory that cannot be read raises.
    """
    yield top, "", os.lstat(top)
    pending = [_children(top, "")]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
            continue
        yield item
        if stat.S_ISDIR(item[2].st_mode):
            pending.append(_children(item[0], item[1]))


def _children(full: str, path: str) -> Iterator[tuple[str, str, os.stat_result]]:
    try:
        names = os.listdir(full)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SourceError(f"cannot read a directory ({error.strerror})", full, "run as a user who may read it") from error
    names.sort(key=os.fsencode)
    prefix = path + "/" if path else ""
    for name in names:
        child = f"{full}/{name}"
        try:
            status = os.lstat(child)
        except FileNotFoundError:
            continue
        yield child, prefix + name, status


def content_hash(key: bytes, blocks: list[bytes]) -> str:
    """A file's content digest (hex) from the keyed hashes of its blocks."""
    if len(blocks) == 1:
        return blocks[0].hex()
    return keyed_hash(key, b"".join(blocks)).hex()


def identity(entry: Entry) -> list[Any]:
    """Everything that "the same" means for one entry, and nothing that belongs to the host.

    The mtime of symlinks counts, their mode does not; owners count by number; a directory's size, inodes and ctimes do not count.
    """
    kind, path = entry["type"], entry["path"]
    if kind == "hardlink":
        return [kind, path, entry["link"]]
    about = [kind, path, 0 if kind == "symlink" else entry["mode"], entry["uid"], entry["gid"], entry["mtime_ns"]]
    if kind == "file":
        about += [entry["size"], entry["hash"]]
    elif kind == "symlink":
        about.append(entry["target"])
    elif kind in ("char", "block"):
        about.append(entry["device"])
    xattrs = entry.get("xattrs")
    if xattrs:
        about.append(sorted(xattrs.items()))
    return about


_PARTS = {
    "hardlink": ("type", "path", "link"), "file": ("type", "path", "mode", "uid", "gid", "mtime", "size", "content", "xattrs"),
    "symlink": ("type", "path", "mode", "uid", "gid", "mtime", "target", "xattrs"),
    "char": ("type", "path", "mode", "uid", "gid", "mtime", "device", "xattrs"),
    "block": ("type", "path", "mode", "uid", "gid", "mtime", "device", "xattrs"),
}


class TreeDigest:
    """Keyed BLAKE3 over the canonical JSON of the entries' identities, in batches of 1024."""

    _BATCH = 1024

    def __init__(self, key: bytes) -> None:
        self._hash = need("blake3").blake3(key=key)
        self._batch: list[list[Any]] = []

    def add(self, entry: Entry) -> None:
        self._batch.append(identity(entry))
        if len(self._batch) == self._BATCH:
            self._flush()

    def _flush(self) -> None:
        self._hash.update(json.dumps(self._batch, separators=(",", ":")).encode())
        self._batch = []

    def hexdigest(self) -> str:
        """The digest of everything added; call it once, at the end."""
        self._flush()
        value: str = self._hash.hexdigest()
        return value


def difference(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """The names of what differs between two entries of one path."""
    before, after = identity(expected), identity(actual)
    if before == after:
        return []
    if before[0] != after[0]:
        return ["type"]
    names = _PARTS.get(before[0], ("type", "path", "mode", "uid", "gid", "mtime", "xattrs"))
    longest = max(len(before), len(after))
    before += [None] * (longest - len(before))
    after += [None] * (longest - len(after))
    return [name for name, old, new in zip(names, before, after) if old != new]


class HardLinks:
    """Tells the first name of an inode from its further ones."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], str] = {}

    def earlier(self, path: str, status: os.stat_result) -> str | None:
        """The path under which this inode was met before, or None (and remembered)."""
        if status.st_nlink < 2 or not stat.S_ISREG(status.st_mode):
            return None
        key = (status.st_dev, status.st_ino)
        first = self._first.get(key)
        if first is None:
            self._first[key] = path
        return first
