# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A primary and its standby through the verbs: seeded, failed over, captured where the primary is, restored with its standby, and put back."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Any, Iterator

import pytest
import yaml

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import members
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.capture import capture_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour
from ansible_collections.lifeboat.recovery.tests.lab.replicated_lab import ReplicatedLab
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record

COUNT = "SELECT count(*) FROM notes"


@pytest.fixture
def harbour() -> Iterator[Harbour]:
    with Harbour({}) as made:
        yield made


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> Iterator[ReplicatedLab]:
    made = ReplicatedLab(tmp_path, "db2")
    made.server.sql("CREATE TABLE notes AS SELECT generate_series(1, 1000) AS n")
    try:
        yield made
    finally:
        made.destroy()


def inventory(harbour: Harbour, lab: ReplicatedLab) -> pathlib.Path:
    """A directory with the machines, which are all this one, and the catalog."""
    place = harbour.home / "inventory"
    place.mkdir(exist_ok=True)
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": dict.fromkeys(lab.servers, local)}}))
    source = lab.entry["sources"]["data"]
    (place / "bank.catalog.yml").write_text(yaml.safe_dump({
        "plugin": "lifeboat.recovery.catalog", "ecosystem": "bank", "state_dir": str(harbour.state),
        "repositories": {"local": {"url": f"file://{harbour.repository}"}},
        "keys": {"provider": "file", "path": str(harbour.home / "keys" / "host"), "private_path": str(harbour.home / "keys" / "private")},
        "services": {"ledger": {
            "host": "db1", "sources": {"db": {**source, "members": lab.entry["members"]["data"]}},
            "health": [{"sql": "select 1", "database": "postgres", "equals": 1}],
            "invariants": [{"name": "no number twice", "sql": "select count(*) - count(distinct n) from notes", "equals": 0}],
        }},
    }))
    return place


def prepared(harbour: Harbour, lab: ReplicatedLab) -> Spec:
    """Repository and keys, a snapshot of db1, and db2 as its standby."""
    spec = Spec.from_dict({
        "service": "ledger", "entry": renamed(lab.entry), "repository": {"name": "local", "url": f"file://{harbour.repository}"},
        "state_dir": str(harbour.state),
        "keys": {"provider": "file", "path": str(harbour.home / "keys" / "host"), "private_path": str(harbour.home / "keys" / "private")},
    })
    spec.provider().ensure()
    Repository.create(spec.repository)
    capture_service(spec, run_record("20261122T100000Z-backup-aaaaaa"))
    return spec


def renamed(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "sources": {"db": entry["sources"]["data"]}, "members": {"db": entry["members"]["data"]}}


@pytest.mark.soak
def test_a_standby_is_seeded_and_after_a_failover_the_new_primary_is_captured(harbour: Harbour, lab: ReplicatedLab) -> None:
    place, spec, second = inventory(harbour, lab), prepared(harbour, lab), lab.servers["db2"]
    seeded = harbour.succeed("reseed", catalog=place)
    assert seeded.verdicts() == {"ledger": "verified"} and "db2 streams from db1" in seeded.message("ledger")
    assert second.sql(COUNT) == [(1000,)] and lab.ask("db1")["standbys"][0]["state"] == "streaming"
    assert harbour.succeed("reseed", catalog=place).changed() == {"ledger": 0}
    lab.promote("db2")
    refused = harbour.play("backup", catalog=place)
    assert refused.code != 0 and "split brain" in refused.text and "db1 (primary on timeline 1" in refused.text and "db2 (primary on timeline 2" in refused.text
    lab.server.crash()
    assert harbour.succeed("backup", catalog=place).verdicts() == {"ledger": "captured"}
    # the catalog's host is down: who looks is told by the other one, and what is extracted goes to the primary
    told = harbour.succeed("status", catalog=place).text
    assert "ledger: server db1: down" in told and "ledger: server db2: primary on timeline 2" in told and "WRONG" not in told
    assert "backup" in harbour.succeed("points", catalog=place).text
    assert harbour.succeed("verify", catalog=place).verdicts() == {"ledger": "verified"}
    asked = ["lifeboat_services=ledger", "lifeboat_database=postgres", "lifeboat_tables=public.notes", "lifeboat_as=before"]
    harbour.succeed("extract", *[part for word in asked for part in ("-e", word)], catalog=place)
    assert second.sql("SELECT count(*) FROM before.notes") == [(1000,)]
    (chain,) = spec.store().chains()
    assert [manifest.data["facts"]["data_directory"] for manifest in chain.manifests] == [lab.server.data, second.data]


@pytest.mark.soak
def test_a_cluster_is_restored_where_its_primary_is_and_put_back_with_its_standby(harbour: Harbour, lab: ReplicatedLab) -> None:
    place, spec = inventory(harbour, lab), prepared(harbour, lab)
    first, second = lab.servers["db1"], lab.servers["db2"]
    members.reseed(spec, run_record("20261122T110000Z-reseed-aaaaaa", "reseed"), "db2", "db1", False, False)
    first.crash()
    lab.promote("db2")
    moved = dataclasses.replace(spec, entry=cluster_members.entry_at(spec.entry, "db2"))
    capture_service(moved, run_record("20261122T120000Z-backup-aaaaaa"))
    members.reseed(spec, run_record("20261122T130000Z-reseed-aaaaaa", "reseed"), "db1", "db2", False, False)
    second.sql("DELETE FROM notes WHERE n > 10")

    restored = harbour.succeed("restore", catalog=place)
    assert restored.verdicts() == {"ledger": "verified"}
    assert second.sql(COUNT) == [(1000,)] and first.sql(COUNT) == [(1000,)]
    assert lab.ask("db2")["role"] == "primary" and lab.ask("db1")["timeline"] == lab.ask("db2")["timeline"] == 3

    back = harbour.succeed("rollback", catalog=place)
    assert back.verdicts() == {"ledger": "rolled_back"}
    assert second.sql(COUNT) == [(10,)] and lab.ask("db1")["timeline"] == lab.ask("db2")["timeline"] == 2
    second.sql("INSERT INTO notes VALUES (0)")
    processes.wait_for(lambda: first.sql(COUNT) == [(11,)], "the standby to follow", 60)
    harbour.succeed("commit", catalog=place)
    assert not list(pathlib.Path(second.home).glob(".data.lifeboat-*"))
