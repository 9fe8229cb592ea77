# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every source type must do, on real stores: capture, restore beside, verify, swap, undo, commit, survive kills."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader
from ansible_collections.lifeboat.recovery.tests.lab.bench import STAGE_ID, Bench
from ansible_collections.lifeboat.recovery.tests.lab.kits import KITS, Kit


class KitBench(Bench):
    kit: Kit

    def proven(self, reader: MemoryReader) -> MemoryReader:
        """A physical snapshot is staged and verified once, so that live content can be held against it."""
        if self.kit.physical:
            self.config["content_digest"] = True
            record = self.stage(reader, "20261122_000000_0000beef")
            assert self.source.verify_staged(self.context, reader, record).equal
            self.source.discard(self.context, record)
        return reader


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.clusters] if name == "postgresql" else []) for name in sorted(KITS)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KitBench]:
    kit = KITS[request.param]()
    try:
        kit.fill()
        made = KitBench(kit.config, tmp_path)
        made.kit = kit
        yield made
    finally:
        kit.destroy()


def test_unchanged_second_capture_stores_nothing(bench: KitBench) -> None:
    first, writer = bench.capture()
    assert writer.new_chunks > 0
    second, again = bench.capture(first)
    if bench.kit.physical:  # the log it needs, and what a checkpoint writes, are new each time
        assert again.new_bytes < writer.new_bytes / 2
        return
    assert (again.new_chunks, again.new_bytes) == (0, 0)
    assert second.manifest["digest"] == first.manifest["digest"]
    full, fresh = bench.capture()
    assert fresh.new_chunks == 0, "without a parent the same content must still give the same chunks"
    assert full.manifest["digest"] == first.manifest["digest"]


def test_capture_digest_is_keyed_and_tells_nothing_in_clear(bench: KitBench) -> None:
    first, _writer = bench.capture()
    bench.key = bench.store.key = bytes(reversed(bench.key))
    other, _writer = bench.capture()
    assert other.manifest["digest"]["value"] != first.manifest["digest"]["value"]
    text = str(first.manifest)
    for secret in ("secret-canary", "SCRAM-SHA", "lab-password", "customers", "session:1"):
        assert secret not in text


def test_incremental_capture_follows_changes(bench: KitBench) -> None:
    first, _writer = bench.capture()
    bench.proven(first)
    assert bench.live_equals(first)
    bench.kit.change()
    assert not bench.live_equals(first)
    second, writer = bench.capture(first)
    bench.proven(second)
    assert writer.new_chunks > 0
    assert second.manifest["digest"]["value"] != first.manifest["digest"]["value"]
    assert bench.live_equals(second)


def test_restore_rollback_and_commit(bench: KitBench) -> None:
    good = bench.kit.fingerprint()
    reader, _writer = bench.capture()
    bench.kit.damage()
    bad = bench.kit.fingerprint()
    assert bad != good
    assert not bench.live_equals(reader)
    record = bench.stage(reader)
    assert bench.kit.fingerprint() == bad, "staging must not touch the live data"
    comparison = bench.source.verify_staged(bench.context, reader, record)
    assert comparison.equal, comparison.differences
    assert comparison.items > 0
    facts = bench.source.cutover(bench.context, record)
    assert facts["displaced"] is True
    assert bench.kit.fingerprint() == good
    assert bench.live_equals(reader)
    assert bench.kit.physical or bench.capture()[0].manifest["digest"] == reader.manifest["digest"]
    assert bench.source.rollback(bench.context, record)["set_aside"]
    assert bench.kit.fingerprint() == bad
    assert bench.kit.leftovers() != []
    assert bench.source.commit(bench.context, record)["freed"] > 0
    assert bench.kit.leftovers() == []
    assert bench.kit.fingerprint() == bad


def test_commit_keeps_the_restored_data(bench: KitBench) -> None:
    good = bench.kit.fingerprint()
    reader, _writer = bench.capture()
    bench.kit.damage()
    record = bench.stage(reader)
    bench.source.cutover(bench.context, record)
    assert bench.source.commit(bench.context, record)["freed"] > 0
    assert bench.source.commit(bench.context, record)["freed"] == 0
    assert bench.kit.leftovers() == []
    assert bench.kit.fingerprint() == good
    second = bench.stage(reader, "20261122_181500_abcdef13")
    bench.source.cutover(bench.context, second)
    assert bench.kit.fingerprint() == good


def test_restore_over_nothing(bench: KitBench) -> None:
    good = bench.kit.fingerprint()
    reader, _writer = bench.capture()
    bench.kit.lose()
    assert not bench.live_equals(reader)
    record = bench.stage(reader)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    bench.source.cutover(bench.context, record)
    found = bench.kit.fingerprint()
    assert found[:2] == good[:2]
    assert bench.live_equals(reader)
    bench.source.rollback(bench.context, record)
    assert bench.kit.nothing(), "absent data is a state to go back to"
    bench.source.commit(bench.context, record)
    assert bench.kit.leftovers() == []


def test_damaged_staged_copy_is_found(bench: KitBench) -> None:
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    bench.kit.damage_staged(record)
    comparison = bench.source.verify_staged(bench.context, reader, record)
    assert not comparison.equal
    assert comparison.differences


def test_damaged_chunk_stops_staging_and_leaves_live_alone(bench: KitBench) -> None:
    reader, _writer = bench.capture()
    before = bench.kit.fingerprint()
    for identity, data in list(bench.store.chunks.items()):
        bench.store.chunks[identity] = data[:-1] + bytes([data[-1] ^ 1])
    record = bench.source.plan_stage(bench.context, reader.manifest, STAGE_ID)
    bench.source.prepare(bench.context, record)
    with pytest.raises(DamageError):
        bench.source.stage(bench.context, reader, record)
    bench.source.discard(bench.context, record)
    assert bench.kit.leftovers() == []
    assert bench.kit.fingerprint() == before


def test_discard_and_repeated_stage(bench: KitBench) -> None:
    reader, _writer = bench.capture()
    before = bench.kit.fingerprint()
    record = bench.stage(reader)
    bench.source.stage(bench.context, reader, record)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    bench.source.discard(bench.context, record)
    bench.source.discard(bench.context, record)
    assert bench.kit.leftovers() == []
    assert bench.kit.fingerprint() == before


def _faults(trace: Path, every: bool) -> list[str]:
    """Every point of a trace: its first hit, and with ``every`` all further ones."""
    counts = Counter(trace.read_text(encoding="utf-8").split() if trace.exists() else [])
    return [f"{name}:{nth}" for name, count in counts.items() for nth in range(1, (count if every else 1) + 1)]


#: (kit, step that is killed); with append-only files only staging differs from a plain Redis.
STEPS = [(kit, step) for kit in sorted(KITS) for step in ("stage", "cutover", "rollback", "commit") if kit != "redis-aof" or step == "stage"]
KILLS = [pytest.param(*case, every, marks=[pytest.mark.soak] if every else []) for every in (False, True) for case in STEPS]


@pytest.mark.parametrize(("bench", "watched", "every"), KILLS, indirect=["bench"])
def test_killed_at_every_point_and_repeated(bench: KitBench, watched: str, every: bool, tmp_path: Path) -> None:
    good = bench.kit.fingerprint()
    reader, _writer = bench.capture()
    bench.kit.damage()
    bad = bench.kit.fingerprint()
    steps = ["stage", "cutover", "rollback" if watched == "rollback" else "commit"]

    def restore(number: int, faults: list[str], trace: Path | None = None) -> list[str]:
        """A whole restore; the watched step is killed by the first fault and called again, with the next, as long as each is passed; those
        that killed it."""
        nonlocal bad
        record = bench.source.plan_stage(bench.context, reader.manifest, f"20261122_{number:06d}_abcdef12")
        killed: list[str] = []
        for step in steps:
            if step == watched:
                for fault in faults:
                    if bench.step(step, reader, record, fault) == 0:
                        break
                    killed.append(fault)
                if killed == faults:
                    assert bench.step(step, reader, record, trace=trace) == 0
            elif step == "stage":
                bench.source.stage(bench.context, reader, record)
            else:
                getattr(bench.source, step)(bench.context, record)
            if step == "stage":
                assert bench.kit.fingerprint() == bad, killed
                assert bench.source.verify_staged(bench.context, reader, record).equal, killed
            elif step == "cutover":
                assert bench.kit.fingerprint() == good, killed
                assert bench.live_equals(reader), killed
                if watched == "cutover":  # what was displaced is whole too
                    bench.source.rollback(bench.context, record)
                    assert bench.kit.fingerprint() == bad, killed
        bench.source.commit(bench.context, record)
        assert bench.kit.leftovers() == [], killed
        assert bench.kit.fingerprint() == (good if watched in ("stage", "commit") else bad), killed
        if watched in ("stage", "commit"):
            bench.kit.damage()
            bad = bench.kit.fingerprint()
        return killed

    trace = tmp_path / "trace"
    restore(0, [], trace)
    left, number = _faults(trace, every), 0
    while left:
        number += 1
        # one restore for as many points as lie behind each other; in the long run one for each
        hit = restore(number, left[:1] if every else left)
        assert hit, f"{left[0]} was not hit"
        left = [fault for fault in left if fault not in hit]


def test_staging_that_was_torn_is_done_again(bench: KitBench) -> None:
    """An end nobody foresaw while the staged copy grows; the next call completes it or throws it away."""
    reader, _writer = bench.capture()
    record = bench.source.plan_stage(bench.context, reader.manifest, STAGE_ID)
    before = bench.kit.fingerprint()
    with pytest.raises(RuntimeError, match="torn"):
        bench.source.stage(bench.context, _Failing(reader, 1 if bench.kit.physical else len(reader._ids) // 2), record)
    assert bench.kit.fingerprint() == before
    bench.source.stage(bench.context, reader, record)
    assert bench.source.verify_staged(bench.context, reader, record).equal


class _Failing(MemoryReader):
    """Delivers some chunks and then fails in a way no source foresees. A restore that reuses live pages asks for few."""

    def __init__(self, reader: MemoryReader, left: int) -> None:
        super().__init__(reader._store, reader._ids, reader._lines, reader.manifest)
        self._left = left

    def chunk(self, number: int, read_back: bool = False) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("torn")
        return super().chunk(number)
