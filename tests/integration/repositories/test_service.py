# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service captured to a bucket and brought back from it, over a good and over a bad network."""

from __future__ import annotations

import datetime
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import controls, operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import layout, s3_client, s3_read
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3 import S3Backend
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.s3_faults import FaultyS3
from ansible_collections.lifeboat.recovery.tests.integration.repositories.conftest import LOCK
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed

Content = dict[str, bytes]


class Service:
    """One directory of files, its keys, and a repository in a bucket."""

    def __init__(self, top: Path, repository: dict[str, Any]) -> None:
        self.tree = top / "srv" / "tree"
        self.spec = Spec.from_dict({
            "service": "orders", "entry": {"sources": {"files": {"type": "files", "path": str(self.tree)}}}, "repository": repository,
            "keys": {"provider": "file", "path": str(top / "keys"), "private_path": str(top / "private")}, "state_dir": str(top / "state"),
        })
        self.tree.mkdir(parents=True)

    def fill(self, seed: int, size: int = 12 << 20) -> None:
        numbers = random.Random(seed)
        (self.tree / "big").write_bytes(numbers.randbytes(size))
        for number in range(20):
            (self.tree / f"small-{seed}-{number}").write_bytes(numbers.randbytes(numbers.randrange(5000)))

    def content(self) -> Content:
        return {str(path.relative_to(self.tree)): path.read_bytes() for path in self.tree.rglob("*") if path.is_file()} if self.tree.exists() else {}

    def backup(self) -> str:
        run = lease.new_run("backup")
        told = operations.capture(self.spec, run, "auto")
        assert len(told["snapshots"]) == 1
        return str(run["id"])

    def restore(self, target: str = "latest") -> None:
        run, verdict = lease.new_run("restore"), "failed"
        try:
            restore.stage(self.spec, target, run)
            restore.go_live(self.spec, target, run)
            verdict = "restored"
        finally:
            restore.mark_verified(self.spec, run, verdict)


@pytest.fixture
def service(store: Seaweed, buckets: dict[bool, str], prefix: str, tmp_path: Path) -> Service:
    made = Service(tmp_path, store.config(buckets[True], prefix, object_lock=LOCK))
    operations.prepare_repository(made.spec, False)
    return made


@pytest.fixture
def faulty(store: Seaweed) -> Iterator[FaultyS3]:
    with FaultyS3(store.ports[3]) as proxy:
        yield proxy


@pytest.fixture
def unlucky(faulty: FaultyS3, store: Seaweed, buckets: dict[bool, str], prefix: str, tmp_path: Path) -> Service:
    config = {**store.config(buckets[False], prefix), "endpoint": faulty.endpoint, "ca_file": None}
    made = Service(tmp_path, config)
    operations.prepare_repository(made.spec, False)
    return made


def test_captured_changed_lost_and_brought_back(service: Service) -> None:
    service.fill(1)
    first, before = service.backup(), service.content()
    (service.tree / "new").write_bytes(b"new")
    second, after = service.backup(), service.content()
    told = operations.verify(service.spec, "latest", "decode")
    assert told["findings"] == [] and told["checked"]["snapshots"] == 1
    shutil.rmtree(service.tree)
    service.restore()
    assert service.content() == after
    service.restore(first)
    assert service.content() == before and first != second


def test_who_reads_sees_the_lock_that_the_store_has_and_its_clock(service: Service) -> None:
    service.fill(1, size=1 << 20)
    service.backup()
    for behind, count in ((0, 0), (100, 1)):
        found = restore.preflight(service.spec, "latest", lease.new_run("restore"), clock=lambda late=behind: time.time() - late)["findings"]
        skewed = [one for one in found if one["kind"] == "clock" and one["cause"] == service.spec.repository["url"]]
        assert len(skewed) == count and len(found) == 2 * count, found  # the snapshot is from the future too
    for store in (service.spec.store(), service.spec.reading_store()):
        (manifest,) = (each for chain in store.chains() for each in chain.manifests)
        assert controls.observed(store, [manifest])["files"]["locked_until"]


def test_what_a_snapshot_shares_with_an_older_one_is_locked_as_long_as_itself(service: Service) -> None:
    service.fill(1)
    service.backup()
    backend = service.spec.store().backend
    assert isinstance(backend, S3Backend)
    names = {name for name, _size in backend.list("services/orders/") if "/packs/" in name or "/keys/" in name}

    def until(name: str) -> datetime.datetime:
        moment: datetime.datetime = backend.client.api.head_object(Bucket=backend.client.bucket, Key=backend.client.key(name))["ObjectLockRetainUntilDate"]
        return moment

    before = {name: until(name) for name in names}
    (service.tree / "new").write_bytes(b"new")
    service.spec.repository["object_lock"] = {**LOCK, "for": 2 * LOCK["for"]}
    service.backup()
    (chain,) = service.spec.store().chains()
    newest = chain.manifests[-1]
    needed = {layout.pack("orders", bytes.fromhex(pack)) for pack, _size, _digest in newest.data["packs"]}
    needed |= {layout.key("orders", key) for key in newest.data["keys"]}
    shared = needed & names
    assert len(shared) >= 2 and needed - shared
    assert {name: str(until(name) - before[name]) for name in shared if until(name) - before[name] < datetime.timedelta(minutes=59)} == {}
    assert {name: str(until(newest.name) - until(name)) for name in needed if until(newest.name) - until(name) > datetime.timedelta(seconds=30)} == {}


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 500}, {"reset": True}, {"cut": 1000}, {"lose": True}], ids=str)
def test_a_passing_fault_is_survived(unlucky: Service, faulty: FaultyS3, fault: dict[str, Any]) -> None:
    unlucky.fill(2)
    for method in ("PUT", "POST", "GET", "HEAD"):
        if not ("cut" in fault and method != "GET"):
            faulty.add(1, method, "services", **fault)
    unlucky.backup()
    wanted = unlucky.content()
    shutil.rmtree(unlucky.tree)
    for method in ("GET", "HEAD"):
        if not ("cut" in fault and method != "GET"):
            faulty.add(1, method, "services", **fault)
    unlucky.restore()
    assert unlucky.content() == wanted
    # all of them happened: a capture may have no reason to read
    assert [one for one in faulty.faults if one["left"] and one["method"] == "PUT"] == []


@pytest.mark.parametrize("fault", [{"status": 503}, {"reset": True}], ids=str)
def test_a_lasting_fault_is_no_success_and_the_next_run_completes(unlucky: Service, faulty: FaultyS3, fault: dict[str, Any],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (s3_client, s3_read):
        monkeypatch.setattr(module, "ATTEMPTS", 2)
    unlucky.fill(3)
    faulty.add(10_000, "PUT", "packs", **fault)
    with pytest.raises(StorageError, match="cannot write in the repository") as caught:
        unlucky.backup()
    assert "\n" not in str(caught.value)
    faulty.faults.clear()
    unlucky.backup()
    wanted = unlucky.content()
    (unlucky.tree / "big").write_bytes(b"damaged")
    spoiled = unlucky.content()
    faulty.add(10_000, "GET", "packs", **fault)
    with pytest.raises(LifeboatError):
        unlucky.restore()
    assert unlucky.content() == spoiled
    faulty.faults.clear()
    unlucky.restore()
    assert unlucky.content() == wanted


def test_a_listing_that_leaves_out_the_newest_hides_nothing(unlucky: Service, faulty: FaultyS3) -> None:
    unlucky.fill(4, 1 << 20)
    unlucky.backup()
    unlucky.fill(5, 1 << 20)
    newest = unlucky.backup()
    os.unlink(unlucky.spec.path("marks.json"))  # a host that knows nothing of what there should be
    faulty.add(10_000, "GET", "list-type", hide="000000000002.json")
    points = operations.snapshots(unlucky.spec)["points"]
    assert newest in [point["id"] for point in points]
