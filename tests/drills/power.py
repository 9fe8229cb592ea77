# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of what a disk is bound to hold after a power loss, replayed from the durable layer's own operations.

The rules are POSIX at its worst: a file's content lasts when the file was fsynced; a name made, renamed or removed
lasts when its directory was fsynced; everything else is gone. What was never synced reads as an empty file.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
from dataclasses import dataclass, field
from typing import Iterator, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils import durable

#: inode -> (mode, content); content is None for a directory
_Inodes = dict[int, tuple[os.stat_result, Optional[bytes]]]


@dataclass
class Image:
    """The disk after a power loss at one moment: what was synced of each file, and the names synced of each directory."""

    operation: str
    contents: dict[int, tuple[os.stat_result, bytes]]
    names: dict[int, dict[str, tuple[int, int]]]
    links: dict[int, str]
    status: dict[int, os.stat_result]
    top: int

    def build(self, target: pathlib.Path) -> None:
        """Lay the image out as a directory tree."""
        self._directory(self.top, target)

    def _directory(self, inode: int, target: pathlib.Path) -> None:
        target.mkdir(mode=0o700)
        for name, (child, kind) in sorted(self.names.get(inode, {}).items()):
            path = target / name
            if kind == stat.S_IFDIR:
                self._directory(child, path)
            elif kind == stat.S_IFLNK:
                os.symlink(self.links[child], path)
            elif kind == stat.S_IFREG:
                status, content = self.contents.get(child, (None, b""))
                path.write_bytes(content)
                if status is not None:
                    os.chmod(path, stat.S_IMODE(status.st_mode))
                    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        status = self.status.get(inode)
        if status is not None:
            os.chmod(target, stat.S_IMODE(status.st_mode))
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


@dataclass
class Disk:
    """Watches the durable layer below one directory; ``images`` has one entry per operation, and the end."""

    top: pathlib.Path
    images: list[Image] = field(default_factory=list)
    _contents: dict[int, tuple[os.stat_result, bytes]] = field(default_factory=dict)
    _names: dict[int, dict[str, tuple[int, int]]] = field(default_factory=dict)
    _links: dict[int, str] = field(default_factory=dict)
    _status: dict[int, os.stat_result] = field(default_factory=dict)

    def __enter__(self) -> Disk:
        self._tree(str(self.top))  # what stands at the beginning is old and lies on the disk
        durable.observe = self._seen
        return self

    def __exit__(self, *_error: object) -> None:
        durable.observe = None
        self.note("end")

    def note(self, operation: str) -> None:
        """Remember what would be left by a power loss now."""
        names = {inode: dict(found) for inode, found in self._names.items()}
        self.images.append(Image(operation, dict(self._contents), names, dict(self._links), dict(self._status), os.lstat(self.top).st_ino))

    def _seen(self, operation: str, path: str, extra: str) -> None:
        if not path.startswith(str(self.top)):
            return
        if operation == "fsync":
            self._file(path)
        elif operation == "dirsync":
            self._directory(path)
        elif operation == "synctree":
            self._tree(path)
        self.note(f"{operation} {os.path.relpath(path, self.top)}")

    def _file(self, path: str) -> None:
        status = os.lstat(path)
        self._contents[status.st_ino] = (status, pathlib.Path(path).read_bytes())

    def _directory(self, path: str) -> None:
        found = {}
        for name, status in _children(path):
            kind = stat.S_IFMT(status.st_mode)
            found[name] = (status.st_ino, kind)
            if kind == stat.S_IFLNK:
                self._links[status.st_ino] = os.readlink(os.path.join(path, name))
        status = os.lstat(path)
        self._names[status.st_ino] = found
        self._status[status.st_ino] = status

    def _tree(self, path: str) -> None:
        self._directory(path)
        for name, status in _children(path):
            child = os.path.join(path, name)
            if stat.S_ISDIR(status.st_mode):
                self._tree(child)
            elif stat.S_ISREG(status.st_mode):
                self._file(child)


def _children(path: str) -> Iterator[tuple[str, os.stat_result]]:
    for name in sorted(os.listdir(path)):
        yield name, os.lstat(os.path.join(path, name))


def power_up(image: Image, home: pathlib.Path) -> None:
    """Replace the world by what the disk holds; paths stay the same, as they do for a machine that boots again."""
    for child in list(home.iterdir()):
        shutil.rmtree(child)
    fresh = home.parent / (home.name + ".image")
    image.build(fresh)
    for child in fresh.iterdir():
        os.rename(child, home / child.name)
    fresh.rmdir()
