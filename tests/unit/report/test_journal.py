# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run's journal: chained, appended by many, and never lying about a torn end."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import entry_hash
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import journal

RUN = "20300131T120000Z-restore-0a1b2c"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.jsonl")


def fill(path: str, count: int) -> None:
    writer = journal.Journal(path, RUN, "restore")
    for number in range(count):
        writer.append("step", "orders", "stage", {"number": number, "text": "naïve \udcff \n 💾"})


def test_entries_follow_each_other(path: str) -> None:
    fill(path, 5)
    chain = journal.read(path)
    assert chain.whole and [entry["seq"] for entry in chain.entries] == list(range(5))
    assert chain.entries[0]["prev"] == journal.ZERO and chain.head == chain.entries[-1]["hash"]
    assert os.stat(path).st_mode & 0o077 == 0


def test_hosts_and_controller_hash_alike() -> None:
    entry = {"seq": 1, "time": "t", "run": RUN, "verb": "v", "service": "s", "phase": "", "event": "é", "data": {"b": 1, "a": [None, 1.5]}, "prev": "0"}
    assert journal.digest(entry) == entry_hash(entry)


@pytest.mark.parametrize("change", ["data", "drop", "swap", "prev", "insert"])
def test_altered_entries_are_found(path: str, change: str) -> None:
    fill(path, 4)
    lines = Path(path).read_text().splitlines()
    if change == "data":
        lines[1] = lines[1].replace('"number":1', '"number":7')
    elif change == "drop":
        del lines[2]
    elif change == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    elif change == "prev":
        entry = json.loads(lines[2])
        entry["prev"] = journal.ZERO
        entry["hash"] = journal.digest(entry)  # the forger even made the entry agree with itself
        lines[2] = json.dumps(entry)
    else:
        lines.insert(1, "not json at all")
    Path(path).write_text("\n".join(lines) + "\n")
    chain = journal.read(path)
    assert not chain.whole and not chain.torn and len(chain.entries) < 4


def test_every_torn_end_keeps_the_good_prefix(path: str) -> None:
    fill(path, 3)
    data = Path(path).read_bytes()
    second = data.index(b"\n", data.index(b"\n") + 1) + 1
    for cut in range(second + 1, len(data)):
        chain = journal.parse(data[:cut])
        assert len(chain.entries) == 2 and chain.torn and chain.good_bytes == second


def test_the_next_writer_cuts_a_torn_end_and_says_so(path: str) -> None:
    fill(path, 3)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:-9])
    entry = journal.Journal(path, RUN, "restore").append("after", "orders")
    chain = journal.read(path)
    assert chain.whole and [one["event"] for one in chain.entries] == ["step", "step", "journal_tail_cut", "after"]
    assert chain.entries[2]["data"]["bytes"] > 0 and entry == chain.entries[3]


def test_nothing_is_appended_to_an_altered_journal_whose_end_is_torn_too(path: str) -> None:
    fill(path, 3)
    data = Path(path).read_bytes().replace(b'"number":0', b'"number":9')
    Path(path).write_bytes(data[:-9])
    with pytest.raises(StorageError, match="was altered"):
        journal.Journal(path, RUN, "restore").append("after")


def test_many_processes_make_one_chain(path: str) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(path, 10)) for _n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    chain = journal.read(path)
    assert chain.whole and len(chain.entries) == 60


def test_a_long_entry_is_found_by_the_next_writer(path: str) -> None:
    writer = journal.Journal(path, RUN, "restore")
    writer.append("long", data={"text": "x" * 200_000})
    writer.append("short")
    chain = journal.read(path)
    assert chain.whole and [entry["event"] for entry in chain.entries] == ["long", "short"]


def test_a_full_disk_is_one_line(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        journal.Journal(path, RUN, "restore").append("step")
