# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of every PostgreSQL version that is at hand: shipped, killed, promoted."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.postgres import bin_dirs, versions


@pytest.mark.parametrize("version", versions())
def test_version(version: int, tmp_path: pathlib.Path) -> None:
    cluster = WalPostgres(programs=bin_dirs()[version]).init()
    standby = None
    lab = LogLab(tmp_path, cluster)
    try:
        cluster.start()
        lab.start()
        cluster.sql("CREATE TABLE t (n text)")
        cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
        lab.wait_proven(cluster.position())
        lab.kill()
        cluster.sql("INSERT INTO t SELECT repeat('y', 1000) FROM generate_series(1, 3000)")
        lab.start()
        lab.wait_proven(cluster.position())
        standby = cluster.standby()
        standby.password_file = cluster.password_file
        standby.start()
        cluster.sql("INSERT INTO t VALUES ('last')")
        position, system = cluster.position(), cluster.system()
        lab.wait_proven(position)
        processes.wait_for(lambda: wal.parse(standby.sql("SELECT pg_last_wal_replay_lsn()::text")[0][0]) >= position, "the standby", 300)
        assert lab.stop() == 0
        cluster.crash()
        standby.sql("SELECT pg_promote(true, 60)")
        lab.document["entry"]["sources"]["db"]["port"] = standby.port
        lab.save()
        lab.start()
        standby.sql("INSERT INTO t VALUES ('on the next timeline')")
        lab.wait_proven(standby.position(), timeline=2)
        told = lab.status()
        assert told["ok"] and not told["gaps"], told
        log = lab.log(system)
        first, second = log.coverage()
        # the old server may have written, and the standby taken, a record after the last position that was waited for; the segment
        # in which the timeline was left is whole on the next one
        assert position <= first.end and second.start <= first.end and second.start <= wal.ancestors(log.histories()[2], 2)[0][1] < second.end
        lab.segments(tmp_path / "segments", system, 2, second.start, second.end)
        assert lab.commits(tmp_path / "segments", 2, second.start, second.end)
        assert lab.stop() == 0
    finally:
        lab.end()
        for one in (cluster, standby):
            if one is not None:
                one.destroy()
