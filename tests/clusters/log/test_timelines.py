# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log across promotions: the new timeline is followed with its history, and what does not continue the log is refused."""

from __future__ import annotations

from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import SEGMENT, LogLab, WalPostgres


@pytest.fixture
def standby(cluster: WalPostgres) -> Iterator[WalPostgres]:
    cluster.sql("CREATE TABLE t (n text)")
    one = cluster.standby()
    one.start()
    yield one
    one.destroy()


def promote(one: WalPostgres) -> None:
    one.sql("SELECT pg_promote(true, 60)")
    processes.wait_for(lambda: one.sql("SELECT pg_is_in_recovery()")[0][0] is False, "the promotion", 300)


def point_at(lab: LogLab, cluster: WalPostgres) -> None:
    entry = lab.document["entry"]["sources"]["db"]
    entry.update(port=cluster.port, data_directory=cluster.data, password_file=cluster.password_file)
    lab.save()


def caught_up(standby: WalPostgres, position: int) -> None:
    processes.wait_for(lambda: wal.parse(standby.sql("SELECT pg_last_wal_replay_lsn()::text")[0][0]) >= position, "the standby", 300)


def share_password(one: WalPostgres, other: WalPostgres) -> None:
    other.password_file = one.password_file


def test_failover_to_a_standby(lab: LogLab, cluster: WalPostgres, standby: WalPostgres) -> None:
    """The address leads to the promoted standby: same cluster, timeline 2, and the log goes on without a gap."""
    share_password(cluster, standby)
    system = cluster.system()
    lab.start()
    cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    position = cluster.position()
    lab.wait_proven(position)
    caught_up(standby, position)
    assert lab.stop() == 0
    cluster.crash()
    promote(standby)
    point_at(lab, standby)
    lab.start()
    standby.sql("INSERT INTO t SELECT repeat('y', 1000) FROM generate_series(1, 3000)")
    lab.wait_proven(standby.position(), timeline=2)
    told = lab.status()
    assert told["ok"] and not told["gaps"] and told["proven"]["timeline"] == 2 and told["lag"]["bytes"] == 0, told
    log = lab.log(system)
    assert list(log.histories()) == [2]
    ((parent, left),) = wal.ancestors(log.histories()[2], 2)
    first, second = log.coverage()
    assert (parent, first.timeline, second.timeline) == (1, 1, 2)
    # (what follows the proven end in this segment, the zeros that a last record may end with, the second holds too)
    assert first.start < second.start <= min(left, first.end) and second.start == left // SEGMENT * SEGMENT
    assert second.end == standby.position()
    # one epoch belongs to one timeline, and the second names the history it follows
    records = [epoch.record for epoch in log.index().epochs.values()]
    assert {record["timeline"]: bool(record["history"]) for record in records} == {1: False, 2: True}


def test_promotion_of_the_server_that_is_followed(lab: LogLab, cluster: WalPostgres, standby: WalPostgres) -> None:
    """The shipper takes the log from a standby; the standby is promoted while it does."""
    share_password(cluster, standby)
    system = cluster.system()
    point_at(lab, standby)
    lab.start()
    cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    position = cluster.position()
    lab.wait_proven(position)
    assert lab.status()["server"]["standby"] and lab.status()["ok"]
    cluster.crash()
    promote(standby)
    standby.sql("INSERT INTO t SELECT repeat('y', 1000) FROM generate_series(1, 3000)")
    lab.wait_proven(standby.position(), timeline=2)
    lab.wait_ok()
    told = lab.status()
    assert not told["gaps"] and told["lag"] == {"bytes": 0, "seconds": 0.0}, told
    log = lab.log(system)
    ((_parent, left),) = wal.ancestors(log.histories()[2], 2)
    first, second = log.coverage()
    assert second.start <= min(left, first.end), (first, second)
    assert lab.stop() == 0


def test_the_former_primary_had_more(lab: LogLab, cluster: WalPostgres, standby: WalPostgres) -> None:
    """The standby that takes over lacked the last log: its own begins behind what is proven, and both are kept."""
    share_password(cluster, standby)
    system = cluster.system()
    standby.stop()
    lab.start()
    cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    lab.wait_proven(cluster.position())
    lab.kill()
    cluster.crash()
    standby.start()
    promote(standby)
    point_at(lab, standby)
    lab.start()
    standby.sql("INSERT INTO t SELECT repeat('y', 1000) FROM generate_series(1, 1000)")
    lab.wait_proven(standby.position(), timeline=2)
    told = lab.status()
    log = lab.log(system)
    ((_parent, left),) = wal.ancestors(log.histories()[2], 2)
    first, second = log.coverage()
    assert first.end > left >= second.start and not told["gaps"], told
    # the former primary comes back: it is not what the log followed
    assert lab.stop() == 0
    standby.stop()
    cluster.start()
    point_at(lab, cluster)
    lab.start()
    processes.wait_for(lambda: "diverged" in lab.alarms(), "the alarm", 300)
    told = lab.status()
    assert "former primary" in str(told["alarms"]) and told["proven"]["timeline"] == 2
    assert len(log.coverage()) == 2


def test_two_copies_of_one_cluster(lab: LogLab, cluster: WalPostgres, standby: WalPostgres) -> None:
    """A copy that became a timeline of its own with the same number must not write into the same log."""
    share_password(cluster, standby)
    copy = cluster.standby()
    try:
        share_password(cluster, copy)
        for one in (standby, copy):
            one.configure("primary_conninfo = ''")
        copy.start()
        standby.stop()
        standby.start()
        promote(standby)
        point_at(lab, standby)
        lab.start()
        lab.wait_proven(standby.position() - SEGMENT, timeline=2)
        assert lab.stop() == 0
        before = sorted(lab.repository.rglob("*.log"))
        cluster.sql("INSERT INTO t VALUES ('more')")
        promote(copy)
        copy.sql("INSERT INTO t SELECT repeat('z', 1000) FROM generate_series(1, 1000)")
        processes.remove(str(lab.home / "state"))  # another host: it knows nothing of the first one's log
        point_at(lab, copy)
        lab.start()
        processes.wait_for(lambda: "diverged-log" in lab.alarms(), "the alarm", 300)
        assert "two copies of one cluster" in str(lab.status()["alarms"])
        assert sorted(lab.repository.rglob("*.log")) == before
    finally:
        copy.destroy()


def test_another_cluster_at_the_same_address(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    lab.wait_proven(cluster.position())
    first = cluster.system()
    assert lab.stop() == 0
    cluster.wipe()
    cluster.init().start()
    second = cluster.system()
    assert first != second
    cluster.sql("CREATE TABLE t (n text)")
    lab.start()
    processes.wait_for(lambda: bool(lab.log(second).coverage()), "the other cluster's log", 300)
    lab.wait_proven(cluster.position())
    told = lab.status()
    assert "another cluster" in told["gaps"][0]["reason"] and not told["ok"]
    assert lab.log(first).coverage() and lab.log(second).coverage()
