# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody with credentials of an object store may try against a repository: each call there is, and whether it got through.

Nothing here knows what a role may do. An attempt answers True when the store did what was asked.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import botocore.exceptions

MODE = "GOVERNANCE"
#: One object of every class, as docs/repository-format.md names them.
OBJECTS = {
    "pack": "packs/aa/aa00.pack", "key": "keys/k1.000000.json", "escrow": "escrow/f1.000000.json", "tree": "trees/t1.tree",
    "index": "indexes/i1.index", "manifest": "snapshots/db/000000000001.json", "catalog": "catalogs/c1.json",
    "ledger": "ledgers/db1-12345678/000000000001-000000000002.json",
    "tombstone": "shredded.json", "epoch": "logs/db/000000000001/epoch.json", "piece": "logs/db/000000000001/00000001-0000000000000000-0000000000000001.log",
}
_REFUSED = 403
#: The policy let it through, the state of things stopped it: a bucket with objects cannot be deleted, a name that is taken not be created.
_STOPPED = (409, 412)


@dataclass
class Field:
    """A repository in a bucket with the objects of some services, written by the bucket's owner. locked: each for a day."""

    owner: Any
    bucket: str
    base: str
    services: tuple[str, ...]
    locked: bool = True
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.put(f"{self.base}/lifeboat.json")
        for service in self.services:
            for name in OBJECTS.values():
                self.put(self.key(service, name))

    def key(self, service: str, name: str) -> str:
        return f"{self.base}/services/{service}/{name}"

    def put(self, key: str, locked: bool | None = None) -> str:
        lock = {"ObjectLockMode": MODE, "ObjectLockRetainUntilDate": _in(days=1)} if (self.locked if locked is None else locked) else {}
        told = self.owner.put_object(Bucket=self.bucket, Key=key, Body=b"what was there", **lock)
        self.versions[key] = told.get("VersionId", "null")
        return key

    def name(self, service: str, folder: str = "packs/aa") -> str:
        """A new name of the form that objects in this folder have."""
        number = secrets.randbelow(10 ** 12)
        wrapped = f"{secrets.token_hex(8)}.000000.json"
        form = {"packs": f"{secrets.token_hex(32)}.pack", "keys": wrapped, "escrow": wrapped, "ledgers": f"{number:012d}-{number:012d}.json"}
        return self.key(service, f"{folder}/{form[folder.partition('/')[0]]}")

    def fresh(self, service: str, folder: str = "packs/aa", locked: bool = False) -> str:
        """An object of its own for an attempt that may get through."""
        return self.put(self.name(service, folder), locked)


def _in(**distance: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**distance)


def through(call: Callable[..., Any], **arguments: Any) -> bool:
    """Whether the store did it. What is neither done nor refused is no answer."""
    try:
        told = call(**arguments)
    except botocore.exceptions.ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status not in (_REFUSED, *_STOPPED):
            raise AssertionError(f"neither done nor refused: {error}") from error
        return status in _STOPPED
    return not (isinstance(told, dict) and told.get("Errors"))


Attempt = Callable[[Any, Field, str], bool]


def _read(name: str) -> Attempt:
    return lambda client, ground, service: through(client.get_object, Bucket=ground.bucket, Key=ground.key(service, OBJECTS[name]))


def _create(folder: str) -> Attempt:
    return lambda client, ground, service: through(
        client.put_object, Bucket=ground.bucket, Key=ground.name(service, folder), Body=b"new", IfNoneMatch="*",
    )


def _create_tombstone(client: Any, ground: Field, service: str) -> bool:
    return through(client.put_object, Bucket=ground.bucket, Key=ground.key(service, "shredded.json"), Body=b"new", IfNoneMatch="*")


def _create_large(client: Any, ground: Field, service: str) -> bool:
    target = {"Bucket": ground.bucket, "Key": ground.name(service)}
    upload: dict[str, Any] = {}
    if not through(lambda **given: upload.update(client.create_multipart_upload(**given)), **target):
        return False
    part = client.upload_part(**target, UploadId=upload["UploadId"], PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    return through(client.complete_multipart_upload, **target, UploadId=upload["UploadId"], MultipartUpload=parts, IfNoneMatch="*")


def _list(service: str | None, call: str = "list_objects_v2") -> Attempt:
    def attempt(client: Any, ground: Field, own: str) -> bool:
        prefix = {"own": f"{ground.base}/services/{own}/", "repository": f"{ground.base}/services/"}.get(service or "")
        return through(getattr(client, call), Bucket=ground.bucket, **({"Prefix": prefix} if prefix else {}))
    return attempt


def _read_version(client: Any, ground: Field, service: str) -> bool:
    key = ground.key(service, OBJECTS["pack"])
    return through(client.get_object, Bucket=ground.bucket, Key=key, VersionId=ground.versions[key])


def _delete(folder: str, whole: bool) -> Attempt:
    """Of an object whose lock is over (or that never had one): with a lock nobody can."""
    def attempt(client: Any, ground: Field, service: str) -> bool:
        key = ground.fresh(service, folder)
        return through(client.delete_object, Bucket=ground.bucket, Key=key, **({"VersionId": ground.versions[key]} if whole else {}))
    return attempt


def _delete_many(client: Any, ground: Field, service: str) -> bool:
    return through(client.delete_objects, Bucket=ground.bucket, Delete={"Objects": [{"Key": ground.fresh(service)}]})


def _overwrite(client: Any, ground: Field, service: str) -> bool:
    """Gets through when what was there cannot be had any more."""
    key = ground.fresh(service)
    before = ground.versions[key]
    copied = {"Bucket": ground.bucket, "Key": ground.key(service, OBJECTS["pack"])}
    wrote = [through(client.put_object, Bucket=ground.bucket, Key=key, Body=b"something else"),
             through(client.copy_object, Bucket=ground.bucket, Key=key, CopySource=copied)]
    if not any(wrote):
        return False
    through(client.delete_object, Bucket=ground.bucket, Key=key, VersionId=before)
    try:
        return bool(ground.owner.get_object(Bucket=ground.bucket, Key=key, VersionId=before)["Body"].read() != b"what was there")
    except botocore.exceptions.ClientError:
        return True


def _lock(folder: str, **distance: float) -> Attempt:
    def attempt(client: Any, ground: Field, service: str) -> bool:
        retention = {"Mode": MODE, "RetainUntilDate": _in(**distance)}
        return through(client.put_object_retention, Bucket=ground.bucket, Key=ground.fresh(service, folder, True), Retention=retention)
    return attempt


def _bypass(client: Any, ground: Field, service: str) -> bool:
    key = ground.fresh(service, locked=True)
    shorter = {"Mode": MODE, "RetainUntilDate": _in(seconds=60)}
    return through(client.put_object_retention, Bucket=ground.bucket, Key=key, Retention=shorter, BypassGovernanceRetention=True)


def _delete_locked(client: Any, ground: Field, service: str) -> bool:
    key = ground.fresh(service, locked=True)
    return through(client.delete_object, Bucket=ground.bucket, Key=key, VersionId=ground.versions[key], BypassGovernanceRetention=True)


def _policy(client: Any, ground: Field, service: str) -> bool:
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{
        "Sid": "Mine", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{ground.bucket}/{service}/*",
    }]})
    return through(client.put_bucket_policy, Bucket=ground.bucket, Policy=policy)


def _bucket(call: str, **arguments: Any) -> Attempt:
    return lambda client, ground, _service: through(getattr(client, call), Bucket=ground.bucket, **arguments)


def _object(call: str, **arguments: Any) -> Attempt:
    return lambda client, ground, service: through(getattr(client, call), Bucket=ground.bucket, Key=ground.key(service, OBJECTS["pack"]), **arguments)


_EXPIRE_ALL = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}
_NO_LOCK = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": MODE, "Days": 1}}}

#: What can be tried on a service's own objects, or those of another.
ON_A_SERVICE: dict[str, Attempt] = {
    **{f"read a {name}": _read(name) for name in OBJECTS},
    "read an older version": _read_version,
    "list": _list("own"),
    "list versions": _list("own", "list_object_versions"),
    "create a pack": _create("packs/aa"),
    "create a key": _create("keys"),
    "create a ledger": _create("ledgers/db1-12345678"),
    "create a large pack": _create_large,
    "create an escrow record": _create("escrow"),
    "create a tombstone": _create_tombstone,
    "overwrite": _overwrite,
    "delete a pack": _delete("packs/aa", False),
    "delete a version of a pack": _delete("packs/aa", True),
    "delete a version of a ledger": _delete("ledgers/db1-12345678", True),
    "delete many": _delete_many,
    "delete what is locked": _delete_locked,
    "extend a lock": _lock("packs/aa", days=2),
    "extend a lock of a key": _lock("keys", days=2),
    "shorten a lock": _bypass,
    "end a legal hold": _object("put_object_legal_hold", LegalHold={"Status": "OFF"}),
    "tag": _object("put_object_tagging", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
}

#: What can be tried on the bucket.
ON_THE_BUCKET: dict[str, Attempt] = {
    "list the repository": _list("repository"),
    "list the bucket": _list(None),
    "list all versions": _list(None, "list_object_versions"),
    "see its policy": _bucket("get_bucket_policy"),
    "replace its policy": _policy,
    "remove its policy": _bucket("delete_bucket_policy"),
    "let all expire": _bucket("put_bucket_lifecycle_configuration", LifecycleConfiguration=_EXPIRE_ALL),
    "suspend versions": _bucket("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"}),
    "change its lock": _bucket("put_object_lock_configuration", ObjectLockConfiguration=_NO_LOCK),
    "open it": _bucket("put_bucket_acl", ACL="public-read"),
    "delete it": _bucket("delete_bucket"),
}
