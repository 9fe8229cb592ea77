# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Trying what an S3 store promises: one winner per name, contents that fit their checksum, locks that hold.

A store that answers "yes" to every header is common; only trying tells.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

from ..errors import ConflictError, StorageError
from ..libraries import need

if TYPE_CHECKING:
    from .s3 import S3Backend

#: Object that says: this store accepts content that does not fit its checksum.
UNCHECKED = "probe/checksums-are-not-checked"
#: How long the object lives that cannot be deleted, seconds.
_LOCKED = 20
#: Answers that are a decision: malformed or not matching, forbidden, not allowed, in conflict.
_REFUSALS = (400, 403, 405, 409)


def probe(backend: S3Backend) -> None:
    """StorageError for a store on which a repository would not be safe; leaves nothing but what is locked for some seconds."""
    name, data = f"probe/{secrets.token_hex(8)}", secrets.token_bytes(64)
    if backend.lock:
        _versions(backend)
    try:
        _one_winner(backend, name, data)
        _checksums(backend)
    finally:
        _forget(backend, name)
    if backend.lock:
        _locks(backend)


def _target(backend: S3Backend, name: str) -> dict[str, str]:
    return {"Bucket": backend.client.bucket, "Key": backend.client.key(name)}


def _one_winner(backend: S3Backend, name: str, data: bytes) -> None:
    api = backend.client.api
    with backend.client.translated("write", name):
        api.put_object(**_target(backend, name), Body=data, IfNoneMatch="*")
    try:
        with backend.client.translated("write", name):
            api.put_object(**_target(backend, name), Body=b"second writer", IfNoneMatch="*")
    except ConflictError:
        pass
    else:
        raise StorageError("the store lets two writers create one object: it ignores If-None-Match", backend.client.where(""),
                           "use a store with conditional writes")
    with backend.client.translated("read", name):
        if api.get_object(**_target(backend, name))["Body"].read() != data:
            raise StorageError("an object reads back different", backend.client.where(name), "check the S3 server")


def _checksums(backend: S3Backend) -> None:
    """A store that accepts a wrong checksum is used, but everything written there is read back (UNCHECKED tells every writer)."""
    wrong = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
    _refuses(backend, "write", UNCHECKED, backend.client.api.put_object, Body=b"not that\n", ChecksumSHA256=wrong)


def _refuses(backend: S3Backend, verb: str, name: str, attempt: Any, **arguments: Any) -> bool:
    """Whether the store itself says no to an attempt. Raises for one that did not get to a decision: no answer is no refusal."""
    with backend.client.translated(verb, name):
        try:
            attempt(**_target(backend, name), **arguments)
        except need("botocore.exceptions").ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status in _REFUSALS:
                return True
            if status != 404:  # gone already: it was not kept
                raise
        return False


def _versions(backend: S3Backend) -> None:
    with backend.client.translated("read", ""):
        status = backend.client.api.get_bucket_versioning(Bucket=backend.client.bucket).get("Status")
    if status != "Enabled":
        raise StorageError("the catalog asks for object_lock and the bucket keeps no versions", f"s3://{backend.client.bucket}",
                           "make a bucket with object lock, which keeps versions; it cannot be added to every bucket later")


def _locks(backend: S3Backend) -> None:
    """Write an object that is locked for some seconds and try to delete and to shorten it: both must be refused."""
    name = f"probe/locked-{secrets.token_hex(8)}"
    mode = str(backend.lock["mode"]).upper() if backend.lock else "COMPLIANCE"
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=_LOCKED)
    body = b"locked for some seconds\n"
    api: Any = backend.client.api
    with backend.client.translated("lock", name):
        version = api.put_object(**_target(backend, name), Body=body, ChecksumSHA256=base64.b64encode(hashlib.sha256(body).digest()).decode(),
                                 ObjectLockMode=mode, ObjectLockRetainUntilDate=until).get("VersionId")
    soon = {"Mode": mode, "RetainUntilDate": datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)}
    attempts: list[tuple[str, Any, dict[str, Any]]] = [
        ("deletes a locked object", api.delete_object, {"VersionId": version} if version else {}),
        ("shortens a lock", api.put_object_retention, {"Retention": soon}),
    ]
    for word, attempt, arguments in attempts:
        if not _refuses(backend, "delete", name, attempt, **arguments):
            raise StorageError(f"the store accepts object lock and does not keep it: it {word}", f"s3://{backend.client.bucket}",
                               "use a store that keeps object locks, or remove object_lock from the catalog")


def _forget(backend: S3Backend, name: str) -> None:
    """Remove the trial object, with its versions where there are any; a role that may not delete leaves it."""
    api = backend.client.api
    with contextlib.suppress(StorageError, FileNotFoundError), backend.client.translated("delete", name):
        api.delete_object(**_target(backend, name))
    with contextlib.suppress(StorageError, FileNotFoundError), backend.client.translated("delete", name):
        found = api.list_object_versions(Bucket=backend.client.bucket, Prefix=backend.client.key(name))
        for item in [*found.get("Versions", ()), *found.get("DeleteMarkers", ())]:
            api.delete_object(**_target(backend, name), VersionId=item["VersionId"])
