# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb restore as an operator uses it: picks, limits, few forks, stops on the way, and what it refuses."""

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, Outcome, differences


def captured(harbour: Harbour) -> dict[str, object]:
    return harbour.captured


def pids(harbour: Harbour) -> dict[str, int]:
    return {name: harbour.pid(name) for name in harbour.ports}


def test_check_writes_nothing_but_the_plan(harbour: Harbour) -> None:
    before = harbour.everything()
    outcome = harbour.succeed("restore", "--check")
    assert harbour.everything() == before
    assert outcome.directory is not None and [path.name for path in outcome.directory.rglob("*") if path.is_file()] == ["plan.json"]
    assert outcome.plan["order"] == ["lamp", "rock", "mill"] and outcome.plan["islands"] == [["lamp"], ["rock", "mill"]]
    assert set(outcome.plan["picked"]) == set(harbour.ports)
    assert all(entry["resolution"]["point"] for entry in outcome.plan["services"].values())
    assert set(outcome.changed().values()) == {1}, "what a restore would change"


def test_until_staged_touches_nothing_then_it_goes_live_with_one_fork_and_a_second_restore_changes_nothing(harbour: Harbour) -> None:
    live, before = harbour.contents(), pids(harbour)
    stopped = harbour.play("restore", "-e", "lifeboat_until=staged")
    assert stopped.code not in (0, 2) and set(stopped.verdicts().values()) == {"skipped"}
    assert (harbour.contents(), pids(harbour)) == (live, before)
    staged = {name: (harbour.folder(name) / child).stat().st_ino for name in harbour.ports
              for child in harbour.folder(name).iterdir() if "lifeboat" in child.name and "stage" in child.name}
    assert set(staged) == set(harbour.ports)

    outcome = harbour.succeed("restore", "--forks", "1")
    assert all(harbour.data(name).stat().st_ino == inode for name, inode in staged.items()), "what was staged went live"
    assert set(outcome.verdicts().values()) == {"verified"} and len(outcome.verdicts()) == 3
    assert not differences(captured(harbour), harbour.contents())
    in_order(outcome)
    assert all(harbour.pid(name) not in (0, before[name]) for name in before), "each was stopped before the swap and started after it"

    fingerprint = harbour.fingerprint()
    again = harbour.succeed("restore")
    assert set(again.verdicts().values()) == {"verified"}
    assert set(again.changed().values()) == {0}
    assert harbour.fingerprint() == fingerprint, "files, names and processes are the same"

    # data as captured, but a process is gone: that island is started, its data not swapped, the other island left alone
    harbour.control("stop", "mill")
    healed = harbour.succeed("restore")
    assert set(healed.verdicts().values()) == {"verified"} and harbour.healthy("mill")
    assert harbour.pid("lamp") == fingerprint["lamp"][2] and harbour.pid("rock") == fingerprint["rock"][2], "what mill does not need goes on"
    assert not differences(captured(harbour), harbour.contents())


def test_a_limit_leaves_the_others_untouched(harbour: Harbour) -> None:
    others = ["rock", "mill"]
    before, process = harbour.fingerprint(others), harbour.pid("lamp")
    outcome = harbour.succeed("restore", "--limit", "lamp")
    assert outcome.verdicts() == {"lamp": "verified"}
    assert harbour.fingerprint(others) == before and harbour.pid("lamp") not in (0, process)
    assert harbour.contents(["lamp"])["lamp"] == captured(harbour)["lamp"]


def test_a_scope_beyond_the_limit_is_refused_with_the_right_command(harbour: Harbour) -> None:
    before = harbour.everything()
    outcome = harbour.play("restore", "--limit", "mill", "-e", "lifeboat_scope=requirements")
    assert outcome.code not in (0, 2)
    assert "needs services outside --limit: rock (required by mill)" in outcome.text and "--limit rock,mill" in outcome.text
    assert harbour.everything() == before


def test_live_dependants_are_refused_stopped_or_ignored(harbour: Harbour) -> None:
    before = harbour.everything()
    refused = harbour.play("restore", "-e", "lifeboat_services=rock")
    assert refused.code not in (0, 2) and "mill -> rock" in refused.text and "lifeboat_dependants=stop" in refused.text
    assert harbour.everything() == before

    running = pids(harbour)
    outcome = harbour.succeed("restore", "-e", "lifeboat_services=rock", "-e", "lifeboat_dependants=stop", "-e", "lifeboat_probe_clients=true",
                              "-e", "lifeboat_probe_interval=0.2")
    assert outcome.verdicts() == {"rock": "verified"}
    clients = outcome.document["clients"]
    assert set(clients) == {"mill", "lamp"} and all(seen["probes"] > 0 for seen in clients.values())
    assert clients["lamp"]["errors"] == 0 and clients["mill"]["errors"] > 0, "mill was stopped for it, and its clients noticed"
    assert not list(harbour.state.rglob("probe*.json")), "the watching ended with the run"
    after = pids(harbour)
    assert after["lamp"] == running["lamp"]
    assert all(after[name] not in (0, running[name]) for name in ("rock", "mill"))
    assert harbour.contents(["mill"]) == {"mill": before["services"]["mill"][0]}, "its data is none of our business"

    undone = harbour.succeed("rollback", "-e", "lifeboat_services=rock", "-e", "lifeboat_dependants=stop")
    again = pids(harbour)
    assert undone.verdicts() == {"rock": "rolled_back"} and harbour.healthy("mill")
    assert again["lamp"] == after["lamp"] and all(again[name] not in (0, after[name]) for name in ("rock", "mill"))


def test_an_unhealthy_requirement_outside_the_pick_is_refused(harbour: Harbour) -> None:
    harbour.control("stop", "rock")
    outcome = harbour.play("restore", "-e", "lifeboat_services=mill")
    assert outcome.code not in (0, 2)
    assert "rock is required, was not picked, and is not healthy" in outcome.text and "lifeboat_scope=requirements" in outcome.text


def in_order(outcome: Outcome) -> None:
    """Few forks change the time and not the order."""
    assert outcome.directory is not None
    marks = [json.loads(line) for line in (outcome.directory / "timings.jsonl").read_text(encoding="utf-8").splitlines()]
    begun = {(mark["service"], mark["phase"]): mark["mono"] for mark in marks if mark["event"] == "start"}
    ended = {(mark["service"], mark["phase"]): mark["mono"] for mark in marks if mark["event"] == "end"}
    assert ended["mill", "stop"] <= begun["rock", "stop"], "dependants are stopped first"
    assert ended["rock", "verdict"] <= begun["mill", "cutover"], "requirements are verified first"
    last_stage = max(time for (_service, phase), time in ended.items() if phase == "stage")
    assert all(last_stage <= time for (_service, phase), time in begun.items() if phase == "stop")


def test_production_wants_its_name(harbour: Harbour) -> None:
    path = harbour.home / "production.catalog.yml"
    harbour.write_catalog(path, {**harbour.catalog, "production": True})
    before = harbour.everything()
    for arguments in ((), ("-e", "lifeboat_confirm=harbor")):
        outcome = harbour.play("restore", *arguments, catalog=path)
        assert outcome.code not in (0, 2) and "add -e lifeboat_confirm=harbour when you mean it" in outcome.text
    assert harbour.everything() == before
    harbour.succeed("restore", "--check", "-e", "lifeboat_services=lamp", catalog=path)


def test_damage_of_one_service_stops_all_unless_partial(harbour: Harbour) -> None:
    pack = pack_of(harbour, "rock")
    content = pack.read_bytes()
    pack.unlink()
    try:
        before = harbour.contents(), pids(harbour)
        refused = harbour.play("restore")
        assert refused.code not in (0, 2)
        assert refused.verdicts() == {"lamp": "skipped", "rock": "failed", "mill": "skipped"}
        assert pack.name in refused.text, "the object that is missing is named"
        assert (harbour.contents(), pids(harbour)) == before

        partial = harbour.play("restore", "-e", "lifeboat_partial=true")
        assert partial.code not in (0, 2)
        assert partial.verdicts() == {"lamp": "verified", "rock": "failed", "mill": "blocked"}
        assert "blocked by rock" in partial.message("mill")
        assert harbour.contents(["lamp"])["lamp"] == captured(harbour)["lamp"]
        assert harbour.contents(["rock", "mill"]) == {name: before[0][name] for name in ("rock", "mill")}
    finally:
        pack.write_bytes(content)


@pytest.mark.parametrize("forks", ["5", "2"])
def test_what_fails_while_it_is_staged_is_stopped_in_a_partial_restore(harbour: Harbour, forks: str) -> None:
    """It would write into what it builds on. Where it cannot be stopped, that is left as it is, and nobody waits for it."""
    path, partial = harbour.home / "late.catalog.yml", ("-e", "lifeboat_partial=true", "--forks", forks)
    late = {**harbour.catalog["services"]["mill"], "policy": {"stage": {"timeout": "1ms"}}}
    stuck = {**late, "runtime": {**late["runtime"], "stop": ["false"]}}
    before = harbour.contents()
    for mill, verdict in ((stuck, "blocked"), (late, "verified")):
        harbour.write_catalog(path, {**harbour.catalog, "services": {**harbour.catalog["services"], "mill": mill}})
        outcome = harbour.play("restore", *partial, catalog=path)
        assert outcome.verdicts() == {"lamp": "verified", "rock": verdict, "mill": "failed"}, outcome.text
        assert outcome.document["services"]["mill"]["phase"] == "stage" and "policy.stage.timeout" in outcome.text
        assert harbour.healthy("mill") is (mill is stuck)
    assert harbour.contents() == {**captured(harbour), "mill": before["mill"]}


def pack_of(harbour: Harbour, service: str) -> pathlib.Path:
    """The newest pack of a service."""
    return max((harbour.repository / "services" / service / "packs").rglob("*.pack"), key=lambda path: path.stat().st_mtime_ns)


def test_a_damaged_newest_point_names_the_next_and_falls_back_when_allowed(harbour: Harbour) -> None:
    (harbour.data("lamp") / "items" / "item4").write_text("newer " * 4000, encoding="utf-8")
    newer = harbour.succeed("backup", "-e", "lifeboat_services=lamp")
    pack_of(harbour, "lamp").unlink()
    older = captured(harbour)["lamp"]

    refused = harbour.play("restore", "-e", "lifeboat_services=lamp")
    assert refused.code not in (0, 2) and refused.verdicts() == {"lamp": "failed"}
    assert "the next candidate" in refused.text and "lifeboat_max_loss=" in refused.text and "lifeboat_target=" in refused.text

    outcome = harbour.succeed("restore", "-e", "lifeboat_services=lamp", "-e", "lifeboat_max_loss=1d")
    assert outcome.verdicts() == {"lamp": "verified"}
    assert outcome.plan["services"]["lamp"]["resolution"]["fallback_from"] == newer.document["run"]["id"]
    assert harbour.contents(["lamp"])["lamp"] == older
