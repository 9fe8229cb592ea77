# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps of a stage are measured: a thread is in one step at a time, wall seconds are a union, busy seconds a sum."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import meter
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import measured, operations, restore
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    return now


def test_an_inner_step_is_not_counted_in_the_outer_one(clock: list[float]) -> None:
    one = meter.Meter()
    with one.during("write"):
        clock[0] += 1
        with one.during("fetch"):
            clock[0] += 4
        with one.during(""):
            clock[0] += 16
        clock[0] += 2
    assert one.told()["steps"] == {"fetch": {"seconds": 4, "busy": 4}, "write": {"seconds": 3, "busy": 3}}


def test_threads_side_by_side_are_one_wall_and_many_busy_seconds(clock: list[float]) -> None:
    one, inside, leave = meter.Meter(), threading.Barrier(3, timeout=60), threading.Event()

    def work() -> None:
        with one.during("decode"):
            inside.wait()
            leave.wait(60)

    threads = [threading.Thread(target=work) for _thread in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    clock[0] += 5
    leave.set()
    for thread in threads:
        thread.join()
    assert one.told()["steps"] == {"decode": {"seconds": 5, "busy": 10}}


def test_waiting_for_pieces_is_nobodys(clock: list[float]) -> None:
    one = meter.Meter()

    def pieces() -> object:
        for number in range(3):
            clock[0] += 10
            yield number

    with one.during("write"):
        for _piece in one.waiting(pieces()):
            clock[0] += 1
    assert one.told()["steps"] == {"write": {"seconds": 3, "busy": 3}}


def test_calls_one_after_the_other_are_added_up_and_memory_is_the_largest() -> None:
    told = meter.combined([
        {"steps": {"fetch": {"seconds": 1, "busy": 2}}, "bytes": {"fetched": 5}}, {}, {"steps": {"fetch": {"seconds": 1, "busy": 1}}, "bytes": {"reused": 7}},
    ])
    assert told == {"steps": {"fetch": {"seconds": 2, "busy": 3}}, "bytes": {"fetched": 5, "written": 0, "reused": 7}}
    used = meter.combined_usage([{"cpu_seconds": 1.5, "peak_memory_bytes": 10, "read_bytes": 1}, {"cpu_seconds": 1, "peak_memory_bytes": 30, "x": 4}])
    assert used == {"cpu_seconds": 2.5, "peak_memory_bytes": 30, "read_bytes": 1, "written_bytes": 0}
    assert meter.usage()["cpu_seconds"] > 0 and meter.usage()["peak_memory_bytes"] > 1 << 20


def test_a_restore_measures_its_steps_and_the_ledger_has_one_entry_per_run(tmp_path) -> None:
    service = FilesService(tmp_path).bootstrap()
    (service.tree / "file").write_bytes(b"captured" * 500)
    operations.capture(service.spec, run_record("backup-1"), "auto")
    (service.tree / "file").write_text("live")
    run = {**run_record("restore-1", "restore"), "target": "latest"}
    staged = restore.stage(service.spec, "latest", run)
    assert set(staged["measured"]["steps"]) == {"fetch", "decode", "write", "verify"}
    assert staged["measured"]["bytes"]["written"] == 4000 and staged["measured"]["bytes"]["fetched"] > 0
    restore.go_live(service.spec, "latest", run)
    given = {"phases": {"gate": {"seconds": 2.0, "waited_for": "rock"}}, "human_seconds": 4.0, "usage": {"cpu_seconds": 1000.0}, "unknown": 5, "seconds": 9.0}
    restore.mark_verified(service.spec, run, "verified", measured=given)
    restore.mark_verified(service.spec, run, "verified", measured=given)
    entries = [entry for entry in Ledger.for_spec(service.spec).entries() if entry["event"] == "measured"]
    assert [entry["run"] for entry in entries] == ["backup-1", "restore-1"]
    data = entries[1]["data"]
    assert data["phases"] == given["phases"] and data["human_seconds"] == 4.0 and data["usage"]["cpu_seconds"] > 1000 and "unknown" not in data
    assert data["verdict"] == "verified" and data["point"] == "backup-1" and data["target"] == "latest" and data["failure"] is None
    assert "capture" in entries[0]["data"]["phases"]


def test_a_run_that_fails_on_the_host_says_of_which_type(tmp_path) -> None:
    service = FilesService(tmp_path).bootstrap()
    (service.tree / "file").write_text("captured")
    service.tree.rename(tmp_path / "gone")
    with pytest.raises(Exception, match="gone|exist|director"):
        operations.capture(service.spec, run_record("backup-1"), "auto")
    entry = Ledger.for_spec(service.spec).entries()[-2]
    assert entry["event"] == measured.EVENT and entry["data"]["failure"]["phase"] == "capture"
    assert entry["data"]["failure"]["type"] in ("source_failed", "config") and entry["data"]["verdict"] == "failed"
