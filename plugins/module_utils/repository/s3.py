# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A repository in an S3 bucket: conditional creation, checksums end to end, object lock.

What a store promises is tried before it is believed (s3_probe), and what the trial found is kept in the repository as an object.
"""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator, Sequence

from .. import clocks
from ..clocks import Skew
from ..errors import StorageError
from ..libraries import need
from . import s3_probe
from .backend import Backend, NewObject
from .s3_client import Client
from .s3_object import S3Object, retention
from .s3_read import BLOCK, Blocks, fetch
from .s3_versions import OlderVersions

#: Requests on their way at a time.
CONNECTIONS = 12


class S3Backend(Backend):
    """Objects below one prefix of one bucket. See s3_client.Client for the options of ``config``; object_lock: {"mode", "for": seconds}."""

    scheme = "s3"

    def __init__(self, config: dict[str, Any]) -> None:
        self.client = Client(config, CONNECTIONS)
        lock = config.get("object_lock")
        self.lock: dict[str, Any] | None = dict(lock) if lock else None
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="s3")
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._blocks = Blocks(self.client, self._threads)
        self._guard = threading.Lock()
        self._distrusted: bool | None = None

    def _retention(self) -> dict[str, Any]:
        return retention(self.lock["mode"], self.lock["for"]) if self.lock else {}

    def prepare(self) -> bool:
        """Create the bucket if it is missing, with object lock when the catalog asks for it."""
        with self.client.translated("read", ""):
            try:
                self.client.api.head_bucket(Bucket=self.client.bucket)
                return False
            except need("botocore.exceptions").ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                    raise
        with self.client.translated("create the bucket", ""):
            try:
                self.client.api.create_bucket(Bucket=self.client.bucket, **({"ObjectLockEnabledForBucket": True} if self.lock else {}))
            except need("botocore.exceptions").ClientError as error:
                if error.response.get("Error", {}).get("Code") != "BucketAlreadyOwnedByYou":
                    raise
                return False  # another host made it a moment ago
        return True

    def probe(self) -> None:
        s3_probe.probe(self)

    def new(self, name: str, subject: str) -> NewObject:
        self.client.key(name)
        read_back = self._read_back if self._checksums_distrusted() else None
        return S3Object(self.client, name, subject, self._threads, self._slots, self._retention, read_back)

    def replace(self, name: str, subject: str) -> NewObject:
        self.client.key(name)
        read_back = self._read_back if self._checksums_distrusted() else None
        return S3Object(self.client, name, subject, self._threads, self._slots, self._retention, read_back, exclusive=False)

    def older(self) -> Backend | None:
        """Where the bucket keeps versions, and this role may ask whether it does."""
        try:
            with self.client.translated("read", ""):
                kept = self.client.api.get_bucket_versioning(Bucket=self.client.bucket).get("Status")
        except (StorageError, FileNotFoundError):
            return None
        return OlderVersions(self.client) if kept else None

    def _checksums_distrusted(self) -> bool:
        """Whether the probe found that this store accepts content that does not fit its checksum: then everything is read back."""
        with self._guard:
            if self._distrusted is None:
                try:
                    self.size(s3_probe.UNCHECKED)
                    self._distrusted = True
                except FileNotFoundError:
                    self._distrusted = False
            return self._distrusted

    def _read_back(self, name: str, size: int, digest: bytes) -> None:
        actual, offset = hashlib.sha256(), 0
        while offset < size:
            data = fetch(self.client, name, offset, BLOCK).data
            if not data:
                break
            actual.update(data)
            offset += len(data)
        if actual.digest() != digest:
            raise StorageError("what was read back differs from what was written", self.client.where(name),
                               "check the S3 server; nothing refers to this object")

    def read(self, name: str, limit: int) -> bytes:
        body = fetch(self.client, name, 0, limit + 1)
        if body.size > limit:
            raise StorageError(f"object is larger than the {limit} bytes allowed", self.client.where(name), "verify the repository")
        return body.data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._blocks.read(name, offset, length)

    def size(self, name: str) -> int:
        with self.client.translated("read", name):
            told = self.client.api.head_object(Bucket=self.client.bucket, Key=self.client.key(name))
        return int(told["ContentLength"])

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        base = self.client.key("") if not self.client.prefix else self.client.prefix + "/"
        pages = self.client.api.get_paginator("list_objects_v2").paginate(Bucket=self.client.bucket, Prefix=base + prefix)
        turning = iter(pages)
        while True:
            with self.client.translated("list", prefix or ""):
                try:
                    page = next(turning, None)
                except need("botocore.exceptions").ClientError as error:
                    if error.response.get("Error", {}).get("Code") != "NoSuchBucket":
                        raise
                    return  # reading says so; here it is asked before the bucket is made
            if page is None:
                return
            for item in page.get("Contents", ()):
                name = item["Key"][len(base):]
                if not name.startswith("probe/"):
                    yield name, int(item["Size"])

    def free_bytes(self) -> int | None:
        return None

    def skew(self, clock: Callable[[], float], names: Sequence[str]) -> Skew | None:
        def date() -> float | None:
            with self.client.translated("read", names[0]):
                told = self.client.api.head_object(Bucket=self.client.bucket, Key=self.client.key(names[0]))
            text = told["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
            return email.utils.parsedate_to_datetime(text).timestamp() if text else None

        try:
            return clocks.ask(clock, date, step=1.0) if names else None
        except (FileNotFoundError, ValueError, TypeError):
            return None  # the object was read a moment ago from elsewhere, or the date is none

    def locked_until(self, name: str) -> str | None:
        with self.client.translated("read", name):
            held = self.client.api.head_object(Bucket=self.client.bucket, Key=self.client.key(name)).get("ObjectLockRetainUntilDate")
        return held.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if held is not None else None

    def keep(self, names: Iterable[str]) -> None:
        """Extend the locks of objects to the whole time from now; nothing where the catalog asks for no lock."""
        if not self.lock:
            return
        wanted = retention(self.lock["mode"], self.lock["for"])
        for future in [self._threads.submit(self._extend, name, wanted) for name in names]:
            future.result()

    def hold(self, names: Iterable[str], held: bool) -> None:
        """The store's own legal hold; where the catalog asks for no lock, the bucket may have none to give."""
        if not self.lock:
            return
        for future in [self._threads.submit(self._hold, name, "ON" if held else "OFF") for name in names]:
            future.result()

    def _hold(self, name: str, status: str) -> None:
        with self.client.translated("hold", name):
            self.client.api.put_object_legal_hold(Bucket=self.client.bucket, Key=self.client.key(name), LegalHold={"Status": status})

    def _extend(self, name: str, wanted: dict[str, Any]) -> None:
        with self.client.translated("read", name):
            held = self.client.api.head_object(Bucket=self.client.bucket, Key=self.client.key(name)).get("ObjectLockRetainUntilDate")
        if held is not None and held >= wanted["ObjectLockRetainUntilDate"]:
            return
        with self.client.translated("lock", name):
            self.client.api.put_object_retention(
                Bucket=self.client.bucket, Key=self.client.key(name),
                Retention={"Mode": wanted["ObjectLockMode"], "RetainUntilDate": wanted["ObjectLockRetainUntilDate"]},
            )
