# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that really are full, the server's and the spool's: one line says so, nothing that counted is lost, and all goes on when there is room."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any, Callable, Iterator

import psycopg2
import pytest

from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.log_writer import Writer, assert_all_there
from ansible_collections.lifeboat.recovery.tests.lab.small_disk import SmallDisk

MIB = 1 << 20


@pytest.fixture
def disks() -> Iterator[Callable[..., SmallDisk]]:
    made: list[SmallDisk] = []

    def make(place: str, size: int, user: dict[str, Any]) -> SmallDisk:
        made.append(SmallDisk(place, size, user))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def push_on(cluster: WalPostgres, times: int) -> bool:
    """Write about as many MiB of log; False when the server refused."""
    try:
        for _time in range(times):
            cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 900)")
    except psycopg2.Error:
        return False
    return True


def test_disk_of_the_servers_log_is_full(lab: LogLab, cluster: WalPostgres, disks: Callable[..., SmallDisk], tmp_path: pathlib.Path) -> None:
    cluster.sql("CREATE TABLE t (n text)")
    system = cluster.system()
    cluster.stop()
    place = processes.private_dir("wal", cluster.home)
    disk = disks(place, 24 * MIB, processes.run_as())
    disk.run("cp", "-a", f"{cluster.data}/pg_wal/.", place)
    shutil.rmtree(f"{cluster.data}/pg_wal")
    os.symlink(place, f"{cluster.data}/pg_wal")
    start = [f"{cluster.bin}/pg_ctl", "-D", cluster.data, "-w", "-t", "60", "-l", f"{cluster.home}/log", "start"]
    disk.run(*start)
    lab.start()
    lab.wait_proven(cluster.position())
    writer = Writer(cluster)
    try:
        processes.wait_for(lambda: len(writer.told) > 20, "commits", 300)
        disk.fill()
        processes.wait_for(lambda: not push_on(cluster, 4), "the server to stop", 300)
        processes.wait_for(lambda: bool(lab.alarms() & {"server", "receiver"}), "the alarm", 300)
        told = lab.status()
        assert not told["ok"] and all("\n" not in alarm["what"] and alarm["remedy"] for alarm in told["alarms"]), told
        assert_all_there(lab, tmp_path, system, list(writer.told))
        disk.clear()

        def again() -> bool:
            # it may have come up by itself, be down, or be on its way down
            if cluster.pid() is None:
                disk.run(*start)
            return push_on(cluster, 1)

        processes.wait_for(again, "the server", 300)
    finally:
        noted = writer.stop()
    lab.wait_proven(cluster.position())
    lab.wait_ok()
    assert assert_all_there(lab, tmp_path, system, noted) == len(noted) and not lab.status()["gaps"]
    assert lab.stop() == 0


def test_disk_of_the_spool_is_really_full(make_lab: Callable[..., LogLab], cluster: WalPostgres, disks: Callable[..., SmallDisk],
                                          tmp_path: pathlib.Path) -> None:
    place = tmp_path / "spool"
    place.mkdir(mode=0o700)
    disk = disks(str(place), 64 * MIB, {})  # a shipper that does not know the server yet reckons with segments of 16 MiB
    lab = make_lab(spool=str(place), spool_limit="256M")
    cluster.sql("CREATE TABLE t (n text)")
    system = cluster.system()
    lab.start(preexec=disk.enter)
    lab.wait_proven(cluster.position())
    writer = Writer(cluster)
    try:
        # somebody else's files take all there is
        disk.fill()
        processes.wait_for(lambda: "spool" in lab.alarms(), "the alarm", 300)
        (alarm,) = [one for one in lab.status()["alarms"] if one["name"] == "spool"]
        assert "the spool's disk is nearly full (0 bytes free), nothing is received" in alarm["what"] and "\n" not in alarm["what"], alarm
        assert push_on(cluster, 4), "the server does not notice"
        assert_all_there(lab, tmp_path, system, list(writer.told))
        disk.clear()
        lab.wait_proven(cluster.position())
        # the repository is away until the disk is full, although the limit is not reached
        lab.repository.rename(lab.home / "away")
        processes.wait_for(lambda: push_on(cluster, 8) and "spool" in lab.alarms(), "the alarm", 300)
        before = lab.proven()
        assert push_on(cluster, 4) and lab.proven() == before
        (lab.home / "away").rename(lab.repository)
    finally:
        noted = writer.stop()
    lab.wait_proven(cluster.position())
    lab.wait_ok()
    assert assert_all_there(lab, tmp_path, system, noted) == len(noted) and not lab.status()["gaps"]
    assert lab.stop() == 0
