# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Staged copies are read while the service waits, by a process that nothing waits for."""

from __future__ import annotations

import json
import os
import time

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import prewarm, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_buffers
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql import Postgresql
from ansible_collections.lifeboat.recovery.tests.doubles.restore_world import new_run


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_staged_is_read_beside_and_noted(world):
    spec = world.spec(entry={"prewarm": {"cache": True, "timeout": "20s"}})
    run = new_run()
    restore.stage(spec, "latest", run)
    results = [os.path.join(spec.work_dir(name), "prewarm.json") for name in ("box", "tree")]
    until(lambda: all(map(os.path.exists, results)))
    told = restore.go_live(spec, "latest", run)
    assert {name: (one["bytes"], one["files"], one["ended"]) for name, one in told["prewarmed"].items()} == {
        "box": (8, 1, "read"), "tree": (8, 1, "read")}
    assert [entry["data"]["source"] for entry in Ledger.for_spec(spec).entries() if entry["event"] == "prewarm.read"] == ["box", "tree"]
    assert not any(map(os.path.exists, results)) and "prewarmed" not in restore.go_live(spec, "latest", run)


@pytest.mark.parametrize("entry", [{}, {"prewarm": {"cache": False}}], ids=["not declared", "not wanted"])
def test_nothing_is_read_unasked(world, monkeypatch, entry):
    monkeypatch.setattr(prewarm, "_start", None)
    assert restore.stage(world.spec(entry=entry), "latest", new_run())["changed"]


def test_memory_bounds_what_is_read_and_a_failure_is_none_of_the_restore(world, monkeypatch):
    spec = world.spec(entry={"prewarm": {"http": []}})
    monkeypatch.setattr(prewarm, "available", lambda: 8)
    run = new_run()
    restore.stage(spec, "latest", run)
    path = os.path.join(spec.work_dir("box"), "prewarm.json")
    until(lambda: os.path.exists(path))
    with open(path) as handle:
        assert json.load(handle)["bytes"] <= 8

    def broken(*_arguments, **_options):
        raise OSError("no more processes")

    monkeypatch.setattr(prewarm.subprocess, "run", broken)
    assert restore.stage(spec, "latest", run, force=True)["point"]


def test_the_note_of_a_server_names_files_and_ranges(tmp_path):
    (tmp_path / "pg_tblspc" / "77" / "PG_15_202209061").mkdir(parents=True)
    (tmp_path / cluster_buffers.NAME).write_text(
        "<<8>>\n5,1663,1259,0,1\n5,1663,1259,0,0\n5,1663,1259,0,3\n5,1663,1259,2,0\n0,1664,1262,0,0\n5,77,4000,0,130\n5,1663,../../etc,0,0\n5,1663,1259,9,0\n")
    found = {os.path.relpath(path, tmp_path): ranges for path, ranges in cluster_buffers.ranges(str(tmp_path), 128 * 8192)}
    assert found == {
        "base/5/1259": [(0, 16384), (24576, 8192)], "base/5/1259_vm": [(0, 8192)], "global/1262": [(0, 8192)],
        "pg_tblspc/77/PG_15_202209061/5/4000.1": [(2 * 8192, 8192)],
    }


def test_without_a_note_the_whole_cluster_counts(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "1").write_text("page")
    (tmp_path / "pg_tblspc").mkdir()
    record, manifest = {"staged": str(tmp_path)}, {"facts": {"relation_segment_size": 1 << 30}}
    assert list(Postgresql().warm_ranges(None, record, manifest)) == [(str(tmp_path / "base" / "1"), [])]
