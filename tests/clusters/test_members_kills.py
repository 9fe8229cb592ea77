# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A reseed and a return killed at every point: never a second primary, never a standby that is said to be well and is not, and the same call ends it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import members, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.capture import capture_service
from ansible_collections.lifeboat.recovery.tests.lab import struck
from ansible_collections.lifeboat.recovery.tests.lab.replicated_lab import ReplicatedLab
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record

COUNT = "SELECT count(*) FROM notes"
#: In `make test`: the copy half built, the live data moved away and nothing in its place, the copy in place and not yet started.
FEW = ("stage.write.after", "restore.cutover.displaced", "restore.cutover.swapped")


class Pair:
    """db1 is a primary that is written to, db2 its standby, which was lost with what it had."""

    def __init__(self, lab: ReplicatedLab, home: Path) -> None:
        self.lab, self.home, self.spec = lab, home, lab.spec(home)
        self.first, self.second = lab.servers["db1"], lab.servers["db2"]
        self.runs = itertools.count(1)
        capture_service(self.spec, self.run("backup"))
        self.seed(self.run("reseed"))

    def run(self, verb: str) -> dict[str, Any]:
        return run_record(f"20261122T{next(self.runs):06d}Z-{verb}-aaaaaa", verb)

    def seed(self, run: dict[str, Any]) -> dict[str, Any]:
        return members.reseed(self.spec, run, "db2", "db1", False, False)

    def struck(self, work: Callable[[], object], point: str = "", trace: Path | None = None) -> None:
        code = struck.run(work, self.home / "said", point, trace)
        assert code == (-9 if point else 0), f"{point or 'no fault'} was not passed"
        assert members.ask(self.spec, "db2")["role"] in ("down", "standby"), f"{point}: a second primary"
        assert members.ask(self.spec, "db1")["role"] == "primary", f"{point}: the primary is gone"

    def lost(self) -> None:
        """The standby is down, and the primary goes on without it."""
        self.second.stop()
        self.first.sql("INSERT INTO notes SELECT count(*) + 1 FROM notes")

    def well(self, point: str) -> None:
        told = self.seed(self.run("reseed"))
        assert not told["changed"] and told["proof"]["timeline"] >= 1, f"{point}: it was said to stream, and does not"
        assert self.second.sql(COUNT) == self.first.sql(COUNT), point


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    lab = ReplicatedLab(tmp_path, "db2")
    lab.server.sql("CREATE TABLE notes AS SELECT generate_series(1, 1000) AS n")
    try:
        yield Pair(lab, tmp_path)
    finally:
        lab.destroy()


def passed(pair: Pair, work: Callable[[], object]) -> list[str]:
    """The points that it passes, each once."""
    trace = pair.home / "trace"
    pair.struck(work, trace=trace)
    return list(dict.fromkeys(trace.read_text(encoding="utf-8").split()))


def killed_and_again(pair: Pair, point: str) -> None:
    pair.lost()
    pair.struck(lambda: pair.seed(pair.run("reseed")), point)
    pair.seed(pair.run("reseed"))
    pair.well(point)


@pytest.mark.parametrize("point", FEW)
def test_a_reseed_that_was_killed_is_done_again(pair: Pair, point: str) -> None:
    killed_and_again(pair, point)


def test_one_that_was_killed_at_its_end_is_over_when_its_standby_is_lost_again(pair: Pair) -> None:
    pair.lost()
    pair.struck(lambda: pair.seed(pair.run("reseed")), "restore.cutover.done")
    assert not pair.seed(pair.run("reseed"))["changed"], "it streams"
    pair.lost()
    assert pair.seed(pair.run("reseed"))["changed"]
    pair.well("lost again")


@pytest.mark.soak
def test_a_reseed_killed_at_every_point(pair: Pair) -> None:
    pair.lost()
    points = passed(pair, lambda: pair.seed(pair.run("reseed")))
    assert set(FEW) < set(points)
    for point in points:
        print(point, flush=True)
        killed_and_again(pair, point)


@pytest.mark.soak
def test_a_return_killed_at_every_point(pair: Pair) -> None:
    """A restore of both is undone; the standby gets back what it had, however often that is interrupted."""

    def restored() -> str:
        run = pair.run("restore")
        members.stop(pair.spec, run, "db2", False)
        restore.go_live(pair.spec, "latest", run)
        members.reseed(pair.spec, run, "db2", "db1", False, False)
        return str(run["id"])

    def undone(which: str) -> Callable[[], object]:
        back = pair.run("rollback")
        restore.roll_back(pair.spec, back, which)
        return lambda: members.put_back(pair.spec, back, "db2", "db1", which, False)

    points = passed(pair, undone(restored()))
    assert "rollback.swapped" in points
    for point in points:
        print(point, flush=True)
        which = restored()
        back = undone(which)
        pair.struck(back, point)
        assert members.put_back(pair.spec, pair.run("rollback"), "db2", "db1", which, False)["proof"]["timeline"] >= 1
        pair.well(point)
        settled = pair.run("commit")
        restore.commit(pair.spec, settled, which)
        members.commit(pair.spec, settled, "db2", which, False)
