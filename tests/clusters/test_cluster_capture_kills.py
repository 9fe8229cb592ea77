# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A capture of a cluster that is killed, and a server that dies under it: no false success, nothing left behind, the next one is whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.inspect import list_snapshots
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_capture import ClusterCapture
from ansible_collections.lifeboat.recovery.tests.lab import cluster_tree, processes
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService

#: The fault points that only a capture of a cluster passes.
OWN = [point for point in faults.points() if point.startswith("cluster.")]

_CAPTURE = """
import json, sys
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.capture import capture_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record
print(len(capture_service(Spec.from_dict(json.loads(sys.argv[1])), run_record(sys.argv[2]))["snapshots"]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    server = Postgres().init()
    processes.checked([f"{server.bin}/pg_checksums", "--enable", "--no-sync", "-D", server.data])
    try:
        server.start()
        server.sql("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 50000) g")
        yield server
    finally:
        server.destroy()


@pytest.fixture
def shop(cluster: Postgres, tmp_path: Path) -> FilesService:
    return FilesService(tmp_path, "shop", {"db": cluster_tree.cluster_config(cluster)}).bootstrap()


def begin(shop: FilesService, point: str, fault: str = "") -> subprocess.Popen[str]:
    """A capture in a process of its own, perhaps with a fault."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIFEBOAT_FAULT")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen([sys.executable, "-c", _CAPTURE, json.dumps(shop.document), point], env={**environment, "LIFEBOAT_FAULT": fault},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def forgotten(cluster: Postgres) -> None:
    """The server holds neither a slot nor a backup of the killed capture."""
    processes.wait_for(lambda: cluster.sql("SELECT count(*) FROM pg_replication_slots") == [(0,)], "the end of the slot")
    processes.wait_for(lambda: cluster.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat'") == [(0,)], "the end of the session")
    assert not os.path.exists(f"{cluster.data}/backup_label")


def whole(cluster: Postgres, shop: FilesService, snapshots: int) -> None:
    """What was accepted decodes, and the newest starts."""
    assert len(list_snapshots(shop.spec)["snapshots"]) == snapshots
    assert verify_service(shop.spec, depth="decode")["ok"]
    store = shop.spec.store()
    (chain,) = store.chains()
    manifest = chain.manifests[-1]
    copy = cluster_tree.start_copy(cluster, store.reader(manifest), manifest.data["digest"], store.chunk_key)
    try:
        assert copy.sql("SELECT count(*) FROM t") == cluster.sql("SELECT count(*) FROM t")
        cluster_tree.sound(copy)
    finally:
        copy.destroy()


@pytest.mark.parametrize("fault", [*OWN, "pack.write.after", "manifest.link.before"])
def test_killed_anywhere_it_leaves_nothing_behind(cluster: Postgres, shop: FilesService, fault: str) -> None:
    killed = begin(shop, "p1", fault)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    forgotten(cluster)
    assert list_snapshots(shop.spec)["snapshots"] == []
    assert shop.capture("p1")["changed"]
    cluster.sql("INSERT INTO t SELECT g FROM generate_series(1, 100) g")
    assert shop.capture("p2")["snapshots"][0]["mode"] == "incremental"
    whole(cluster, shop, 2)


@pytest.mark.soak  # test_kills.py has one such moment, of this and of everything else
def test_killed_at_random_moments(cluster: Postgres, shop: FilesService) -> None:
    moments = random.Random(7)
    accepted = 0
    for number in range(6):
        cluster.sql("INSERT INTO t SELECT g FROM generate_series(1, 1000) g")
        process = begin(shop, f"p{number}")
        timer = threading.Timer(moments.uniform(0.2, 1.2), process.kill)
        timer.start()
        output, errors = process.communicate(timeout=120)
        timer.cancel()
        assert process.returncode in (0, -signal.SIGKILL), errors
        found = len(list_snapshots(shop.spec)["snapshots"])
        assert found - accepted in ((1,) if process.returncode == 0 else (0, 1)), output
        accepted = found
        forgotten(cluster)
    shop.capture("last")
    whole(cluster, shop, accepted + 1)


def test_a_server_that_dies_during_a_capture(cluster: Postgres, shop: FilesService, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ClusterCapture._same_cluster

    def dying(self: Any, about: Any) -> Any:
        cluster.crash()
        return real(self, about)

    monkeypatch.setattr(ClusterCapture, "_same_cluster", dying)
    with pytest.raises(LifeboatError, match="server"):
        shop.capture("p1")
    with pytest.raises(LifeboatError, match="does not answer"):
        shop.capture("p1")
    assert list_snapshots(shop.spec)["snapshots"] == []
    monkeypatch.undo()
    cluster.start()
    forgotten(cluster)
    assert shop.capture("p1")["changed"]
    whole(cluster, shop, 1)
