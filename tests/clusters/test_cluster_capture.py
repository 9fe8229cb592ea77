# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real clusters under load, captured into a real repository; the proof is a server that starts on what the tree holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_buffers
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_capture import ClusterCapture, preflight_capture
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_log_copy import LogCopy
from ansible_collections.lifeboat.recovery.tests.lab import cluster_tree, processes
from ansible_collections.lifeboat.recovery.tests.lab.cluster_tree import ClusterStore, Snapshot
from ansible_collections.lifeboat.recovery.tests.lab.postgres import PASSWORD, SUPERUSER, Postgres, bin_dirs, versions


def make_cluster(*lines: str, checksums: bool = True, programs: str = "") -> Postgres:
    """A new cluster, started, with data checksums and settings of its own."""
    server = Postgres(programs=programs).init()
    if checksums and server.major < 18:  # later ones have them from the start
        processes.checked([f"{server.bin}/pg_checksums", "--enable", "--no-sync", "-D", server.data])
    with open(f"{server.data}/postgresql.conf", "a", encoding="utf-8") as handle:
        handle.write("\n".join(["max_prepared_transactions = 5", "fsync = off", *lines]) + "\n")
    return server.start()


def environment(server: Postgres) -> dict[str, str]:
    return {**os.environ, "PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": SUPERUSER}


def pgbench(server: Postgres, *words: str) -> list[str]:
    return [f"{server.bin}/pgbench", *words, "postgres"]


class Load:
    """pgbench clients that write for as long as the context lasts."""

    def __init__(self, server: Postgres, clients: int = 4) -> None:
        self._argv = pgbench(server, "-n", "-c", str(clients), "-T", "600", "--progress", "1")
        self._environment = environment(server)

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(self._argv, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        self._process.stderr.readline()
        return self

    def __exit__(self, *error: Any) -> None:
        processes.end(self._process.pid)
        self._process.communicate(timeout=120)


@pytest.fixture(scope="module", params=versions())
def bank(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """pgbench's tables in a cluster with checksums, of each version that is at hand."""
    server = make_cluster(programs=bin_dirs()[request.param])
    try:
        processes.checked(pgbench(server, "-i", "-s", "3", "-q"), env=environment(server))
        yield server
    finally:
        server.destroy()


def balanced(copy: Postgres) -> int:
    """Every transaction of pgbench is there as a whole or not at all; their number."""
    (sums,) = copy.sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
                       " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)")
    assert len(set(sums)) == 1, sums
    return int(copy.sql("SELECT count(*) FROM pgbench_history")[0][0])


def restored(server: Postgres, store: ClusterStore, snapshot: Snapshot, spaces: dict[str, str] | None = None) -> Postgres:
    """A server that runs on the rebuilt snapshot."""
    return cluster_tree.start_copy(server, snapshot.reader, snapshot.captured.digest, store.store.chunk_key, spaces)


def test_full_and_incremental_under_load_start_and_are_sound(bank: Postgres, tmp_path: Path) -> None:
    store = ClusterStore(tmp_path, bank)
    with Load(bank):
        full = store.capture()
        second = store.capture(full)
        third = store.capture(second)
    assert full.facts["checksums"] and full.facts["bad_pages"] == [] and not full.facts["from_standby"]
    assert bin_dirs()[full.facts["server_version"] // 10000] == bank.bin and full.facts["timeline"] == 1 and "all_read_because" not in third.facts
    assert second.written < full.written
    counts = []
    for snapshot in (full, second, third):
        copy = restored(bank, store, snapshot)
        try:
            counts.append(balanced(copy))
            assert copy.sql("SELECT count(*) FROM pgbench_accounts") == [(300000,)]
            cluster_tree.sound(copy)
        finally:
            copy.destroy()
    assert counts == sorted(counts) and counts[0] < counts[-1]


# -- clusters with everything


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    """A directory of the servers' user, for tablespaces and logs."""
    path = processes.private_dir("cluster")
    yield path
    processes.remove(path)


@pytest.fixture
def store(bank: Postgres, tmp_path: Path) -> ClusterStore:
    return ClusterStore(tmp_path, bank)


@pytest.fixture
def cluster() -> Iterator[Postgres]:
    """A cluster of its own for a test that damages or changes it; without background writers, so that files change when told."""
    server = make_cluster("autovacuum = off", "bgwriter_lru_maxpages = 0")
    try:
        yield server
    finally:
        server.destroy()


def one_dir(home: str, name: str) -> str:
    path = os.path.join(home, name)
    os.mkdir(path, 0o700)
    cluster_tree.own(path)
    return path


def test_tablespaces_linked_log_unlogged_prepared_temporary_large_objects(home: str, tmp_path: Path) -> None:
    server = Postgres()
    wal = one_dir(home, "wal")
    os.rmdir(wal)
    server.init()
    os.rename(f"{server.data}/pg_wal", wal)
    os.symlink(wal, f"{server.data}/pg_wal")
    with open(f"{server.data}/postgresql.conf", "a", encoding="utf-8") as handle:
        handle.write("max_prepared_transactions = 5\nfsync = off\n")
    session = None
    try:
        server.start()
        spaces = {one_dir(home, f"space {number}"): os.path.join(home, f"new {number}") for number in range(2)}
        for number, place in enumerate(spaces):
            server.sql(f"CREATE TABLESPACE fast{number} LOCATION '{place}'")
        server.sql("CREATE TABLE here AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g")
        server.sql("CREATE TABLE there TABLESPACE fast0 AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g")
        server.sql("CREATE DATABASE other TABLESPACE fast1")
        server.sql("CREATE TABLE elsewhere AS SELECT 42 AS answer", "other")
        server.sql("CREATE UNLOGGED TABLE loose AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g")
        server.sql("SELECT lo_from_bytea(4711, decode(repeat('ab', 100000), 'hex'))")
        session = server.connect()
        with session.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE mine AS SELECT g FROM generate_series(1, 10000) g")
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO here VALUES (-1, 'prepared')")
            cursor.execute("PREPARE TRANSACTION 'later'")
        server.sql("CHECKPOINT")
        unlogged = server.sql("SELECT pg_relation_filepath('loose')")[0][0]
        temporary = "base/5/t"
        store = ClusterStore(tmp_path, server)
        snapshot = store.capture()
        paths = [entry["path"] for entry in snapshot.reader.entries()]
        assert f"{unlogged}_init" in paths and unlogged not in paths and snapshot.facts["unlogged_left_out"] >= 1
        assert not any(path.startswith(temporary) for path in paths)
        assert snapshot.facts["wal_directory"] == wal and not snapshot.facts["checksums"]
        assert {space["path"] for space in snapshot.facts["tablespaces"]} == set(spaces)
        copy = restored(server, store, snapshot, {**spaces, wal: os.path.join(home, "new wal")})
        try:
            assert copy.sql("SELECT count(*), min(g) FROM here") == [(20000, 1)]
            assert copy.sql("SELECT count(*) FROM there") == [(20000,)] and copy.sql("SELECT count(*) FROM loose") == [(0,)]
            assert copy.sql("SELECT answer FROM elsewhere", "other") == [(42,)]
            assert copy.sql("SELECT length(lo_get(4711))") == [(100000,)]
            copy.sql("COMMIT PREPARED 'later'")
            assert copy.sql("SELECT min(g) FROM here") == [(-1,)]
            assert {row[0] for row in copy.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname LIKE 'fast%%'")} == set(spaces.values())
        finally:
            copy.destroy()
        assert server.sql("SELECT count(*) FROM there") == [(20000,)]
    finally:
        if session is not None:
            session.close()
        server.destroy()


@pytest.mark.parametrize("bank", versions(15), indirect=True)
def test_the_log_of_a_busy_capture_is_complete(bank: Postgres, store: ClusterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several segments are written and checkpoints recycle them while the files are read."""
    real = ClusterCapture._same_cluster

    def busy(self: Any, about: Any) -> Any:
        for _round in range(3):
            bank.sql("CREATE TABLE bulk AS SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 60000) g")
            bank.sql("DROP TABLE bulk")
            bank.sql("CHECKPOINT")
        return real(self, about)

    monkeypatch.setattr(ClusterCapture, "_same_cluster", busy)
    snapshot = store.capture()
    segments = [entry for entry in snapshot.reader.entries() if entry["type"] == "file" and entry["path"].startswith("pg_wal/")]
    assert len(segments) > 3
    copy = restored(bank, store, snapshot)
    try:
        balanced(copy)
        cluster_tree.sound(copy)
    finally:
        copy.destroy()
    assert bank.sql("SELECT count(*) FROM pg_replication_slots") == [(0,)]


def test_the_server_need_not_keep_the_whole_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More log is written than the slot may hold: what is copied in time is enough, what is not copied in time is a failure."""
    server = make_cluster("max_slot_wal_keep_size = 32MB", "max_wal_size = 32MB", "min_wal_size = 32MB")
    try:
        store = ClusterStore(tmp_path, server)
        real = LogCopy.tick
        rounds: list[int] = []

        def write(rows: int) -> None:
            server.sql(f"CREATE TABLE bulk AS SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, {rows}) g")
            server.sql("DROP TABLE bulk")
            rounds.append(rows)

        def look(self: LogCopy) -> None:
            self._looked = float("-inf")
            real(self)

        def busy(self: LogCopy) -> None:
            if len(rounds) < 8:
                write(25000)
                look(self)
                for copy in self._copies:
                    copy.result()
                look(self)
                server.sql("CHECKPOINT")

        def starved(self: LogCopy) -> None:
            while len(rounds) < 12:
                write(80000)
                server.sql("CHECKPOINT")

        monkeypatch.setattr(LogCopy, "tick", busy)
        snapshot = store.capture()
        names = [entry["path"] for entry in snapshot.reader.entries() if entry["type"] == "file" and entry["path"].startswith("pg_wal/")]
        assert len(names) > 4 and not os.path.exists(f"{server.data}/{names[0]}")
        copy = restored(server, store, snapshot)
        try:
            cluster_tree.sound(copy)
        finally:
            copy.destroy()
        monkeypatch.setattr(LogCopy, "tick", starved)
        with pytest.raises(SourceError, match="the server ended the session.*max_slot_wal_keep_size"):
            store.capture()
    finally:
        server.destroy()


# -- incremental


def test_one_percent_of_the_rows_stores_about_that(cluster: Postgres, tmp_path: Path) -> None:
    store = ClusterStore(tmp_path, cluster)
    cluster.sql("CREATE TABLE t AS SELECT g, md5(g::text), md5((g * 7)::text) AS more FROM generate_series(1, 300000) g")
    cluster.sql("VACUUM FREEZE t")
    cluster.sql("CREATE EXTENSION pg_buffercache")  # so that the captures note what is in the server's buffers
    first = store.capture()
    cluster.sql("UPDATE t SET md5 = 'changed' WHERE g BETWEEN 100000 AND 103000")
    second = store.capture(first)
    assert second.written < 0.05 * first.written
    assert second.captured.digest != first.captured.digest
    copy = restored(cluster, store, second)
    try:
        assert copy.sql("SELECT count(*) FROM t WHERE md5 = 'changed'") == [(3001,)]
        wanted = dict(cluster_buffers.ranges(copy.data, second.facts["relation_segment_size"]))
        held = wanted[os.path.join(copy.data, copy.sql("SELECT pg_relation_filepath('t')")[0][0])]
        assert held and all(at % 8192 == 0 == length % 8192 for at, length in held), "what a restored copy is warmed up with"
        copy.stop()
        with open(f"{copy.data}/postgresql.auto.conf", "a", encoding="utf-8") as handle:
            handle.write("\nshared_preload_libraries = 'pg_prewarm'\n")
        copy.start()
        warm = "SELECT count(*) FROM pg_buffercache WHERE relfilenode = pg_relation_filenode('t')"
        processes.wait_for(lambda: int(copy.sql(warm)[0][0]) >= sum(length for _at, length in held) // 8192, "the server has read our note by itself", 60)
        cluster_tree.sound(copy)
    finally:
        copy.destroy()


def test_every_oddity_makes_a_content_compare_and_is_told(cluster: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ClusterStore(tmp_path, cluster)
    cluster.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 100000) g")
    cluster.sql("CHECKPOINT")
    full = f"{cluster.data}/{cluster.sql('SELECT pg_relation_filepath(%s)', parameters=('t',))[0][0]}"
    first = store.capture()
    # within two seconds of the parent nothing is trusted; make that time pass by an older file
    monkeypatch.setattr("ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_parent._RACE_NS", -10 ** 18)
    second = store.capture(first)
    assert second.facts["bytes_read"] < (17 << 20) < first.facts["bytes_read"]  # one segment of the log, and little else
    assert "all_read_because" not in second.facts
    status = os.stat(full)
    with open(full, "r+b") as handle:
        handle.seek(8192 + 4000)
        handle.write(b"\xff" * 8)
    os.utime(full, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(SourceError, match=r"1 page is damaged on disk: postgres\.public\.t block 1: "):
        store.capture(second)
    monkeypatch.setattr("ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_parent._RACE_NS", 2 * 10 ** 9)
    warned = ClusterStore(tmp_path / "warn", cluster, bad_pages="warn")
    third = warned.capture()
    assert third.facts["bad_pages"] == [{"path": full[len(cluster.data) + 1:], "relation": "postgres.public.t", "block": 1}]
    fourth = warned.capture(third)
    assert fourth.facts["bad_pages"] == third.facts["bad_pages"] and fourth.chunks < 20


@pytest.mark.parametrize("bank", versions(17), indirect=True)
def test_a_standby_promoted_between_captures_is_read_as_a_whole(bank: Postgres, tmp_path: Path) -> None:
    """Capture of a standby under load; after promotion the timeline is another one."""
    standby = Postgres(programs=bank.bin)
    try:
        bank.sql("SELECT pg_reload_conf()")
        processes.checked([
            f"{bank.bin}/pg_basebackup", "-D", standby.data, "-h", "127.0.0.1", "-p", str(bank.port), "-U", SUPERUSER, "-R", "-c", "fast", "--no-sync",
        ], env=environment(bank))
        with open(f"{standby.data}/postgresql.auto.conf", "a", encoding="utf-8") as handle:
            handle.write(f"\nport = {standby.port}\nunix_socket_directories = '{standby.home}'\nprimary_conninfo = "
                         f"'host=127.0.0.1 port={bank.port} user={SUPERUSER} password={PASSWORD}'\n")
        standby.password_file = bank.password_file
        standby.start()
        store = ClusterStore(tmp_path, standby)
        with Load(bank):
            first = store.capture()
            second = store.capture(first)
        assert first.facts["from_standby"] and second.facts["from_standby"] and "all_read_because" not in second.facts
        for snapshot in (first, second):
            copy = restored(standby, store, snapshot)
            try:
                balanced(copy)
                cluster_tree.sound(copy)
            finally:
                copy.destroy()
        standby.sql("SELECT pg_promote()")
        standby.sql("CHECKPOINT")
        third = store.capture(second)
        assert third.facts["timeline"] == 2 and "timeline" in third.facts["all_read_because"]
        assert any(entry["path"] == "pg_wal/00000002.history" for entry in third.reader.entries())
        copy = restored(standby, store, third)
        try:
            balanced(copy)
        finally:
            copy.destroy()
    finally:
        standby.destroy()


# -- refusals and failures


_BACKUP = "pg_backup_start, pg_backup_stop"
_BACKUP_BEFORE_15 = "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)"


def refused(server: Postgres, tmp_path: Path, **options: Any) -> list[str]:
    """What preflight says."""
    (tmp_path / "refused").mkdir(exist_ok=True)
    context = ClusterStore(tmp_path / "refused", server, **options).context()
    return [str(finding.error) for finding in preflight_capture(context) if finding.level == "error"]


@pytest.mark.parametrize("bank", versions(15), indirect=True)
def test_what_cannot_work_is_refused_with_the_reason(bank: Postgres, cluster: Postgres, tmp_path: Path) -> None:
    assert refused(bank, tmp_path) == []
    (other,) = refused(bank, tmp_path, data_directory=cluster.data)
    assert "of another cluster than the server that answers" in other
    (missing,) = refused(bank, tmp_path, data_directory=bank.home)
    assert "control file" in missing
    bank.sql("CREATE ROLE weak LOGIN PASSWORD 'lab-password'")
    assert [text.split(":")[0] for text in refused(bank, tmp_path, user="weak")] == [
        "user 'weak' may not begin a backup", "user 'weak' may not make a replication slot"]
    bank.sql("ALTER ROLE weak REPLICATION")
    bank.sql(f"GRANT EXECUTE ON FUNCTION {_BACKUP if bank.major >= 15 else _BACKUP_BEFORE_15} TO weak")
    assert refused(bank, tmp_path, user="weak") == []
    cluster.sql("ALTER SYSTEM SET wal_level = minimal")
    cluster.sql("ALTER SYSTEM SET max_wal_senders = 0")
    cluster.stop()
    assert "does not answer" in refused(cluster, tmp_path)[0]
    cluster.start()
    (minimal,) = refused(cluster, tmp_path)
    assert "wal_level is minimal" in minimal and "set wal_level = replica" in minimal
    cluster.sql("ALTER SYSTEM RESET ALL")
    cluster.sql("ALTER SYSTEM SET max_replication_slots = 0")
    cluster.stop()
    cluster.start()
    assert "no replication slot is free" in refused(cluster, tmp_path)[0]


@pytest.mark.parametrize("bank", versions(18), indirect=True)
def test_a_session_ended_by_the_server_fails_the_capture(bank: Postgres, store: ClusterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ClusterCapture._same_cluster

    def cut_off(self: Any, about: Any) -> Any:
        bank.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE temporary")
        processes.wait_for(lambda: bank.sql("SELECT count(*) FROM pg_replication_slots") == [(0,)], "the end of the session")
        return real(self, about)

    monkeypatch.setattr(ClusterCapture, "_same_cluster", cut_off)
    with pytest.raises(SourceError, match="the server ended the session"):
        store.capture()
