# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a file tree: every name as bytes, with all that a careful copy keeps."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import Any


def tree(root: str) -> dict[str, Any]:
    """{"entries": {path as ASCII with \\xNN escapes: {...}}} of everything below ``root``, itself included as "."."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        return {"absent": str(error.strerror)}
    entries: dict[str, Any] = {}
    links: dict[tuple[int, int], list[str]] = {}
    try:
        entries["."] = _facts(os.fstat(descriptor)) | {"xattrs": _attributes(descriptor)}
        _walk(descriptor, b"", entries, links)
    finally:
        os.close(descriptor)
    for names in links.values():
        if len(names) > 1:
            for name in names:
                entries[name]["same_file_as"] = sorted(names)
    return {"entries": entries}


def _walk(directory: int, prefix: bytes, entries: dict[str, Any], links: dict[tuple[int, int], list[str]]) -> None:
    """By descriptors, because a path may be longer than the kernel takes in one piece."""
    for text in sorted(os.listdir(directory)):
        name = os.fsencode(text)
        shown = (prefix + name).decode("latin-1").encode("unicode_escape").decode("ascii")
        found = os.lstat(name, dir_fd=directory)
        entry = _facts(found)
        if stat.S_ISLNK(found.st_mode):
            entry["target"] = os.readlink(name, dir_fd=directory).hex()
        elif stat.S_ISREG(found.st_mode):
            entry.update(_content(directory, name, found))
            if found.st_nlink > 1:
                links.setdefault((found.st_dev, found.st_ino), []).append(shown)
        elif stat.S_ISDIR(found.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                entry["xattrs"] = _attributes(inner)
                _walk(inner, prefix + name + b"/", entries, links)
            finally:
                os.close(inner)
        entries[shown] = entry


def _facts(found: os.stat_result) -> dict[str, Any]:
    known = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    kind = known.get(stat.S_IFMT(found.st_mode), oct(stat.S_IFMT(found.st_mode)))
    facts: dict[str, Any] = {
        "type": kind, "mode": f"{stat.S_IMODE(found.st_mode):04o}", "uid": found.st_uid, "gid": found.st_gid, "mtime_ns": found.st_mtime_ns,
    }
    if kind == "file":
        facts["size"] = found.st_size
        facts["links"] = found.st_nlink
    return facts


def _content(directory: int, name: bytes, found: os.stat_result) -> dict[str, Any]:
    """Digest, attributes, and for files with holes where the data is."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    except PermissionError:
        return {"sha256": "unreadable"}
    try:
        digest = hashlib.sha256()
        while data := os.read(descriptor, 1 << 20):
            digest.update(data)
        result: dict[str, Any] = {"sha256": digest.hexdigest(), "xattrs": _attributes(descriptor)}
        if found.st_blocks * 512 < found.st_size:
            # What is written may not be allocated yet; flushed, the holes are what they are.
            os.fsync(descriptor)
            result["sparse"] = {"allocated": os.fstat(descriptor).st_blocks * 512}
            if result["sparse"]["allocated"] >= found.st_size:
                del result["sparse"]
        return result
    finally:
        os.close(descriptor)


def _attributes(descriptor: int) -> dict[str, str]:
    """All extended attributes that this user may read, values in hexadecimal."""
    try:
        return {ascii(name): os.getxattr(descriptor, name).hex() for name in os.listxattr(descriptor)}
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
