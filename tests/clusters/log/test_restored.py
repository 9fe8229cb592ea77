# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service is restored while its shipper runs: the new timeline is protected without anybody doing anything."""

from __future__ import annotations

import datetime
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.log.status import unshipped
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import capture, protection, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record


def serve(lab: LogLab) -> None:
    cluster = lab.cluster
    lab.document["entry"]["sources"]["db"]["server"] = {"start": cluster.start_argv(), "stop": cluster.stop_argv(), "status": cluster.status_argv()}
    lab.save()


def rows(cluster: WalPostgres) -> list[int]:
    return [int(n) for (n,) in cluster.sql("SELECT n FROM t ORDER BY n")]


def restored(lab: LogLab, run: str, target: str) -> dict[str, Any]:
    told = restore.go_live(lab.spec, target, run_record(run, "restore"))
    if lab.cluster.pid() is None:
        lab.cluster.start()
    return told


def test_the_log_goes_on_after_a_restore(lab: LogLab, cluster: WalPostgres) -> None:
    serve(lab)
    lab.start()
    cluster.sql("CREATE TABLE t (n int)")
    capture.capture_service(lab.spec, run_record("b1"))
    cluster.sql("INSERT INTO t VALUES (1)")
    moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
    cluster.sql("INSERT INTO t SELECT generate_series(2, 5000)")
    lab.wait_proven(cluster.position())
    # to a moment before what was proven: the new timeline begins behind it
    restored(lab, "r1", moment)
    assert rows(cluster) == [1]
    told = protection.add_check(lab.spec, {"ok": True, "results": []})
    assert told["ok"] and not told["unshipped"] and [row["name"] for row in told["results"]] == ["the next capture works", "the log of db is shipped"]
    assert lab.proven()[0] == 2, "protected means that the new timeline is in the repository"
    cluster.sql("INSERT INTO t VALUES (-1)")
    lab.wait_proven(cluster.position(), timeline=2)
    lab.wait_ok()
    assert lab.status()["proven"]["timeline"] == 2 and not lab.status()["gaps"]
    # and the restored one is lost: the snapshot of timeline 1 and both timelines of the log bring it back
    cluster.wipe()
    assert lab.stop() == 0
    assert "no shipper runs" in unshipped(lab.spec, "db", 0.1)
    restored(lab, "r2", "latest")
    assert rows(cluster) == [-1, 1]
    for _number in range(3):  # the server would recycle the segment in which the timelines part, long before a shipper comes
        cluster.sql("INSERT INTO t VALUES (-2)")
        cluster.sql("SELECT pg_switch_wal()")
        cluster.sql("CHECKPOINT")
    lab.start()
    lab.wait_proven(cluster.position(), timeline=3)
    lab.wait_ok()
    assert not lab.status()["gaps"]
    assert lab.stop() == 0
    told = verify_service(lab.spec)
    assert told["ok"] and not told["findings"], told["findings"]
