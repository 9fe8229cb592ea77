# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log in a repository: written, listed, read, and every object of it damaged in every way."""

from __future__ import annotations

import os
import pathlib
import random
import threading
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, DamageError, KeyAccessError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.copy import copy_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import layout, log_index
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.directory import DirectoryBackend
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_index import load
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_piece import PIECE_LIMIT, open_piece, seal
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_reader import SourceLog, open_log
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_writer import LogWriter, OpenEpoch
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService

SEGMENT = 1 << 20
SYSTEM = "7000000000000000001"
HISTORY = b"1\t0/280000\tno recovery target specified\n"
BYTES = random.Random(1).randbytes(6 * SEGMENT)


def about(timeline: int = 1, **changes: Any) -> dict[str, Any]:
    ancestors = [[1, "0/280000"]] if timeline == 2 else []
    return {"system": SYSTEM, "timeline": timeline, "history": None, "ancestors": ancestors, "segment_size": SEGMENT, "server_version": 150004,
            "host": "db1", "gaps": [], "follows": None, **changes}


class Log:
    """Timeline 1: a whole segment with the pieces it superseded, another whole one, a tail. Timeline 2 leaves it inside the tail."""

    def __init__(self, home: pathlib.Path) -> None:
        self.service = FilesService(home).bootstrap()
        self.service.fill(2)
        self.service.capture("p1")
        self.writer = LogWriter(self.service.without_private_keys().store(), "tree")
        first = self.begin((0, None), begins="0/0")
        for start, end in ((0, 1000), (1000, 70_000), (0, SEGMENT), (SEGMENT, 2 * SEGMENT), (2 * SEGMENT, 2 * SEGMENT + 500_000)):
            self.put(first, start, end)
        second = self.begin((1, first.digest), begins="0/27A120")
        self.put(second, 2 * SEGMENT + 500_000, 2 * SEGMENT + 700_000)
        third = self.begin((2, second.digest), 2, follows={"timeline": 1, "position": "0/2AAE60"}, begins="0/200000")
        self.writer.put_history(third, HISTORY, 1)
        self.put(third, 2 * SEGMENT, 3 * SEGMENT)
        self.put(third, 3 * SEGMENT, 3 * SEGMENT + 99)

    def begin(self, newest: tuple[int, str | None], timeline: int = 1, **changes: Any) -> OpenEpoch:
        return self.writer.begin(about(timeline, **changes), newest)

    def put(self, epoch: OpenEpoch, start: int, end: int, when: int = 1_700_000_000_000_000_000) -> str:
        return self.writer.put(epoch, start, BYTES[start:end], when + end)

    def read(self, system: str = SYSTEM) -> SourceLog:
        return SourceLog(self.service.spec.store(), "tree", system)


@pytest.fixture
def log(tmp_path: pathlib.Path) -> Log:
    return Log(tmp_path)


def test_what_is_written_is_read(log: Log) -> None:
    reader = log.read()
    assert [(one.timeline, one.start, one.end) for one in reader.coverage()] == [(1, 0, 2 * SEGMENT + 700_000), (2, 2 * SEGMENT, 3 * SEGMENT + 99)]
    assert reader.coverage()[0].until == "2023-11-14T22:13:20.002797Z"
    assert reader.read(1, 0, 2 * SEGMENT + 700_000) == BYTES[:2 * SEGMENT + 700_000]
    assert reader.read(2, 2 * SEGMENT + 5, 3 * SEGMENT + 99) == BYTES[2 * SEGMENT + 5:3 * SEGMENT + 99]
    assert reader.read(1, 2 * SEGMENT + 400_000, 2 * SEGMENT + 600_000) == BYTES[2 * SEGMENT + 400_000:2 * SEGMENT + 600_000]
    assert reader.histories() == {2: HISTORY}
    assert not reader.problems and not reader.index().problems
    assert log.read("1").coverage() == [] and open_log(log.service.spec.store(), "tree", None) is None
    assert open_log(log.service.spec.store(), "tree", SYSTEM) is not None and open_log(log.service.spec.store(), "other", SYSTEM) is None


def test_ranges_are_read_in_parallel(log: Log) -> None:
    reader = log.read()
    dice = random.Random(3)
    ranges = [sorted(dice.randrange(2 * SEGMENT + 700_001) for _end in range(2)) for _one in range(40)]
    wrong: list[object] = []

    def work(mine: list[list[int]]) -> None:
        wrong.extend(one for one in mine if reader.read(1, *one) != BYTES[one[0]:one[1]])

    threads = [threading.Thread(target=work, args=(ranges[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_the_backup_role_writes_and_cannot_read(log: Log) -> None:
    store = log.service.without_private_keys().store()
    reader = SourceLog(store, "tree", SYSTEM)
    assert len(reader.coverage()) == 2
    with pytest.raises(KeyAccessError):
        reader.read(1, 0, 10)
    assert reader.histories() == {2: b"1\t0/280000\tlog epoch 3\n"}


@pytest.mark.parametrize(("start", "end", "name"), [
    (2 * SEGMENT + 600_000, 2 * SEGMENT + 800_000, "00000001-00000000002AAE60-00000000002C3500.log"),
    (8 * SEGMENT, 8 * SEGMENT + 5, "00000001-00000000002AAE60-0000000000800005.log"),
])
def test_a_hole_is_named(log: Log, start: int, end: int, name: str) -> None:
    with pytest.raises(DamageError, match="hole") as error:
        log.read().read(1, start, end)
    assert name in str(error.value)


def test_a_list_is_no_proof_of_absence(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose list lacks a whole segment and the record of the newest epoch."""
    whole = layout.log_piece("docs", "tree", 1, 1, SEGMENT, 2 * SEGMENT)
    hidden = {whole, layout.log_record("docs", "tree", 3), layout.log_history("docs", "tree", 3, 2)}
    full = DirectoryBackend.list
    monkeypatch.setattr(DirectoryBackend, "list", lambda self, prefix: ((name, size) for name, size in full(self, prefix) if name not in hidden))
    reader = log.read()
    assert reader.read(1, SEGMENT - 5, SEGMENT + 5) == BYTES[SEGMENT - 5:SEGMENT + 5]
    assert sorted(reader.index().epochs) == [1, 2, 3] and reader.histories() == {2: HISTORY}


def flip(path: pathlib.Path, seed: int) -> None:
    data = bytearray(path.read_bytes())
    at = random.Random(seed).randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(bytes(data))


def cut(path: pathlib.Path, seed: int) -> None:
    os.truncate(path, random.Random(seed).randrange(path.stat().st_size))


def delete(path: pathlib.Path, _seed: int) -> None:
    path.unlink()


def swap(path: pathlib.Path, _seed: int) -> None:
    """Another sound object of the same kind under this name."""
    others = sorted(other for other in path.parent.parent.rglob(f"*{path.suffix}") if other != path)
    path.write_bytes(others[0].read_bytes() if others else b"")


@pytest.mark.parametrize("depth", ["hash", "decode"])
@pytest.mark.parametrize("damage", [flip, cut, delete, swap])
def test_every_object_damaged(log: Log, damage: Callable[[pathlib.Path, int], None], depth: str) -> None:
    top = log.service.repository / "services" / "docs"
    keys = {load_key(log, number) for number in (1, 2, 3)}
    mark_the_host(log)
    objects = sorted([*(top / "logs").rglob("*.*"), *(top / "keys" / f"{key}.000000.json" for key in keys)])
    kinds = set()
    for seed, path in enumerate(objects):
        name = str(path.relative_to(log.service.repository))
        superseded = path.name.endswith(("-00000000000003E8.log", "-0000000000011170.log"))
        if damage is swap and depth == "hash" and path.suffix in (".log", ".history"):
            continue  # a sound object under another's name shows when it is opened
        kinds.add(path.suffix)
        whole = path.read_bytes()
        damage(path, seed)
        told = verify_service(log.service.spec, depth=depth)
        named = [finding for finding in told["findings"] if path.name in finding["where"]]
        if damage is delete and superseded:
            assert not told["findings"], told["findings"]
        else:
            assert named, f"{damage.__name__} of {name} was not named: {told['findings']}"
            assert told["ok"] == (superseded or path.suffix == ".history"), f"{name}: {told['findings']}"
        check_reading(log, path, superseded)
        path.write_bytes(whole)
    assert kinds >= {".json"} and verify_service(log.service.spec, depth=depth)["ok"]


def check_reading(log: Log, path: pathlib.Path, superseded: bool) -> None:
    """Never other bytes than were captured: right, or an error that names the object."""
    wrong = []
    for timeline, start, end in ((1, 0, 2 * SEGMENT + 700_000), (2, 2 * SEGMENT, 3 * SEGMENT + 99)):
        try:
            assert log.read().read(timeline, start, end) == BYTES[start:end]
        except DamageError as error:
            wrong.append(str(error))
    if superseded or path.suffix == ".history":
        assert not wrong and log.read().histories()[2].startswith(b"1\t0/280000\t")
    elif path.suffix == ".log":
        assert len(wrong) == 1 and path.name in wrong[0], wrong
    else:
        assert wrong


def load_key(log: Log, number: int) -> str:
    return str(log.writer.record(number).record["key"])


def mark_the_host(log: Log) -> None:
    """The host knows how far the log was proven, so that its end cannot go unnoticed."""
    from ansible_collections.lifeboat.recovery.plugins.module_utils import state
    from ansible_collections.lifeboat.recovery.plugins.module_utils.log import proven

    directory = os.path.join(log.service.spec.service_dir, "log", "tree")
    state.ensure_private(directory)
    repository = log.service.spec.store().repository.id
    mark = proven.Proven(repository, SYSTEM, SEGMENT, 2, 2 * SEGMENT, 3 * SEGMENT + 99, 1, 3)
    proven.write(os.path.join(directory, "proven.json"), f"file://{log.service.repository}", mark)
    assert proven.read(os.path.join(directory, "proven.json"), f"file://{log.service.repository}") == mark


def test_a_gap_that_was_told_is_a_warning(log: Log) -> None:
    gap = {"timeline": 2, "from": "0/300063", "to": "0/500000", "reason": "", "found": ""}
    epoch = log.begin((3, None), 2, gaps=[gap])
    log.writer.put_history(epoch, HISTORY, 1)
    log.put(epoch, 5 * SEGMENT, 5 * SEGMENT + 10)
    told = verify_service(log.service.spec, depth="hash")
    assert told["ok"] and [finding["level"] for finding in told["findings"]] == ["warning"]
    assert "was not received from 0/300063 to 0/500000" in told["findings"][0]["what"]


def test_a_damaged_whole_segment_is_read_from_its_pieces(log: Log) -> None:
    path = log.service.repository / layout.log_piece("docs", "tree", 1, 1, 0, SEGMENT)
    flip(path, 1)
    reader = log.read()
    assert reader.read(1, 0, 70_000) == BYTES[:70_000]
    assert path.name in str(reader.problems[0])
    with pytest.raises(DamageError, match=path.name):
        reader.read(1, 0, 80_000)


@pytest.mark.parametrize("many", [1, 2, 3])
def test_what_is_superseded_is_forgotten_until_it_is_needed(log: Log, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr(log_index, "_MANY", many)
    reader = log.read()
    assert [(one.timeline, one.start, one.end) for one in reader.coverage()] == [(1, 0, 2 * SEGMENT + 700_000), (2, 2 * SEGMENT, 3 * SEGMENT + 99)]
    assert reader.read(1, 0, 2 * SEGMENT + 700_000) == BYTES[:2 * SEGMENT + 700_000]
    path = log.service.repository / layout.log_piece("docs", "tree", 1, 1, 0, SEGMENT)
    flip(path, 1)
    reader = log.read()
    assert reader.read(1, 0, 70_000) == BYTES[:70_000]
    with pytest.raises(DamageError, match=path.name):
        reader.read(1, 0, 80_000)


def test_one_name_is_written_once(log: Log) -> None:
    epoch = log.begin((3, None))
    log.put(epoch, 0, 10)
    log.put(epoch, 0, 10)  # was read back: nothing to do
    epoch.proven.clear()
    with pytest.raises(ConflictError, match="new epoch"):
        log.put(epoch, 0, 10)
    assert log.writer.record(4).record["previous"] is None


def test_two_writers_claim_different_epochs(log: Log) -> None:
    first, second = log.begin((3, None)), log.begin((3, None))
    assert (first.number, second.number) == (4, 5)
    assert second.record["previous"] == first.digest


def test_what_reads_back_different_is_not_acknowledged(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = log.begin((3, None))
    real = DirectoryBackend.read
    monkeypatch.setattr(DirectoryBackend, "read", lambda self, name, limit: real(self, name, limit)[:-1] + b"?")
    with pytest.raises(StorageError, match="reads back different"):
        log.put(epoch, 0, 10)


def test_a_stranger_in_the_log_is_named(log: Log) -> None:
    for name in ("000000000001/00000001-0000000000000005-0000000000000001.log", "000000000001/x", "y/epoch.json"):
        path = log.service.repository / layout.logs("docs", "tree") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        assert any(name in str(problem) for problem in log.read().index().problems)


def test_pieces_are_bounded_and_bound() -> None:
    key, plain = os.urandom(32), os.urandom(1000)
    raw = seal(key, "a", plain, 5)
    assert open_piece(key, "a", raw, 1000) == (plain, 5)
    assert open_piece(key, "a", seal(key, "a", bytes(100_000), 5)) == (bytes(100_000), 5)
    for name, length, key2 in (("b", 1000, key), ("a", 999, key), ("a", 1000, os.urandom(32))):
        with pytest.raises(ValueError, match=r"is damaged|holds"):
            open_piece(key2, name, raw, length)
    assert seal(key, "a", plain, 5)[8:40] != raw[8:40], "a salt of its own for every object"
    assert PIECE_LIMIT == 64 << 20


def test_only_newer_epochs_can_be_listed(log: Log) -> None:
    store = log.service.spec.store()
    index = load(store.backend, store.provider, store.repository.id, "docs", "tree", after=2)
    assert sorted(index.epochs) == [3] and [piece.end for _timeline, piece in sorted(index.listed[3])] == [3 * SEGMENT, 3 * SEGMENT + 99]
    assert not index.problems


def copied(log: Log, home: pathlib.Path) -> Spec:
    """The log's service with a copy of its repository, made now."""
    document = {**log.service.document, "repository": {**log.service.document["repository"], "copies": [{"name": "far", "url": f"file://{home / 'far'}"}]}}
    spec = Spec.from_dict(document)
    told = copy_service(spec, lease.new_run("copy"), Progress("docs", "copy"))
    assert told["changed"]
    return spec


def pieces(top: pathlib.Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("logs/*/*/*") if path.is_file()}


def test_a_log_is_copied_without_what_was_superseded_and_read_from_there(log: Log, tmp_path: pathlib.Path) -> None:
    spec = copied(log, tmp_path)
    gone = pieces(log.service.repository) - pieces(tmp_path / "far")
    assert [name.rsplit("/", 1)[1] for name in sorted(gone)] == [
        "00000001-0000000000000000-00000000000003E8.log", "00000001-00000000000003E8-0000000000011170.log"]
    assert not copy_service(spec, lease.new_run("copy"), Progress("docs", "copy"))["changed"]
    for path in log.service.repository.rglob("logs/*/*/*"):
        if path.suffix == ".log":
            path.write_bytes(b"LBWLOG1\n" + bytes(path.stat().st_size - 8)) if path.stat().st_size % 2 else path.unlink()
    store = spec.reading_store()
    reader = SourceLog(store, "tree", SYSTEM)
    assert reader.read(1, 0, 2 * SEGMENT + 700_000) == BYTES[:2 * SEGMENT + 700_000]
    assert reader.read(2, 2 * SEGMENT, 3 * SEGMENT + 99) == BYTES[2 * SEGMENT:3 * SEGMENT + 99]
    assert any("read from repository far" in one["what"] for one in store.backend.told())


def test_a_damaged_piece_is_not_copied_and_the_smaller_ones_that_hold_its_bytes_are(log: Log, tmp_path: pathlib.Path) -> None:
    (whole,) = log.service.repository.rglob("00000001-0000000000000000-0000000000100000.log")
    whole.write_bytes(whole.read_bytes()[:-1])
    spec = copied(log, tmp_path)
    assert not any(whole.name in name for name in pieces(tmp_path / "far"))
    assert SourceLog(spec.at("far").store(), "tree", SYSTEM).read(1, 0, 70_000) == BYTES[:70_000]
