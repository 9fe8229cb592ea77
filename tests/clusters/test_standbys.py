# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Standbys of real servers: seeded from a snapshot, reseeded with what they still have, after a restore, and failovers in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import SourceError
from ansible_collections.lifeboat.recovery.tests.lab.replicated_lab import ReplicatedLab

ROWS = "SELECT count(*), sum(id) FROM public.t"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ReplicatedLab]:
    made = ReplicatedLab(tmp_path, "db2")
    made.server.sql("CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 8) AS v FROM generate_series(1, 20000) g")
    made.server.sql("CHECKPOINT")
    try:
        yield made
    finally:
        made.destroy()


def test_a_lost_standby_comes_back_from_the_repository_and_later_with_what_it_still_has(lab: ReplicatedLab) -> None:
    reader = lab.bench.capture()[0]
    lab.server.sql("INSERT INTO t SELECT g FROM generate_series(20001, 20100) g")
    first = lab.reseed("db2", "db1", reader)
    assert first["bytes_reused"] == 0 and not first["displaced"]
    assert lab.servers["db2"].sql(ROWS) == lab.server.sql(ROWS), "what was written since the snapshot was streamed"
    (seen,) = lab.ask("db1")["standbys"]
    assert (seen["slot"], seen["state"], seen["name"]) == ("lifeboat_standby_db2", "streaming", "db2")
    lab.servers["db2"].stop()
    lab.server.sql("UPDATE t SET v = 'changed' WHERE id <= 100")
    lab.server.sql("CHECKPOINT")
    again = lab.reseed("db2", "db1", lab.bench.capture()[0])
    assert again["displaced"] and again["bytes_reused"] > 10 << 20 and again["bytes_fetched"] < (32 << 20) + (4 << 20), "pages are those it has; log is new"
    assert lab.servers["db2"].sql("SELECT count(*) FROM t WHERE v = 'changed'") == [(100,)]
    writer = lab.servers["db2"]
    writer.sql("SELECT pg_promote(true, 60)")
    bench = lab.member("db2", "db1")
    assert "takes writes" in "".join(bench.errors(bench.source.preflight_restore(bench.context, reader.manifest))), "a second primary is never made a standby"


def test_the_log_of_the_repository_leads_to_what_the_primary_still_has(lab: ReplicatedLab) -> None:
    lab.slot()
    reader = lab.bench.capture()[0]
    for number in range(3):
        lab.server.sql(f"INSERT INTO t SELECT g FROM generate_series({20001 + 100 * number}, {20100 + 100 * number}) g")
        lab.server.sql("SELECT pg_switch_wal()")
    timeline, end = lab.receive()
    lab.server.sql("SELECT pg_drop_replication_slot('lab')")
    lab.server.sql("CHECKPOINT")
    with pytest.raises(SourceError, match="log between the snapshot and the primary is not there.*already been removed"):
        lab.reseed("db2", "db1", reader)
    assert not list(Path(lab.servers["db2"].home).iterdir()), "nothing was built"
    reader.log = lab.log({timeline: end})
    told = lab.reseed("db2", "db1", reader)
    assert told["standby"]["log_bytes"] > 3 * 16 << 20
    assert lab.servers["db2"].sql(ROWS) == lab.server.sql(ROWS)


def test_a_capture_does_not_outlive_a_failover(lab: ReplicatedLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.reseed("db2", "db1", lab.bench.capture()[0])
    standby = lab.member("db2")
    then: dict[str, Callable[[], object]] = {"cluster.capture.read": lambda: lab.promote("db2")}
    monkeypatch.setattr(faults, "point", lambda name: then.pop(name, lambda: None)())
    with pytest.raises(SourceError, match="promoted"):
        standby.capture()
    assert then == {} and lab.ask("db2")["timeline"] == 2
    then["cluster.capture.read"] = lab.server.crash
    with pytest.raises(SourceError):
        lab.bench.capture()
    assert lab.ask("db1")["role"] == "down"
    lab.servers["db2"].sql("INSERT INTO t VALUES (0, 'after the failover')")
    facts = lab.member("db2").capture()[0].manifest["facts"]
    assert (facts["timeline"], facts["from_standby"]) == (2, False), "the next one is of the new primary"


def test_after_a_restore_a_standby_follows_the_new_timeline_and_nothing_of_the_old_one(lab: ReplicatedLab) -> None:
    reader = lab.bench.capture()[0]
    lab.reseed("db2", "db1", reader)
    good = lab.server.sql(ROWS)
    lab.server.sql("DELETE FROM t WHERE id <= 10000")
    lab.bench.config["members"] = lab.member("db1").config["members"]
    record = lab.stage(reader)
    lab.servers["db2"].stop()
    lab.bench.source.verify_staged(lab.bench.context, reader, record)
    lab.bench.source.cutover(lab.bench.context, record)
    lab.server.sql("CREATE TABLE since AS SELECT 1 AS a")
    again = lab.reseed("db2", "db1", reader)
    primary, standby = lab.ask("db1"), lab.ask("db2")
    assert primary["timeline"] == standby["timeline"] == again["proof"]["timeline"] == 2
    assert primary["system_identifier"] == standby["system_identifier"]
    assert lab.servers["db2"].sql(ROWS) == good and lab.servers["db2"].sql("SELECT a FROM since") == [(1,)]
    assert again["bytes_reused"] > 10 << 20
