# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restored PostgreSQL database goes live and back: sessions, a swap that cannot be done, and what is never dropped or pushed aside."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import postgresql_stage
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql_client import Client
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader
from ansible_collections.lifeboat.recovery.tests.lab import postgres_content
from ansible_collections.lifeboat.recovery.tests.lab.bench import Bench
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres


def test_sessions_end_at_cutover_and_the_staged_copy_is_closed_before(cluster: Postgres, bench: Bench) -> None:
    postgres_content.roles(cluster)
    cluster.sql("CREATE TABLE a (x int)", "shop")
    reader, _writer = bench.capture()
    session = cluster.connect("shop")
    record = bench.stage(reader)
    with pytest.raises(psycopg2.OperationalError, match="too many connections"):
        cluster.connect(record["staged"], "shop_app", "app-secret-canary")
    bench.source.cutover(bench.context, record)
    with pytest.raises(psycopg2.Error), session.cursor() as cursor:
        cursor.execute("SELECT 1")
    cluster.connect("shop", "shop_app", "app-secret-canary").close()
    with pytest.raises(psycopg2.OperationalError, match="not currently accepting"):
        cluster.connect(record["displaced"])


def test_a_swap_that_cannot_be_done_leaves_the_live_database_open(cluster: Postgres, bench: Bench) -> None:
    cluster.sql("CREATE TABLE a (x int)", "shop")
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    cluster.sql("ALTER SYSTEM SET max_prepared_transactions = 5")
    cluster.stop()
    cluster.start()
    connection = cluster.connect("shop")
    connection.autocommit = False
    connection.tpc_begin("stuck")
    connection.cursor().execute("INSERT INTO a VALUES (1)")
    connection.tpc_prepare()
    connection.close()
    assert any("prepared transactions" in text for text in bench.errors(bench.source.preflight_restore(bench.context, reader.manifest)))
    with pytest.raises(SourceError, match="prepared transactions"):
        bench.source.cutover(bench.context, record)
    assert cluster.sql("SELECT datallowconn FROM pg_database WHERE datname = 'shop'") == [(True,)]
    cluster.sql("ROLLBACK PREPARED 'stuck'", "shop")
    bench.source.cutover(bench.context, record)
    assert bench.live_equals(reader)


def lost_after_cutover(cluster: Postgres, bench: Bench) -> tuple[MemoryReader, dict[str, Any]]:
    """A restored database that somebody dropped: its snapshot, and the record of the restore."""
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    bench.source.cutover(bench.context, record)
    cluster.sql("DROP DATABASE shop WITH (FORCE)")
    return reader, record


def test_commit_refuses_to_drop_the_only_copy(cluster: Postgres, bench: Bench) -> None:
    reader, record = lost_after_cutover(cluster, bench)
    with pytest.raises(ConflictError, match="only copy"):
        bench.source.commit(bench.context, record)
    bench.source.rollback(bench.context, record)
    assert bench.live_equals(reader)


def test_rollback_does_not_push_aside_what_others_made(cluster: Postgres, bench: Bench) -> None:
    _reader, record = lost_after_cutover(cluster, bench)
    cluster.sql("CREATE DATABASE shop")
    with pytest.raises(ConflictError, match="not the one that was restored"):
        bench.source.rollback(bench.context, record)


def test_rollback_of_an_intent(cluster: Postgres, bench: Bench) -> None:
    """The swap was intended, live closed, and the process killed before the renames."""
    cluster.sql("CREATE TABLE a (x int)", "shop")
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    cluster.sql("ALTER DATABASE shop ALLOW_CONNECTIONS false")
    bench.source.rollback(bench.context, record)
    assert cluster.sql("SELECT datallowconn FROM pg_database WHERE datname = 'shop'") == [(True,)]
    assert bench.live_equals(reader)
    bench.source.commit(bench.context, record)
    assert len(cluster.sql("SELECT 1 FROM pg_database WHERE datname LIKE 'shop%'")) == 1


def test_a_copy_that_the_server_finished_for_a_killed_call_is_replaced(cluster: Postgres, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server goes on with a statement whose client was killed; it may end between our look and our own."""
    cluster.sql("CREATE TABLE a AS SELECT 1 AS x", "shop")
    reader, _writer = bench.capture()
    look = postgresql_stage.drop_database
    late = iter([True])

    def looked(client: Client, connection: Any, name: str) -> None:
        look(client, connection, name)
        if next(late, False):
            cluster.sql(f'CREATE DATABASE "{name}"')

    monkeypatch.setattr(postgresql_stage, "drop_database", looked)
    record = bench.stage(reader)
    assert next(late, None) is None, "nothing came late"
    bench.source.cutover(bench.context, record)
    assert bench.live_equals(reader)
