# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores of whole clusters: pages reused from the live one, parts moved elsewhere, in place, killed at random; no copy acts while it is one."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, DamageError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_recovery import Recovery
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.bench import Bench
from ansible_collections.lifeboat.recovery.tests.lab.cluster_lab import ClusterLab
from ansible_collections.lifeboat.recovery.tests.lab.postgres import PASSWORD, Postgres

ROWS = "SELECT count(*), sum(id) FROM public.t"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ClusterLab]:
    made = ClusterLab(tmp_path)
    made.server.sql("CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 8) AS v FROM generate_series(1, 20000) g")
    try:
        yield made
    finally:
        made.destroy()


def own_dir(lab: ClusterLab, name: str) -> str:
    """A directory of the server's user."""
    path = os.path.join(lab.server.home, name)
    os.mkdir(path, 0o700)
    who = processes.account()
    if who is not None:
        os.chown(path, *who)
    return path


def live(lab: ClusterLab, record: dict[str, Any], reader: Any) -> dict[str, Any]:
    """Verify and cut over."""
    comparison = lab.bench.source.verify_staged(lab.bench.context, reader, record)
    assert comparison.equal, comparison.differences
    return lab.bench.source.cutover(lab.bench.context, record)


def test_pages_the_live_cluster_still_holds_are_not_fetched(lab: ClusterLab) -> None:
    lab.server.sql("CHECKPOINT")
    good = lab.server.sql(ROWS)
    reader = lab.bench.capture()[0]
    lab.server.sql("UPDATE t SET id = -id WHERE id < 50")
    lab.server.sql("CHECKPOINT")
    lab.bench.config["content_digest"] = True
    local = lab.bench.source.local_share(lab.bench.context, reader.manifest)
    assert local is not None
    for entry in reader.entries():
        local.see(entry)
    share, compared = local.share()
    record = lab.stage(reader)
    facts = live(lab, record, reader)
    # what preflight said would be reused, from a sample, is what was reused
    assert compared >= 20 and share == pytest.approx(facts["bytes_reused"] / (facts["bytes_reused"] + facts["bytes_fetched"]), abs=0.1)
    log_segments = 2 * 16 << 20
    assert facts["bytes_fetched"] < log_segments + (4 << 20)
    assert facts["bytes_reused"] > 10 << 20
    assert lab.server.sql(ROWS) == good
    assert lab.bench.live_equals(reader)
    lab.server.sql("UPDATE t SET id = id WHERE id = 7")
    assert lab.bench.live_equals(reader), "a transaction that leaves the content as it was is found out by comparing the content"
    lab.server.sql("UPDATE t SET id = 0 WHERE id = 7")
    found = lab.bench.live(reader)
    assert not found.equal and any("public.t" in text for text in found.differences)


def test_tablespaces_and_log_directory_move(lab: ClusterLab) -> None:
    space = own_dir(lab, "space")
    lab.server.sql(f"CREATE TABLESPACE spare LOCATION '{space}'")
    lab.server.sql("CREATE TABLE spread TABLESPACE spare AS SELECT generate_series(1, 1000) AS id")
    reader = lab.bench.capture()[0]
    other, wal = os.path.join(lab.server.home, "new", "space"), os.path.join(lab.server.home, "new", "wal")
    lab.bench.config.update(tablespace_map={space: other}, wal_directory=wal)
    record = lab.stage(reader)
    live(lab, record, reader)
    assert lab.server.sql("SELECT count(*) FROM spread") == [(1000,)]
    assert lab.server.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'spare'") == [(other,)]
    assert os.readlink(f"{lab.server.data}/pg_wal") == wal
    assert [name for name in os.listdir(space) if name.startswith("PG_")] == [], "the displaced cluster lies aside as a whole"
    lab.bench.source.rollback(lab.bench.context, record)
    assert lab.server.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'spare'") == [(space,)]
    assert lab.server.sql("SELECT count(*) FROM spread") == [(1000,)]
    assert not os.path.islink(f"{lab.server.data}/pg_wal")
    lab.bench.source.commit(lab.bench.context, record)
    assert lab.leftovers() == [] and [name for name in os.listdir(other) + os.listdir(space) if "lifeboat" in name] == []


def test_preflight_names_every_place_that_is_taken(lab: ClusterLab) -> None:
    space = own_dir(lab, "space")
    lab.server.sql(f"CREATE TABLESPACE spare LOCATION '{space}'")
    reader = lab.bench.capture()[0]
    taken, wal = own_dir(lab, "taken"), own_dir(lab, "wal")
    os.mkdir(os.path.join(taken, "PG_15_202209061"))
    Path(wal, "file").touch()
    source = lab.bench.source

    def errors(**options: Any) -> str:
        lab.bench.config.update({"tablespace_map": {}, "wal_directory": None, **options})
        return "\n".join(lab.bench.errors(source.preflight_restore(lab.bench.context, reader.manifest)))

    assert errors() == ""
    assert "holds files of another cluster" in errors(tablespace_map={space: taken})
    assert "inside the data directory" in errors(tablespace_map={space: f"{lab.server.data}/spaces"})
    assert "no tablespace of the snapshot lies there" in errors(tablespace_map={"/nowhere": taken})
    assert "no absolute path" in errors(tablespace_map={space: "here"})
    assert "log directory holds files" in errors(wal_directory=wal)
    lab.bench.config["server"] = {"start": ["true"]}
    assert "does not say how to stop it" in errors()
    assert lab.bench.off_by(0, reader.manifest) == []
    (clock,) = lab.bench.off_by(100, reader.manifest)
    assert "100 s ahead of that of this host" in clock
    lab.bench.config["password_file"] = "/nowhere/password"
    assert "the password file cannot be read" in errors()
    assert lab.bench.lacking(reader.manifest) == []
    reader.manifest["facts"]["bytes"] = 1 << 60
    (lacking,) = lab.bench.lacking(reader.manifest)
    assert "not enough space" in lacking and "in_place: true" in lacking and "there is no rollback" in lacking


def test_a_copy_does_not_archive_and_its_settings_do_not_act(lab: ClusterLab) -> None:
    archive = own_dir(lab, "archive")
    lab.server.sql(f"ALTER SYSTEM SET archive_command = 'cp %p {archive}/%f'")
    lab.server.sql("ALTER SYSTEM SET archive_mode = 'on'")
    lab.server.stop()
    lab.server.start()
    lab.server.sql("SELECT pg_switch_wal()")
    reader = lab.bench.capture()[0]
    processes.wait_for(lambda: lab.server.sql("SELECT last_archived_wal FROM pg_stat_archiver")[0][0] is not None, "archiving")
    lab.server.stop()
    before = set(os.listdir(archive))
    record = lab.stage(reader)
    facts = live(lab, record, reader)
    assert "ALTER SYSTEM RESET archive_mode" in facts["archiving"]
    assert lab.server.sql("SELECT current_setting('archive_mode')") == [("off",)]
    assert f"archive_command = 'cp %p {archive}/%f'" in Path(f"{lab.server.data}/postgresql.auto.conf").read_text(encoding="utf-8")
    lab.server.sql("SELECT pg_switch_wal()")
    lab.server.sql("CHECKPOINT")
    assert set(os.listdir(archive)) == before
    lab.server.sql("ALTER SYSTEM RESET archive_mode")


def test_settings_that_would_keep_a_private_server_from_starting(lab: ClusterLab) -> None:
    with open(f"{lab.server.data}/postgresql.auto.conf", "a", encoding="utf-8") as handle:
        handle.write("shared_preload_libraries = 'no_such_library'\nssl = 'on'\nsynchronous_standby_names = '*'\n")
    kept = Path(f"{lab.server.data}/postgresql.auto.conf").read_text(encoding="utf-8")
    reader = lab.bench.capture()[0]
    record = lab.stage(reader)
    assert lab.bench.source.verify_staged(lab.bench.context, reader, record).equal
    assert Path(f"{record['staged']}/postgresql.auto.conf").read_text(encoding="utf-8") == kept


def test_unlogged_tables_are_empty_and_prepared_transactions_are_kept(lab: ClusterLab) -> None:
    lab.server.sql("CREATE UNLOGGED TABLE cache AS SELECT 1 AS id")
    lab.server.sql("CREATE TABLE promised (id int)")
    connection = lab.server.connect()
    with connection.cursor() as cursor:
        for statement in ("BEGIN", "INSERT INTO promised VALUES (1)", "PREPARE TRANSACTION 'promise'"):
            cursor.execute(statement)
    connection.close()
    reader = lab.bench.capture()[0]
    lab.server.wipe()
    live(lab, lab.stage(reader), reader)
    assert lab.server.sql("SELECT count(*) FROM cache") == [(0,)]
    assert lab.server.sql("SELECT gid FROM pg_prepared_xacts") == [("promise",)]
    lab.server.sql("COMMIT PREPARED 'promise'")
    assert lab.server.sql("SELECT count(*) FROM promised") == [(1,)]


def test_in_place(lab: ClusterLab) -> None:
    lab.server.sql(f"CREATE TABLESPACE spare LOCATION '{own_dir(lab, 'space')}'")
    lab.server.sql("CREATE TABLE spread TABLESPACE spare AS SELECT generate_series(1, 1000) AS id")
    good = lab.server.sql(ROWS)
    reader = lab.bench.capture()[0]
    lab.server.sql("UPDATE t SET id = -id WHERE id < 50")
    lab.server.sql("CREATE TABLE later TABLESPACE spare AS SELECT 1 AS id")
    later = lab.server.sql("SELECT pg_relation_filepath('later')")[0][0]
    lab.server.sql("CHECKPOINT")
    lab.bench.config["in_place"] = True
    source = lab.bench.source
    warnings = [str(finding.error) for finding in source.preflight_restore(lab.bench.context, reader.manifest) if finding.level == "warning"]
    assert any("there is no rollback" in warning for warning in warnings)
    inode = os.stat(lab.server.data).st_ino
    record = lab.stage(reader)
    facts = live(lab, record, reader)
    assert os.stat(lab.server.data).st_ino == inode
    assert facts["displaced"] is False and facts["bytes_reused"] > 10 << 20
    assert lab.server.sql(ROWS) == good
    assert lab.server.sql("SELECT count(*) FROM pg_class WHERE relname = 'later'") == [(0,)]
    assert lab.server.sql("SELECT count(*) FROM spread") == [(1000,)] and not os.path.exists(f"{lab.server.data}/{later}")
    with pytest.raises(ConflictError, match="in place"):
        source.rollback(lab.bench.context, record)
    source.commit(lab.bench.context, record)
    assert lab.leftovers() == []


def test_in_place_that_was_given_up_goes_on_with_what_is_there(lab: ClusterLab) -> None:
    good = lab.server.sql(ROWS)
    reader = lab.bench.capture()[0]
    lab.server.sql("UPDATE t SET id = -id")
    lab.bench.config["in_place"] = True
    kept = dict(lab.bench.store.chunks)
    for identity, data in kept.items():
        lab.bench.store.chunks[identity] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(DamageError):
        lab.stage(reader)
    assert not os.path.exists(lab.server.data), "nobody can start what is half-built"
    lab.bench.store.chunks = kept
    record = lab.stage(reader)
    facts = live(lab, record, reader)
    assert facts["bytes_reused"] > 10 << 20
    assert lab.server.sql(ROWS) == good
    lab.bench.source.commit(lab.bench.context, record)
    assert lab.leftovers() == []


@pytest.mark.parametrize("in_place", [pytest.param(False, marks=pytest.mark.soak), True])
def test_killed_at_random_and_done_again(lab: ClusterLab, in_place: bool, tmp_path: Path) -> None:
    """Any moment of staging; what the private server was doing ends with its keeper."""
    good = lab.server.sql(ROWS)
    reader = lab.bench.capture()[0]
    lab.bench.config["in_place"] = in_place
    source, dice = lab.bench.source, random.Random(7)
    lab.server.sql("UPDATE t SET id = -id WHERE id < 5000")
    record = source.plan_stage(lab.bench.context, reader.manifest, "20261122_000001_abcdef12")
    for _round in range(5):
        process = lab.bench.spawn("stage", reader, record)
        time.sleep(0.5 + 2 * dice.random())
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
    source.stage(lab.bench.context, reader, record)
    live(lab, record, reader)
    assert lab.server.sql(ROWS) == good
    source.commit(lab.bench.context, record)
    assert lab.leftovers() == []


def test_a_staged_page_that_changed_is_named(lab: ClusterLab) -> None:
    reader = lab.bench.capture()[0]
    record = lab.stage(reader)
    path = lab.server.sql("SELECT pg_relation_filepath('t')")[0][0]
    with open(os.path.join(record["staged"], path), "r+b") as handle:
        handle.seek(8192 + 5000)
        handle.write(b"\xff")
    comparison = lab.bench.source.verify_staged(lab.bench.context, reader, record)
    assert not comparison.equal and path in comparison.differences[0]
    lab.discard(record)
    assert lab.leftovers() == []


def test_what_took_the_place_of_the_server_is_not_overwritten(lab: ClusterLab) -> None:
    reader = lab.bench.capture()[0]
    lab.server.wipe()
    os.mkdir(lab.server.data)
    Path(lab.server.data, "precious").touch()
    errors = lab.bench.errors(lab.bench.source.preflight_restore(lab.bench.context, reader.manifest))
    assert any("holds files but no cluster" in error for error in errors)


def test_a_snapshot_of_a_standby(lab: ClusterLab, tmp_path: Path) -> None:
    """Restored over the standby's own directory it is a primary on a timeline of its own."""
    server = lab.server
    standby = Postgres(programs=server.bin)
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    try:
        processes.checked([f"{server.bin}/pg_basebackup", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-D", standby.data, "-R", "-c", "fast"],
                          env=environment)
        with open(f"{standby.data}/postgresql.conf", "a", encoding="utf-8") as handle:
            handle.write(f"port = {standby.port}\nunix_socket_directories = '{standby.home}'\n")
        standby.password_file = server.password_file
        standby.start()
        server.sql("UPDATE t SET v = 'new' WHERE id < 5000")
        position = server.sql("SELECT pg_current_wal_lsn()::text")[0][0]
        processes.wait_for(lambda: standby.sql("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", parameters=(position,))[0][0], "the standby")
        good = standby.sql(ROWS)
        config = {**lab.config, "port": standby.port, "data_directory": standby.data,
                  "server": {"start": standby.start_argv(), "stop": standby.stop_argv(), "status": standby.status_argv()}}
        bench = Bench(config, tmp_path / "standby")
        (tmp_path / "standby").mkdir()
        reader = bench.capture()[0]
        assert reader.manifest["facts"]["from_standby"] is True
        record = bench.stage(reader)
        comparison = bench.source.verify_staged(bench.context, reader, record)
        assert comparison.equal, comparison.differences
        facts = bench.source.cutover(bench.context, record)
        assert facts["reached"]["timeline"] == 2
        assert standby.sql("SELECT pg_is_in_recovery()") == [(False,)]
        assert standby.sql(ROWS) == good
        assert bench.live_equals(reader)
    finally:
        standby.destroy()


def test_the_servers_own_checks_run_where_they_can(lab: ClusterLab) -> None:
    lab.server.stop()
    processes.checked([f"{lab.server.bin}/pg_checksums", "--enable", "--no-sync", "-D", lab.server.data])
    lab.server.start()
    lab.server.sql("CREATE EXTENSION amcheck")
    lab.server.sql("CREATE INDEX ON t (id)")
    reader = lab.bench.capture()[0]
    facts = live(lab, lab.stage(reader), reader)
    assert (facts["checksums"], facts["amcheck"]) == (True, ["postgres"])


class Checked:
    """A cluster with page checksums and a table that the log of the snapshot touches."""

    def __init__(self, lab: ClusterLab) -> None:
        self.lab, server = lab, lab.server
        server.sql("ALTER SYSTEM SET autovacuum = off")  # it would touch the one that is to stay as it was captured
        server.stop()
        processes.checked([f"{server.bin}/pg_checksums", "--enable", "--no-sync", "-D", server.data])
        server.start()
        server.sql("CREATE TABLE touched AS SELECT g AS id FROM generate_series(1, 5000) g")
        server.sql("CHECKPOINT")
        self.still, self.moving = (server.sql(f"SELECT pg_relation_filepath('{name}')")[0][0] for name in ("t", "touched"))

    def capture(self) -> Any:
        self.lab.slot()
        reader = self.lab.bench.capture()[0]
        self.lab.server.sql("UPDATE touched SET id = -id WHERE id < 100")
        timeline, end = self.lab.receive()
        reader.log = self.lab.log({timeline: end})
        return reader

    @staticmethod
    def flip(path: str, quietly: bool = False) -> None:
        """One bit, as a disk might; quietly: the file's times do not tell."""
        before = os.stat(path)
        with open(path, "r+b") as handle:
            handle.seek(8192 + 5000)
            byte = handle.read(1)
            handle.seek(8192 + 5000)
            handle.write(bytes([byte[0] ^ 1]))
        if quietly:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_recovery_changed_is_verified_and_the_rest_is_held_against_the_snapshot(lab: ClusterLab, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = Checked(lab)
    reader = checked.capture()
    source = lab.bench.source
    # on its way from the server's memory to the disk: the page's own checksum tells
    recover = Recovery.run

    def damaging(self: Recovery, *arguments: Any) -> dict[str, Any]:
        reached = recover(self, *arguments)
        checked.flip(os.path.join(str(self._record["staged"]), checked.moving))
        return reached

    with monkeypatch.context() as patched:
        patched.setattr(Recovery, "run", damaging)
        with pytest.raises(SourceError, match=f"wrong checksums.*{checked.moving}. page 1"):
            lab.stage(reader, "latest")
    # between staging and verifying: the files' times tell
    record = lab.stage(reader, "latest")
    for path in (checked.still, checked.moving):
        full = os.path.join(record["staged"], path)
        checked.flip(full)
        comparison = source.verify_staged(lab.bench.context, reader, record)
        assert comparison.differences == [f"'{path}' differs from what was staged"]
        checked.flip(full)
        assert source.verify_staged(lab.bench.context, reader, record).equal, "touched, but the same"
    # nobody noticed: whoever did not stage it reads all of it
    later = type(source)()
    assert later.verify_staged(lab.bench.context, reader, record).equal
    files = os.path.join(lab.bench.context.work_dir, f"files-{record['stage_id']}.json")
    for path in (checked.still, checked.moving):
        full = os.path.join(record["staged"], path)
        checked.flip(full, quietly=True)
        known = json.loads(Path(files).read_text(encoding="utf-8"))
        status = os.stat(full)
        known[path][:4] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        Path(files).write_text(json.dumps(known), encoding="utf-8")
        assert source.verify_staged(lab.bench.context, reader, record).equal, "the evidence was forged"
        assert later.verify_staged(lab.bench.context, reader, record).differences == [f"'{path}' differs from what was staged"]
        checked.flip(full)
    assert later.verify_staged(lab.bench.context, reader, record).equal
    assert known[checked.still][4] == "" and known[checked.moving][4], "only what recovery wrote has a hash of its own"
    live(lab, record, reader)
    assert lab.server.sql("SELECT count(*) FROM touched WHERE id < 0") == [(99,)]


def test_a_page_that_was_captured_as_it_is_does_not_keep_the_cluster_from_being_restored(lab: ClusterLab) -> None:
    checked = Checked(lab)
    lab.server.stop()
    checked.flip(os.path.join(lab.server.data, checked.still))
    lab.server.start()
    lab.bench.config["bad_pages"] = "warn"
    reader = checked.capture()
    assert [(page["path"], page["block"]) for page in reader.manifest["facts"]["bad_pages"]] == [(checked.still, 1)]
    live(lab, lab.stage(reader, "latest"), reader)
    assert lab.server.sql("SELECT count(*) FROM touched WHERE id < 0") == [(99,)]


def test_live_content_without_a_digest_counts_as_changed_by_any_transaction(lab: ClusterLab) -> None:
    reader = lab.bench.capture()[0]
    live(lab, lab.stage(reader), reader)
    assert lab.bench.live_equals(reader)
    lab.server.sql("UPDATE t SET id = id WHERE id = 7")
    assert lab.bench.live(reader).differences == ["1 transactions took a number since it was restored"]
