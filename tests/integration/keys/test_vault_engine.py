# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine with keys in Vault: captured with the backup role alone, restored with the restore role alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import KeyAccessError, LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record


def spec_for(service: FilesService, site: Site, role: str) -> Spec:
    """The service as a host with the credentials of one role sees it."""
    return Spec.from_dict({**service.document, "keys": site.config(site.token(role, "docs"))})


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
