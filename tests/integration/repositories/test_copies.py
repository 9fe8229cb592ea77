# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory copied to a bucket with object lock: locked there, whole after kills and a bad network, read when the directory is lost."""

from __future__ import annotations

import datetime
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease, state
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import holds, s3_client
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3 import S3Backend
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.s3_faults import FaultyS3
from ansible_collections.lifeboat.recovery.tests.integration.repositories.conftest import LOCK
from ansible_collections.lifeboat.recovery.tests.integration.repositories.test_service import Service
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed

ROOT = Path(__file__).resolve().parents[3]


class Copied(Service):
    """Its copy is made when the test says so."""

    def backup(self) -> str:
        run = {**lease.new_run("backup"), "verb": "restore"}
        operations.capture(self.spec, run, "auto")
        return str(run["id"])


def copied_to(top: Path, far: dict[str, Any]) -> Copied:
    local = {"name": "local", "url": f"file://{top / 'repository'}", "copies": [{**far, "name": "far", "copy_of": "local"}]}
    made = Copied(top, local)
    operations.prepare_repository(made.spec, False)
    return made


def copy(spec: Spec, **options: Any) -> dict[str, Any]:
    told = operations.copy(spec, lease.new_run("copy"), options.get("to", []), options.get("origin", ""), False)
    found: dict[str, Any] = told["copies"][0]
    return found


def far_objects(service: Service) -> dict[str, bytes]:
    backend = service.spec.at("far").store().backend
    return {name: backend.read(name, 1 << 30) for name, _size in backend.list("")}


def near_objects(service: Service) -> dict[str, bytes]:
    top = Path(service.spec.repository["url"][len("file://"):])
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def locked(store: Seaweed, buckets: dict[bool, str], prefix: str, tmp_path: Path) -> Copied:
    return copied_to(tmp_path, store.config(buckets[True], prefix, object_lock=LOCK))


def test_a_copy_is_locked_as_its_own_repository_says_and_restored_from_when_the_directory_is_lost(locked: Copied) -> None:
    locked.fill(1, 40 << 20)
    locked.backup()
    told = copy(locked.spec)
    assert told["problems"] == [] and far_objects(locked) == near_objects(locked)
    backend = locked.spec.at("far").store().backend
    assert isinstance(backend, S3Backend)
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=LOCK["for"] - 300)
    for name in far_objects(locked):
        head = backend.client.api.head_object(Bucket=backend.client.bucket, Key=backend.client.key(name))
        assert head["ObjectLockRetainUntilDate"] > soon, name

    # what the next snapshot shares with this one is extended there before its manifest is written
    locked.spec.repository["copies"][0]["object_lock"] = {**LOCK, "for": 3 * LOCK["for"]}
    (locked.tree / "new").write_bytes(b"new")
    locked.backup()
    assert copy(locked.spec)["problems"] == []
    (chain,) = locked.spec.store().chains()
    for pack, _size, _digest in chain.manifests[-1].data["packs"]:
        key = backend.client.key(f"services/orders/packs/{pack[:2]}/{pack}.pack")
        head = backend.client.api.head_object(Bucket=backend.client.bucket, Key=key)
        assert head["ObjectLockRetainUntilDate"] > soon + datetime.timedelta(seconds=1.5 * LOCK["for"])

    wanted = locked.content()
    shutil.rmtree(locked.spec.repository["url"][len("file://"):])
    shutil.rmtree(locked.tree)
    locked.restore()
    assert locked.content() == wanted


def test_a_copy_killed_again_and_again_completes_and_moves_nothing_twice(locked: Copied, tmp_path: Path) -> None:
    locked.fill(2, 60 << 20)
    locked.backup()
    state.write_json(str(tmp_path / "spec.json"), {
        "service": "orders", "entry": locked.spec.entry, "repository": locked.spec.repository, "keys": locked.spec.keys, "state_dir": locked.spec.state_dir,
    }, "mark")
    program = (
        "import json, sys\n"
        "from ansible_collections.lifeboat.recovery.plugins.module_utils import lease\n"
        "from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations\n"
        "from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec\n"
        "print(json.dumps(operations.copy(Spec.from_dict(json.load(open(sys.argv[1]))), lease.new_run('copy'), [], '', False)['copies'][0]))\n"
    )

    def run(fault: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program, str(tmp_path / "spec.json")], capture_output=True, text=True, timeout=120, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "LIFEBOAT_FAULT": fault})

    # in the middle of a pack's parts, after a pack, before and after the manifest
    for fault in ("pack.write.after:2", "pack.link.after", "manifest.link.before:2", "manifest.link.after"):
        assert run(fault).returncode == -signal.SIGKILL, fault
        written = {name for name, _size in locked.spec.at("far").store().backend.list("services/orders/snapshots/")}
        assert written == ({"services/orders/snapshots/files/000000000001.json"} if fault == "manifest.link.after" else set())
    last = run("")
    assert last.returncode == 0, last.stderr
    assert '"objects": 0' in last.stdout and far_objects(locked) == near_objects(locked)
    assert operations.verify(locked.spec, "all", "decode", "far")["ok"]


@pytest.mark.parametrize("fault", [{"reset": True}, *(pytest.param(fault, marks=pytest.mark.soak) for fault in ({"status": 503}, {"lose": True}))], ids=str)
def test_a_bad_network_delays_a_copy_and_spoils_nothing(store: Seaweed, buckets: dict[bool, str], prefix: str, tmp_path: Path, fault: dict[str, Any],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyS3(store.ports[3]) as proxy:
        service = copied_to(tmp_path, {**store.config(buckets[False], prefix), "endpoint": proxy.endpoint, "ca_file": None})
        service.fill(3)
        service.backup()
        for method in ("PUT", "POST", "GET", "HEAD"):
            proxy.add(1, method, "services", **fault)
        assert copy(service.spec)["problems"] == [] and far_objects(service) == near_objects(service)

        # away for good: told as a problem of the copy, and a listing that hides what is there is no reason to write it again
        monkeypatch.setattr(s3_client, "ATTEMPTS", 2)
        (service.tree / "new").write_bytes(random.Random(4).randbytes(100_000))
        service.backup()
        if "lose" not in fault:
            proxy.add(10_000, "PUT", "packs", **fault)
            assert "cannot write in the repository" in copy(service.spec)["problems"][0]["what"]
            proxy.faults.clear()
        proxy.add(10_000, "GET", "list-type", hide="000000000001.json")
        before = len(proxy.seen)
        assert copy(service.spec)["problems"] == []
        assert not [line for line in proxy.seen[before:] if line.startswith("PUT") and "000000000001.json" in line]
        proxy.faults.clear()
        assert far_objects(service) == near_objects(service)


# -- older versions of a bucket


@pytest.fixture
def versioned(store: Seaweed, buckets: dict[bool, str], prefix: str, tmp_path: Path) -> Copied:
    """One repository, in a bucket that keeps versions, and no copy."""
    made = Copied(tmp_path, store.config(buckets[True], prefix, object_lock=LOCK))
    operations.prepare_repository(made.spec, False)
    made.fill(5)
    made.backup()
    return made


KINDS = ("packs", "trees", "keys", "snapshots")


@pytest.mark.parametrize("how", [*(pytest.param(how, marks=pytest.mark.soak) for how in ("deleted", "overwritten")), "overwritten twice and deleted"])
def test_what_was_deleted_or_overwritten_is_read_from_its_older_version_and_repaired(versioned: Copied, how: str) -> None:
    backend = versioned.spec.store().backend
    assert isinstance(backend, S3Backend)
    hurt = [next(name for name, _size in backend.list(f"services/orders/{kind}/")) for kind in KINDS]
    whole = {name: backend.read(name, 1 << 30) for name, _size in backend.list("")}
    for name in hurt:
        target = {"Bucket": backend.client.bucket, "Key": backend.client.key(name)}
        for _time in range({"deleted": 0, "overwritten": 1}.get(how, 2)):
            backend.client.api.put_object(**target, Body=os.urandom(len(whole[name])))
        if "deleted" in how:
            backend.client.api.delete_object(**target)
    found = operations.verify(versioned.spec, "all", "hash")
    assert not found["ok"]
    assert {one["where"].rpartition("object ")[2] for one in found["findings"] if "the bucket keeps an older version" in one["remedy"]} >= set(hurt[-1:])

    wanted = versioned.content()
    shutil.rmtree(versioned.tree)
    run = lease.new_run("restore")
    told = restore.preflight(versioned.spec, "latest", run)
    assert told["ok"], told["findings"]
    assert any("read from repository s3 (older versions)" in finding["what"] for finding in told["findings"])
    versioned.restore()
    assert versioned.content() == wanted

    run = lease.new_run("copy")
    repaired = operations.copy(versioned.spec, run, ["s3"], "", False, True)
    assert repaired["ok"] and repaired["copies"][0]["objects"] == len(hurt)
    again = versioned.spec.store().backend
    assert {name: again.read(name, 1 << 30) for name in whole} == whole
    assert operations.verify(versioned.spec, "all", "decode")["findings"] == []


def test_a_repository_whose_descriptor_was_deleted_is_read_and_names_it(versioned: Copied) -> None:
    backend = versioned.spec.store().backend
    assert isinstance(backend, S3Backend)
    backend.client.api.delete_object(Bucket=backend.client.bucket, Key=backend.client.key("lifeboat.json"))
    with pytest.raises(StorageError, match="descriptor is missing"):
        versioned.spec.store()
    assert [point["complete"] for point in operations.snapshots(versioned.spec)["points"]] == [True]


def test_a_hold_outlives_the_lock_and_frees_only_what_no_other_hold_needs(store: Seaweed, buckets: dict[bool, str], prefix: str, tmp_path: Path) -> None:
    service = Copied(tmp_path, store.config(buckets[True], prefix, object_lock={"mode": "governance", "for": 1.0}))
    operations.prepare_repository(service.spec, False)
    service.fill(6, 1 << 20)
    first = service.backup()
    (service.tree / "new").write_bytes(b"new")
    second = service.backup()
    run = lease.new_run("hold")
    for point in (first, second):
        operations.hold(service.spec, run, point, "set", "case 4711", False)
    opened = service.spec.store()
    older, newer = opened.chains()[0].manifests
    backend = opened.backend
    assert isinstance(backend, S3Backend)
    api, bucket = backend.client.api, backend.client.bucket

    def status(name: str) -> str:
        return str(api.get_object_legal_hold(Bucket=bucket, Key=backend.client.key(name))["LegalHold"]["Status"])

    needed = {manifest.id: set(holds.closure(opened, manifest)) for manifest in (older, newer)}
    assert {status(name) for names in needed.values() for name in names} == {"ON"}
    time.sleep(1.2)  # the lock is over
    name = next(iter(sorted(needed[older.id])))
    version = api.head_object(Bucket=bucket, Key=backend.client.key(name))["VersionId"]
    with pytest.raises(botocore.exceptions.ClientError):
        api.delete_object(Bucket=bucket, Key=backend.client.key(name), VersionId=version, BypassGovernanceRetention=True)
    operations.hold(service.spec, run, first, "clear", "", False)
    assert {status(name) for name in needed[newer.id]} == {"ON"}
    assert {status(name) for name in needed[older.id] - needed[newer.id]} == {"OFF"} and needed[older.id] - needed[newer.id]
