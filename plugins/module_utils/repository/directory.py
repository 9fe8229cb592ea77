# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A repository in a directory: write to a temporary name, fsync, link exclusively, fsync the directory, read back."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import Callable, Iterator, Sequence, TypeVar

from .. import durable
from ..clocks import Skew
from ..errors import ConfigError, ConflictError, StorageError
from ..libraries import need
from .backend import Backend, NewObject

_TEMPORARY = ".tmp-"
#: Bytes after which the system is asked to begin to write them out, so that the flush at the end finds little left to do.
_WRITE_OUT = 8 << 20
_T = TypeVar("_T")


def _storage_error(error: OSError, verb: str, path: str) -> StorageError:
    reason = error.strerror or str(error)
    remedy = {
        "No space left on device": "free space there or point the repository elsewhere, then run the same command again",
        "Permission denied": "give the user who runs this write access to the repository directory",
        "Read-only file system": "mount the repository writable",
    }.get(reason, "check the repository's disk and mount, then run the same command again")
    return StorageError(f"cannot {verb} in the repository ({reason})", path, remedy)


class _NewFile(NewObject):
    def __init__(self, root: str, name: str, subject: str, exclusive: bool = True) -> None:
        self._exclusive = exclusive
        self._path = os.path.join(root, name)
        self._subject = subject
        directory = os.path.dirname(self._path)
        self._temporary = os.path.join(directory, _TEMPORARY + secrets.token_hex(8))
        self._descriptor = -1
        self._hash = need("blake3").blake3()
        self._size = self._written_out = 0
        try:
            durable.make_dirs(directory, 0o700, subject)
            self._descriptor = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _storage_error(error, "write", self._path) from error

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        try:
            durable.write_all(self._descriptor, data, self._temporary, self._subject)
        except OSError as error:
            raise _storage_error(error, "write", self._path) from error
        self._size += len(data)
        if self._size - self._written_out >= _WRITE_OUT:
            durable.begin_writeback(self._descriptor, self._written_out, self._size - self._written_out)
            self._written_out = self._size

    def commit(self) -> None:
        try:
            durable.fsync_file(self._descriptor, self._temporary, self._subject)
            self._read_back(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            if self._exclusive:
                durable.publish_file(self._temporary, self._path, self._subject)
            else:
                durable.rename_durably(self._temporary, self._path, self._subject)
        except FileExistsError as error:
            raise ConflictError("object exists already", self._path, "another writer was faster; run the same command again") from error
        except OSError as error:
            raise _storage_error(error, "write", self._path) from error

    def _read_back(self, descriptor: int) -> None:
        """An acknowledgement is not storage: compare what the file holds with what was sent."""
        actual = need("blake3").blake3()
        offset = 0
        while True:
            block = os.pread(descriptor, 4 << 20, offset)
            if not block:
                break
            actual.update(block)
            offset += len(block)
        if actual.digest() != self._hash.digest():
            raise StorageError("what was read back differs from what was written", self._path,
                               "check the repository's disk (dmesg, smartctl); nothing refers to this object")

    def abort(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)


class DirectoryBackend(Backend):
    """Objects are files below one directory. The file system must keep fsync and exclusive link."""

    scheme = "file"

    def __init__(self, url: str) -> None:
        path = url[len("file://"):] if url.startswith("file://") else url
        if not os.path.isabs(path) or os.path.normpath(path) != path.rstrip("/"):
            raise ConfigError("repository path must be absolute and normal", path, "write it as file:///absolute/path")
        self.root = path.rstrip("/") or "/"

    def _path(self, name: str) -> str:
        parts = name.split("/")
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise StorageError("unsafe object name", repr(name), "the repository's own documents are damaged or hostile; verify it")
        return os.path.join(self.root, name)

    def _reading(self, path: str, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error
        except OSError as error:
            raise _storage_error(error, "read", path) from error

    def prepare(self) -> bool:
        if os.path.isdir(self.root):
            return False
        try:
            durable.make_dirs(self.root, 0o700, "repository")
        except OSError as error:
            raise _storage_error(error, "create a directory", self.root) from error
        return True

    def probe(self) -> None:
        # a directory of its own: other hosts may try the place at this moment, and take theirs away
        directory = f"probe-{secrets.token_hex(8)}"
        name = f"{directory}/object"
        data = secrets.token_bytes(64)
        try:
            self.create(name, data, "repository")
            try:
                self.create(name, b"second writer", "repository")
            except ConflictError:
                pass
            else:
                raise StorageError("the file system lets two writers create one object", self.root,
                                   "use a local or NFSv4 file system that keeps exclusive links")
            if self.read(name, 1024) != data:
                raise StorageError("an object reads back different", self.root, "check the repository's disk")
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._path(name))
                os.rmdir(self._path(directory))

    def new(self, name: str, subject: str) -> NewObject:
        self._path(name)
        if not os.path.isdir(self.root):
            raise StorageError("repository directory does not exist", self.root, "mount it, or create it with the bootstrap playbook", "unreachable")
        return _NewFile(self.root, name, subject)

    def replace(self, name: str, subject: str) -> NewObject:
        self._path(name)
        return _NewFile(self.root, name, subject, exclusive=False)

    def read(self, name: str, limit: int) -> bytes:
        path = self._path(name)

        def action() -> bytes:
            with open(path, "rb") as handle:
                return handle.read(limit + 1)

        data = self._reading(path, action)
        if len(data) > limit:
            raise StorageError(f"object is larger than the {limit} bytes allowed", path, "verify the repository")
        return data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        path = self._path(name)

        def action() -> bytes:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)

        return self._reading(path, action)

    def size(self, name: str) -> int:
        path = self._path(name)
        return self._reading(path, lambda: os.stat(path).st_size)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        top = self._path(prefix.rstrip("/")) if prefix else self.root
        pending = [top]
        while pending:
            directory = pending.pop()
            try:
                with os.scandir(directory) as found:
                    for item in found:
                        if item.name.startswith(_TEMPORARY):
                            continue
                        if item.is_dir(follow_symlinks=False):
                            pending.append(item.path)
                        elif item.is_file(follow_symlinks=False):
                            yield os.path.relpath(item.path, self.root), item.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _storage_error(error, "list", directory) from error

    def free_bytes(self) -> int | None:
        try:
            status = os.statvfs(self.root)
        except OSError as error:
            raise _storage_error(error, "measure free space", self.root) from error
        return status.f_bavail * status.f_frsize

    def skew(self, clock: Callable[[], float], names: Sequence[str]) -> Skew | None:
        """Only what was written in the future tells something: nothing is written to find out."""
        times = []
        for name in names:
            with contextlib.suppress(OSError):
                times.append(os.stat(self._path(name)).st_mtime)
        return Skew(max(times) - clock(), float("inf")) if times else None
