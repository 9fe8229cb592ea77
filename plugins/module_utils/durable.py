# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The only place that makes things durable: write, fsync, rename or link, fsync the directory.

Every function takes the ``subject`` of its fault points (see faults.SUBJECTS). Tests replace
``observe`` to record the operations and replay them as a power loss would have left them.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from typing import Callable, Iterable

from . import faults

#: Called as observe(operation, path, extra) after each operation; the tests' write log.
observe: Callable[[str, str, str], None] | None = None

#: linux/fs.h: start the write-out of dirty pages and do not wait for it.
_SYNC_FILE_RANGE_WRITE = 2


def _seen(operation: str, path: str, extra: str = "") -> None:
    if observe is not None:
        observe(operation, path, extra)


def fsync_file(descriptor: int, path: str, subject: str) -> None:
    """Flush one open file to the disk."""
    faults.point(f"{subject}.fsync.before")
    os.fsync(descriptor)
    _seen("fsync", path)
    faults.point(f"{subject}.fsync.after")


def fsync_dir(path: str, subject: str) -> None:
    """Flush a directory, so that names made, renamed or removed in it last."""
    faults.point(f"{subject}.dirsync.before")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _seen("dirsync", path)
    faults.point(f"{subject}.dirsync.after")


def sync_tree(path: str, subject: str) -> None:
    """Flush everything written below ``path``: one syncfs of its file system, which also reports write errors."""
    faults.point(f"{subject}.fsync.before")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
    finally:
        os.close(descriptor)
    _seen("synctree", path)
    faults.point(f"{subject}.fsync.after")


def sync_trees(paths: Iterable[str], subject: str) -> None:
    """sync_tree for each file system that the paths lie on, once."""
    done: set[int] = set()
    for path in paths:
        device = os.stat(path).st_dev
        if device not in done:
            done.add(device)
            sync_tree(path, subject)


def begin_writeback(descriptor: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range of an open file, so that the flush to come finds less left to do.

    Promises nothing: whether the bytes last is settled, and errors are told, by the flush. Nothing happens where the system lacks it.
    """
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call(descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))


def rename(source: str, target: str, subject: str) -> None:
    """Rename without making it durable yet; the caller syncs the directories it names."""
    faults.point(f"{subject}.rename.before")
    os.rename(source, target)
    _seen("rename", source, target)
    faults.point(f"{subject}.rename.after")


def rename_durably(source: str, target: str, subject: str) -> None:
    """Rename and fsync both directories."""
    rename(source, target, subject)
    fsync_dir(os.path.dirname(target) or ".", subject)
    if os.path.dirname(source) != os.path.dirname(target):
        fsync_dir(os.path.dirname(source) or ".", subject)


def unlink(path: str, subject: str) -> None:
    """Remove one name; absent is fine."""
    faults.point(f"{subject}.unlink.before")
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    _seen("unlink", path)
    faults.point(f"{subject}.unlink.after")


def write_all(descriptor: int, data: bytes | memoryview, path: str, subject: str) -> None:
    """Write every byte to an open file."""
    faults.point(f"{subject}.write.before")
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]
    _seen("write", path, str(len(data)))
    faults.point(f"{subject}.write.after")


def make_dirs(path: str, mode: int, subject: str) -> None:
    """Create a directory and its missing parents durably."""
    missing = []
    current = path
    while not os.path.isdir(current):
        missing.append(current)
        current = os.path.dirname(current) or "/"
    for directory in reversed(missing):
        try:
            os.mkdir(directory, mode)
        except FileExistsError:
            continue
        _seen("mkdir", directory)
        fsync_dir(os.path.dirname(directory) or "/", subject)


def _write_temporary(path: str, data: bytes, mode: int, subject: str) -> str:
    temporary = os.path.join(os.path.dirname(path), f".tmp-{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        write_all(descriptor, data, temporary, subject)
        fsync_file(descriptor, temporary, subject)
    except BaseException:
        os.close(descriptor)
        os.unlink(temporary)
        raise
    os.close(descriptor)
    return temporary


def replace_file(path: str, data: bytes, subject: str, mode: int = 0o600) -> None:
    """Write a file so that a crash leaves the old or the new content, never a mixture."""
    temporary = _write_temporary(path, data, mode, subject)
    rename(temporary, path, subject)
    fsync_dir(os.path.dirname(path), subject)


def publish_file(temporary: str, path: str, subject: str) -> None:
    """Give a complete, synced temporary file its final name exactly once (exclusive link).

    Raises FileExistsError when the name is taken; the temporary name is removed either way.
    """
    try:
        faults.point(f"{subject}.link.before")
        os.link(temporary, path)
        _seen("link", temporary, path)
        faults.point(f"{subject}.link.after")
    finally:
        unlink(temporary, subject)
    fsync_dir(os.path.dirname(path), subject)


def create_file(path: str, data: bytes, subject: str, mode: int = 0o600) -> None:
    """Create a write-once file; FileExistsError when it is there already."""
    publish_file(_write_temporary(path, data, mode, subject), path, subject)
