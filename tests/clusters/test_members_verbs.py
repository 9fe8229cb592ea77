# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A primary and its standby through the verbs: seeded, failed over, captured where the primary is, restored with its standby, and put back."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Iterator

import pytest
import yaml

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour
from ansible_collections.lifeboat.recovery.tests.lab.replicated_lab import ReplicatedLab

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


def test_a_cluster_that_fails_over_is_captured_restored_and_put_back_with_its_standby(harbour: Harbour, lab: ReplicatedLab) -> None:
    place = inventory(harbour, lab)
    first, second = lab.servers["db1"], lab.servers["db2"]
    harbour.succeed("bootstrap", catalog=place)
    harbour.succeed("backup", catalog=place)
    seeded = harbour.succeed("reseed", catalog=place)
    assert seeded.verdicts() == {"ledger": "verified"} and "db2 streams from db1" in seeded.message("ledger")
    assert second.sql(COUNT) == [(1000,)] and lab.ask("db1")["standbys"][0]["state"] == "streaming"
    assert harbour.succeed("reseed", catalog=place).changed() == {"ledger": 0}

    first.crash()
    lab.promote("db2")
    second.sql("INSERT INTO notes SELECT generate_series(1001, 1500)")
    assert harbour.succeed("backup", catalog=place).verdicts() == {"ledger": "captured"}
    manifests = [json.loads(path.read_text())["data"] for path in sorted(harbour.repository.glob("services/ledger/snapshots/db/*.json"))]
    assert [manifest["facts"]["data_directory"] for manifest in manifests] == [first.data, second.data]
    harbour.succeed("reseed", "-e", "lifeboat_members=db1", catalog=place)
    assert lab.ask("db1")["role"] == "standby" and first.sql(COUNT) == [(1500,)]

    second.sql("DELETE FROM notes WHERE n > 10")
    restored = harbour.succeed("restore", catalog=place)
    assert restored.verdicts() == {"ledger": "verified"}
    assert second.sql(COUNT) == [(1500,)] and first.sql(COUNT) == [(1500,)]
    assert lab.ask("db2")["role"] == "primary" and lab.ask("db1")["timeline"] == lab.ask("db2")["timeline"] == 3

    back = harbour.succeed("rollback", catalog=place)
    assert back.verdicts() == {"ledger": "rolled_back"}
    assert second.sql(COUNT) == [(10,)] and lab.ask("db1")["timeline"] == lab.ask("db2")["timeline"] == 2
    second.sql("INSERT INTO notes VALUES (0)")
    harbour.succeed("commit", catalog=place)
    assert not [name for server in lab.servers.values() for name in pathlib.Path(server.home).iterdir() if "lifeboat" in name.name and name.name != "log"]
