# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole cluster brought back to the moment between two transactions, and undone. What is lost under load: test_lost_under_load.py."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import capture, inspect, restore
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres


def a_run(number: int, verb: str) -> dict[str, Any]:
    return {"id": f"20261122T{number:06d}Z-{verb}-abcdef", "verb": verb, "controller": "lab", "pid": 1, "user": "lab",
            "started": "2026-11-22T00:00:00Z", "resumes": None}


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> Iterator[LogLab]:
    cluster = WalPostgres().init()
    cluster.start()
    lab = LogLab(tmp_path, cluster)
    lab.document["entry"]["sources"]["db"]["server"] = {
        "start": cluster.start_argv(), "stop": cluster.stop_argv(), "status": cluster.status_argv(),
    }
    lab.save()
    yield lab
    lab.end()
    cluster.destroy()


def rows(lab: LogLab) -> set[int]:
    return {int(number) for (number,) in lab.cluster.sql("SELECT n FROM notes")}


def note(lab: LogLab, first: int, last: int) -> None:
    lab.cluster.sql(f"INSERT INTO notes SELECT generate_series({first}, {last})")


def bring_back(lab: LogLab, number: int, target: str) -> dict[str, Any]:
    """Stage, go live, start; the result of going live."""
    run = a_run(number, "restore")
    told = restore.go_live(lab.spec, target, run)
    if lab.cluster.pid() is None:
        lab.cluster.start()
    restore.mark_verified(lab.spec, run, "verified")
    return told


def test_the_moment_between_two_transactions(lab: LogLab) -> None:
    cluster = lab.cluster
    cluster.sql("CREATE TABLE notes (n int)")
    note(lab, 1, 10)
    lab.start()
    capture.capture_service(lab.spec, a_run(1, "backup"))
    note(lab, 11, 20)
    moment = now()
    note(lab, 21, 30)
    lab.wait_proven(cluster.position())
    (point,) = inspect.list_snapshots(lab.spec)["points"]
    assert point["logs"]["db"]["timeline"] == 1
    for target in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "lsn:FF/0", f"{point['id']}@xid:1,timeline:7"):
        told = restore.preflight(lab.spec, target, a_run(2, "restore"))
        assert not told["ok"] and [finding["code"] for finding in told["findings"]] == ["target"], told["findings"]
    told = bring_back(lab, 3, moment)
    assert told["point"]["id"] == f"{point['id']}@time:{moment}"
    assert rows(lab) == set(range(1, 21))
    again = restore.stage(lab.spec, moment, a_run(4, "restore"))
    assert again["noop"] and not again["changed"]
    restore.mark_verified(lab.spec, a_run(4, "restore"), "verified")
    undone = restore.roll_back(lab.spec, a_run(5, "rollback"))
    assert undone["changed"]
    if cluster.pid() is None:
        cluster.start()
    assert rows(lab) == set(range(1, 31))
