# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a versioned bucket still holds of objects that were deleted or overwritten: their older versions, newest first, to read only."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Iterator, NamedTuple

from ..errors import LifeboatError, StorageError
from .backend import ReadOnly
from .s3_read import fetch

if TYPE_CHECKING:
    from .s3_client import Client

#: Objects of which a thread remembers what it read.
_REMEMBERED = 64


class _Version(NamedTuple):
    id: str
    size: int


class OlderVersions(ReadOnly):
    """An object is its newest version that is not the current one, until that is doubted; then the one before."""

    scheme = ""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._guard = threading.Lock()
        self._found: dict[str, list[_Version]] = {}
        self._local = threading.local()

    def _versions(self, name: str) -> list[_Version]:
        with self._guard:
            if name not in self._found:
                self._found[name] = [version for found, version in self._all(name) if found == name]
            if not self._found[name]:
                raise FileNotFoundError(self._client.where(name))
            return self._found[name]

    def _all(self, prefix: str) -> Iterator[tuple[str, _Version]]:
        """(name, version) of everything below a prefix that is not current, by name, newest first."""
        base = self._client.key("x")[:-1]
        pages = iter(self._client.api.get_paginator("list_object_versions").paginate(Bucket=self._client.bucket, Prefix=base + prefix))
        while True:
            with self._client.translated("list", prefix):
                page = next(pages, None)
            if page is None:
                return
            older = [item for item in page.get("Versions", ()) if not item.get("IsLatest")]
            for item in sorted(older, key=lambda item: item["LastModified"], reverse=True):
                yield item["Key"][len(base):], _Version(item["VersionId"], int(item["Size"]))

    def doubt(self, name: str, error: LifeboatError) -> bool:
        with self._guard:
            versions = self._found.get(name) or []
            if versions and versions[0].id != self._local.__dict__.get(name):
                return True  # another thread has doubted what this one read
            return len(versions) > 1 and bool(versions.pop(0))

    def _newest(self, name: str) -> str:
        version = self._versions(name)[0].id
        read = self._local.__dict__
        if len(read) >= _REMEMBERED:
            read.clear()
        read[name] = version
        return version

    def read(self, name: str, limit: int) -> bytes:
        body = fetch(self._client, name, 0, limit + 1, self._newest(name))
        if body.size > limit:
            raise StorageError(f"object is larger than the {limit} bytes allowed", self._client.where(name), "verify the repository")
        return body.data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return fetch(self._client, name, offset, length, self._newest(name)).data if length else b""

    def size(self, name: str) -> int:
        return self._versions(name)[0].size

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        before = ""
        for name, version in self._all(prefix):
            if name != before:
                yield name, version.size
            before = name

    def refused(self) -> StorageError:
        return StorageError("older versions are only read", self._client.where(""), "this is a fault of the program; please report it")
