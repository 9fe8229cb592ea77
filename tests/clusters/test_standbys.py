# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Standbys of real servers: seeded from a snapshot, reseeded with what they still have, after a restore, and failovers in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

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


def test_a_lost_standby_comes_back_from_the_repository_and_streams(lab: ReplicatedLab) -> None:
    reader = lab.bench.capture()[0]
    lab.server.sql("INSERT INTO t SELECT g FROM generate_series(20001, 20100) g")
    first = lab.reseed("db2", "db1", reader)
    assert first["bytes_reused"] == 0 and not first["displaced"]
    assert lab.ask("db2")["role"] == "standby"
    assert lab.servers["db2"].sql(ROWS) == lab.server.sql(ROWS), "what was written since the snapshot was streamed"
    (seen,) = lab.ask("db1")["standbys"]
    assert (seen["slot"], seen["state"], seen["name"]) == ("lifeboat_standby_db2", "streaming", "db2")


def test_a_standby_that_lags_is_reseeded_with_what_it_still_has(lab: ReplicatedLab) -> None:
    lab.reseed("db2", "db1", lab.bench.capture()[0])
    lab.servers["db2"].stop()
    lab.server.sql("UPDATE t SET v = 'changed' WHERE id <= 100")
    lab.server.sql("CHECKPOINT")
    again = lab.reseed("db2", "db1", lab.bench.capture()[0])
    assert again["displaced"] and again["bytes_reused"] > 10 << 20 and again["bytes_fetched"] < (32 << 20) + (4 << 20), "pages are those it has; log is new"
    assert lab.servers["db2"].sql("SELECT count(*) FROM t WHERE v = 'changed'") == [(100,)]


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
