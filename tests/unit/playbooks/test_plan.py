# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops a run before anything is touched, what preflight comes to, and which restore a rollback means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, TargetError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import build, judge, order, overview, pick, pinned, refusals, undo

SERVICES: dict[str, dict[str, Any]] = {
    "rock": {"host": "h", "requires": [], "sources": {"db": {}}},
    "mill": {"host": "h", "requires": [{"service": "rock", "kind": "hard"}], "sources": {"db": {}}},
    "inn": {"host": "h", "requires": [{"service": "mill", "kind": "hard"}], "sources": {}},
    "lamp": {"host": "h", "requires": [], "sources": {"db": {}}},
}
DOCUMENT = {"ecosystem": "harbour", "production": True, "services": SERVICES, "tiers": {}}
NAMES = ["lamp", "rock", "mill", "inn"]


def point(number: int, complete: bool = True) -> dict[str, Any]:
    return {
        "id": f"p{number}", "time": f"2030-01-01T0{number}:00:00Z", "complete": complete, "missing": [], "proven": False, "bytes": 10,
        "snapshots": {"db": f"db-{number:06d}-abcdef01"},
    }


def answer(*points: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"points": list(points), "restores": [], "lease": None, **more}


def plan(points: dict[str, Any] | None = None) -> dict[str, Any]:
    chosen = pick.Pick(NAMES, NAMES)
    known = points or {name: [point(1), point(2)] for name in NAMES if SERVICES[name]["sources"]}
    built = build.build(DOCUMENT, chosen, known, "latest")
    order.note_stops(built["services"], built["dependants"])
    return built


def fine() -> dict[str, Any]:
    return {name: {"findings": [], "ok": True} for name in NAMES}


def finding(level: str = "error", code: str = "damage") -> dict[str, Any]:
    return {"level": level, "source": "db", "code": code, "what": "an object is gone", "where": "pack x", "remedy": "look"}


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_production_is_changed_only_by_its_name() -> None:
    assert refusals.confirm(DOCUMENT, "restore", "", False) and refusals.confirm(DOCUMENT, "rollback", "harbor", False)
    assert not refusals.confirm(DOCUMENT, "restore", "harbour", False)
    assert not refusals.confirm(DOCUMENT, "restore", "", True), "a dry run needs no confirmation"
    assert not refusals.confirm(DOCUMENT, "backup", "", False)


def test_requirements_outside_the_pick_are_asked_for_health_and_dependants_for_life() -> None:
    chains = pick.live_dependants(SERVICES, ["mill"])
    assert refusals.outside(SERVICES, ["mill"], chains, "restore") == [
        {"service": "rock", "role": "requirement", "phase": "health"}, {"service": "inn", "role": "dependant", "phase": "status"}]
    assert [item["service"] for item in refusals.outside(SERVICES, ["mill"], chains, "rollback")] == ["inn"]
    assert not refusals.outside(SERVICES, ["mill"], chains, "commit")


@pytest.mark.parametrize(("given", "lives"), [
    ({"ok": True, "results": [{"kind": "status", "ok": True}]}, True),
    ({"ok": False, "results": [{"kind": "status", "ok": False}]}, False),
    ({"ok": False, "results": [{"kind": "ready", "ok": True}, {"kind": "health", "ok": False}]}, False),
    ({"ok": True, "results": []}, True),
    ({"unreachable": True}, True),
    ({"failed": True, "msg": "no"}, False),
])
def test_who_cannot_say_that_it_is_down_counts_as_live(given: dict[str, Any], lives: bool) -> None:
    probes = [{"service": "inn", "role": "dependant", "answer": given}]
    errors, live = refusals.live_outside(probes, {"inn": ["inn", "mill"]}, "", "restore", "")
    assert bool(errors) is lives and live == (["inn"] if lives else [])
    errors, live = refusals.live_outside(probes, {"inn": ["inn", "mill"]}, "stop", "restore", "")
    assert not errors and live == (["inn"] if lives else [])


def test_an_unhealthy_requirement_and_a_wrong_choice_are_told_together() -> None:
    probes = [{"service": "rock", "role": "requirement", "answer": {"ok": False, "results": [{"kind": "health", "ok": False, "detail": "refused"}]}}]
    errors, _live = refusals.live_outside(probes, {}, "stopp", "restore", "")
    assert len(errors) == 2 and "lifeboat_dependants" in str(errors[0]) and "refused" in str(errors[1])


def test_unreachable_failed_and_strange_answers_are_errors_with_their_reason() -> None:
    found = refusals.unreachable_or_failed({
        "rock": {"unreachable": True, "msg": "no route"}, "mill": {"failed": True, "msg": "boom\nboom", "error": {"what": "w", "where": "x", "remedy": "r"}},
        "inn": {}, "lamp": answer(),
    })
    assert set(found) == {"rock", "mill", "inn"}
    assert "no route" in str(found["rock"]) and str(found["mill"]) == "w: mill: x; r"


def test_a_lease_of_somebody_else_is_told_with_name_and_phase() -> None:
    held = answer(lease={"alive": True, "run": "r1", "user": "ann", "controller": "c", "since": "s", "phase": "stage"})
    assert "ann on c since s" in str(refusals.leases({"rock": held}, [])["rock"])
    assert not refusals.leases({"rock": held}, ["r1"])
    assert not refusals.leases({"rock": answer(lease={"alive": False, "run": "r1"})}, [])


def test_only_processes_of_this_controller_are_known_to_be_gone() -> None:
    own = {**lease.identity(), "alive": True, "run": "r1"}
    answers = {"rock": answer(lease={**own, "pid_started": "of another process"}), "mill": answer(lease={**own, "run": "r2"}), "inn": answer(),
               "lamp": answer(lease={**own, "run": "r3", "controller": "elsewhere", "pid_started": "of another process"})}
    assert refusals.gone(answers, 0) == ["r1"]
    assert refusals.gone(answers, own["pid"]) == ["r1", "r2"], "an earlier part of this very playbook"


def test_who_needs_what_is_broken_is_blocked_by_the_root() -> None:
    out = refusals.left_out(SERVICES, NAMES, {"rock": ConfigError("gone", "rock", "mend")}, "plan")
    assert {name: verdict["verdict"] for name, verdict in out.items()} == {"rock": "failed", "mill": "blocked", "inn": "blocked"}
    assert out["inn"]["root"]["service"] == "rock" and out["inn"]["message"].startswith("blocked by rock (failed in phase plan)")


# -- preflight ---------------------------------------------------------------------------------------------------------


def test_warnings_do_not_stop_a_run() -> None:
    answers = fine()
    answers["rock"]["findings"] = [finding("warning")]
    found = judge.judge(SERVICES, plan(), answers, {}, "0", False)
    assert not found["stop"] and not found["again"] and found["warnings"] == 1 and found["lines"] == ["warning rock.db: an object is gone: pack x; look"]


def test_an_error_stops_everybody_and_says_who_was_not_touched() -> None:
    answers = fine()
    answers["mill"] = {"findings": [finding(code="config")], "ok": False}
    answers["rock"] = {"unreachable": True}
    answers["lamp"] = {"failed": True, "msg": "a module that broke"}
    found = judge.judge(SERVICES, plan(), answers, {}, "0", False)
    assert found["stop"] and found["errors"] == 3 and len(found["lines"]) == 3
    assert {name: verdict["verdict"] for name, verdict in found["left_out"].items()} == {"mill": "failed", "rock": "failed", "lamp": "failed", "inn": "skipped"}


def test_a_missing_answer_is_an_error() -> None:
    answers = fine()
    del answers["lamp"]
    assert judge.judge(SERVICES, plan(), answers, {}, "0", False)["stop"]


def test_partial_goes_on_without_the_broken_and_stops_them_for_the_swap() -> None:
    answers = fine()
    answers["mill"] = {"findings": [finding(code="config")], "ok": False}
    found = judge.judge(SERVICES, plan(), answers, {}, "0", True)
    assert not found["stop"] and set(found["left_out"]) == {"mill", "inn"}
    assert found["plan"]["order"] == ["lamp", "rock"] and found["plan"]["services"]["rock"]["needed_by"] == []
    assert found["plan"]["dependants"] == [{"service": "mill", "chain": ["mill", "rock"], "action": "stop", "of": "rock"}]
    assert found["plan"]["services"]["rock"]["stops_first"] == ["mill"] and found["plan"]["services"]["lamp"]["stops_first"] == []


def test_partial_with_nothing_left_stops() -> None:
    answers = {name: {"findings": [finding(code="config")]} for name in NAMES}
    assert judge.judge(SERVICES, plan(), answers, {}, "0", True)["stop"]


def test_damage_falls_back_within_the_allowed_loss_only() -> None:
    answers = fine()
    answers["rock"] = {"findings": [finding()]}
    points = {name: [point(1), point(2)] for name in ("rock", "mill", "lamp")}
    refused = judge.judge(SERVICES, plan(), answers, points, "30m", False)
    assert refused["stop"] and any("p1" in line and "lifeboat_max_loss=" in line for line in refused["lines"])
    allowed = judge.judge(SERVICES, plan(), answers, points, "1h", False)
    assert allowed["again"] and not allowed["stop"] and allowed["plan"]["services"]["rock"]["resolution"]["point"] == "p1"
    assert allowed["plan"]["services"]["mill"]["resolution"]["point"] == "p2"


def test_a_point_that_no_round_is_left_to_look_at_is_not_restored() -> None:
    """A third point that does not verify stops the run: preflight has no fourth round."""
    points = {name: [point(number) for number in range(1, 6)] for name in NAMES if SERVICES[name]["sources"]}
    answers, found = fine(), {"plan": plan(points)}
    answers["rock"] = {"findings": [finding()]}
    for expected in ("p4", "p3"):
        found = judge.judge(SERVICES, found["plan"], answers, points, "1d", False)
        assert found["again"] and found["plan"]["services"]["rock"]["resolution"]["point"] == expected
    found = judge.judge(SERVICES, found["plan"], answers, points, "1d", False)
    assert found["stop"] and not found["again"] and set(found["left_out"]) == set(NAMES)
    assert any(line.startswith("next    3 points in a row do not verify: see with the verify playbook") for line in found["lines"])


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1.5s", 1.5)])
def test_durations(text: str, seconds: float) -> None:
    assert judge.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-1s", "soon", "1w", "nan", "inf"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="lifeboat_max_loss"):
        judge.seconds_of(text)


# -- resumes -----------------------------------------------------------------------------------------------------------


def restore(run: str, **more: Any) -> dict[str, Any]:
    return {"restore": run, "runs": [run], "asked": "latest", "point": "p1", "time": f"2030-01-01T00:00:0{run[-1]}Z", "open": True, "verdict": None,
            "sources": {"db": {"state": "live"}}, **more}


def test_an_unfinished_restore_of_the_same_target_keeps_its_point() -> None:
    points = {"rock": [point(1), point(2)], "lamp": [point(1), point(2)]}
    answers = {"rock": answer(restores=[restore("r1")]), "lamp": answer(restores=[restore("r1", verdict="verified", open=False)])}
    kept, warnings, resumed = pinned.pin(SERVICES, ["rock", "lamp"], points, answers, "latest")
    assert [one["id"] for one in kept["rock"]] == ["p1"] and len(kept["lamp"]) == 2
    assert resumed == ["r1"] and len(warnings) == 1
    kept, warnings, resumed = pinned.pin(SERVICES, ["rock", "lamp"], points, answers, "p2")
    assert len(kept["rock"]) == 2 and not warnings and not resumed, "another target was asked for"
    kept, _warnings, resumed = pinned.pin(SERVICES, ["rock"], {"rock": [point(2)]}, answers, "latest")
    assert [one["id"] for one in kept["rock"]] == ["p2"] and not resumed, "its point is gone"


# -- rollback and commit -----------------------------------------------------------------------------------------------


def test_last_is_the_newest_restore_with_all_who_took_part() -> None:
    answers = {
        "rock": answer(restores=[restore("r1")]), "mill": answer(restores=[restore("r1"), restore("r2")]), "inn": answer(),
        "lamp": answer(restores=[restore("r3", sources={"db": {"state": "staged"}})]),
    }
    assert undo.narrow(SERVICES, NAMES, answers, "last", "rollback", False) == (["mill", "inn"], "r2", {"mill": "r2", "inn": "r2"})
    assert undo.narrow(SERVICES, NAMES, answers, "last", "commit", False) == (["mill"], "r2", {"mill": "r2"})
    assert undo.narrow(SERVICES, NAMES, answers, "r1", "rollback", False) == (["rock", "mill", "inn"], "r1", dict.fromkeys(["rock", "mill", "inn"], "r1"))
    assert undo.narrow(SERVICES, ["lamp"], answers, "last", "rollback", True) == (["lamp"], "last", {"lamp": "last"}), "what was named is not narrowed"
    with pytest.raises(TargetError, match="r1, r2"):
        undo.narrow(SERVICES, NAMES, answers, "r9", "rollback", False)
    with pytest.raises(TargetError, match="nothing to roll back"):
        undo.narrow(SERVICES, ["lamp", "inn"], answers, "last", "rollback", False)


def test_a_named_service_that_the_run_never_came_to_took_no_part() -> None:
    before, after = "2030-01-01T00:00:01Z", "2030-01-01T00:00:03Z"
    told = {"rock": answer(restores=[restore("r2")], since=before), "mill": answer(restores=[], since=before), "inn": answer(restores=[], since=before),
            "lamp": answer(restores=[], since=after)}
    named = ["rock", "mill", "inn"]
    assert undo.narrow(SERVICES, named, told, "r2", "rollback", True) == (named, "r2", {"rock": "r2", "mill": "", "inn": "r2"})
    # who remembers less may have forgotten what it did: its host is asked, and refuses
    assert undo.narrow(SERVICES, ["rock", "lamp"], told, "r2", "commit", True)[2]["lamp"] == "r2"
    assert undo.narrow(SERVICES, ["rock", "mill"], {**told, "mill": answer(restores=[], since="")}, "r2", "rollback", True)[2]["mill"] == "r2"
    with pytest.raises(TargetError, match="no host remembers a restore of that run: r9"):
        undo.narrow(SERVICES, ["rock", "mill"], told, "r9", "rollback", True)
    assert undo.narrow(SERVICES, ["inn"], told, "r9", "rollback", True) == (["inn"], "r9", {"inn": "r9"}), "there is no data to put back"


def test_the_last_restore_of_named_services_is_the_one_that_stopped_them_too() -> None:
    blocked = {"verdict": "blocked", "sources": {"db": {"state": "staged"}}}
    told = {"rock": answer(restores=[restore("r1"), restore("r2")]), "mill": answer(restores=[restore("r1"), restore("r2", **blocked)]),
            "lamp": answer(restores=[restore("r1"), restore("r3", **blocked)])}
    named = ["rock", "mill", "lamp"]
    # to undo r1 of mill would be to undo two restores at once; r3 replaced nothing anywhere
    assert undo.narrow(SERVICES, named, told, "last", "rollback", True)[2] == {"rock": "r2", "mill": "r2", "lamp": "r1"}
    assert undo.narrow(SERVICES, named, told, "last", "commit", True)[2] == {"rock": "r2", "mill": "r1", "lamp": "r1"}


# -- tables ------------------------------------------------------------------------------------------------------------


def test_status_shows_who_works_what_is_unfinished_and_what_is_kept() -> None:
    lines = "\n".join(overview.status({
        "rock": answer(lease={"alive": True, "verb": "restore", "phase": "stage", "user": "ann", "controller": "c", "since": "s", "run": "r1"}),
        "mill": answer(unfinished={"run": "r0", "verb": "backup", "since": "s"}),
        "lamp": answer(uncommitted=["r1"], held_bytes=2048, proof={"point": "p1", "time": "2030-01-01T00:00:00Z"}),
        "inn": {"failed": True, "msg": "bo\x1b[2Jom"}, "pier": {"unreachable": True},
    }, "inv"))
    assert "ann on c works on it since s" in lines and "run r0 (backup) of s never ended" in lines
    assert "2.0 KiB" in lines and "lifeboat.recovery.rollback -i inv -e lifeboat_run=r1" in lines
    assert "inn: bo\\x1b[2Jom" in lines and "pier: its host does not answer" in lines


def test_status_says_what_the_members_of_a_cluster_are() -> None:
    cluster = {"said": ["db1: down", "db2: primary on timeline 2"], "warnings": ["split \x1b[2Jbrain"]}
    lines = overview.status({"rock": answer(), "lamp": answer()}, "inv", clusters={"rock": cluster, "lamp": {}})
    assert lines[-3:] == ["rock: server db1: down", "rock: server db2: primary on timeline 2", "rock: WRONG: split \\x1b[2Jbrain"]


def test_points_show_age_loss_and_what_is_torn() -> None:
    lines = overview.points({"rock": {"points": [point(1), point(2, complete=False)], "notes": ["odd"], "mark": True}, "lamp": {"points": [], "mark": False}})
    text = "\n".join(lines)
    assert "p1" in text and "torn" in text and "rock: odd" in text and "lamp: no point yet" in text
    assert len(overview.points({"rock": {"points": [point(number) for number in range(1, 9)]}}, newest=2)) == 1 + 2 + 2


def test_the_plan_is_plain_json() -> None:
    assert json.loads(json.dumps(plan()))["order"] == order.topological_order(SERVICES)
