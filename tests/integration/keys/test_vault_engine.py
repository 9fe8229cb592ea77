# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine with keys in Vault: captured with the backup role alone, restored with the restore role alone."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import KeyAccessError, LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record


def spec_for(service: FilesService, site: Site, role: str, **options: Any) -> Spec:
    """The service as a host with the credentials of one role sees it."""
    return Spec.from_dict({**service.document, "keys": site.config(site.token(role, "docs"), **options)})


def content(root: Path) -> dict[str, bytes]:
    return {str(each.relative_to(root)): each.read_bytes() for each in sorted(root.rglob("*")) if each.is_file() and not each.is_symlink()}


def test_each_role_does_its_work_and_no_more(site: Site, tmp_path: Path) -> None:
    service = FilesService(tmp_path)
    service.fill()
    bootstrap, backup, restore = (spec_for(service, site, role) for role in ("bootstrap", "backup", "restore"))
    assert bootstrap.provider().ensure()
    assert operations.prepare_repository(backup, check=False)["made"] == ["repository"]
    first = operations.capture(backup, run_record("20260101T000000Z-backup-000001"), "auto")["snapshots"][0]
    second = operations.capture(backup, run_record("20260101T000100Z-backup-000002"), "auto")["snapshots"][0]
    assert first["chunks_new"] > 0
    assert (second["mode"], second["chunks_new"]) == ("incremental", 0)
    before = content(service.tree)

    denied = operations.verify(backup, "latest", "decode")["findings"]
    assert any("decrypt/docs-data" in str(each) for each in denied), denied
    assert operations.verify(restore, "latest", "decode")["findings"] == []

    shutil.rmtree(service.tree)
    refused = run_record("20260101T000200Z-restore-000003", "restore")
    with pytest.raises(LifeboatError, match="decrypt/docs-data"):
        operations.set_state(backup, refused, "staged", "latest", "last", {}, False)
    operations.conclude(backup, refused, "failed", "the backup role opens nothing", False)
    assert not service.tree.exists()
    told = operations.set_state(restore, run_record("20260101T000300Z-restore-000004", "restore"), "live", "latest", "last", {}, False)
    assert told["changed"]
    assert content(service.tree) == before


def test_sealed_vault_stops_a_backup_before_anything_is_stored(own_site: Site, tmp_path: Path) -> None:
    service = FilesService(tmp_path)
    service.fill(3)
    assert spec_for(service, own_site, "bootstrap").provider().ensure()
    backup = spec_for(service, own_site, "backup")
    operations.prepare_repository(backup, check=False)
    operations.capture(backup, run_record("20260101T000000Z-backup-000001"), "auto")
    objects = service.objects()
    (service.tree / "more").write_text("more")
    own_site.server.seal()
    with pytest.raises(KeyAccessError, match="Vault is sealed"):
        operations.capture(backup, run_record("20260101T000100Z-backup-000002"), "auto")
    assert service.objects() == objects
    own_site.server.unseal()
    assert operations.capture(backup, run_record("20260101T000200Z-backup-000003"), "auto")["snapshots"][0]["sequence"] == 2


# ---- in the middle ------------------------------------------------------------------------------------------------


class Once:
    """Does something at the first pass of a fault point, in the middle of the engine's work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, point: str, act: Callable[[], object]) -> None:
        self.passed = 0
        lock = threading.Lock()

        def reached(name: str) -> None:
            with lock:
                first = name == point and not self.passed
                self.passed += name == point
                if first:
                    act()

        monkeypatch.setattr(faults, "point", reached)


def drop_everything(site: Site) -> None:
    site.server.faults(*[{"drop": True}] * 100)


def answer_late(site: Site) -> None:
    site.server.faults(*[{"stall": 30}] * 20)


#: what happens to a server that the tests may break: (what, how, its end, what a backup says)
TROUBLES: dict[str, tuple[str, Callable[[Site], object], Callable[[Site], object], str]] = {
    "sealed": ("own", lambda site: site.server.seal(), lambda site: site.server.unseal(), "Vault is sealed, asked 2 times: {url}/v1/{mount}/sign/docs-sign"),
    "down": ("double", drop_everything, lambda site: site.server.faults(), "Vault cannot be reached, asked 2 times: {url}/v1/{mount}/sign/docs-sign"),
    "slow": ("double", answer_late, lambda site: site.server.faults(), "Vault timed out, asked 2 times: {url}/v1/{mount}/sign/docs-sign"),
}
KINDS = [(kind, name) for name, trouble in TROUBLES.items() for kind in (running.own_kinds() if trouble[0] == "own" else ["double"])]


@pytest.fixture(params=KINDS, ids=lambda pair: f"{pair[1]}-{pair[0]}")
def troubled(request: pytest.FixtureRequest) -> Iterator[tuple[Site, str]]:
    kind, name = request.param
    with running.start(kind) as server:
        yield Site(server, server.mount("transit")), name


def established(site: Site, home: Path, name: str = "") -> tuple[FilesService, dict[str, Spec]]:
    """A service with one snapshot, and what the hosts of two roles know of it. Who waits for a slow server waits shorter than it stalls."""
    service = FilesService(home)
    service.fill(3)
    assert spec_for(service, site, "bootstrap").provider().ensure()
    specs = {role: spec_for(service, site, role, timeout=5 if name == "slow" else 60, retries=1) for role in ("backup", "restore")}
    operations.prepare_repository(specs["backup"], check=False)
    operations.capture(specs["backup"], run_record("20260101T000000Z-backup-000001"), "auto")
    (service.tree / "more").write_bytes(os.urandom(3 << 20))
    return service, specs


def test_vault_goes_away_in_the_middle_of_a_backup(troubled: tuple[Site, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, name = troubled
    _which, begin, end, said = TROUBLES[name]
    service, specs = established(site, tmp_path, name)
    with monkeypatch.context() as patch:
        once = Once(patch, "pack.write.before", lambda: begin(site))
        with pytest.raises(KeyAccessError) as caught:
            operations.capture(specs["backup"], run_record("20260101T000100Z-backup-000002"), "auto")
    assert once.passed
    assert str(caught.value).startswith(said.format(url=site.server.url, mount=site.mount)) and "\n" not in str(caught.value)
    end(site)
    assert len(operations.snapshots(specs["restore"])["snapshots"]) == 1
    again = operations.capture(specs["backup"], run_record("20260101T000200Z-backup-000003"), "auto")["snapshots"][0]
    assert again["sequence"] == 2
    assert operations.verify(specs["restore"], "latest", "decode")["findings"] == []
    assert content(service.tree)["more"]


def test_vault_goes_away_in_the_middle_of_a_restore_that_has_its_keys(
    troubled: tuple[Site, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, name = troubled
    _which, begin, end, _said = TROUBLES[name]
    service, specs = established(site, tmp_path, name)
    operations.capture(specs["backup"], run_record("20260101T000100Z-backup-000002"), "auto")
    before = content(service.tree)
    shutil.rmtree(service.tree)
    with monkeypatch.context() as patch:
        once = Once(patch, "stage.write.before", lambda: begin(site))
        told = operations.set_state(specs["restore"], run_record("20260101T000200Z-restore-000003", "restore"), "live", "latest", "last", {}, False)
    assert once.passed and told["changed"]
    assert content(service.tree) == before
    end(site)


def test_vault_that_is_away_before_a_restore_has_its_keys_stops_it_and_the_run_resumes(troubled: tuple[Site, str], tmp_path: Path) -> None:
    site, name = troubled
    _which, begin, end, said = TROUBLES[name]
    service, specs = established(site, tmp_path, name)
    before = content(service.tree)
    run = run_record("20260101T000100Z-restore-000002", "restore")
    begin(site)
    with pytest.raises(KeyAccessError) as caught:
        operations.set_state(specs["restore"], run, "live", "latest", "last", {}, False)
    assert str(caught.value).startswith(said.partition(":")[0]) and "\n" not in str(caught.value)
    assert content(service.tree) == before
    end(site)
    told = operations.set_state(specs["restore"], run, "live", "latest", "last", {}, False)
    assert told["changed"] and set(content(service.tree)) == set(before) - {"more"}


def test_token_that_ends_in_the_middle_of_a_backup_is_named_or_replaced(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, specs = established(site, tmp_path)
    token = specs["backup"].keys["token"]
    with monkeypatch.context() as patch:
        Once(patch, "pack.write.before", lambda: site.server.must("POST", "auth/token/revoke", {"token": token}))
        with pytest.raises(KeyAccessError) as caught:
            operations.capture(specs["backup"], run_record("20260101T000100Z-backup-000002"), "auto")
    text = str(caught.value)
    assert text.startswith(f"the Vault token is expired, revoked or unknown (needed: 'update' on {site.mount}/sign/docs-sign)")
    assert "(lifeboat-docs-backup)" in text and token not in text and "\n" not in text
    assert len(operations.snapshots(specs["restore"])["snapshots"]) == 1
    # the same with an AppRole: nobody notices
    host = Spec.from_dict({**service.document, "keys": site.approle("backup", "docs", token_ttl="1h")})
    with monkeypatch.context() as patch:
        revoke = f"sys/leases/revoke-prefix/auth/{host.keys['mount_point']}/login"
        once = Once(patch, "capture.source.done", lambda: site.server.must("POST", revoke))
        taken = operations.capture(host, run_record("20260101T000200Z-backup-000003"), "auto")["snapshots"][0]
    assert once.passed and taken["sequence"] == 2
    assert operations.verify(specs["restore"], "latest", "decode")["findings"] == []


def test_token_that_ended_before_a_restore_has_its_keys_leaves_live_data_and_resumes(site: Site, tmp_path: Path) -> None:
    service, specs = established(site, tmp_path)
    before = content(service.tree)
    token = specs["restore"].keys["token"]
    run = run_record("20260101T000100Z-restore-000002", "restore")
    site.server.must("POST", "auth/token/revoke", {"token": token})
    with pytest.raises(LifeboatError, match=f"expired, revoked or unknown .needed: 'read' on {site.mount}/keys/docs-sign.*lifeboat-docs-auditor") as caught:
        operations.set_state(specs["restore"], run, "live", "latest", "last", {}, False)
    assert token not in str(caught.value)
    assert content(service.tree) == before
    told = operations.set_state(spec_for(service, site, "restore"), run, "live", "latest", "last", {}, False)
    assert told["changed"] and set(content(service.tree)) == set(before) - {"more"}


def test_token_that_ends_in_the_middle_of_a_restore_stops_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, specs = established(site, tmp_path)
    operations.capture(specs["backup"], run_record("20260101T000100Z-backup-000002"), "auto")
    before = content(service.tree)
    shutil.rmtree(service.tree)
    with monkeypatch.context() as patch:
        Once(patch, "restore.stage.begin", lambda: site.server.must("POST", "auth/token/revoke", {"token": specs["restore"].keys["token"]}))
        told = operations.set_state(specs["restore"], run_record("20260101T000200Z-restore-000003", "restore"), "live", "latest", "last", {}, False)
    assert told["changed"] and content(service.tree) == before
