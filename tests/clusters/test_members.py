# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One member of a cluster through the engine: reseeded once, put back with its primary, started where a restore never came to it, committed."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import members, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.capture import capture_service
from ansible_collections.lifeboat.recovery.tests.lab.replicated_lab import ReplicatedLab
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record

COUNT = "SELECT count(*) FROM notes"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ReplicatedLab]:
    made = ReplicatedLab(tmp_path, "db2")
    made.server.sql("CREATE TABLE notes AS SELECT generate_series(1, 1000) AS n")
    try:
        yield made
    finally:
        made.destroy()


def kept(lab: ReplicatedLab) -> list[str]:
    return sorted(f"{name}{path.name[path.name.rindex('.'):]}" for name, server in lab.servers.items() for path in Path(server.home).glob(".data.lifeboat-*"))


def test_a_restore_its_standby_and_the_way_back(lab: ReplicatedLab, tmp_path: Path) -> None:
    spec, first, second = lab.spec(tmp_path), lab.servers["db1"], lab.servers["db2"]
    capture_service(spec, run_record("20261122T100000Z-backup-aaaaaa"))
    seed = run_record("20261122T110000Z-reseed-aaaaaa", "reseed")
    assert members.reseed(spec, seed, "db2", "db1", False, True)["changed"] and members.ask(spec, "db2")["role"] == "down"
    told = members.reseed(spec, seed, "db2", "db1", False, False)
    assert told["changed"] and told["proof"]["slot"] == "lifeboat_standby_db2" and second.sql(COUNT) == [(1000,)]
    assert not members.reseed(spec, seed, "db2", "db1", False, False)["changed"], "it streams already"
    first.sql("DELETE FROM notes WHERE n > 10")

    run = run_record("20261122T120000Z-restore-aaaaaa", "restore")
    assert members.stop(spec, run, "db2", False)["changed"] and not members.stop(spec, run, "db2", False)["changed"]
    restore.go_live(spec, "latest", run)
    again = members.reseed(spec, run, "db2", "db1", False, False)
    assert again["proof"]["timeline"] == 2 and again["bytes_reused"] > 0 and second.sql(COUNT) == first.sql(COUNT) == [(1000,)]
    with pytest.raises(LifeboatError, match="takes writes: ledger.data on db1, timeline 2"):
        members.reseed(spec, run, "db1", "db2", True, False)

    back = run_record("20261122T130000Z-rollback-aaaaaa", "rollback")
    restore.roll_back(spec, back, str(run["id"]))
    returned = members.put_back(spec, back, "db2", "db1", str(run["id"]), False)
    assert returned["changed"] and returned["proof"]["timeline"] == 1, "its former data was stopped before its primary was, and goes on"
    assert second.sql(COUNT) == first.sql(COUNT) == [(10,)]
    second.stop()
    other = members.put_back(spec, back, "db2", "db1", "20261122T125959Z-restore-bbbbbb", False)
    assert other["changed"] and members.ask(spec, "db2")["role"] == "standby", "one that the restore never came to is started"
    assert kept(lab) == ["db1.aside", "db2.aside"]
    restore.commit(spec, back, str(run["id"]))
    assert members.commit(spec, back, "db2", str(run["id"]), False)["freed"] > 0
    assert not members.commit(spec, back, "db2", str(run["id"]), False)["changed"] and kept(lab) == []
