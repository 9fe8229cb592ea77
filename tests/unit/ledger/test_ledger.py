# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: chained, acknowledged entries are never lost, a torn tail is mended and told, damage is named."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import durable, faults, ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError, LifeboatError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger, entry_hash

RUN = {"id": "20300101T000000Z-restore-abc123", "verb": "restore"}


def path_of(tmp_path):
    return tmp_path / "orders" / "ledger.jsonl"


def fresh(tmp_path):
    return Ledger(str(tmp_path / "orders"), "orders")


def filled(tmp_path, count=3):
    book = fresh(tmp_path)
    for number in range(count):
        book.append(RUN, "stage", "stage.intent", {"number": number, "name": "\udcff\n"})
    return book


def test_entries_are_chained_and_read_back(tmp_path):
    written = filled(tmp_path).appended
    read = fresh(tmp_path).entries()
    assert read == written
    assert [entry["seq"] for entry in read] == [1, 2, 3]
    assert read[0]["prev"] == ledger.ZERO
    assert read[2]["prev"] == read[1]["hash"] == entry_hash(read[1])
    assert fresh(tmp_path).verify() == {"entries": 3, "head": read[2]["hash"], "torn_bytes": 0}


def test_nothing_is_created_by_reading(tmp_path):
    assert fresh(tmp_path).entries() == []
    assert list(tmp_path.iterdir()) == []


def test_directory_is_private(tmp_path):
    filled(tmp_path)
    assert os.stat(tmp_path / "orders").st_mode & 0o777 == 0o700
    assert os.stat(path_of(tmp_path)).st_mode & 0o777 == 0o600


def test_one_runs_entries(tmp_path):
    book = filled(tmp_path)
    book.append({"id": "other", "verb": "backup"}, "capture", "capture.begin")
    assert [entry["event"] for entry in book.entries("other")] == ["capture.begin"]


def test_every_cut_of_the_last_entry_is_mended_and_told(tmp_path):
    filled(tmp_path)
    whole = path_of(tmp_path).read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start + 1, len(whole)):
        path_of(tmp_path).write_bytes(whole[:cut])
        book = fresh(tmp_path)
        assert len(book.entries()) == 2  # read only: nothing is mended yet
        assert path_of(tmp_path).read_bytes() == whole[:cut]
        book.append(RUN, "stage", "stage.filled")
        read = fresh(tmp_path).entries()
        assert [entry["event"] for entry in read] == ["stage.intent", "stage.intent", "ledger.repair", "stage.filled"]
        assert read[2]["data"]["bytes"] == cut - start


def test_a_tail_longer_than_its_repair_is_cut_off(tmp_path):
    filled(tmp_path)
    with open(path_of(tmp_path), "ab") as handle:
        handle.write(b"{" + b"x" * 10000)
    fresh(tmp_path).append(RUN, "", "next")
    assert [entry["event"] for entry in fresh(tmp_path).entries()][-2:] == ["ledger.repair", "next"]


def test_blocks_that_never_reached_the_disk_are_a_torn_tail(tmp_path):
    filled(tmp_path)
    with open(path_of(tmp_path), "ab") as handle:
        handle.write(b"\0" * 300 + b'"}\n')
    book = fresh(tmp_path)
    assert book.verify()["torn_bytes"] == 303
    book.append(RUN, "", "next")
    assert len(fresh(tmp_path).entries()) == 5


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_altered_entry_is_named(tmp_path, number):
    filled(tmp_path)
    lines = path_of(tmp_path).read_bytes().splitlines(True)
    lines[number] = lines[number].replace(b'"number":', b'"nomber":')
    path_of(tmp_path).write_bytes(b"".join(lines))
    with pytest.raises(DamageError, match=f"entry {number + 1} was altered"):
        fresh(tmp_path).entries()
    with pytest.raises(DamageError):
        fresh(tmp_path).append(RUN, "", "next")


def test_a_rehashed_entry_breaks_the_chain_after_it(tmp_path):
    filled(tmp_path)
    lines = path_of(tmp_path).read_bytes().splitlines(True)
    forged = json.loads(lines[1])
    forged["data"]["number"] = 99
    forged["hash"] = entry_hash(forged)
    lines[1] = ledger.canonical(forged) + b"\n"
    path_of(tmp_path).write_bytes(b"".join(lines))
    with pytest.raises(DamageError, match="entry 3 does not follow entry 2"):
        fresh(tmp_path).entries()


@pytest.mark.parametrize(("gone", "message"), [(0, "before entry 2 is missing"), (1, "entry 3 does not follow entry 1")])
def test_a_removed_entry_is_named(tmp_path, gone, message):
    filled(tmp_path)
    lines = path_of(tmp_path).read_bytes().splitlines(True)
    del lines[gone]
    path_of(tmp_path).write_bytes(b"".join(lines))
    with pytest.raises(DamageError, match=message):
        fresh(tmp_path).entries()


def test_a_complete_line_that_does_not_decode_is_damage_not_a_torn_tail(tmp_path):
    filled(tmp_path)
    data = path_of(tmp_path).read_bytes()
    path_of(tmp_path).write_bytes(data[:-5] + b"xx" + data[-3:])
    with pytest.raises(DamageError, match="entry 3"):
        fresh(tmp_path).entries()


def test_too_large_an_entry_is_refused(tmp_path):
    with pytest.raises(LifeboatError, match="too large"):
        fresh(tmp_path).append(RUN, "", "event", {"x": "y" * ledger.ENTRY_BYTES})


def test_threads_and_processes_append_side_by_side(tmp_path):
    book = fresh(tmp_path)
    threads = [threading.Thread(target=lambda: [book.append(RUN, "", "thread") for _n in range(20)]) for _n in range(3)]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_append_many, args=(str(tmp_path / "orders"),)) for _n in range(3)]
    for one in processes + threads:
        one.start()
    for one in processes + threads:
        one.join(60)
    read = fresh(tmp_path).entries()
    assert [entry["seq"] for entry in read] == list(range(1, 121))


def _append_many(directory):
    book = Ledger(directory, "orders")
    for _n in range(20):
        book.append(RUN, "", "process")


def test_segments_go_on_with_the_chain(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "SEGMENT_BYTES", 500)
    monkeypatch.setattr(ledger, "SEGMENTS", 2)
    book = fresh(tmp_path)
    for _n in range(12):
        book.rotate()
        book.append(RUN, "stage", "stage.intent", {"x": "y" * 100})
    names = sorted(name for name in os.listdir(tmp_path / "orders") if name.startswith("ledger-"))
    assert len(names) == 2
    read = fresh(tmp_path).entries()
    assert read[-1]["seq"] == 12
    assert read[0]["seq"] > 1
    assert fresh(tmp_path).entries() == read


def test_a_full_disk_is_told_and_leaves_the_ledger_usable(tmp_path):
    book = filled(tmp_path)
    faults.configure("ledger.write.after:1:full")
    try:
        with pytest.raises(StorageError, match="Failed to write the ledger"):
            book.append(RUN, "", "lost")
    finally:
        faults.configure()
    book.append(RUN, "", "kept")
    events = [entry["event"] for entry in fresh(tmp_path).entries()]
    assert events[-1] == "kept"
    assert events[:3] == ["stage.intent"] * 3


def synced_when_acknowledged(tmp_path, monkeypatch):
    """Replays the log of operations as a power loss right after append() would leave it: are all bytes synced?"""
    unsynced = []
    monkeypatch.setattr(durable, "observe", lambda operation, path, extra: unsynced.append(path) if operation == "write" else unsynced.clear())
    for _n in range(3):
        fresh(tmp_path).append(RUN, "", "event")
        if unsynced:
            return False
    return True


def test_an_acknowledged_entry_is_synced(tmp_path, monkeypatch):
    assert synced_when_acknowledged(tmp_path, monkeypatch)


def test_control_the_check_fails_without_the_fsync(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "fsync_file", lambda *arguments: None)
    monkeypatch.setattr(durable, "fsync_dir", lambda *arguments: None)
    assert not synced_when_acknowledged(tmp_path, monkeypatch)
