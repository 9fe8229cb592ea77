# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a PostgreSQL database can do wrong: writers during a capture, roles, shared clusters, hostile dumps."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import postgresql_capture
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader, MemoryWriter
from ansible_collections.lifeboat.recovery.tests.lab import postgres_content, processes
from ansible_collections.lifeboat.recovery.tests.lab.bench import STAGE_ID, Bench
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres

from .conftest import database_config


class Writers:
    """Clients that move money between accounts, add rows and advance a sequence for as long as the context lasts."""

    def __init__(self, cluster: Postgres, statements: list[str]) -> None:
        self._cluster = cluster
        self._statements = statements
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(statement,)) for statement in statements]
        self.done = 0
        self.error: Exception | None = None

    def _run(self, statement: str) -> None:
        try:
            connection = self._cluster.connect("shop")
            with connection.cursor() as cursor:
                while not self._stop.is_set():
                    cursor.execute(statement)
                    self.done += 1
            connection.close()
        except Exception as error:
            self.error = error

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        processes.wait_for(lambda: self.done > 20 or self.error is not None, "writers")
        return self

    def __exit__(self, *_details: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert self.error is None, self.error


def test_capture_under_writers_is_one_consistent_state(cluster: Postgres, bench: Bench) -> None:
    cluster.sql("CREATE TABLE accounts (id int PRIMARY KEY, money bigint); INSERT INTO accounts SELECT i, 1000 FROM generate_series(1, 2000) i;"
                "CREATE TABLE log (id bigserial PRIMARY KEY, note text)", "shop")
    move = ("DO $$ DECLARE a int := 1 + random() * 1999; b int := 1 + random() * 1999; BEGIN UPDATE accounts SET money = money - 7 WHERE id = least(a, b); "
            "UPDATE accounts SET money = money + 7 WHERE id = least(a, b); UPDATE accounts SET money = money + 1 - 1 WHERE id = b; END $$")
    with Writers(cluster, [move, "INSERT INTO log (note) SELECT 'n' FROM generate_series(1, 3)", "SELECT nextval('log_id_seq')"]):
        readers = [bench.capture()[0] for _number in range(3)]
    assert len({reader.manifest["digest"]["value"] for reader in readers}) == 3
    for number, reader in enumerate(readers):
        record = bench.stage(reader, f"s{number}")
        comparison = bench.source.verify_staged(bench.context, reader, record)
        assert comparison.equal, comparison.differences
        assert cluster.sql("SELECT sum(money) FROM accounts", record["staged"]) == [(2000000,)]
        assert cluster.sql("SELECT max(id) <= (SELECT last_value FROM log_id_seq) FROM log", record["staged"]) == [(True,)]
        bench.source.discard(bench.context, record)


def test_tables_that_come_and_go_during_the_locking(cluster: Postgres, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.sql("CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE doomed AS SELECT 2 AS x", "shop")
    original, calls = postgresql_capture.catalog.tables, []

    def tables(client: Any, connection: Any) -> Any:
        found = original(client, connection)
        calls.append(len(found))
        if len(calls) == 1:
            cluster.sql("DROP TABLE doomed", "shop")
        elif len(calls) == 2:
            cluster.sql("CREATE TABLE late AS SELECT 3 AS x", "shop")
        return found

    monkeypatch.setattr(postgresql_capture.catalog, "tables", tables)
    reader, _writer = bench.capture()
    monkeypatch.undo()
    assert reader.manifest["facts"]["tables"] == 2
    assert bench.live_equals(reader)


def test_truncate_waits_for_the_capture(cluster: Postgres, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.sql("CREATE TABLE a AS SELECT generate_series(1, 1000) AS x", "shop")
    original = postgresql_capture.catalog.properties

    def properties(client: Any, connection: Any, name: str) -> Any:
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            cluster.sql("SET lock_timeout = '100ms'; TRUNCATE a", "shop")
        return original(client, connection, name)

    monkeypatch.setattr(postgresql_capture.catalog, "properties", properties)
    reader, _writer = bench.capture()
    assert reader.manifest["facts"]["rows"] == 1000


def test_a_killed_dump_gives_no_snapshot(cluster: Postgres, bench: Bench, tmp_path: Path) -> None:
    cluster.sql("CREATE TABLE a AS SELECT i, repeat('x', 200) AS t FROM generate_series(1, 1000) i", "shop")
    tools = tmp_path / "bin"
    tools.mkdir()
    killed = f'case "$*" in *section=data*) {cluster.bin}/pg_dump "$@" | head -c 50000; kill -9 $$;; *) exec {cluster.bin}/pg_dump "$@";; esac'
    for name, body in (("pg_dump", f"#!/bin/sh\n{killed}\n"), ("psql", f'#!/bin/sh\nexec {cluster.bin}/psql "$@"\n')):
        (tools / name).write_text(body)
        (tools / name).chmod(0o755)
    bench.config["bin_dir"] = str(tools)
    writer = MemoryWriter(bench.store)
    with pytest.raises(SourceError, match="killed by signal 9"):
        bench.source.capture(bench.context, writer)
    assert writer._lines == []


def test_a_failing_digest_stops_the_dump(cluster: Postgres, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.sql("CREATE TABLE a AS SELECT i, repeat('x', 200) AS t FROM generate_series(1, 1000) i", "shop")

    def fails(*_arguments: Any, **_options: Any) -> Any:
        raise SourceError("no digest", "test", "")

    monkeypatch.setattr(postgresql_capture, "measure", fails)
    with pytest.raises(SourceError, match="no digest"):
        bench.source.capture(bench.context, MemoryWriter(bench.store))
    assert not _sessions(cluster, "shop")


def _sessions(cluster: Postgres, name: str) -> list[tuple[Any, ...]]:
    processes.wait_for(lambda: not cluster.sql("SELECT pid FROM pg_stat_activity WHERE datname = %s", parameters=(name,)), "the end of sessions")
    return cluster.sql("SELECT pid FROM pg_stat_activity WHERE datname = %s", parameters=(name,))


def test_killed_while_it_stages(cluster: Postgres, bench: Bench) -> None:
    """kill -9 when the staged database appears, and again when it is half loaded."""
    postgres_content.roles(cluster)
    cluster.sql("CREATE TABLE a AS SELECT i, repeat('x', 500) AS t FROM generate_series(1, 40000) i; ALTER TABLE a OWNER TO shop_app", "shop")
    reader, _writer = bench.capture()
    record = bench.source.plan_stage(bench.context, reader.manifest, STAGE_ID)
    for statement in (
        "SELECT 1 FROM pg_database WHERE datname = %s",
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND query LIKE 'COPY%%'",
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND query LIKE 'ANALYZE%%'",
    ):
        process = bench.spawn("stage", reader, record)
        processes.wait_for(lambda one=process, sql=statement: one.poll() is not None or bool(cluster.sql(sql, parameters=(record["staged"],))), statement)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    bench.source.stage(bench.context, reader, record)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    assert bench.live_equals(reader)


def test_roles_come_back_with_passwords_and_are_never_altered(cluster: Postgres, bench: Bench) -> None:
    postgres_content.roles(cluster)
    cluster.sql("CREATE TABLE a (x int); ALTER TABLE a OWNER TO shop_app; GRANT SELECT ON a TO shop_read", "shop")
    reader, _writer = bench.capture()
    assert "bystander" not in str(bench.store.chunks.values()), "roles the database does not need are not captured"
    cluster.sql("DROP DATABASE shop")
    cluster.sql('DROP ROLE shop_app; DROP ROLE reporter; ALTER ROLE shop_read CREATEDB; REVOKE "shop owner" FROM bystander')
    record = bench.stage(reader)
    facts = bench.source.cutover(bench.context, record)
    assert facts["warnings"] == ["role shop_read is there and was left as it is; it differs in attributes"]
    assert cluster.sql("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'shop_read'") == [(True,)]
    connection = cluster.connect("shop", "shop_app", "app-secret-canary")
    connection.close()
    assert cluster.sql("SELECT rolconnlimit, rolvaliduntil::text, rolconfig FROM pg_roles WHERE rolname = 'shop_app'") == [
        (20, "2099-01-01 00:00:00+00", ["work_mem=8MB"])]
    assert cluster.sql("""SELECT g.rolname, admin_option FROM pg_auth_members m JOIN pg_roles g ON g.oid = roleid JOIN pg_roles u ON u.oid = member
        WHERE u.rolname IN ('shop_app', 'reporter') ORDER BY 1""") == [("pg_read_all_stats", False), ("shop owner", True), ("shop_read", False)]


def test_two_services_of_one_cluster_restore_at_once(cluster: Postgres, database: str, tmp_path: Path) -> None:
    """Both need the same missing roles; a third database and its sessions are not touched."""
    postgres_content.roles(cluster)
    cluster.sql("CREATE DATABASE second")
    cluster.sql("CREATE DATABASE bystander")
    benches = []
    for name in ("shop", "second"):
        cluster.sql("CREATE TABLE a AS SELECT generate_series(1, 100) AS x; ALTER TABLE a OWNER TO shop_app", name)
        (tmp_path / name).mkdir()
        benches.append(Bench(database_config(cluster, database=name), tmp_path / name))
    readers = [bench.capture()[0] for bench in benches]
    for name in ("shop", "second"):
        cluster.sql(f"DROP DATABASE {name}")
    cluster.sql("DROP ROLE shop_app; DROP ROLE reporter")
    held = cluster.connect("bystander")
    failures: list[BaseException] = []

    def restore(bench: Bench, reader: MemoryReader) -> None:
        try:
            record = bench.stage(reader)
            assert bench.source.verify_staged(bench.context, reader, record).equal
            bench.source.cutover(bench.context, record)
            assert bench.live_equals(reader)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=restore, args=pair) for pair in zip(benches, readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    with held.cursor() as cursor:
        cursor.execute("SELECT 1")
    held.close()


def test_a_lost_shared_cluster_is_provisioned_once(tmp_path: Path) -> None:
    server = Postgres()
    try:
        server.init().start()
        benches = []
        for name in ("first", "second"):
            server.sql(f"CREATE DATABASE {name}")
            (tmp_path / name).mkdir()
            benches.append(Bench(database_config(server, database=name), tmp_path / name))
        readers = [bench.capture()[0] for bench in benches]
        server.wipe()
        records = [bench.source.plan_stage(bench.context, reader.manifest, "x") for bench, reader in zip(benches, readers)]
        assert [bench.errors(bench.source.preflight_restore(bench.context, reader.manifest)) for bench, reader in zip(benches, readers)] == [[], []]
        acted: list[bool] = []
        threads = [threading.Thread(target=lambda bench=bench, record=record: acted.append(bench.source.prepare(bench.context, record)))
                   for bench, record in zip(benches, records)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert sorted(acted) == [False, True]
        server.stop()
        assert benches[0].source.prepare(benches[0].context, records[0]) is True, "a stopped one is started"
        assert benches[0].source.prepare(benches[0].context, records[0]) is False
    finally:
        server.destroy()


def test_settings_of_an_own_cluster_come_back_where_they_are_missing(tmp_path: Path) -> None:
    server = Postgres()
    try:
        server.init().start()
        server.sql("CREATE DATABASE shop")
        for setting in ("work_mem = '7MB'", 'search_path = "$user", public', "max_connections = 55", "archive_command = 'false'"):
            server.sql(f"ALTER SYSTEM SET {setting}")
        bench = Bench({**database_config(server), "cluster": "own"}, tmp_path)
        reader, _writer = bench.capture()
        server.wipe()
        subprocess.run(server.provision_argv(), check=True, timeout=300)
        server.sql("ALTER SYSTEM SET work_mem = '9MB'")
        record = bench.stage(reader)
        facts = bench.source.cutover(bench.context, record)
        found = dict(server.sql("SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'"))
        assert found == {"work_mem": "9MB", "search_path": '"$user", public', "max_connections": "55"}
        assert any("work_mem" in text for text in facts["warnings"])
        assert any("restart" in text and "max_connections" in text for text in facts["warnings"])
    finally:
        server.destroy()


def test_a_dump_with_hidden_commands_is_refused(cluster: Postgres, bench: Bench, tmp_path: Path) -> None:
    cluster.sql("CREATE TABLE a (x int)", "shop")
    reader, _writer = bench.capture()
    target = tmp_path / "owned"
    for identity, data in bench.store.chunks.items():
        if b"CREATE TABLE" in data:
            evil = data.replace(b"CREATE TABLE", b"\\! touch " + str(target).encode() + b"\nCREATE TABLE", 1)
            bench.store.chunks[identity] = evil
            changed = bench.store.chunk_id(evil)
            bench.store.chunks[changed] = evil
            reader._ids = [changed if one == identity else one for one in reader._ids]
            number = reader._ids.index(changed)
            reader._lines = [line.replace(f"[{number}, 0, {len(data)}]", f"[{number}, 0, {len(evil)}]") for line in reader._lines]
            break
    with pytest.raises(SourceError, match="psql failed"):
        bench.stage(reader)
    assert not target.exists()


def test_subscriptions_do_not_hold_a_staged_copy(cluster: Postgres, bench: Bench) -> None:
    cluster.sql("CREATE TABLE a (x int)", "shop")
    cluster.sql("CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1 dbname=x password=subscription-canary' PUBLICATION p WITH (connect = false)", "shop")
    reader, _writer = bench.capture()
    assert "subscription-canary" not in str(reader.manifest)
    record = bench.stage(reader)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    bench.source.discard(bench.context, record)
    assert len(cluster.sql("SELECT 1 FROM pg_database WHERE datname LIKE 'shop%'")) == 1
    cluster.sql("ALTER SUBSCRIPTION sub SET (slot_name = NONE)", "shop")
    cluster.sql("DROP SUBSCRIPTION sub", "shop")


def test_long_names_and_other_encodings(cluster: Postgres, database: str, tmp_path: Path) -> None:
    name = "l" * 61 + "ü"
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    cluster.sql("CREATE TABLE \"täble\" AS SELECT 'Größe' AS \"wört\"", name)
    bench = Bench(database_config(cluster, database=name), tmp_path)
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    bench.source.cutover(bench.context, record)
    assert bench.live_equals(reader)
    assert cluster.sql("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = %s", parameters=(name,)) == [("LATIN1",)]
    bench.source.rollback(bench.context, record)
    bench.source.commit(bench.context, record)


def test_wide_rows_and_many_tables(cluster: Postgres, bench: Bench) -> None:
    cluster.sql("CREATE TABLE wide AS SELECT i, repeat(chr(64 + i), 3000000) AS t FROM generate_series(1, 6) i", "shop")
    cluster.sql("DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE t%s AS SELECT %s AS x', i, i); END LOOP; END $$", "shop")
    reader, _writer = bench.capture()
    assert (reader.manifest["facts"]["tables"], reader.manifest["facts"]["rows"]) == (301, 306)
    record = bench.stage(reader)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    cluster.sql("UPDATE wide SET t = overlay(t placing '!' from 2999999) WHERE i = 3", record["staged"])
    assert bench.source.verify_staged(bench.context, reader, record).differences == ["table public.wide: 6 rows expected, the content of rows differs"]
    bench.source.discard(bench.context, record)


def test_preflight_says_what_is_wrong_and_what_to_do(cluster: Postgres, bench: Bench, tmp_path: Path) -> None:
    cluster.sql("CREATE EXTENSION hstore", "shop")
    cluster.sql("CREATE ROLE plain LOGIN PASSWORD 'plain-secret'")
    reader, _writer = bench.capture()

    def capture(**changes: Any) -> str:
        other = Bench({**bench.config, **changes}, tmp_path)
        found = other.errors(other.source.preflight_capture(other.context))
        assert len(found) == 1 and found[0].count("; ") >= 1 and "\n" not in found[0], found
        return found[0]

    wrong = tmp_path / "wrong"
    wrong.write_text("wrong-canary")
    plain = tmp_path / "plain"
    plain.write_text("plain-secret")
    message = capture(password_file=str(wrong))
    assert "refused the login of user 'postgres'" in message and "canary" not in message
    assert "does not exist" in capture(database="absent")
    assert "does not answer" in capture(port=processes.free_port())
    assert "no superuser" in capture(user="plain", password_file=str(plain))
    other = Bench({**bench.config, "bin_dir": str(tmp_path)}, tmp_path)
    assert len(other.errors(other.source.preflight_capture(other.context))) == 2

    def restore(facts: dict[str, Any], **changes: Any) -> list[str]:
        other = Bench({**bench.config, **changes}, tmp_path)
        return other.errors(other.source.preflight_restore(other.context, {**reader.manifest, "facts": {**reader.manifest["facts"], **facts}}))

    assert restore({}) == []
    assert bench.off_by(0, reader.manifest) == []
    (clock,) = bench.off_by(100, reader.manifest)
    assert "the clock of the server" in clock and "100 s ahead of that of this host" in clock
    assert bench.lacking(reader.manifest) == []
    huge = bench.lacking({**reader.manifest, "facts": {**reader.manifest["facts"], "bytes": 1 << 60}})
    assert len(huge) == 1 and "not enough space to stage beside the live data" in huge[0]
    everything = restore({
        "version": 990000, "extensions": {"postgis": "9"}, "tablespaces": ["fast"], "collate": "xx_XX.UTF-8", "bytes": 1 << 60, "provider": "b", "locale": "C",
    })
    for part in ("taken from 99.0", "extension 'postgis'", "tablespace 'fast'", "locale 'xx_XX.UTF-8'", "locale provider"):
        assert any(part in text for text in everything), (part, everything)
    down = processes.free_port()
    assert any("how to start it" in text for text in restore({}, port=down, server=None))
    assert any("provision" in text for text in restore({}, port=down, provision=None, data_directory=str(tmp_path / "none")))
    assert restore({}, port=down) == []


def test_server_errors_carry_no_rows(cluster: Postgres, bench: Bench) -> None:
    """A restore that fails on data names the error and not the data."""
    cluster.sql("CREATE TABLE a (x int UNIQUE); INSERT INTO a VALUES (1)", "shop")
    reader, _writer = bench.capture()
    record = bench.source.plan_stage(bench.context, reader.manifest, STAGE_ID)
    tools = bench.work / "bin"
    tools.mkdir()
    (tools / "psql").write_text(
        "#!/bin/sh\necho 'psql:<stdin>:9: ERROR:  duplicate key value violates unique constraint' >&2\n"
        "echo 'DETAIL:  Key (card)=(4111-canary) exists' >&2\nexit 3\n")
    (tools / "psql").chmod(0o755)
    (tools / "pg_dump").symlink_to(f"{cluster.bin}/pg_dump")
    bench.config["bin_dir"] = str(tools)
    with pytest.raises((SourceError, ConfigError)) as caught:
        bench.source.stage(bench.context, reader, record)
    assert "canary" not in str(caught.value)
    bench.source.discard(bench.context, record)


def test_digest_of_the_same_content_is_the_same_after_a_vacuum_full(cluster: Postgres, bench: Bench) -> None:
    postgres_content.roles(cluster)
    cluster.sql("CREATE TABLE a AS SELECT i, random() AS r FROM generate_series(1, 5000) i; CREATE INDEX a_r ON a (r)", "shop")
    reader, _writer = bench.capture()
    cluster.sql("CLUSTER a USING a_r", "shop")
    cluster.sql("ALTER TABLE a SET WITHOUT CLUSTER", "shop")
    assert bench.live(reader).differences == []
