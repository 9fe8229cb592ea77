# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``boxes://NAME``: every object a file of one flat folder below /var/tmp, its name written in hex."""

from __future__ import annotations

import os
from typing import Iterator

from .. import durable
from ..errors import ConfigError, ConflictError, StorageError
from .backend import Backend, NewObject


class _NewBox(NewObject):
    def __init__(self, path: str, subject: str) -> None:
        self._path = path
        self._subject = subject
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))

    def commit(self) -> None:
        data = b"".join(self._parts)
        try:
            durable.create_file(self._path, data, self._subject)
            with open(self._path, "rb") as handle:
                stored = handle.read()
        except FileExistsError as error:
            raise ConflictError("object exists already", self._path, "run the same command again") from error
        except OSError as error:
            raise StorageError(f"cannot write ({error.strerror})", self._path, "check the disk") from error
        if stored != data:
            raise StorageError("what was read back differs from what was written", self._path, "check the disk")

    def abort(self) -> None:
        self._parts = []


class BoxesBackend(Backend):
    scheme = "boxes"

    def __init__(self, url: str) -> None:
        name = url[len("boxes://"):]
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError("not a name of boxes", url, "write boxes://NAME")
        self._folder = os.path.join("/var/tmp", name)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name.encode().hex())

    def prepare(self) -> bool:
        if os.path.isdir(self._folder):
            return False
        durable.make_dirs(self._folder, 0o700, "repository")
        return True

    def probe(self) -> None:
        if not os.access(self._folder, os.W_OK):
            raise StorageError("cannot write", self._folder, "fix its permissions")

    def new(self, name: str, subject: str) -> NewObject:
        return _NewBox(self._path(name), subject)

    def read(self, name: str, limit: int) -> bytes:
        with open(self._path(name), "rb") as handle:
            data = handle.read(limit + 1)
        if len(data) > limit:
            raise StorageError(f"object is larger than the {limit} bytes allowed", name, "verify the repository")
        return data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with open(self._path(name), "rb") as handle:
            handle.seek(offset)
            return handle.read(length)

    def size(self, name: str) -> int:
        return os.stat(self._path(name)).st_size

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        if not os.path.isdir(self._folder):
            return
        for item in os.scandir(self._folder):
            name = "" if item.name.startswith(".") else bytes.fromhex(item.name).decode()
            if name and name.startswith(prefix):
                yield name, item.stat().st_size

    def free_bytes(self) -> int | None:
        return None
