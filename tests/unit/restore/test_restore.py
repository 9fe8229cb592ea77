# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore state machine without kills: states, idempotence, refusals, stacking, preflight."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import (
    CheckError,
    ConflictError,
    LifeboatError,
    SourceError,
    TargetError,
)
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.tests.doubles.box_source import Box
from ansible_collections.lifeboat.recovery.tests.doubles.restore_world import new_run


def tree(path):
    return {str(found.relative_to(path)): (found.read_bytes() if found.is_file() else None) for found in path.rglob("*") if not found.is_symlink()}


def events(world):
    return [entry["event"] for entry in Ledger.for_spec(world.spec()).entries()]


def test_stage_leaves_live_data_alone_and_cutover_keeps_it(world):
    run = new_run()
    staged = restore.stage(world.spec(), "latest", run)
    assert (staged["changed"], staged["noop"], staged["point"]["id"]) == (True, False, world.point)
    assert world.read() == ("original", "original")
    assert {source["state"] for source in staged["sources"].values()} == {"staged"}
    assert all(source["captured"] == source["found"] and source["equal"] for source in staged["sources"].values())
    live = restore.go_live(world.spec(), "latest", run)
    assert live["changed"]
    assert world.read() == ("captured", "captured")
    assert len(world.leftovers()) == 2
    verdict = restore.mark_verified(world.spec(), run, "verified")
    assert verdict["changed"]
    known = operations.known(world.spec())
    assert known["origin"]["point"] == world.point
    assert known["origin"]["verdict"] == "verified"
    assert known["uncommitted"] == [run["id"]]
    assert known["held_bytes"] > 0
    assert known["lease"] is None
    assert known["proof"]["point"] == world.point
    assert operations.snapshots(world.spec(), "proven")["resolved"]["id"] == world.point


def test_intents_stand_in_the_ledger_before_the_deed(world):
    world.restore()
    order = events(world)
    assert order.index("stage.intent") < order.index("stage.verified") < order.index("cutover.intent") < order.index("cutover.done")
    assert order.index("cutover.done") < order.index("restore.live") < order.index("restore.verdict") < len(order)
    assert order[-1] == "run.end"


def test_second_restore_of_the_same_target_is_a_noop(world):
    world.restore()
    before = tree(world.top / "server")
    again = world.restore()
    assert (again["changed"], again["noop"], again["data_current"]) == (False, True, True)
    assert tree(world.top / "server") == before
    assert operations.set_state(world.spec(), new_run(), "staged", "latest", "last", {}, True)["changed"] is False


def test_noop_needs_the_origin_marker_not_only_equal_data(world):
    world.write("captured")
    assert world.restore()["changed"]


def test_noop_needs_equal_data_not_only_the_origin_marker(world):
    world.restore()
    world.box.write_text("written since")
    assert world.restore()["changed"]
    assert world.read() == ("captured", "captured")


def test_noop_needs_passing_checks(world):
    world.restore()
    spec = world.spec(entry={"health": [{"command": ["false"]}], "sources": world.spec().entry["sources"]})
    run = new_run()
    staged = restore.stage(spec, "latest", run)
    assert (staged["noop"], staged["data_current"], staged["changed"]) == (False, True, False)
    assert restore.go_live(spec, "latest", run)["changed"] is False  # equal data is not moved about


def test_force_restores_what_is_there_already(world):
    world.restore()
    assert world.restore(force=True)["changed"]
    assert world.log().count("displaced") == 2


def test_force_after_a_noop_in_the_same_run(world):
    world.restore()
    run = new_run()
    assert restore.stage(world.spec(), "latest", run)["noop"]
    assert restore.stage(world.spec(), "latest", run, force=True)["changed"]
    assert restore.go_live(world.spec(), "latest", run, force=True)["changed"]


def test_live_without_stage_stages_first(world):
    assert restore.go_live(world.spec(), "latest", new_run())["changed"]
    assert world.read() == ("captured", "captured")


def test_same_calls_again_change_nothing(world):
    run = new_run()
    for call, changed in (("stage", True), ("stage", False), ("go_live", True), ("go_live", False)):
        assert getattr(restore, call)(world.spec(), "latest", run)["changed"] is changed
    assert world.log().count("staged") == 1
    assert restore.mark_verified(world.spec(), run, "verified")["changed"]
    assert not restore.mark_verified(world.spec(), run, "verified")["changed"]


def test_rollback_puts_back_and_tells_what_was_written_since(world):
    world.restore()
    world.box.write_text("written since")
    told = restore.roll_back(world.spec(), new_run("rollback"))
    assert told["changed"]
    assert world.read() == ("original", "original")
    assert told["writes"]["box"] == {"known": True, "written": True, "differences": ["content differs"]}
    assert told["writes"]["tree"]["written"] is False
    assert operations.known(world.spec())["origin"] is None
    again = restore.roll_back(world.spec(), new_run("rollback"))
    assert (again["changed"], again["writes"]) == (False, told["writes"])
    committed = restore.commit(world.spec(), new_run("commit"))
    assert committed["changed"]
    assert committed["freed"] > 0
    assert world.leftovers() == []
    assert world.read() == ("original", "original")


@pytest.mark.parametrize("what", [{"health": [{"command": ["false"]}]}, {"runtime": {"status": ["false"]}}])
def test_one_that_is_back_and_not_well_is_not_done(world, what):
    world.restore()
    restore.roll_back(world.spec(), new_run("rollback"))
    assert not restore.predict(world.spec(), new_run("rollback"), "rollback")["changed"]
    ill = world.spec(entry={**what, "sources": world.spec().entry["sources"]})
    assert restore.predict(ill, new_run("rollback"), "rollback")["changed"], "it is to be started again"
    assert not restore.predict(ill, new_run("rollback"), "commit", "")["changed"]


def test_rollback_and_commit_need_neither_repository_nor_keys(world):
    world.restore()
    shutil.rmtree(world.top / "repository")
    shutil.rmtree(world.top / "private")
    told = restore.roll_back(world.spec(), new_run("rollback"))
    assert told["changed"]
    assert told["writes"]["box"]["known"] is False
    assert world.read() == ("original", "original")
    assert restore.commit(world.spec(), new_run("commit"))["changed"]


def test_commit_deletes_and_rollback_is_refused_afterwards(world):
    world.restore()
    assert restore.commit(world.spec(), new_run("commit"))["changed"]
    assert not restore.commit(world.spec(), new_run("commit"))["changed"]
    assert world.leftovers() == []
    with pytest.raises(ConflictError, match="was committed"):
        restore.roll_back(world.spec(), new_run("rollback"))
    with pytest.raises(ConflictError, match="was committed"):
        restore.predict(world.spec(), new_run("rollback"), "rollback")
    assert operations.known(world.spec())["lease"] is None
    assert world.read() == ("captured", "captured")


def test_absent_live_data_is_a_displaced_state(world):
    shutil.rmtree(world.box.parent)
    shutil.rmtree(world.tree)
    world.restore()
    assert world.read() == ("captured", "captured")
    assert world.log().count("provisioned") == 1
    restore.roll_back(world.spec(), new_run("rollback"))
    assert world.read() == (None, None)


def test_restores_stack_and_are_undone_in_reverse(world):
    first = new_run()
    world.restore(run=first)
    world.write("between")
    second = new_run()
    world.restore(run=second)
    world.write("after")
    assert operations.known(world.spec())["uncommitted"] == [first["id"], second["id"]]
    with pytest.raises(ConflictError, match=f"roll back {second['id']} first"):
        restore.roll_back(world.spec(), new_run("rollback"), first["id"])
    restore.roll_back(world.spec(), new_run("rollback"))
    assert world.read() == ("between", "between")
    assert not restore.roll_back(world.spec(), new_run("rollback"))["changed"]  # "last" never reaches for the one before
    restore.roll_back(world.spec(), new_run("rollback"), first["id"])
    assert world.read() == ("original", "original")
    for run in (first, second):
        assert restore.commit(world.spec(), new_run("commit"), run["id"])["changed"]
    assert world.leftovers() == []


def test_rollback_brings_the_former_origin_back(world):
    world.restore()
    later = world.backup("later")
    world.restore()
    assert operations.known(world.spec())["origin"]["point"] == later
    restore.roll_back(world.spec(), new_run("rollback"))
    assert operations.known(world.spec())["origin"]["point"] == world.point


@pytest.mark.parametrize("verb", ["roll_back", "commit"])
def test_nothing_to_settle_and_unknown_runs_are_told(world, verb):
    with pytest.raises(TargetError, match="no restore on record"):
        getattr(restore, verb)(world.spec(), new_run("rollback"))
    with pytest.raises(TargetError, match="No restore of that run"):
        getattr(restore, verb)(world.spec(), new_run("rollback"), "nobody")
    assert operations.known(world.spec())["lease"] is None


@pytest.mark.parametrize("verb", ["rollback", "commit"])
def test_who_took_no_part_is_left_alone(world, verb):
    world.restore()
    live, since = world.read(), operations.known(world.spec())["since"]
    told = {"rollback": restore.roll_back, "commit": restore.commit}[verb](world.spec(), new_run(verb), "")
    assert not told["changed"] and told["restore"]["restore"] is None and not restore.predict(world.spec(), new_run(verb), verb, "")["changed"]
    known = operations.known(world.spec())
    assert world.read() == live and known["uncommitted"] and known["lease"] is None
    assert known["since"] == since < known["restores"][0]["time"], "it remembers its backup, and all since then"


def test_commit_of_an_unfinished_cutover_is_refused(world):
    spec = world.spec(entry={"sources": {**world.spec().entry["sources"], "box": {"type": "box", "path": str(world.box), "refuse": "cutover"}}})
    run = new_run()
    with pytest.raises(SourceError, match="told to refuse cutover"):
        restore.go_live(spec, "latest", run)
    assert world.read() == ("original", "captured")  # the other source went on
    restore.mark_verified(spec, run, "failed")
    with pytest.raises(ConflictError, match="is not live yet"):
        restore.commit(world.spec(), new_run("commit"))
    told = restore.roll_back(world.spec(), new_run("rollback"))
    assert told["changed"]
    assert world.read() == ("original", "original")


def test_a_failed_cutover_is_finished_by_the_same_command(world):
    spec = world.spec(entry={"sources": {**world.spec().entry["sources"], "box": {"type": "box", "path": str(world.box), "refuse": "cutover"}}})
    first = new_run()
    with pytest.raises(SourceError):
        restore.go_live(spec, "latest", first)
    restore.mark_verified(spec, first, "failed", "box refused")
    told = world.restore()
    assert told["changed"]
    assert told["restore"]["restore"] == first["id"]
    assert world.read() == ("captured", "captured")
    assert world.log() == ["staged", "displaced", "swapped"]


def test_a_copy_that_differs_is_thrown_away_and_nothing_is_swapped(world, monkeypatch):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Comparison

    monkeypatch.setattr(Box, "verify_staged", lambda *arguments: Comparison(False, ["row 7 differs"]))
    with pytest.raises(CheckError, match="row 7 differs"):
        restore.stage(world.spec(), "latest", new_run())
    assert world.log() == ["staged", "discarded"]
    assert world.read() == ("original", "original")


def test_a_verified_copy_is_verified_again_and_used(world):
    restore.stage(world.spec(), "latest", new_run(pid=0, controller="gone", boot=""))
    forget_lease(world)
    world.restore()
    assert world.log() == ["staged", "displaced", "swapped"]


def test_a_staged_copy_damaged_meanwhile_is_built_anew(world):
    restore.stage(world.spec(), "latest", new_run(pid=0, controller="gone", boot=""))
    forget_lease(world)
    staged = next(path for path in world.box.parent.iterdir() if path.name.endswith(".staged"))
    staged.write_text("rotten")
    world.restore()
    assert world.read() == ("captured", "captured")
    assert world.log() == ["staged", "discarded", "staged", "displaced", "swapped"]


def forget_lease(world):
    """As after the 120 seconds that another controller's lease counts."""
    os.unlink(world.spec().path("lease.json"))


def test_an_unfinished_runs_point_is_kept_when_latest_moves(world):
    first = new_run(pid=0, controller="gone", boot="")
    restore.stage(world.spec(), "latest", first)
    forget_lease(world)
    newer = world.backup("newer")
    run = new_run()
    staged = restore.stage(world.spec(), "latest", run)
    assert staged["point"]["id"] == world.point
    assert newer in staged["warnings"][0]
    assert staged["restore"]["runs"] == [first["id"], run["id"]]
    restore.go_live(world.spec(), "latest", run)
    assert world.read() == ("captured", "captured")
    assert [e["data"]["run"] for e in Ledger.for_spec(world.spec()).entries() if e["event"] == "run.interrupted"] == [first["id"]]


def test_another_target_gives_the_unfinished_one_up(world):
    newer = world.backup("newer")
    restore.stage(world.spec(), world.point, new_run(pid=0, controller="gone", boot=""))
    forget_lease(world)
    world.write("original")
    told = world.restore(target=newer)
    assert told["point"]["id"] == newer
    assert world.read() == ("newer", "newer")
    assert world.log() == ["staged", "discarded", "staged", "displaced", "swapped"]
    assert len(world.leftovers()) == 2


def test_another_target_finishes_a_swap_that_was_begun_and_stacks(world):
    """Half-swapped sources are never left to guessing: the swap is finished first, and what it displaced stays in its own set."""
    newer = world.backup("newer")
    world.write("original")
    sources = {**world.spec().entry["sources"], "box": {"type": "box", "path": str(world.box), "refuse": "cutover"}}
    first = new_run()
    with pytest.raises(SourceError):
        restore.go_live(world.spec(entry={"sources": sources}), world.point, first)
    restore.mark_verified(world.spec(), first, "failed")
    second = new_run()
    world.restore(target=newer, run=second)
    assert world.read() == ("newer", "newer")
    assert operations.known(world.spec())["uncommitted"] == [first["id"], second["id"]]
    restore.roll_back(world.spec(), new_run("rollback"))
    assert world.read() == ("captured", "captured")
    restore.roll_back(world.spec(), new_run("rollback"), first["id"])
    assert world.read() == ("original", "original")


def test_a_failed_run_does_not_pin_latest(world):
    spec = world.spec(entry={"sources": {**world.spec().entry["sources"], "box": {"type": "box", "path": str(world.box), "refuse": "verify"}}})
    run = new_run()
    with pytest.raises(SourceError):
        restore.stage(spec, "latest", run)
    restore.mark_verified(spec, run, "failed")
    newer = world.backup("newer")
    assert world.restore()["point"]["id"] == newer
    assert not [name for name in world.leftovers() if name.endswith(".staged")]


def test_two_failures_are_told_in_one_error(world, monkeypatch):
    sources = {name: {"type": "box", "path": str(world.box.parent / name), "refuse": "stage"} for name in ("one", "two")}
    for name in sources:
        (world.box.parent / name).write_text(name)
    spec = world.spec(entry={"sources": sources})
    operations.capture(spec, new_run("backup"), "auto")
    with pytest.raises(SourceError) as caught:
        restore.stage(spec, "latest", new_run())
    assert "server/one" in str(caught.value)
    assert "server/two" in str(caught.value)


def test_a_point_that_does_not_fit_the_catalog_is_refused(world):
    spec = world.spec(entry={"sources": {"box": {"type": "box", "path": str(world.box)}}})
    with pytest.raises(TargetError, match="no longer declares tree"):
        restore.stage(spec, "latest", new_run())
    found = restore.preflight(spec, "latest", new_run())
    assert not found["ok"]


def test_a_service_without_sources_is_trivially_restored(world):
    spec = world.spec(entry={"sources": {}})
    run = new_run()
    assert restore.preflight(spec, "latest", run)["ok"]
    staged = restore.stage(spec, "latest", run)
    assert (staged["changed"], staged["noop"]) == (False, True)
    assert restore.go_live(spec, "latest", run)["changed"] is False
    restore.mark_verified(spec, run, "verified")
    assert restore.roll_back(spec, new_run("rollback"))["changed"] is False
    assert restore.commit(spec, new_run("commit"))["changed"] is False
    assert operations.known(spec)["lease"] is None


def test_a_second_operator_is_refused_without_a_trace(world):
    restore.stage(world.spec(), "latest", new_run(user="maria"))
    count = len(events(world))
    with pytest.raises(ConflictError, match="maria"):
        restore.stage(world.spec(), "latest", new_run())
    found = restore.preflight(world.spec(), "latest", new_run())
    assert "maria" in json.dumps(found["findings"])
    assert len(events(world)) == count


def test_an_unknown_verdict_is_recorded_as_failed(world):
    run = new_run()
    restore.stage(world.spec(), "latest", run)
    assert restore.mark_verified(world.spec(), run, "splendid")["verdict"] == "failed"


# -- preflight


def test_preflight_changes_nothing(world):
    before = tree(world.top)
    found = restore.preflight(world.spec(), "latest", new_run(), "decode")
    assert (found["ok"], found["changed"], found["findings"], found["point"]["id"]) == (True, True, [], world.point)
    assert tree(world.top) == before


def test_preflight_tells_everything_at_once(world):
    sources = {**world.spec().entry["sources"], "box": {"type": "box", "path": str(world.box), "refuse": "preflight"}}
    shutil.rmtree(world.top / "private")
    pack = next((world.top / "repository").rglob("packs/**/*.*"))
    os.unlink(pack)
    found = restore.preflight(world.spec(entry={"sources": sources}), "latest", new_run())
    told = " | ".join(f"{finding['level']} {finding['code']} {finding['what']}" for finding in found["findings"])
    assert not found["ok"]
    assert "error damage pack is missing" in told
    assert "error key" in told
    assert "error source told to refuse preflight" in told
    assert "warning source told to warn" in told
    assert [finding["level"] for finding in found["findings"]] == sorted(finding["level"] for finding in found["findings"])


def test_preflight_of_a_target_that_is_not_there(world):
    found = restore.preflight(world.spec(), "20990101T000000Z-backup-ffffff", new_run())
    assert [finding["code"] for finding in found["findings"]] == ["target"]
    assert world.point in found["findings"][0]["remedy"]


def test_latest_refuses_when_the_newest_manifest_is_missing_and_an_explicit_point_warns(world):
    world.backup("newer")
    newest = max((world.top / "repository").rglob("snapshots/box/*.json"))
    os.unlink(newest)
    found = restore.preflight(world.spec(), "latest", new_run())
    assert not found["ok"]
    assert "is missing" in found["findings"][0]["what"]
    found = restore.preflight(world.spec(), world.point, new_run())
    assert found["ok"]
    assert {finding["level"] for finding in found["findings"]} == {"warning"}


def test_damage_that_the_target_does_not_need_is_a_warning(world):
    packs = set((world.top / "repository").rglob("packs/**/*.*"))
    newer = world.backup("newer")
    os.unlink((set((world.top / "repository").rglob("packs/**/*.*")) - packs).pop())
    assert not restore.preflight(world.spec(), newer, new_run())["ok"]
    assert restore.preflight(world.spec(), world.point, new_run())["ok"]
    world.restore(target=world.point)
    assert world.read() == ("captured", "captured")


def test_a_damaged_ledger_stops_everything(world):
    world.restore()
    path = world.top / "state" / "services" / "orders" / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"cutover.done", b"cutover.dome", 1))
    assert "was altered" in restore.preflight(world.spec(), "latest", new_run())["findings"][0]["what"]
    for call in (lambda: restore.stage(world.spec(), "latest", new_run()), lambda: restore.roll_back(world.spec(), new_run("rollback"))):
        with pytest.raises(LifeboatError, match="was altered"):
            call()
    assert world.read() == ("captured", "captured")
    assert lease.read(world.spec()) is None


def test_what_the_stores_said_is_told_with_the_swap_and_by_a_repeated_call(world, monkeypatch):
    swap = Box.cutover
    monkeypatch.setattr(Box, "cutover", lambda self, context, record: {**swap(self, context, record), "warnings": ["the role shop differs"]})
    run = new_run()
    restore.stage(world.spec(), "latest", run)
    for _call in range(2):
        assert restore.go_live(world.spec(), "latest", run)["warnings"] == ["box: the role shop differs"]
