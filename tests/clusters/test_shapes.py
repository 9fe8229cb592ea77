# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything a cluster may hold, at once, through capture, restore, going live and back: relations of several segment files, tablespaces,
a linked log directory, unlogged tables, large objects, a prepared transaction, checksums on and off."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.tests.lab import cluster_tree, processes
from ansible_collections.lifeboat.recovery.tests.lab.cluster_lab import ClusterLab
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres

GIB = 1 << 30
ROWS = 5000


def lengthen(server: Postgres, relation: str) -> None:
    """Make it as if the relation had grown over a full segment file into a second one: rows at the start of each, empty pages between.

    The pages carry no block number but in their checksums, which must still be off.
    """
    server.sql(f"VACUUM FREEZE {relation}")
    server.sql("CHECKPOINT")
    path = f"{server.data}/{server.sql('SELECT pg_relation_filepath(%s)', parameters=(relation,))[0][0]}"
    server.stop()
    shutil.copyfile(path, f"{path}.1")
    cluster_tree.own(os.path.dirname(path))
    os.truncate(path, GIB)
    for fork in ("_vm", "_fsm"):
        Path(path + fork).unlink(missing_ok=True)
    server.start()


def segments(server: Postgres, relation: str) -> list[int]:
    """The sizes of its segment files."""
    path = f"{server.data}/{server.sql('SELECT pg_relation_filepath(%s)', parameters=(relation,))[0][0]}"
    return [os.path.getsize(name) for name in (path, *sorted(glob.glob(f"{path}.*")))]


def content(server: Postgres) -> list[Any]:
    """What must be the same after a restore."""
    return [
        server.sql("SELECT count(*), sum(id), count(*) FILTER (WHERE v = 'changed') FROM long"), server.sql("SELECT count(*) FROM spread"),
        server.sql("SELECT answer FROM elsewhere", "other"), server.sql("SELECT length(lo_get(4711)), md5(lo_get(4711))"),
        server.sql("SELECT gid FROM pg_prepared_xacts"),
    ]


@pytest.mark.parametrize("checksums", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["with checksums", "without checksums"])
def test_everything_at_once(checksums: bool, tmp_path: Path) -> None:
    lab = ClusterLab(tmp_path)
    server = lab.server
    space, wal = os.path.join(server.home, "space"), os.path.join(server.home, "wal")
    try:
        server.sql(f"CREATE TABLE long AS SELECT g AS id, repeat(md5(g::text), 20) AS v FROM generate_series(1, {ROWS}) g")
        lengthen(server, "long")
        server.stop()
        if checksums:
            processes.checked([f"{server.bin}/pg_checksums", "--enable", "--no-sync", "-D", server.data])
        os.rename(f"{server.data}/pg_wal", wal)
        os.symlink(wal, f"{server.data}/pg_wal")
        os.mkdir(space, 0o700)
        cluster_tree.own(space)
        server.start()
        assert server.sql("SELECT count(*) FROM long") == [(2 * ROWS,)] and segments(server, "long")[0] == GIB
        server.sql(f"CREATE TABLESPACE spare LOCATION '{space}'")
        server.sql("CREATE TABLE spread TABLESPACE spare AS SELECT generate_series(1, 2000) AS id")
        server.sql("CREATE DATABASE other TABLESPACE spare")
        server.sql("CREATE TABLE elsewhere AS SELECT 42 AS answer", "other")
        server.sql("CREATE UNLOGGED TABLE loose TABLESPACE spare AS SELECT generate_series(1, 2000) AS id")
        server.sql("CREATE INDEX ON loose (id)")
        server.sql("SELECT lo_from_bytea(4711, decode(repeat('ab', 100000), 'hex'))")
        connection = server.connect()
        with connection.cursor() as cursor:
            for statement in ("BEGIN", "INSERT INTO spread VALUES (-1)", "PREPARE TRANSACTION 'promise'"):
                cursor.execute(statement)
        connection.close()
        first, _writer = lab.bench.capture()
        assert first.manifest["facts"]["checksums"] is checksums and first.manifest["facts"]["bytes"] > GIB
        # a row of the second segment
        server.sql(f"UPDATE long SET v = 'changed' WHERE ctid >= '({GIB // 8192},0)' AND id = 1")
        good = content(server)
        assert good[0][0][2] == 1
        second, writer = lab.bench.capture(first)
        assert writer.new_bytes < 60 << 20, "the log it needs and a few pages"
        server.sql("DELETE FROM long WHERE id % 2 = 0")
        server.sql("SELECT lo_unlink(4711)")
        record = lab.stage(second)
        source = lab.bench.source
        comparison = source.verify_staged(lab.bench.context, second, record)
        assert comparison.equal, comparison.differences
        source.cutover(lab.bench.context, record)
        assert content(server) == good and segments(server, "long")[0] == GIB
        assert server.sql("SELECT count(*) FROM loose") == [(0,)], "unlogged rows are gone, and the table is there"
        server.sql("INSERT INTO loose VALUES (1)")
        assert server.sql("SELECT id FROM loose WHERE id = 1") == [(1,)]
        assert os.readlink(f"{server.data}/pg_wal") == wal
        server.sql("COMMIT PREPARED 'promise'")
        assert server.sql("SELECT count(*), min(id) FROM spread") == [(2001, -1)]
        source.rollback(lab.bench.context, record)
        assert server.sql("SELECT count(*) FROM long") == [(ROWS,)] and server.sql("SELECT gid FROM pg_prepared_xacts") == [("promise",)]
        source.commit(lab.bench.context, record)
        assert lab.leftovers() == []
    finally:
        lab.destroy()


@pytest.mark.soak
def test_a_relation_that_grew_over_several_segments(tmp_path: Path) -> None:
    """Three full gibibytes written by the server itself, with checksums; one row in each segment changed before the next snapshot."""
    lab = ClusterLab(tmp_path, "max_wal_size = 4GB\nsynchronous_commit = off\nfull_page_writes = on\nautovacuum = off")
    server = lab.server
    try:
        server.stop()
        processes.checked([f"{server.bin}/pg_checksums", "--enable", "--no-sync", "-D", server.data])
        server.start()
        server.sql("CREATE TABLE long (id int, v text)")
        server.sql("ALTER TABLE long ALTER v SET STORAGE PLAIN")
        server.sql("INSERT INTO long SELECT g, repeat(md5(g::text), 125) FROM generate_series(1, 540000) g")
        server.sql("CHECKPOINT")
        assert segments(server, "long")[:2] == [GIB, GIB]
        store = cluster_tree.ClusterStore(tmp_path / "store", server)
        first = store.capture()
        server.sql("UPDATE long SET v = md5(v) WHERE id IN (1, 270000, 539999)")
        server.sql("CHECKPOINT")
        good = server.sql("SELECT count(*), sum(hashtext(v)::bigint) FROM long")
        second = store.capture(first)
        assert first.facts["bytes"] > 2 * GIB and second.written < 40 << 20, "the log it needs and a few pages"
        copy = cluster_tree.start_copy(server, second.reader, second.captured.digest, store.store.chunk_key)
        try:
            assert copy.sql("SELECT count(*), sum(hashtext(v)::bigint) FROM long") == good
            assert segments(copy, "long")[:2] == [GIB, GIB]
            cluster_tree.sound(copy)
        finally:
            copy.destroy()
    finally:
        lab.destroy()
