# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private cluster with a continuous log, a source over it, and ways to look at what a restore made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_lsn import parse_position
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_places import Owner
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_private import PrivateCluster, find_programs, private_settings
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader
from ansible_collections.lifeboat.recovery.tests.doubles.wal_log import WalLog
from ansible_collections.lifeboat.recovery.tests.lab import postgres, processes
from ansible_collections.lifeboat.recovery.tests.lab.bench import Bench


class ClusterLab:
    """server, bench (the source), and a directory that receives its log."""

    def __init__(self, work: Path, settings: str = "", programs: str = "", **options: Any) -> None:
        self.server = postgres.Postgres(programs=programs)
        self.server.init()
        with open(f"{self.server.data}/postgresql.conf", "a", encoding="utf-8") as handle:
            handle.write(f"wal_level = replica\nmax_prepared_transactions = 10\n{settings}\n")
        self.server.start()
        self.bench = Bench({**self.config, **options}, work)
        self._directories = [Path(processes.private_dir("wal"))]
        self._number = 0

    @property
    def config(self) -> dict[str, Any]:
        """The source's catalog entry."""
        return {
            "type": "postgresql", "port": self.server.port, "password_file": self.server.password_file, "data_directory": self.server.data,
            "bin_dir": self.server.bin, "server": {"start": self.server.start_argv(), "stop": self.server.stop_argv(), "status": self.server.status_argv()},
        }

    def slot(self) -> None:
        """Hold the log from here on."""
        self.server.sql("SELECT pg_create_physical_replication_slot('lab', true)")
        if self.server.major < 15:
            self.receive()  # pg_receivewal asks no slot where to begin yet: it goes on behind the files that it has

    def receive_afresh(self) -> None:
        """After a restore: another slot, another directory."""
        self._directories.append(Path(processes.private_dir("wal")))
        self.slot()

    def receive(self) -> tuple[int, int]:
        """Receive the log up to where the server is now; (timeline, position)."""
        timeline, end = self.server.sql("SELECT timeline_id, pg_current_wal_flush_lsn()::text FROM pg_control_checkpoint()")[0]
        # pg_receivewal ends when it sees something behind the end, or the server's next sign of life
        self.server.sql("SELECT pg_logical_emit_message(true, 'lab', 'behind the end')")
        subprocess.run(
            [f"{self.server.bin}/pg_receivewal", "-D", str(self._directories[-1]), "-S", "lab", "--endpos", end, "--no-password", "--no-loop", "--synchronous"],
            env={**os.environ, "PGPASSWORD": postgres.PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(self.server.port), "PGUSER": postgres.SUPERUSER},
            check=True, timeout=300, capture_output=True, cwd="/", **processes.run_as(),
        )
        return int(timeline), parse_position(end)

    def log(self, ends: dict[int, int], until: str = "2999-01-01T00:00:00Z") -> WalLog:
        """What was received so far, as a log."""
        log = WalLog(until)
        for directory in self._directories:
            log.load(directory, ends)
        return log

    def stage(self, reader: MemoryReader, target: str | None = None, timeline: str = "") -> dict[str, Any]:
        """Stage to a target like ``lsn:0/3000000``; the record is new each time."""
        self._number += 1
        context = self.bench.context
        if target is not None:
            kind, _colon, value = target.partition(":")
            context.target = {"kind": kind, "value": value, "timeline": timeline}
        assert self.bench.errors(self.bench.source.preflight_restore(context, reader.manifest)) == []
        record = self.bench.source.plan_stage(context, reader.manifest, f"20261122_{self._number:06d}_abcdef12")
        self.bench.source.prepare(context, record)
        try:
            self.bench.source.stage(context, reader, record)
        except LifeboatError:
            self.discard(record)  # as the engine does
            raise
        return record

    def staged(self, record: dict[str, Any], statement: str) -> list[tuple[Any, ...]]:
        """Ask the staged copy over a private server."""
        owner, programs = Owner(*record["owner"]), find_programs(self.server.bin, record["major"], "lab")
        settings = private_settings(programs, record["staged"], owner, "lab")
        with PrivateCluster(programs, record["staged"], record["private"], owner, postgres.SUPERUSER, settings, "lab") as private:
            private.wait_answer()
            connection = private.client.connect("postgres")
            try:
                rows = private.client.rows(connection, statement)
            finally:
                connection.close()
            private.stop()
        return rows

    def discard(self, record: dict[str, Any]) -> None:
        """Throw a staged copy away."""
        self.bench.source.discard(self.bench.context, record)

    def leftovers(self) -> list[str]:
        """What a restore left beside the data directory."""
        return sorted(name for name in os.listdir(self.server.home) if "lifeboat" in name)

    def destroy(self) -> None:
        """Stop and delete everything."""
        self.server.destroy()
        for directory in self._directories:
            processes.remove(str(directory))
