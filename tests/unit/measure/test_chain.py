# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for people: between attempts at one incident, raw and net; and the type of a failure as a run keeps it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import chain, lifecycle, measure, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory
from ansible_collections.lifeboat.recovery.tests.doubles import run_sample

NOW = 1_900_000_000.0


def attempt(name: str | None, began: float, ended: float, verdict: str = "failed", **more: Any) -> dict[str, Any]:
    return {"run": name, "began": words.iso(NOW + began), "ended": words.iso(NOW + ended), "verdict": verdict, **more}


def waited(*attempts: dict[str, Any]) -> list[tuple[str, float]]:
    return [(one["after"], one["seconds"]) for one in chain.waits(chain.joined(attempts, NOW), NOW)]


def test_people_are_waited_for_between_the_end_of_one_attempt_and_the_begin_of_the_next() -> None:
    assert waited() == []
    assert waited(attempt("r1", -100, -60), attempt("r2", -50, -20)) == [("r1", 10), ("r2", 20)]
    assert waited(attempt(None, -70, -70, "refused"), attempt("r2", -50, -20)) == [("a refusal", 20), ("r2", 20)]


def test_attempts_are_joined_whoever_tells_of_them() -> None:
    # the host saw the first entries later, and the last later than the controller's report of it
    assert waited(attempt("r1", -90, -55), attempt("r1", -100, -60)) == [("r1", 55)]
    assert waited(attempt("r1", -100, -20), attempt("r2", -90, -50)) == [("r1", 20)], "work that overlaps is no wait"
    assert waited(attempt("r1", -100, 50)) == [] and waited(attempt("r1", 5, 50)) == []
    assert waited({"run": "r1", "began": "nonsense", "ended": None, "verdict": None}) == []


def test_a_day_without_an_attempt_ends_an_incident() -> None:
    day = chain.PATIENCE
    assert waited(attempt("r1", -2 * day - 30, -2 * day), attempt("r2", -40, -30)) == [("r2", 30)]
    assert waited(attempt("r1", -day - 30, -day + 10), attempt("r2", -40, -30)) == [("r1", day - 50), ("r2", 30)]


@pytest.mark.parametrize(("attempts", "left"), [
    ([("restore", "failed"), ("restore", None)], ["r0", "r1"]), ([("restore", "failed"), ("restore", "verified")], []),
    ([("restore", "failed"), ("rollback", "rolled_back"), ("restore", "skipped")], ["r2"]), ([("restore", "degraded"), ("backup", "captured")], []),
    ([("restore", "failed"), ("backup", "captured")], ["r0"]), ([("restore", "failed"), ("rollback", "failed")], ["r0"]),
    ([("restore", "failed"), ("commit", "committed")], []),
])
def test_what_ends_an_incident_on_a_host(attempts: list[tuple[str, str | None]], left: list[str]) -> None:
    listed = [attempt(f"r{number}", number, number, verdict or "", verb=verb) for number, (verb, verdict) in enumerate(attempts)]
    assert [one["run"] for one in chain.of_host({"attempts": listed}, "restore")] == left
    assert chain.of_host({"failed": True}, "restore") == [] == chain.of_host(None, "restore")


def begin(root: Path, **more: Any) -> RunDirectory:
    return lifecycle.begin("restore", "shop", {**run_sample.plan(), "order": list(run_sample.SHOP)}, list(run_sample.SHOP), root=str(root), **more)


def test_a_run_goes_on_with_the_refusal_and_the_failure_before_it(tmp_path: Path) -> None:
    chain.refuse(str(tmp_path), "shop", "restore", ["orders"])
    chain.refuse(str(tmp_path), "another", "restore", ["orders"])
    kept = json.loads((tmp_path / ".refused.json").read_text())
    since = kept["shop/restore"]["since"] = words.iso(time.time() - 100)
    (tmp_path / ".refused.json").write_text(json.dumps(kept))
    chain.refuse(str(tmp_path), "shop", "restore", ["orders", "payments"])  # again, before anybody had mended it
    first = begin(tmp_path)
    assert [one["verdict"] for one in first.plan["chain"]] == ["refused"] and first.plan["incident_started"]["time"] == since
    assert set(json.loads((tmp_path / ".refused.json").read_text())) == {"another/restore"}
    document = lifecycle.finish(first)  # nobody got a verdict: it failed
    assert document["outcome"] == "failed"

    second = begin(tmp_path)
    assert [one["run"] for one in second.plan["chain"]] == [None, first.run["id"]]
    assert second.plan["incident_started"] == {"time": since, "source": f"run {first.run['id']}"}
    for service in second.picked():
        second.verdict(service, "verified")
    document = lifecycle.finish(second)
    human, rto = document["human"], document["services"]["orders"]["rto"]
    assert human["waits"][0]["after"] == "a refusal" and {one["after"] for one in human["waits"]} <= {"a refusal", first.run["id"]}
    assert human["seconds"] >= 99 and human["detect_seconds"] == 0
    assert rto["net"] == pytest.approx(rto["raw"] - human["seconds"], abs=0.002)

    third = begin(tmp_path)
    assert third.plan["chain"] == [], "a success ends the incident"


def test_a_refusal_of_other_services_or_long_ago_is_none_of_this_run(tmp_path: Path) -> None:
    chain.refuse(str(tmp_path), "shop", "restore", ["nobody"])
    assert begin(tmp_path).plan["chain"] == []
    (tmp_path / ".refused.json").write_text(json.dumps({"shop/restore": {"since": words.iso(time.time() - 2 * chain.PATIENCE), "picked": ["orders"]}}))
    (tmp_path / "other").mkdir()
    (tmp_path / ".refused.json").rename(tmp_path / "other" / ".refused.json")
    assert begin(tmp_path / "other").plan["chain"] == []


def test_what_hosts_know_is_part_of_it_and_a_check_takes_no_part(tmp_path: Path) -> None:
    now = time.time()
    known = [{"run": "20300101T000000Z-restore-aaaaaa", "began": words.iso(now - 90), "ended": words.iso(now - 60), "verdict": "interrupted"}]
    assert begin(tmp_path / "a", check=True, attempts=known).plan["chain"] == []
    run = begin(tmp_path / "b", attempts=known)
    assert run.plan["incident_started"]["time"] == words.iso(now - 90)
    told = measure.for_ledger(run, "orders", "verified")
    assert told["human_seconds"] == pytest.approx(60, abs=30) and told["chain"] == [known[0]["run"]] and told["recovery"]["raw"] >= 90
    assert told["before"]["detect"] == 0 and told["verdict"] == "verified" and told["failure"] is None


@pytest.mark.parametrize(("phase", "answer", "given", "wanted"), [
    ("stage", {"failed": True, "msg": "x", "error": {"code": "storage", "what": "no permission", "reason": "no_space"}}, "", "no_space"),
    ("stage", {"unreachable": True, "msg": "x"}, "", "host_unreachable"), ("health", {"failed": True, "error": {"code": "check"}}, "", "unhealthy"),
    ("start", None, "", "start_failed"), ("stop", None, "", "stop_failed"), ("gate", None, "timeout", "timeout"), ("cutover", None, "", "internal"),
    ("stage", {"failed": True, "msg": "x", "error": {"code": "damage"}}, "no such type", "internal"),
])
def test_a_verdict_keeps_the_type_of_its_failure(tmp_path: Path, phase: str, answer: dict[str, Any] | None, given: str, wanted: str) -> None:
    run = begin(tmp_path)
    run.phase("orders", "preflight")
    run.trouble("orders", {"failed": True, "msg": "an earlier one", "error": {"code": "key"}})
    run.phase("orders", phase)
    if answer:
        run.trouble("orders", answer)
    assert run.verdict("orders", "failed", failure=given)["failure"] == {"type": wanted, "phase": phase}
    assert run.verdict("payments", "verified")["failure"] is None and run.verdict("sessions", "interrupted")["failure"]["type"] == "interrupted"


def test_what_preflight_found_is_the_type_of_those_it_kept_out_and_the_others_are_blocked(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for service in ("orders", "payments"):
        run.phase(service, "preflight")
    run.keep("orders", "preflight", {"findings": [{"level": "warning", "code": "key"}, {"level": "error", "code": "damage", "what": "x"}]})
    document = lifecycle.finish(run)
    assert document["services"]["orders"]["failure"] == {"type": "data_damaged", "phase": "preflight"}
    assert document["services"]["payments"]["failure"]["type"] == "blocked"


def test_times_of_calls_are_added_up_per_service(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for subject, seconds in (("preflight", 1.0), ("staged", 2.0), ("staged", 4.0)):
        run.keep("orders", subject, {
            "usage": {"cpu_seconds": seconds, "peak_memory_bytes": int(seconds), "read_bytes": 1, "written_bytes": 0},
            "measured": {"steps": {"fetch": {"seconds": seconds, "busy": seconds}}, "bytes": {"fetched": 10}},
        })
    told = lifecycle.write_documents(run)["services"]["orders"]["measured"]
    assert told["usage"] == {"cpu_seconds": 7, "peak_memory_bytes": 4, "read_bytes": 3, "written_bytes": 0} and told["calls"] == 3
    assert told["steps"]["fetch"]["seconds"] == 7 and told["bytes"] == {"fetched": 30, "written": 0, "reused": 0}
    assert "usage" not in run.kept("orders")["staged"]


def test_the_ledger_is_told_whom_a_gate_waited_for_longest(tmp_path: Path) -> None:
    run = run_sample.make(str(tmp_path))
    told = measure.for_ledger(run, "gateway", "verified")
    longest = max(run_sample.SHOP["gateway"][0], key=lambda name: name == "payments")
    assert told["phases"]["gate"]["waited_for"] == longest == "payments" and told["phases"]["health"] == {"seconds": 1.1, "waited_for": None}
    assert told["recovery"]["limit"] == 90 and told["recovery"]["met"] is True and told["before"]["queue"] >= 1
    assert run.timings("gateway") and {mark["service"] for mark in run.timings("gateway")} == {"gateway", ""}
