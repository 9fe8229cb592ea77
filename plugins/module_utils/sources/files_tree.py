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


def digest_line(entry: Entry) -> bytes:
    """The canonical line of one entry: everything that "the same" means for a tree, nothing that belongs to the host.

    The mtime of symlinks counts; owners count by number; a directory's size, inodes and ctimes do not count.
    """
    keys = ("type", "path", "mode", "uid", "gid", "mtime_ns", "size", "target", "link", "device", "hash")
    line = {key: entry[key] for key in keys if key in entry}
    if entry["type"] == "symlink":
        del line["mode"]
    if entry["type"] == "hardlink":
        line = {key: entry[key] for key in ("type", "path", "link")}
    xattrs = entry.get("xattrs")
    if xattrs:
        line["xattrs"] = sorted(xattrs.items())
    return json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def difference(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """The names of what differs between two entries of one path."""
    before, after = json.loads(digest_line(expected)), json.loads(digest_line(actual))
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


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
