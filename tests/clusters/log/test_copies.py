# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restored copy beside the live cluster ships nothing into the original's log; one that took its place does."""

from __future__ import annotations

import pathlib
import shutil
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import capture, restore
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record


def another_host(lab: LogLab, home: pathlib.Path, cluster: WalPostgres) -> LogLab:
    """The same service of the same repository and keys on a host that knows nothing of it, with a server of its own."""
    home.mkdir()
    other = LogLab.__new__(LogLab)
    other.__dict__.update(lab.__dict__, home=home, cluster=cluster, process=None)
    source = {**lab.document["entry"]["sources"]["db"], "data_directory": cluster.data, "port": cluster.port,
              "server": {"start": cluster.start_argv(), "stop": cluster.stop_argv(), "status": cluster.status_argv()}}
    other.document = {**lab.document, "entry": {"sources": {"db": source}}, "state_dir": str(home / "state")}
    (home / "etc" / "services").mkdir(parents=True)
    shutil.copytree(lab.home / "lib", home / "lib", symlinks=True)
    other.save()
    return other


@pytest.fixture
def copy(cluster: WalPostgres) -> Iterator[WalPostgres]:
    one = WalPostgres(programs=cluster.bin)
    one.password_file = cluster.password_file
    yield one
    one.destroy()


def objects(lab: LogLab) -> list[str]:
    """What the log of timeline 2 consists of."""
    return sorted(path.name for path in (lab.repository / "services" / "orders" / "logs" / "db").rglob("00000002*"))


def test_copies(lab: LogLab, cluster: WalPostgres, copy: WalPostgres, tmp_path: pathlib.Path) -> None:
    lab.start()
    cluster.sql("CREATE TABLE t (n int)")
    capture.capture_service(lab.spec, run_record("b1"))
    cluster.sql("INSERT INTO t VALUES (1)")
    lab.wait_proven(cluster.position())
    # restored on another host, beside the living original, which goes on
    other = another_host(lab, tmp_path / "other", copy)
    restore.go_live(other.spec, "latest", run_record("r1", "restore"))
    if copy.pid() is None:
        copy.start()
    assert copy.sql("SELECT n FROM t") == [(1,)] and copy.sql("SHOW archive_mode") == [("off",)]
    copy.sql("INSERT INTO t VALUES (2)")
    cluster.sql("INSERT INTO t VALUES (3)")
    lab.wait_proven(cluster.position())
    other.start()
    processes.wait_for(lambda: "diverged-log" in other.alarms(), "the refusal", 300)
    told = str([alarm["what"] for alarm in other.status()["alarms"]])
    assert "the original still ships its log" in told, told
    assert not objects(lab)
    other.stop()
    # what nobody restored here is a copy too, whoever lives: the same data, no record of a restore
    processes.remove(str(tmp_path / "other" / "state"))
    other.start()
    processes.wait_for(lambda: "diverged-log" in other.alarms(), "the refusal", 300)
    assert "this server is a copy" in str(other.status()["alarms"]) and not objects(lab)
    other.stop()
    # the original's log is whole, and goes on
    cluster.sql("INSERT INTO t VALUES (4)")
    lab.wait_proven(cluster.position())
    assert lab.status()["ok"] and not lab.status()["gaps"], lab.status()
    # the original is lost for good: restored anew, the copy takes its place without a further word
    assert lab.stop() == 0
    cluster.wipe()
    copy.stop()
    restore.go_live(other.spec, "latest", run_record("r2", "restore"))
    if copy.pid() is None:
        copy.start()
    assert sorted(copy.sql("SELECT n FROM t")) == [(1,), (3,), (4,)]
    copy.sql("INSERT INTO t VALUES (5)")
    other.start()
    other.wait_proven(copy.position(), timeline=2)
    assert objects(lab) and not other.status()["gaps"], other.status()
    assert other.stop() == 0


def test_a_person_says_that_a_copy_took_over(lab: LogLab, cluster: WalPostgres, copy: WalPostgres, tmp_path: pathlib.Path) -> None:
    """A promoted standby on a host of its own."""
    lab.start()
    cluster.sql("CREATE TABLE t (n int)")
    lab.wait_proven(cluster.position())
    standby = cluster.standby()
    try:
        standby.password_file = cluster.password_file
        standby.start()
        assert lab.stop() == 0
        cluster.crash()
        standby.sql("SELECT pg_promote(true, 60)")
        other = another_host(lab, tmp_path / "other", standby)
        other.start()
        processes.wait_for(lambda: "diverged-log" in other.alarms(), "the refusal", 300)
        assert "--take-over" in str(other.status()["alarms"]) and not objects(lab)
        other.stop()
        other.start("--take-over")
        standby.sql("INSERT INTO t VALUES (1)")
        other.wait_proven(standby.position(), timeline=2)
        assert other.stop() == 0
        other.start()
        standby.sql("INSERT INTO t VALUES (2)")
        other.wait_proven(standby.position(), timeline=2)
        assert other.stop() == 0
    finally:
        standby.destroy()
