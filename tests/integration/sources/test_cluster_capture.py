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

from ansible_collections.lifeboat.recovery.tests.lab import cluster_tree, processes
from ansible_collections.lifeboat.recovery.tests.lab.cluster_tree import ClusterStore, Snapshot
from ansible_collections.lifeboat.recovery.tests.lab.postgres import PASSWORD, SUPERUSER, Postgres


def make_cluster(*lines: str, checksums: bool = True) -> Postgres:
    """A new cluster, started, with data checksums and settings of its own."""
    server = Postgres().init()
    if checksums:
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
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def bank() -> Iterator[Postgres]:
    """pgbench's tables in a cluster with checksums."""
    server = make_cluster()
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
    assert full.facts["server_version"] // 10000 == 15 and full.facts["timeline"] == 1 and "all_read_because" not in third.facts
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
