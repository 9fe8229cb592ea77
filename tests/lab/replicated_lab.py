# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A primary and its standbys, each a real server on a port and in a directory of its own, as members of one catalog entry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members, cluster_roles
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_standby import Standby
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Comparison
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader
from ansible_collections.lifeboat.recovery.tests.lab import postgres, processes
from ansible_collections.lifeboat.recovery.tests.lab.bench import Bench
from ansible_collections.lifeboat.recovery.tests.lab.cluster_lab import ClusterLab

FIRST = "db1"


class ReplicatedLab(ClusterLab):
    """servers: member -> its server; db1 is a primary from the beginning, the others have nothing yet."""

    def __init__(self, work: Path, *standbys: str, settings: str = "", programs: str = "", **options: Any) -> None:
        super().__init__(work, settings=f"hot_standby = on\n{settings}", programs=programs, **options)
        self.work = work
        self.servers = {FIRST: self.server, **{name: postgres.Postgres(programs=self.server.bin) for name in standbys}}
        self.passfile = os.path.join(self.server.home, "replication")
        with open(self.passfile, "w", encoding="utf-8") as handle:
            handle.write(f"127.0.0.1:*:*:{postgres.SUPERUSER}:{postgres.PASSWORD}\n")
        os.chmod(self.passfile, 0o600)
        who = processes.account()
        if who is not None:
            os.chown(self.passfile, *who)
        self._numbers = 0

    @property
    def entry(self) -> dict[str, Any]:
        """The service's normalised entry."""
        others = [
            {"host": name, "data_directory": server.data, "port": server.port, "conninfo": "host=127.0.0.1",
             "server": {"start": server.start_argv(), "stop": server.stop_argv(), "status": server.status_argv()}}
            for name, server in self.servers.items() if name != FIRST
        ]
        source = {**self.config, "conninfo": f"host=127.0.0.1 passfile={self.passfile}"}
        return {"host": FIRST, "sources": {"data": source}, "members": {"data": others}}

    def spec(self, home: Path) -> Spec:
        """The service with keys and a repository of its own below a folder."""
        spec = Spec.from_dict({
            "service": "ledger", "entry": self.entry, "repository": {"name": "local", "url": f"file://{home / 'repository'}"},
            "keys": {"provider": "file", "path": str(home / "keys"), "private_path": str(home / "private")}, "state_dir": str(home / "state"),
        })
        spec.provider().ensure()
        Repository.create(spec.repository)
        return spec

    def member(self, name: str, primary: str = "") -> Bench:
        """The source in the place of a member; with a primary it is to become its standby."""
        entry = cluster_members.entry_at(self.entry, name)
        config = {**entry["sources"]["data"], "members": entry["members"]["data"]}
        if primary:
            config["standby"] = cluster_members.way_between(self.entry, primary, name)
        bench = Bench(config, self.work / name)
        bench.work.mkdir(exist_ok=True)
        bench.store = self.bench.store
        return bench

    def ask(self, name: str) -> dict[str, Any]:
        """What a member is."""
        return {"host": name, **cluster_roles.ask(self.member(name).config, name)}

    def reseed(self, name: str, primary: str, reader: MemoryReader) -> dict[str, Any]:
        """Make a member a standby of a primary; the facts of its cutover, "record", and "proof" that it streams."""
        bench = self.member(name, primary)
        self._numbers += 1
        record = bench.stage(reader, f"20261122_{self._numbers:06d}_5eed5eed")
        comparison: Comparison = bench.source.verify_staged(bench.context, reader, record)
        assert comparison.equal, comparison.differences
        facts = bench.source.cutover(bench.context, record)
        return {**facts, "record": record, "proof": Standby(bench.context, reader.manifest["facts"]).prove()}

    def promote(self, name: str) -> None:
        """A failover to this member."""
        server = self.servers[name]
        server.sql("SELECT pg_promote(true, 60)")

    def destroy(self) -> None:
        for server in self.servers.values():
            server.destroy()
        super().destroy()
