# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One object being written to S3: at once when it is small, in parts beside each other when it is not.

Nothing is visible under the name before commit(); the last request is conditional, so that of two writers one wins. Every part carries its
SHA-256, which the store compares with what arrived; what the store then holds is asked for and compared with what was sent.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import secrets
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable

from .. import faults
from ..errors import ConflictError, StorageError
from .backend import NewObject
from .s3_client import Client

#: Bytes of a part; smaller objects are one request.
PART = 8 << 20
#: Metadata that tells our object from that of a faster writer, when an answer was lost and the request came twice.
_OURS = "lifeboat-write"


class S3Object(NewObject):
    """slots: how many parts of all objects together may be on their way, which bounds the memory.

    lock: what the object's requests say of its retention, asked when they are sent. read_back: compares the whole content after the write.
    exclusive: the name must be free; if not, what is there is replaced.
    """

    def __init__(self, client: Client, name: str, subject: str, threads: ThreadPoolExecutor, slots: threading.BoundedSemaphore,
                 lock: Callable[[], dict[str, Any]], read_back: Callable[[str, int, bytes], None] | None,
                 exclusive: bool = True) -> None:
        self._client = client
        self._name = name
        self._subject = subject
        self._threads = threads
        self._slots = slots
        self._lock = lock
        self._read_back = read_back
        self._step = f"{subject}.{'link' if exclusive else 'rename'}"
        self._condition: dict[str, str] = {"IfNoneMatch": "*"} if exclusive else {}
        self._ours = secrets.token_hex(16)
        self._buffer = bytearray()
        self._size = 0
        self._whole = hashlib.sha256()
        self._upload: str | None = None
        self._parts: deque[Future[dict[str, Any]]] = deque()
        self._done: list[dict[str, Any]] = []
        self._number = 0

    @property
    def _target(self) -> dict[str, str]:
        return {"Bucket": self._client.bucket, "Key": self._client.key(self._name)}

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._read_back is not None:
            self._whole.update(data)
        view = memoryview(data)
        while len(self._buffer) + len(view) >= PART:
            room = PART - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            self._send(bytes(self._buffer))
            self._buffer.clear()
        self._buffer += view

    def _send(self, part: bytes) -> None:
        faults.point(f"{self._subject}.write.before")
        if self._upload is None:
            with self._client.translated("write", self._name):
                answer = self._client.api.create_multipart_upload(**self._target, Metadata={_OURS: self._ours}, ChecksumAlgorithm="SHA256", **self._lock())
            self._upload = answer["UploadId"]
        self._number += 1
        self._slots.acquire()
        sent = self._threads.submit(self._send_part, self._number, part)
        sent.add_done_callback(lambda _sent: self._slots.release())
        self._parts.append(sent)
        while self._parts and self._parts[0].done():
            self._done.append(self._parts.popleft().result())
        faults.point(f"{self._subject}.write.after")

    def _send_part(self, number: int, part: bytes) -> dict[str, Any]:
        checksum = _sha256(part)
        with self._client.translated("write", self._name):
            answer = self._client.api.upload_part(**self._target, UploadId=self._upload, PartNumber=number, Body=part, ChecksumSHA256=checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def commit(self) -> None:
        faults.point(f"{self._step}.before")
        try:
            if self._upload is None:
                self._put(bytes(self._buffer))
            else:
                if self._buffer:
                    self._send(bytes(self._buffer))
                self._complete()
        except ConflictError:
            if not self._is_ours():
                raise
        self._buffer.clear()
        if self._read_back is not None:
            self._read_back(self._name, self._size, self._whole.digest())
        faults.point(f"{self._step}.after")

    def _put(self, body: bytes) -> None:
        checksum = _sha256(body)
        with self._client.translated("write", self._name):
            answer = self._client.api.put_object(
                **self._target, Body=body, ChecksumSHA256=checksum, Metadata={_OURS: self._ours}, **self._condition, **self._lock(),
            )
        if answer.get("ChecksumSHA256", checksum) != checksum:
            raise self._different()
        self._compare(checksum)

    def _complete(self) -> None:
        while self._parts:
            self._done.append(self._parts.popleft().result())
        with self._client.translated("write", self._name):
            self._client.api.complete_multipart_upload(
                **self._target, UploadId=self._upload, MultipartUpload={"Parts": self._done}, **self._condition,
            )
        self._upload = None
        digests = b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in self._done)
        self._compare(f"{_sha256(digests)}-{len(self._done)}")

    def _compare(self, checksum: str) -> None:
        """An acknowledgement is not storage: size and checksum as the store has them."""
        with self._client.translated("read", self._name):
            told = self._client.api.head_object(**self._target, ChecksumMode="ENABLED")
        held = told.get("ChecksumSHA256")
        # stores name the checksum of parts with or without their number
        if told["ContentLength"] != self._size or (held is not None and held.split("-")[0] != checksum.split("-")[0]):
            raise self._different()

    def _different(self) -> StorageError:
        return StorageError("what the store holds differs from what was written", self._client.where(self._name),
                            "check the S3 server; nothing refers to this object, the next run writes it anew")

    def _is_ours(self) -> bool:
        """Whether the object that took the name is the one that was sent: its answer was lost, and it was sent again."""
        with contextlib.suppress(FileNotFoundError), self._client.translated("read", self._name):
            told = self._client.api.head_object(**self._target)
            return bool(told.get("Metadata", {}).get(_OURS) == self._ours and told["ContentLength"] == self._size)
        return False

    def abort(self) -> None:
        self._buffer.clear()
        for part in self._parts:
            part.cancel()
        for part in self._parts:
            with contextlib.suppress(BaseException):
                part.result()
        self._parts.clear()
        if self._upload is not None:
            with contextlib.suppress(StorageError, FileNotFoundError), self._client.translated("write", self._name):
                self._client.api.abort_multipart_upload(**self._target, UploadId=self._upload)
            self._upload = None


def retention(mode: str, seconds: float) -> dict[str, Any]:
    """What a request says of an object's lock: until when it cannot be deleted, counted from now."""
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return {"ObjectLockMode": mode.upper(), "ObjectLockRetainUntilDate": until}


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
