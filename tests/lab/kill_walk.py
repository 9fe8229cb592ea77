# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster with a shipped log on which snapshot, shipper, restore and server are killed at random moments, one after the other.

After each kill: what ended well did what it said, what was accepted is listed, the same call made again completes, and no commit that
was proven to be in the repository is lost.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.inspect import list_snapshots
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.tests.lab import cluster_tree, processes
from ansible_collections.lifeboat.recovery.tests.lab.acknowledged import TABLES, Clients
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres

#: One verb in a process of its own, as the host command runs it: a run of that very process, which is dead when it is killed.
_VERBS = """
import json, sys
from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import capture, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
spec, verb = Spec.from_dict(json.loads(sys.argv[1])), sys.argv[2]
run = lease.new_run(verb)
try:
    if verb == "backup":
        told = capture.capture_service(spec, run)
    elif verb == "restore":
        told = restore.go_live(spec, "latest", run)
        restore.mark_verified(spec, run, "verified")
    else:
        told = restore.commit(spec, run)
except LifeboatError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
print(json.dumps({key: told.get(key) for key in ("changed", "snapshots", "sources")}))
"""


def _reached(output: str) -> str:
    """Where a restore ended, if it says so."""
    told = ((json.loads(output).get("sources") or {}) if output.strip() else {}).get("db", {}).get("facts", {}).get("reached")
    return f"reached {told['position']} on {told['from_timeline']}, now {told['timeline']}" if told else ""


class Walk:
    """One seed: a cluster with a tablespace and a linked log directory, its repository, clients and the shipper."""

    def __init__(self, home: pathlib.Path, programs: str, seed: int) -> None:
        self.dice = random.Random(seed)
        self.cluster = WalPostgres(programs=programs).init()
        self.clients = Clients()
        self.accepted = 0
        self.lasted: dict[str, float] = {}
        self._spaces = [os.path.join(self.cluster.home, name) for name in ("space", "wal")]
        os.mkdir(self._spaces[0], 0o700)
        cluster_tree.own(self._spaces[0])
        os.rename(f"{self.cluster.data}/pg_wal", self._spaces[1])
        os.symlink(self._spaces[1], f"{self.cluster.data}/pg_wal")
        try:
            self.cluster.start()
            self.lab = LogLab(home, self.cluster)
            source = self.lab.document["entry"]["sources"]["db"]
            source["server"] = {"start": self.cluster.start_argv(), "stop": self.cluster.stop_argv(), "status": self.cluster.status_argv()}
            source["in_place"] = self.dice.random() < 0.3
            self.lab.save()
            self.cluster.sql(f"CREATE TABLESPACE spare LOCATION '{self._spaces[0]}'")
            self.cluster.sql(TABLES)
            self.cluster.sql("CREATE INDEX ON acknowledged (number) TABLESPACE spare")
            self.cluster.sql("CREATE TABLE ballast TABLESPACE spare AS SELECT g, repeat(md5(g::text), 8) AS v FROM generate_series(1, 40000) g")
            self.lab.start()
            self.clients.start(self.cluster, 2)
            self._whole("backup")
        except BaseException:
            self.end()
            raise

    # -- verbs in processes of their own

    def _begin(self, verb: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LIFEBOAT_FAULT")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        document = json.dumps({**self.lab.document, "keys": self.lab.private})
        return subprocess.Popen([sys.executable, "-c", _VERBS, document, verb], env=environment, stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")

    def _whole(self, verb: str) -> dict[str, Any]:
        """Run to its end, which must be a good one; how long it takes sets the range of the random moments."""
        begun = time.monotonic()
        process = self._begin(verb)
        output, errors = process.communicate(timeout=420)
        assert process.returncode == 0, f"{verb} did not complete: {errors}"
        lasted = time.monotonic() - begun
        self.lasted[verb] = max(lasted, self.lasted.get(verb, 0.0))  # one that had nothing left to do says nothing about the others
        print(f"  {verb}, undisturbed {lasted:.1f} s {_reached(output)}")
        if verb == "backup":
            self.accepted += 1
            self._listed()
        return dict(json.loads(output))

    def _struck(self, verb: str, strike: Callable[[subprocess.Popen[str]], None]) -> int:
        """Run, and strike at a random moment; its exit status."""
        moment = self.dice.uniform(0.1, 1.1) * self.lasted.get(verb, 3.0)
        print(f"  {verb}, struck after {moment:.2f} s", end=" ")
        process = self._begin(verb)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            strike(process)
        output, errors = process.communicate(timeout=420)
        print(f"-> {process.returncode} {errors.strip().splitlines()[-1:]} {_reached(output)}")
        assert process.returncode in (0, 3, -signal.SIGKILL) and "Traceback" not in errors, errors
        if verb == "backup":
            found = len(list_snapshots(self.lab.spec)["snapshots"]) - self.accepted
            # a process that is killed after its last write has succeeded without saying so; one that says so has succeeded
            assert found in ({0: (1,), 3: (0,)}.get(process.returncode, (0, 1))), (process.returncode, found, output, errors)
            self.accepted += found
        return process.returncode

    def _listed(self) -> None:
        assert len(list_snapshots(self.lab.spec)["snapshots"]) == self.accepted

    # -- what is struck

    def snapshot_killed(self) -> None:
        self._struck("backup", lambda process: process.kill())
        processes.wait_for(lambda: self.cluster.sql("SELECT count(*) FROM pg_replication_slots WHERE temporary") == [(0,)], "the end of the slot")

    def server_killed_in_snapshot(self) -> None:
        self._struck("backup", lambda process: self.cluster.crash())
        self.cluster.crash()  # if the snapshot was done before
        self._up()

    def shipper_killed(self) -> None:
        time.sleep(self.dice.uniform(0, 0.5))
        self.lab.kill()
        self.clients.wait(self.dice.randrange(1, 100))
        self.lab.start()

    def server_killed(self) -> None:
        time.sleep(self.dice.uniform(0, 0.5))
        self.cluster.crash()
        self._up()

    def restore_killed(self) -> None:
        self._restore(lambda process: process.kill())

    def server_killed_in_restore(self) -> None:
        """Whichever server stands at the place: the old one, the one that was just started, or none."""
        self._restore(lambda process: self.cluster.crash())

    def _restore(self, strike: Callable[[subprocess.Popen[str]], None]) -> None:
        self.clients.wait(20)
        self._settled()
        lost = self.dice.random() < 0.5
        print(f"  data {'lost' if lost else 'there'}, in place: {self.lab.document['entry']['sources']['db']['in_place']}")
        if lost or self.dice.random() < 0.5:
            self.clients.stop()
        if lost:
            self.cluster.crash()
            for place in (self.cluster.data, *self._spaces):
                processes.remove(place)
        timeline, proven = self.lab.proven()
        print(f"  proven {wal.text(proven)} on timeline {timeline}")
        for _again in range(self.dice.randrange(1, 3)):
            if self._struck("restore", strike) == 0:
                break
        self._whole("restore")
        self.clients.stop()
        if self.cluster.pid() is None:
            self.cluster.start()
        self.clients.check(self.cluster, proven)
        self._struck("commit", strike)
        if self.cluster.pid() is None:
            self.cluster.start()
        self._whole("commit")
        # the restored cluster has a log of its own, which no older snapshot leads to if the shipper came too late for its beginning
        self._settled()
        self._whole("backup")
        self._settled()
        processes.wait_for(lambda: "gap" not in self.lab.alarms(), "the new snapshot to close the gap", 60)
        self.clients.start(self.cluster, 2)

    # -- what must hold

    def _up(self) -> None:
        """The server comes back by itself with all that it acknowledged."""
        self.clients.stop()
        self.cluster.start()
        self.clients.check(self.cluster, 1 << 62)
        self.clients.start(self.cluster, 2)

    def _settled(self) -> None:
        """The log is proven up to now; the shipper is well."""
        assert self.lab.process is not None and self.lab.process.poll() is None, self.lab.said()
        timeline = self.cluster.sql("SELECT timeline_id FROM pg_control_checkpoint()")[0][0]
        self.lab.wait_proven(self.cluster.position(), timeline, 120)

    def step(self) -> None:
        """One random strike, and what must hold after it."""
        strike = self.dice.choice([
            self.snapshot_killed, self.server_killed_in_snapshot, self.shipper_killed, self.server_killed, self.restore_killed, self.server_killed_in_restore,
        ])
        print(f"{strike.__name__}:")
        self.strike(strike)

    def strike(self, strike: Callable[[], None]) -> None:
        strike()
        self._settled()
        self._listed()
        if self.dice.random() < 0.4:
            self._whole("backup")

    def every_snapshot_is_restorable(self, at_most: int) -> None:
        """What was accepted decodes; the newest and random others start, and are sound."""
        self.clients.stop()
        assert verify_service(self.lab.spec, depth="decode")["ok"]
        store = self.lab.spec.store()
        (chain,) = store.chains()
        manifests = list(chain.manifests)
        assert len(manifests) == self.accepted
        for manifest in {id(one): one for one in [manifests[-1], *self.dice.sample(manifests, min(at_most - 1, len(manifests)))]}.values():
            spaces = {place: f"{self.cluster.home}/copy-{os.path.basename(place)}" for place in self._spaces}
            copy = cluster_tree.start_copy(self.cluster, store.reader(manifest), manifest.data["digest"], store.chunk_key, spaces)
            try:
                assert copy.sql("SELECT count(*) FROM ballast") == [(40000,)]
                assert not copy.sql("SELECT 1 FROM acknowledged GROUP BY client, number HAVING count(*) <> 2")
            finally:
                copy.destroy()
                for place in spaces.values():
                    processes.remove(place)

    def end(self) -> None:
        for client in self.clients.running:
            client.ask_to_stop()
        if hasattr(self, "lab"):
            self.lab.end()
        self.cluster.destroy()
