# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster under load is killed and its data directory deleted. Every commit that was acknowledged to a client up to the position that
was last reported as proven comes back; so does exactly the content of a standby that stopped at the position where recovery ended."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import capture, restore
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.acknowledged import TABLES, Clients
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import SEGMENT, LogLab, WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.postgres import PASSWORD, SUPERUSER, bin_dir, bin_dirs


def a_run(number: int, verb: str) -> dict[str, Any]:
    return {"id": f"20261122T{number:06d}Z-{verb}-abcdef", "verb": verb, "controller": "lab", "pid": 1, "user": "lab",
            "started": "2026-11-22T00:00:00Z", "resumes": None}


class Scene:
    """A primary with a slow standby, pgbench's tables and clients that take notes."""

    def __init__(self, home: pathlib.Path, programs: str) -> None:
        self.cluster = WalPostgres(programs=programs).init()
        self.amcheck = False
        if self.cluster.major < 18:
            processes.checked([f"{programs}/pg_checksums", "--enable", "--no-sync", "-D", self.cluster.data])
        self.twin: WalPostgres | None = None
        self.load: subprocess.Popen[bytes] | None = None
        try:
            self.cluster.start()
            self.system = self.cluster.system()
            self.lab = LogLab(home, self.cluster)
            self.lab.document["entry"]["sources"]["db"]["server"] = {
                "start": self.cluster.start_argv(), "stop": self.cluster.stop_argv(), "status": self.cluster.status_argv(),
            }
            self.lab.save()
            self.cluster.bench_tables()
            self.cluster.sql(TABLES)
            self.amcheck = self.cluster.can_amcheck()
            if self.amcheck:
                self.cluster.sql("CREATE EXTENSION amcheck")
            self.twin = self.cluster.standby()
            # it receives everything at once and replays none of the load's commits, so that it can still stop at any of them
            self.twin.configure("recovery_min_apply_delay = '1h'", "max_standby_streaming_delay = -1")
            self.twin.password_file = self.cluster.password_file
            self.twin.start()
        except BaseException:
            self.end()
            raise

    def environment(self, server: WalPostgres) -> dict[str, str]:
        return {**os.environ, "PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": SUPERUSER}

    def lose(self) -> None:
        """kill -9 of the whole server, and its data directory is gone."""
        self.cluster.crash()
        processes.remove(self.cluster.data)

    def replayed(self, reached: int) -> WalPostgres:
        """The standby, with everything replayed up to this position and nothing behind it."""
        twin = self.twin
        assert twin is not None
        received = wal.parse(twin.sql("SELECT pg_last_wal_receive_lsn()::text")[0][0])
        twin.stop()
        twin.configure("recovery_min_apply_delay = 0", f"recovery_target_lsn = '{wal.text(reached)}'", "recovery_target_inclusive = off",
                       "recovery_target_action = pause", "recovery_target_timeline = '1'", "primary_conninfo = ''")
        if received < reached:  # the last bytes before the kill went to the shipper first
            place = self.lab.segments(pathlib.Path(twin.home) / "missing", self.system, 1, received // SEGMENT * SEGMENT, reached)
            for path in (place, *place.iterdir()):
                path.chmod(0o755 if path.is_dir() else 0o644)
            twin.configure(f"restore_command = 'cp {place}/%f %p'")
        twin.start()
        processes.wait_for(lambda: self._position(twin) >= reached, f"the standby to come to {wal.text(reached)}", 300)
        assert self._position(twin) == reached
        return twin

    @staticmethod
    def _position(twin: WalPostgres) -> int:
        return wal.parse(twin.sql("SELECT pg_last_wal_replay_lsn()::text")[0][0])

    def dump(self, server: WalPostgres) -> list[bytes]:
        """Everything that pg_dumpall sees."""
        done = subprocess.run([f"{server.bin}/pg_dumpall"], env=self.environment(server), capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if not line.startswith((b"--", b"\\restrict", b"\\unrestrict"))]

    def sound(self) -> None:
        if self.amcheck:
            processes.checked([f"{self.cluster.bin}/pg_amcheck", "--all", "--heapallindexed", "--install-missing"], env=self.environment(self.cluster))
        self.cluster.stop()
        processes.checked([f"{self.cluster.bin}/pg_checksums", "--check", "-D", self.cluster.data])

    def end(self) -> None:
        if self.load is not None:
            self.load.kill()
            self.load.wait(30)
        if hasattr(self, "lab"):
            self.lab.end()
        for server in (self.cluster, self.twin):
            if server is not None:
                server.destroy()


#: One round on the system's server in `make test`; in `make soak` five on every version.
ROUNDS = [pytest.param(bin_dir(), 1, id="1")] + [
    pytest.param(programs, seed, marks=pytest.mark.soak, id=f"{major}-{seed}")
    for major, programs in bin_dirs().items() for seed in range(10 * major, 10 * major + 5)
]


@pytest.mark.parametrize(("programs", "seed"), ROUNDS)
def test_nothing_that_was_proven_is_lost(programs: str, seed: int, tmp_path: pathlib.Path) -> None:
    dice = random.Random(seed)
    shipper_dies_too = dice.random() < 0.4
    print(f"seed {seed}: {programs}, shipper {'killed with the server' if shipper_dies_too else 'lives on'}")
    scene = Scene(tmp_path, programs)
    lab, cluster, clients = scene.lab, scene.cluster, Clients()
    try:
        lab.start()
        scene.load = cluster.pgbench(600, 8)
        clients.start(cluster, 3)
        clients.wait(dice.randrange(20, 200))
        modes = []
        for number in range(2 + dice.randrange(2)):
            told = capture.capture_service(lab.spec, a_run(number, "backup"))
            modes.append(told["snapshots"][0]["mode"])
            clients.wait(dice.randrange(50, 400))
        assert modes[:2] == ["full", "incremental"]
        lab.wait_proven(cluster.position())
        clients.wait(dice.randrange(1, 300))
        if shipper_dies_too:
            lab.kill()
        scene.lose()
        if not shipper_dies_too:
            lab.stop(signal.SIGTERM)
        clients.stop()
        timeline, proven = lab.proven()
        assert timeline == 1
        told = restore.go_live(lab.spec, "latest", a_run(10, "restore"))
        reached = told["sources"]["db"]["facts"]["reached"]
        assert reached["from_timeline"] == 1
        commits = clients.check(cluster, proven)
        assert commits > 0
        (sums,) = cluster.sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
                              " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)")
        assert len(set(sums)) == 1, sums
        restored, twin = scene.dump(cluster), scene.dump(scene.replayed(wal.parse(reached["position"])))
        different = [pair for pair in zip(restored, twin) if pair[0] != pair[1]][:3]
        assert not different and len(restored) == len(twin), (reached, different, len(restored), len(twin))
        # the same checks see a single commit that is missing
        cluster.sql("DELETE FROM acknowledged WHERE (client, number) = (SELECT client, min(number) FROM acknowledged GROUP BY client LIMIT 1)")
        with pytest.raises(AssertionError, match="and lost"):
            clients.check(cluster, proven)
        assert scene.dump(cluster) != restored
        print(f"{commits} commits, proven up to {wal.text(proven)}, reached {reached['position']}, {len(restored)} lines in the dump")
        scene.sound()
    finally:
        clients.stop()
        scene.end()
