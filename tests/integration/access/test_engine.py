# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine with the credentials of one role each, in Vault and in the bucket, as the access of the catalog gives them."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import KeyAccessError, LifeboatError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import history, operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import layout
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.access.conftest import LOCK, Store, Vault, catalog, names
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site as VaultSite


class Site:
    """Services of files; who acts is chosen for each call."""

    def __init__(self, vault: Vault, store: Store, top: Path) -> None:
        self.vault, self.store, self.top = vault, store, top
        self.modes: list[str] = []
        self.bucket = f"shop-{secrets.token_hex(4)}"
        store.client("owner").create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=True)
        self.document = catalog(self.repository("owner"), vault.keys)
        vault.apply(self.document)
        store.apply({**self.document, "keys": {"provider": "file", "path": "/nowhere"}})

    def repository(self, name: str) -> dict[str, Any]:
        return {"name": "main", **self.store.repository(self.bucket, "eu/shop", name, object_lock=LOCK)}

    def tree(self, service: str) -> Path:
        return self.top / "srv" / service

    def spec(self, role: str, service: str = "orders", vault_role: str | None = None, owner: str | None = None) -> Spec:
        """The service with the credentials of one role (of service ``owner``), in Vault perhaps of another one."""
        (name,) = names(self.document, role, owner or service)
        (login,) = names(self.document, vault_role or role, owner or service)
        keys = {**self.vault.keys, "auth": {**self.vault.keys["auth"], **self.vault.login(login)}}
        del keys["restore_auth"]
        return Spec.from_dict({
            "service": service, "entry": {"sources": {"db": {"type": "files", "path": str(self.tree(service))}}}, "repository": self.repository(name),
            "keys": keys, "state_dir": str(self.top / "state"),
        })

    def captured(self) -> list[dict[str, Any]]:
        """Both services in the repository, one with a second, incremental snapshot."""
        taken = []
        for service in ("orders", "payments", "orders"):
            self.tree(service).mkdir(parents=True, exist_ok=True)
            (self.tree(service) / f"file-{len(taken)}").write_bytes(secrets.token_bytes(200_000))
            if not taken:
                operations.prepare_repository(self.spec("bootstrap"), False)
                assert self.spec("bootstrap", "payments").provider().ensure()
            taken += operations.capture(self.spec("backup", service), lease.new_run("backup"), "auto")["snapshots"]
        return taken

    def staged(self, spec: Spec, refused: str = "decrypt/orders-data") -> bool:
        """Whether a restore, as far as the staged copy, gets through; it must be for this reason if not."""
        run = lease.new_run("restore")
        try:
            operations.set_state(spec, run, "staged", "latest", "last", {"force": True}, False)
        except LifeboatError as error:
            assert refused in str(error), error
            return False
        finally:
            operations.conclude(spec, run, "failed", "only tried", False)
        return True

    def content(self, service: str = "orders") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.tree(service).iterdir()}


@pytest.fixture(scope="module")
def ecosystem(any_server: running.Server, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Captured once for all tests here: they leave it as they find it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VAULT_TOKEN", "ANSIBLE_HASHI_VAULT_TOKEN"):
            patch.delenv(name, raising=False)
        vault = Vault(VaultSite(any_server, any_server.mount("transit")), any_server.mount("approle"))
        made = Site(vault, store, tmp_path_factory.mktemp("ecosystem"))
        made.modes = [each["mode"] for each in made.captured()]
        yield made
        vault.forget()
        any_server.clean()


def test_backup_and_restore_with_their_own_credentials(ecosystem: Site) -> None:
    assert ecosystem.modes == ["full", "full", "incremental"]
    before = ecosystem.content()
    shutil.rmtree(ecosystem.tree("orders"))
    restore, run = ecosystem.spec("restore"), lease.new_run("restore")
    told = operations.set_state(restore, run, "live", "latest", "last", {}, False)
    assert told["changed"] and ecosystem.content() == before
    operations.conclude(restore, run, "verified", "", False)
    operations.set_state(restore, lease.new_run("commit"), "committed", "latest", "last", {}, False)


def test_who_looks_sees_points_and_history_and_opens_nothing(ecosystem: Site) -> None:
    operator = ecosystem.spec("operator")
    assert len(operations.snapshots(operator)["points"]) == 2
    store = operator.store()
    shown = history.read(store.backend, store.provider, store.repository.id, "orders")
    assert shown["signed"] and [run["verb"] for run in shown["runs"]][:2] == ["backup", "backup"] and shown["warnings"] == []
    with pytest.raises(KeyAccessError, match="hmac/orders-index"):
        store.tree(store.chains()[0].manifests[0])


def test_who_audits_finds_every_object_and_who_drills_opens_it(ecosystem: Site) -> None:
    told = operations.verify(ecosystem.spec("auditor"), "all", "hash")
    assert [each for each in told["findings"] if each["level"] == "error"] == [] and told["checked"]["bytes"] > 400_000
    assert operations.verify(ecosystem.spec("drill"), "latest", "decode")["findings"] == []


def test_the_backup_role_reads_no_earlier_snapshot(ecosystem: Site) -> None:
    backup = ecosystem.spec("backup")
    findings = operations.verify(backup, "all", "decode")["findings"]
    assert findings and all("decrypt/orders-data" in str(each) for each in findings if each["level"] == "error"), findings
    first = backup.store().chains()[0].manifests[0]
    sealed = backup.store().backend.read(layout.pack("orders", bytes.fromhex(first.data["packs"][0][0])), 1 << 24)
    assert not any(content[:64] in sealed for content in ecosystem.content().values())
    before = ecosystem.content()
    assert not ecosystem.staged(backup)
    assert ecosystem.content() == before


def test_one_half_of_the_credentials_is_not_enough(ecosystem: Site) -> None:
    """Rights over keys without those over objects, and the other way: neither opens anything."""
    assert not ecosystem.staged(ecosystem.spec("restore", vault_role="backup"), "decrypt/orders-data")
    assert not ecosystem.staged(ecosystem.spec("operator", vault_role="restore"), "may not read this object")


@pytest.mark.parametrize("role", ["backup", "restore"])
def test_another_service_is_out_of_reach(ecosystem: Site, role: str) -> None:
    stranger = ecosystem.spec(role, "payments", owner="orders")
    with pytest.raises(LifeboatError, match="payments"):
        operations.snapshots(stranger)
    with pytest.raises(KeyAccessError, match="payments"):
        stranger.provider().index_key()
    with pytest.raises(StorageError, match="services/payments"):
        stranger.store().backend.create("services/payments/packs/aa/aa.pack", b"x", "pack")


def test_a_widened_policy_is_noticed(ecosystem: Site) -> None:
    """The control: with decrypt, and with the other service's objects and keys, the same questions are answered."""
    server, mount = ecosystem.vault.site.server, ecosystem.vault.site.mount
    wide = f'# Lifeboat: role backup, widened\npath "{mount}/*" {{ capabilities = ["create", "read", "update"] }}'
    server.must("POST", "sys/policies/acl/lifeboat-orders-backup", {"policy": wide})
    where = f"arn:aws:s3:::{ecosystem.bucket}"
    everything = {"Sid": "Wide", "Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": [where, f"{where}/*"]}
    owner = ecosystem.store.client("owner")
    owner.put_bucket_policy(Bucket=ecosystem.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everything]}))
    assert operations.verify(ecosystem.spec("backup"), "all", "decode")["findings"] == []
    assert ecosystem.staged(ecosystem.spec("backup"))
    stranger = ecosystem.spec("backup", "payments", owner="orders")
    assert len(operations.snapshots(stranger)["points"]) == 1
    assert len(stranger.provider().index_key()) == 32
    stranger.store().backend.create("services/payments/packs/aa/aa.pack", b"x", "pack")
