# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipper against a real server: what it calls proven is in the repository, whatever happens to it, to the server, to the repository."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import threading
from typing import Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import backlog, config, wal
from ansible_collections.lifeboat.recovery.plugins.module_utils.log.server import LogServer
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import capture, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.resolve import resolve_target
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import SEGMENT, LogLab, WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.log_writer import Writer, assert_all_there
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record

MakeLab = Callable[..., LogLab]


def wait_for_more(lab: LogLab) -> None:
    before = lab.proven()
    processes.wait_for(lambda: lab.proven() > before, "something more to be proven", 300)


def assert_same_bytes(lab: LogLab, cluster: WalPostgres, timeline: int = 1) -> None:
    """The repository's log is the server's own, to the byte, where the server still has it."""
    log = lab.log()
    compared = 0
    for one in log.coverage():
        for position in range(one.start, one.end, SEGMENT):
            path = pathlib.Path(cluster.data) / "pg_wal" / wal.segment_name(one.timeline, position, SEGMENT)
            end = min(position + SEGMENT, one.end)
            if one.timeline == timeline and path.exists():
                assert path.read_bytes()[:end - position] == log.read(timeline, position, end), path.name
                compared += 1
    assert compared


def test_ships_and_tells(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    cluster.sql("CREATE TABLE t (n int)")
    cluster.sql("INSERT INTO t SELECT generate_series(1, 100)")
    position = cluster.position()
    lab.wait_proven(position)
    told = lab.status()
    assert told["ok"] and told["running"] and told["proven"]["in_repository"] and told["lag"] == {"bytes": 0, "seconds": 0.0}
    assert told["server"]["position"] == told["proven"]["position"] and told["slot"]["active"] and told["spool"]["bytes"] <= 2 * SEGMENT
    text = lab.run("log", "status")
    assert "proven in repository" in text and "sent" not in text
    with open(f"/proc/{lab.process.pid if lab.process else 0}/cmdline", encoding="utf-8") as handle:
        assert "lab-password" not in handle.read()
    assert lab.stop() == 0
    told = lab.status()
    assert not told["running"] and {alarm["name"] for alarm in told["alarms"]} == {"shipper"}
    assert_same_bytes(lab, cluster)


def test_complete_segments_become_one_object_and_leave_the_spool(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    cluster.bench_tables()
    for _time in range(3):
        cluster.sql("CREATE TABLE IF NOT EXISTS t (n text)")
        cluster.sql("INSERT INTO t SELECT repeat('x', 100) FROM generate_series(1, 200)")
        lab.wait_proven(cluster.position())
        cluster.sql("SELECT pg_switch_wal()")
    cluster.sql("INSERT INTO t VALUES ('last')")
    lab.wait_proven(cluster.position())
    log = lab.log()
    pieces = log.index().pieces(cluster.system())[1]
    whole = {piece.start for piece in pieces if piece.end - piece.start == SEGMENT}
    ((covered),) = log.coverage()
    assert whole == set(range(covered.start, covered.end // SEGMENT * SEGMENT, SEGMENT))
    assert any(piece.end - piece.start < SEGMENT for piece in pieces)
    spool = pathlib.Path(lab.status()["spool"]["path"]) / "wal"
    processes.wait_for(lambda: not [path for path in spool.iterdir() if path.suffix != ".partial" and path.stat().st_blocks], "an empty spool", 300)
    assert lab.stop() == 0


@pytest.mark.parametrize("turns", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_kill_of_the_shipper_and_of_the_server_under_load(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path, turns: int) -> None:
    """Killed again and again: nothing told as proven is ever missing, and the log has no gap."""
    dice = random.Random(turns)
    cluster.bench_tables()
    system = cluster.system()
    lab.start()
    lab.wait_proven(cluster.position())
    writer = Writer(cluster)
    bench = cluster.pgbench(10 * turns, clients=2)
    try:
        for turn in range(turns):
            wait_for_more(lab)
            threading.Event().wait(dice.random())
            lab.kill()
            assert_all_there(lab, tmp_path, system, list(writer.told))
            if turn % 8 == 3:
                cluster.crash()
                cluster.start()
            lab.start()
    finally:
        bench.kill()
        bench.wait(30)
        told = writer.stop()
    lab.wait_proven(cluster.position())
    assert assert_all_there(lab, tmp_path, system, told) == len(told) > 50
    assert len(lab.log(system).coverage()) == 1
    told_now = lab.status()
    assert not told_now["gaps"] and told_now["ok"], told_now
    assert lab.stop() == 0
    assert_same_bytes(lab, cluster)


def own_receiver(cluster: WalPostgres, directory: pathlib.Path, first: str) -> str:
    """A directory of the cluster's programs with a receiver that does something first."""
    directory.mkdir()
    for program in pathlib.Path(cluster.bin).iterdir():
        (directory / program.name).symlink_to(program)
    receiver = directory / "pg_receivewal"
    receiver.unlink()
    receiver.write_text(f'#!/bin/sh\n[ "$1" = --version ] || {first}\nexec {cluster.bin}/pg_receivewal "$@"\n')
    receiver.chmod(0o755)
    return str(directory)


def test_a_receiver_that_begins_slowly_leaves_nothing_out(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path) -> None:
    """Files made for the next segments before it looks where to go on would be taken for what was received already."""
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    lab.wait_proven(cluster.position())
    assert lab.stop() == 0
    cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
    lab.document["entry"]["sources"]["db"]["bin_dir"] = own_receiver(cluster, tmp_path / "bin", "sleep 3")
    lab.save()
    lab.start()
    lab.wait_proven(cluster.position())
    assert not lab.status()["gaps"] and len(lab.log().coverage()) == 1
    assert lab.stop() == 0
    assert_same_bytes(lab, cluster)


def test_what_gathered_on_the_server_is_not_received(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path) -> None:
    """Finished segments are taken from the server's own directory, which keeps them, and its slot follows; only the rest is received."""
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    lab.wait_proven(cluster.position())
    assert lab.stop() == 0
    lab.document["entry"]["sources"]["db"]["bin_dir"] = own_receiver(cluster, tmp_path / "bin", "exit 1")
    lab.save()
    cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    lab.start()
    lab.wait_proven(cluster.position() // SEGMENT * SEGMENT)
    processes.wait_for(lambda: "receiver" in lab.alarms(), "the alarm of a receiver that does not work", 300)
    assert len(lab.log().coverage()) == 1
    assert_same_bytes(lab, cluster)
    position = cluster.position()
    assert lab.proven()[1] <= position and lab.stop() == 0  # all that was received is proven
    del lab.document["entry"]["sources"]["db"]["bin_dir"]
    lab.save()
    lab.start(fault="log.proven:6")
    cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 60000)")
    assert lab.process is not None and lab.process.wait(60) == -signal.SIGKILL
    lab.start()
    lab.wait_proven(cluster.position())
    lab.wait_ok()
    told = lab.status()
    assert wal.parse(told["slot"]["restart"]) > position and not told["gaps"]
    assert len(lab.log().coverage()) == 1
    assert_same_bytes(lab, cluster)
    assert lab.stop() == 0


def test_the_slot_follows_and_only_the_server_of_this_directory_is_read(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path) -> None:
    settings = config.read(lab.spec, "db")
    server = LogServer(settings.client(), settings.slot)
    try:
        server.make_slot()
        cluster.sql("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        position = cluster.position()
        server.advance_slot(position)
        assert server.sample().slot["restart"] == wal.text(position)
        assert backlog.at_hand(server, cluster.data) and not backlog.at_hand(server, str(tmp_path))
    finally:
        server.close()


def test_the_server_dies_for_good(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path) -> None:
    """What was received is proven although server and data directory are gone."""
    cluster.bench_tables()
    system = cluster.system()
    lab.start()
    lab.wait_proven(cluster.position())
    writer = Writer(cluster)
    processes.wait_for(lambda: len(writer.told) > 100, "commits", 300)
    cluster.wipe()
    told = writer.stop()
    processes.wait_for(lambda: "receiver" in lab.alarms() or "server" in lab.alarms(), "the alarm", 300)
    assert lab.stop() == 0
    assert assert_all_there(lab, tmp_path, system, told) > 50


def gone_on(lab: LogLab, position: int) -> None:
    """Wait until the shipper has proven so much or has ended: a slow one gets no heap of segments to catch up with."""
    process = lab.process
    assert process is not None
    processes.wait_for(lambda: process.poll() is not None or lab.proven() >= (1, position), "the shipper to go on or to end", 300)


@pytest.mark.parametrize("fault", [
    "epoch.link.after", "log.write.after:2", "log.link.before:2", "log.link.after:2", "log.stored:2", "logmark.rename.before:4", "log.proven:2",
    "spool.unlink.before", "spool.unlink.after", "key.link.after",
])
def test_killed_at_a_point_and_started_again(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path, fault: str) -> None:
    cluster.sql("CREATE TABLE t (n text)")
    lab.start(fault=fault)
    assert lab.process is not None
    writer = Writer(cluster)
    try:
        while lab.process.poll() is None:
            cluster.sql("INSERT INTO t SELECT repeat('x', 100) FROM generate_series(1, 1000)")
            cluster.sql("SELECT pg_switch_wal()")
            gone_on(lab, cluster.position())
        assert lab.process.wait(60) == -signal.SIGKILL
        lab.start()
        lab.wait_proven(cluster.position())
    finally:
        told = writer.stop()
    lab.wait_proven(cluster.position())
    assert lab.stop() == 0
    assert assert_all_there(lab, tmp_path, cluster.system(), told) == len(told)
    assert not lab.status()["gaps"]
    assert_same_bytes(lab, cluster)


def test_repository_outage_bounds_the_spool_and_loses_nothing(make_lab: MakeLab, cluster: WalPostgres, tmp_path: pathlib.Path) -> None:
    lab = make_lab(spool_limit="64M")
    lab.start()
    cluster.bench_tables()
    lab.wait_proven(cluster.position())
    lab.repository.rename(lab.home / "away")
    writer = Writer(cluster)
    try:
        processes.wait_for(lambda: "repository" in lab.alarms(), "the alarm of the repository", 300)
        before = lab.proven()
        spool = pathlib.Path(lab.status()["spool"]["path"])
        while not any(alarm["name"] == "spool" for alarm in lab.status()["alarms"]):
            cluster.sql("CREATE TABLE IF NOT EXISTS t (n text)")
            for _time in range(8):
                cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 800)")
        told = lab.status()
        assert told["state"].startswith("stopped receiving") and told["spool"]["bytes"] <= 64 << 20, told
        assert not told["slot"]["active"] and lab.proven() == before
        cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 8000)")
        assert told["lag"]["bytes"] > 4 << 20 and told["lag"]["seconds"] > 0
        assert sum(path.stat().st_blocks * 512 for path in spool.rglob("*")) <= 64 << 20
        (lab.home / "away").rename(lab.repository)
        lab.wait_proven(cluster.position())
    finally:
        noted = writer.stop()
    lab.wait_proven(cluster.position())
    lab.wait_ok()
    assert not lab.status()["gaps"]
    assert assert_all_there(lab, tmp_path, cluster.system(), noted) == len(noted)
    assert lab.stop() == 0


def test_repository_is_away_at_the_start(lab: LogLab, cluster: WalPostgres) -> None:
    lab.repository.rename(lab.home / "away")
    lab.start()
    processes.wait_for(lambda: "repository" in lab.alarms(), "the alarm of the repository", 300)
    cluster.sql("CREATE TABLE t (n int)")
    (lab.home / "away").rename(lab.repository)
    lab.wait_proven(cluster.position())
    lab.wait_ok()


def test_slot_lost(lab: LogLab, cluster: WalPostgres) -> None:
    """The server was told to keep less than was needed: the gap is told, the log goes on behind it, and a new snapshot closes it."""
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    capture.capture_service(lab.spec, run_record("b1"))
    lab.wait_proven(cluster.position())
    assert lab.stop() == 0
    before = lab.proven()
    cluster.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '2MB'")
    cluster.sql("SELECT pg_reload_conf()")
    for _time in range(12):
        cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        cluster.sql("SELECT pg_switch_wal()")
        cluster.sql("CHECKPOINT")
    assert cluster.sql("SELECT wal_status FROM pg_replication_slots")[0][0] == "lost"
    lab.start()
    lab.wait_proven(cluster.position())
    told = lab.status()
    assert [gap["from"] for gap in told["gaps"]] == [wal.text(before[1])] and not told["gaps"][0]["closed_by"]
    (alarm,) = [alarm for alarm in told["alarms"] if alarm["name"] == "gap"]
    assert "take a full snapshot" in alarm["remedy"] and not told["ok"]
    assert len(lab.log().coverage()) == 2
    with pytest.raises(Exception, match="hole"):
        lab.log().read(1, before[1] - 8, wal.parse(told["gaps"][0]["to"]) + 8)
    # `latest` leads up to the gap: that is said before a restore begins, and by the preflight that people read
    point, problems = resolve_target(lab.spec, lab.spec.store(), "latest")
    assert point.id.endswith("@latest") and [told["gaps"][0]["from"] in str(problem) for problem in problems] == [True], problems
    assert "later bytes" in str(problems[0]) and "take a full snapshot" in str(problems[0])
    (found,) = [one for one in restore.preflight(lab.spec, "latest", run_record("r1", "restore"))["findings"] if "hole" in one["what"]]
    assert found["level"] == "warning"
    assert [alarm["name"] for alarm in lab.status()["alarms"]] == ["gap"], "it stays until a snapshot begins behind it"
    capture.capture_service(lab.spec, run_record("b2"), "full")
    lab.wait_proven(cluster.position())
    told = lab.status()
    assert told["ok"] and told["gaps"][0]["closed_by"], told
    assert "closed by" in lab.run("log", "status", "orders")
    assert not resolve_target(lab.spec, lab.spec.store(), "latest")[1]
    assert lab.stop() == 0


@pytest.mark.parametrize("monitor", [True, False])
def test_a_role_that_may_only_replicate(lab: LogLab, cluster: WalPostgres, monitor: bool) -> None:
    """No superuser; without pg_monitor a lost slot shows by what the receiver is told."""
    cluster.sql("CREATE ROLE shipper LOGIN REPLICATION PASSWORD 'lab-password'")
    if monitor:
        cluster.sql("GRANT pg_monitor TO shipper")
    lab.document["entry"]["sources"]["db"]["user"] = "shipper"
    lab.save()
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    lab.wait_proven(cluster.position())
    assert lab.status()["ok"], lab.status()
    assert lab.stop() == 0
    cluster.sql("SELECT pg_drop_replication_slot('lifeboat_orders_db')")
    for _time in range(8):
        cluster.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        cluster.sql("SELECT pg_switch_wal()")
        cluster.sql("CHECKPOINT")
    lab.start()
    lab.wait_proven(cluster.position())
    assert len(lab.status()["gaps"]) == 1
    assert lab.stop() == 0


def test_slot_dropped_and_spool_gone(lab: LogLab, cluster: WalPostgres) -> None:
    """The server still has what follows the proven position: there is no gap."""
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    lab.wait_proven(cluster.position())
    lab.kill()
    processes.wait_for(lambda: not cluster.sql("SELECT active FROM pg_replication_slots")[0][0], "the receiver's end", 300)
    cluster.sql("SELECT pg_drop_replication_slot('lifeboat_orders_db')")
    for path in (pathlib.Path(lab.status()["spool"]["path"]) / "wal").iterdir():
        path.unlink()
    cluster.sql("INSERT INTO t VALUES ('x')")
    cluster.sql("SELECT pg_switch_wal()")
    cluster.sql("INSERT INTO t VALUES ('y')")
    lab.start()
    lab.wait_proven(cluster.position())
    told = lab.status()
    assert told["ok"] and not told["gaps"], told
    assert len(lab.log().coverage()) == 1


def test_host_forgets_and_goes_on_from_the_repository(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    lab.wait_proven(cluster.position())
    assert lab.stop() == 0
    processes.remove(str(lab.home / "state"))
    cluster.sql("INSERT INTO t VALUES ('x')")
    lab.start()
    lab.wait_proven(cluster.position())
    told = lab.status()
    assert told["ok"] and not told["gaps"], told
    assert len(lab.log().coverage()) == 1
    records = sorted((lab.repository / "services" / "orders" / "logs" / "db").iterdir())
    assert [path.name for path in records] == [f"{number:012d}" for number in range(1, len(records) + 1)]


def test_only_one_shipper(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    lab.wait_proven(1)
    assert "another process ships this log already" in lab.run("log", "run", "orders", status=1)


def test_what_is_missing_in_the_repository_is_told(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    cluster.sql("CREATE TABLE t (n text)")
    lab.wait_proven(cluster.position())
    assert lab.stop() == 0
    pieces = sorted(lab.repository.rglob("*.log"), key=lambda path: path.name)
    pieces[-1].unlink()
    told = json.loads(lab.run("log", "status", "orders", "--json", status=3))["orders.db"]
    assert told["proven"]["in_repository"] is False and "missing" in {alarm["name"] for alarm in told["alarms"]}


def test_the_receiver_is_killed(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path) -> None:
    lab.start()
    writer = Writer(cluster)
    try:
        for _time in range(3):
            wait_for_more(lab)
            (pid,) = cluster.sql("SELECT count(*) FROM pg_stat_replication")[0]
            receiver = json.loads((lab.home / "state/services/orders/log/db/status.json").read_text())["receiver"]
            if pid and receiver:
                os.kill(receiver, signal.SIGKILL)
    finally:
        told = writer.stop()
    lab.wait_proven(cluster.position())
    assert assert_all_there(lab, tmp_path, cluster.system(), told) == len(told)
    lab.wait_ok()
    assert lab.stop() == 0
    assert not cluster.sql("SELECT 1 FROM pg_stat_replication")


def test_a_killed_shipper_leaves_no_receiver(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    lab.wait_proven(1)
    receiver = json.loads((lab.home / "state/services/orders/log/db/status.json").read_text())["receiver"]
    lab.kill()
    processes.wait_for(lambda: not processes.alive(receiver), "the end of the receiver", 300)


def test_commits_that_wait_for_the_shipper_are_an_alarm(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    cluster.sql("CREATE TABLE t (n int)")
    lab.wait_proven(cluster.position())
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    cluster.sql("SELECT pg_reload_conf()")
    processes.wait_for(lambda: "synchronous" in lab.alarms(), "the alarm", 300)
    cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
    cluster.sql("SELECT pg_reload_conf()")
    processes.wait_for(lambda: lab.status()["ok"], "the alarm to end", 300)


def test_wrong_password(lab: LogLab, cluster: WalPostgres) -> None:
    (lab.home / "wrong").write_text("nonsense\n")
    lab.document["entry"]["sources"]["db"]["password_file"] = str(lab.home / "wrong")
    lab.save()
    lab.start()
    processes.wait_for(lambda: "server" in lab.alarms(), "the alarm", 300)
    assert "nonsense" not in json.dumps(lab.status()) + lab.said()
    assert lab.stop(seconds=300) in (0, 3)


def test_disk_of_the_spool_is_full(lab: LogLab, cluster: WalPostgres, tmp_path: pathlib.Path) -> None:
    """Nothing that was told is lost when neither receiver nor shipper can write."""
    lab.start(fault="logmark.write.before:6:full")
    writer = Writer(cluster)
    try:
        processes.wait_for(lambda: len(writer.told) > 50, "commits", 300)
    finally:
        told = writer.stop()
    lab.wait_proven(cluster.position())
    assert assert_all_there(lab, tmp_path, cluster.system(), told) == len(told)
    assert not lab.status()["gaps"]
