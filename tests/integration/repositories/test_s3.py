# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a bucket has: locks that hold and are extended, stores that promise and do not keep, credentials, certificates."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import s3_probe
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3 import S3Backend
from ansible_collections.lifeboat.recovery.tests.doubles.s3_faults import FaultyS3
from ansible_collections.lifeboat.recovery.tests.integration.repositories.conftest import LOCK
from ansible_collections.lifeboat.recovery.tests.lab.rclone_s3 import YesStore
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed


@pytest.fixture(scope="module")
def yes() -> Iterator[YesStore]:
    with YesStore() as server:
        yield server


@pytest.fixture
def locked(store: Seaweed, buckets: dict[bool, str], prefix: str) -> S3Backend:
    return S3Backend(store.config(buckets[True], prefix, object_lock=LOCK))


def versions(backend: S3Backend, name: str) -> list[dict[str, Any]]:
    found = backend.client.api.list_object_versions(Bucket=backend.client.bucket, Prefix=backend.client.key(name))
    return list(found.get("Versions", ()))


def until(backend: S3Backend, name: str) -> datetime.datetime:
    told = backend.client.api.head_object(Bucket=backend.client.bucket, Key=backend.client.key(name))
    assert told["ObjectLockMode"] == "COMPLIANCE"
    moment: datetime.datetime = told["ObjectLockRetainUntilDate"]
    return moment


@pytest.mark.parametrize("size", [10, 20 << 20])
def test_the_owner_of_the_bucket_deletes_nothing_that_is_locked(locked: S3Backend, size: int) -> None:
    locked.create("services/a/x.pack", bytes(size), "pack")
    assert until(locked, "services/a/x.pack") > datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=59)
    (version,) = versions(locked, "services/a/x.pack")
    target = {"Bucket": locked.client.bucket, "Key": locked.client.key("services/a/x.pack")}
    for more in ({}, {"BypassGovernanceRetention": True}):
        with pytest.raises(botocore.exceptions.ClientError):
            locked.client.api.delete_object(**target, VersionId=version["VersionId"], **more)
    sooner = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)}
    with pytest.raises(botocore.exceptions.ClientError):
        locked.client.api.put_object_retention(**target, Retention=sooner, BypassGovernanceRetention=True)
    assert locked.size("services/a/x.pack") == size


def test_a_lock_is_extended_and_never_shortened(store: Seaweed, locked: S3Backend) -> None:
    locked.create("services/a/x.pack", b"x", "pack")
    before = until(locked, "services/a/x.pack")
    longer = S3Backend({**store.config(locked.client.bucket, locked.client.prefix), "object_lock": {**LOCK, "for": 7200.0}})
    longer.keep(["services/a/x.pack"])
    after = until(locked, "services/a/x.pack")
    assert after - before > datetime.timedelta(minutes=59)
    locked.keep(["services/a/x.pack"])
    assert until(locked, "services/a/x.pack") == after


def test_a_store_that_ignores_conditions_is_refused(yes: YesStore) -> None:
    with pytest.raises(StorageError, match="ignores If-None-Match"):
        Repository.create(yes.config("shop-yes"))


def test_a_store_that_ignores_locks_is_refused(yes: YesStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="keeps no versions"):
        Repository.create(yes.config("shop-yes", object_lock=LOCK))
    # were it to keep the rest of its promises, trying the lock itself would still tell
    probe = "ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3_probe"
    for step in ("_versions", "_one_winner", "_checksums"):
        monkeypatch.setattr(f"{probe}.{step}", lambda *_arguments: None)
    with pytest.raises(StorageError, match="accepts object lock and does not keep it"):
        Repository.create(yes.config("shop-yes", object_lock=LOCK))


@pytest.mark.parametrize("step", ["_checksums", "_locks"])
def test_no_answer_is_no_refusal(store: Seaweed, buckets: dict[bool, str], prefix: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    client = "ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3_client"
    monkeypatch.setattr(f"{client}.ATTEMPTS", 1)
    with FaultyS3(store.ports[3]) as proxy:
        config = {**store.config(buckets[True], prefix), "endpoint": proxy.endpoint, "ca_file": None, "object_lock": LOCK}
        proxy.add(100, "PUT" if step == "_checksums" else "DELETE", "probe/", status=503)
        with pytest.raises(StorageError, match="is throttling"):
            getattr(s3_probe, step)(S3Backend(config))


def test_a_bucket_without_lock_does_not_do_for_a_catalog_that_asks_for_one(store: Seaweed, buckets: dict[bool, str], prefix: str) -> None:
    Repository.create(store.config(buckets[False], prefix))
    with pytest.raises(StorageError, match="keeps no versions"):
        Repository.create(store.config(buckets[False], prefix, object_lock=LOCK))


def test_what_cannot_be_reached_or_trusted_is_said(store: Seaweed, buckets: dict[bool, str], prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, good = buckets[False], store.config(buckets[False], prefix)
    Repository.create(good)
    client = "ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3_client"
    monkeypatch.setattr(f"{client}.ATTEMPTS", 1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"endpoint": "https://127.0.0.1:1"}, "does not answer"),
        ({"ca_file": None}, "certificate is not trusted"),
        ({"credentials_file": store.credentials_file("stranger", "nobody", "wrong")}, "does not accept the credentials"),
        ({"credentials_file": store.credentials_file("thief", "ownerownerowner", "wrong")}, "does not accept the credentials"),
        ({"credentials_file": "/nowhere/credentials"}, "credentials file of the repository is missing"),
        ({"profile": "nobody"}, "no credentials"),
        ({"url": f"s3://{bucket}-other/shop"}, "bucket does not exist|no repository there"),
        ({"url": f"s3://{bucket}/elsewhere"}, "no repository there"),
    ]
    for change, message in cases:
        with pytest.raises(StorageError, match=message) as caught:
            Repository.open({**good, **change})
        assert "\n" not in str(caught.value) and "canary" not in str(caught.value)
    for url in ("s3://", "s3:///x", f"s3://{bucket}/a/../b", f"s3://user:pass@{bucket}/a", f"s3://{bucket}/a?x=1"):
        with pytest.raises(ConfigError, match="bucket and a plain prefix"):
            Repository.open({**good, "url": url})


def test_a_bucket_that_another_host_made_a_moment_ago(store: Seaweed, buckets: dict[bool, str], prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = S3Backend(store.config(buckets[False], prefix))

    def not_yet(**_arguments: Any) -> None:
        raise botocore.exceptions.ClientError({"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "HeadBucket")

    monkeypatch.setattr(backend.client.api, "head_bucket", not_yet)
    assert backend.prepare() is False


def test_two_repositories_share_a_bucket_by_prefix(store: Seaweed, buckets: dict[bool, str], prefix: str) -> None:
    first, made = Repository.create(store.config(buckets[False], prefix))
    second, made_too = Repository.create(store.config(buckets[False], f"{prefix}-more/deep"))
    assert made and made_too and first is not None and second is not None and first.id != second.id
    first.backend.create("services/a/x.json", b"1", "repository")
    assert [name for name, _size in second.backend.list("")] == ["lifeboat.json"]
