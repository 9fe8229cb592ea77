# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery of a cluster to every kind of target, on several timelines; unreachable ones are refused before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError, TargetError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_lsn import parse_position
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader
from ansible_collections.lifeboat.recovery.tests.doubles.wal_log import SEGMENT, WalLog
from ansible_collections.lifeboat.recovery.tests.lab.cluster_lab import ClusterLab
from ansible_collections.lifeboat.recovery.tests.lab.postgres import bin_dirs, versions

ROWS = "SELECT array_agg(id ORDER BY id) FROM public.t"


class Past:
    """A cluster with a snapshot and five commits behind it, each of which can be named in every way."""

    def __init__(self, work: Path, programs: str) -> None:
        self.lab = ClusterLab(work, programs=programs)
        self.lab.slot()
        self.lab.server.sql("CREATE TABLE t (id int)")
        self.reader: MemoryReader = self.lab.bench.capture()[0]
        self.points: dict[int, dict[str, str]] = {}
        for number in range(1, 6):
            self.commit(number)
        timeline, end = self.lab.receive()
        self.ends = {timeline: end}
        self.reader.log = self.log = self.lab.log(self.ends)

    def commit(self, number: int) -> None:
        """One row in one transaction, a named point after it, sometimes a new segment."""
        connection = self.lab.server.connect()
        try:
            connection.autocommit = False
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO t VALUES (%s) RETURNING pg_current_xact_id()::text", (number,))
                xid = cursor.fetchone()[0]
            connection.commit()
        finally:
            connection.close()
        lsn, moment = self.lab.server.sql(
            "SELECT pg_current_wal_lsn()::text, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') || 'Z'")[0]
        self.lab.server.sql(f"SELECT pg_create_restore_point('point {number}')")
        self.points[number] = {"lsn": lsn, "time": moment, "xid": xid, "name": f"point {number}"}
        if number % 2:
            self.lab.server.sql("SELECT pg_switch_wal()")


@pytest.fixture(scope="module", params=versions())
def past(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    made = Past(tmp_path_factory.mktemp("past"), bin_dirs()[request.param])
    try:
        yield made
    finally:
        made.lab.destroy()


def reach(past: Past, target: str | None, timeline: str = "") -> tuple[list[int], dict[str, Any]]:
    """The rows and what is said to be reached."""
    record = past.lab.stage(past.reader, target, timeline)
    try:
        return past.lab.staged(record, ROWS)[0][0] or [], record["reached"]
    finally:
        past.lab.discard(record)
        assert past.lab.leftovers() == []


#: The others are asked for in the long run.
NEAR = [("lsn", 1), ("lsn", 5), ("time", 1), ("time", 3), ("xid", 3), ("xid", 5), ("name", 1), ("name", 5)]
KINDS = [pytest.param(kind, number, marks=[] if (kind, number) in NEAR else [pytest.mark.soak])
         for kind in ("lsn", "time", "xid", "name") for number in (1, 3, 5)]


@pytest.mark.parametrize(("kind", "number"), KINDS)
def test_each_kind_on_the_first_a_middle_and_the_last_position(past: Past, kind: str, number: int) -> None:
    rows, reached = reach(past, f"{kind}:{past.points[number][kind]}")
    assert rows == list(range(1, number + 1))
    assert (reached["timeline"], reached["from_timeline"]) == (2, 1)
    assert parse_position(reached["position"]) <= past.ends[1]
    if kind != "xid":
        assert parse_position(reached["position"]) >= parse_position(past.points[number]["lsn"])
    assert reached["target"] == f"{kind}:{past.points[number][kind]}"


@pytest.mark.parametrize(("target", "rows"), [(None, []), ("immediate", []), ("latest", [1, 2, 3, 4, 5])])
def test_without_a_value(past: Past, target: str | None, rows: list[int]) -> None:
    found, reached = reach(past, target)
    assert found == rows
    if target == "latest":
        assert past.ends[1] - parse_position(reached["position"]) < SEGMENT


@pytest.mark.parametrize(("target", "timeline", "words"), [
    ("lsn:0/FFFFFFF0", "", "the log leads from"),
    ("time:2999-06-01T00:00:00Z", "", "proven up to"),
    ("xid:99999", "", "does not end in the log"),
    ("name:no such point", "", "no restore point has the name"),
    ("latest", "7", "timeline 7"),
])
def test_unreachable_targets_are_refused_before_anything_is_built(past: Past, target: str, timeline: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        past.lab.stage(past.reader, target, timeline)
    assert past.lab.leftovers() == []


def test_a_target_before_the_snapshot_is_a_finding(past: Past) -> None:
    context = past.lab.bench.context
    for kind, value in (("lsn", "0/1000000"), ("time", "2001-01-01T00:00:00Z")):
        context.target = {"kind": kind, "value": value, "timeline": ""}
        assert any("lies before the end of the snapshot" in error for error in past.lab.bench.errors(
            past.lab.bench.source.preflight_restore(context, past.reader.manifest)))


def test_a_fetch_error_is_not_the_end_of_the_log(past: Past) -> None:
    log = past.log
    log.faults = {past.ends[1] - 100: DamageError("object is damaged", "object x", "do y")}
    try:
        with pytest.raises(DamageError, match="object is damaged"):
            past.lab.stage(past.reader, "latest")
    finally:
        log.faults = {}


def test_a_hole_ends_what_can_be_reached(past: Past, tmp_path: Path) -> None:
    whole = past.log
    holed = WalLog()
    holed.segments, holed.ends, holed.known = dict(whole.segments), dict(whole.ends), dict(whole.known)
    first = parse_position(past.points[2]["lsn"]) // SEGMENT
    del holed.segments[(1, first)]
    past.reader.log = holed
    try:
        with pytest.raises(TargetError, match="has a hole up to"):
            past.lab.stage(past.reader, f"lsn:{past.points[5]['lsn']}")
        assert reach(past, f"lsn:{past.points[1]['lsn']}")[0] == [1]
    finally:
        past.reader.log = whole


def test_timelines_after_a_restore_and_a_sibling(past: Past) -> None:
    """Go live at the third commit, go on from there; the first branch stays reachable by its number."""
    lab = past.lab
    record = lab.stage(past.reader, f"lsn:{past.points[3]['lsn']}")
    source = lab.bench.source
    assert source.verify_staged(lab.bench.context, past.reader, record).equal
    facts = source.cutover(lab.bench.context, record)
    assert facts["reached"]["timeline"] == 2
    source.commit(lab.bench.context, record)
    lab.receive_afresh()
    for number in (6, 7):
        past.commit(number)
    timeline, end = lab.receive()
    assert timeline == 2
    before = past.reader.log
    past.reader.log = lab.log({**past.ends, timeline: end})
    try:
        assert 2 in past.reader.log.histories()
        rows, reached = reach(past, "latest")
        assert (rows, reached["timeline"], reached["from_timeline"]) == ([1, 2, 3, 6, 7], 3, 2)
        assert reach(past, f"lsn:{past.points[6]['lsn']}")[0] == [1, 2, 3, 6]
        assert reach(past, f"xid:{past.points[7]['xid']}")[0] == [1, 2, 3, 6, 7]
        rows, reached = reach(past, "latest", "1")
        assert (rows, reached["timeline"], reached["from_timeline"]) == ([1, 2, 3, 4, 5], 3, 1)
        assert reach(past, f"name:{past.points[5]['name']}")[0] == [1, 2, 3, 4, 5], "only the older branch holds this point"
        assert reach(past, f"time:{past.points[7]['time']}", "2")[0] == [1, 2, 3, 6, 7]
        snapshot = lab.bench.capture()[0]
        snapshot.log = past.reader.log
        with pytest.raises(TargetError, match="does not descend|does not go on"):
            lab.stage(snapshot, "latest", "1")
    finally:
        past.reader.log = before
