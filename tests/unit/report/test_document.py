# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""run.json: what it says, and that it keeps to its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import commands, evidence, lifecycle, screens, timings, words
from ansible_collections.lifeboat.recovery.tests.doubles import run_sample

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def schema() -> jsonschema.Draft202012Validator:
    document = json.loads((ROOT / "docs" / "run.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document, format_checker=jsonschema.FormatChecker())


def check(schema: jsonschema.Draft202012Validator, document: dict[str, Any]) -> None:
    assert [f"{error.json_path}: {error.message}" for error in schema.iter_errors(json.loads(json.dumps(document)))] == []


def test_a_good_run(tmp_path: Path, schema: jsonschema.Draft202012Validator) -> None:
    run = run_sample.make(str(tmp_path))
    document = lifecycle.write_documents(run)
    check(schema, document)
    assert document["outcome"] == "success" and document["exit"]["code"] == 0 and document["counts"] == {"picked": 6, "verdicts": 6, "by": {"verified": 6}}
    assert list(document["services"]) == list(run_sample.SHOP) == list(json.loads(Path(run.file("run.json")).read_text())["services"])
    orders = document["services"]["orders"]
    assert orders["snapshots"] == {"db": "orders.db-000007-1a2b3c4d"} and orders["digests"]["db"]["equal"] is True
    assert orders["proof"]["kind"] == "content" and orders["proof"]["checks_passed"] == 2 and orders["bytes"]["source"] == 3 << 30
    assert orders["ledger"]["whole"] and orders["ledger"]["entries"] == 6
    assert document["services"]["gateway"]["proof"]["kind"] == "stateless" and document["services"]["gateway"]["touched"] == "restarted"
    assert document["target"]["point"] == "20300131T060000Z-backup-ffee00"


def test_every_time_is_a_measured_one(tmp_path: Path) -> None:
    document = lifecycle.write_documents(run_sample.make(str(tmp_path)))
    for name, (_needs, _source, _size, phases) in run_sample.SHOP.items():
        found = {phase["name"]: phase["seconds"] for phase in document["services"][name]["phases"]}
        for phase, seconds in phases.items():
            assert found[phase] == pytest.approx(seconds, abs=0.002)
    gate = next(phase for phase in document["services"]["payments"]["phases"] if phase["name"] == "gate")
    assert gate["waited_for"] == [{"service": "orders", "seconds": pytest.approx(gate["seconds"] - 0.03, abs=0.002)}]
    orders = document["services"]["orders"]
    assert orders["rto"]["raw"] == pytest.approx(orders["seconds"] + 30, abs=0.01) and orders["rto"]["met"] is True


def test_a_failure_names_its_root_and_what_was_touched(tmp_path: Path, schema: jsonschema.Draft202012Validator) -> None:
    run = run_sample.make(str(tmp_path), fail="orders")
    document = lifecycle.write_documents(run)
    check(schema, document)
    assert document["outcome"] == "failed" and document["exit"]["code"] == 3
    for name in ("payments", "gateway"):
        item = document["services"][name]
        assert item["verdict"] == "blocked" and item["root"]["service"] == "orders" and item["touched"] == "stopped" and item["rto"]["met"] is None
    text = screens.ending(run, document)
    assert "root cause:  orders failed in phase health" in text and "blocks: payments, gateway" in text
    assert "live data switched: identity, inventory, orders, sessions" in text and "stopped, its data not touched: payments, gateway" in text
    assert "ansible-playbook lifeboat.recovery.restore -i shop.catalog.yml" in text and f"lifeboat_run={run_sample.RUN}" in text


def test_an_unfinished_run_can_be_shown_at_any_time(tmp_path: Path, schema: jsonschema.Draft202012Validator) -> None:
    run = lifecycle.begin("restore", "shop", run_sample.plan(), list(run_sample.SHOP), root=str(tmp_path), extra={"invocation": {"catalog": "a catalog.yml"}})
    run.phase("orders", "cutover")
    document = lifecycle.write_documents(run)
    check(schema, document)
    assert document["outcome"] == "" and document["services"]["orders"]["phases"][0]["outcome"] == "open"
    text = screens.interrupted(run, "Interrupted")
    assert "orders" in text and "UNSURE" in text and "old data, not touched" in text
    assert "resume:   ansible-playbook lifeboat.recovery.restore -i 'a catalog.yml'" in text and "rollback: " in text and "status: " in text


def test_a_rollback_goes_on_with_the_restore_that_it_found() -> None:
    plan = {"run": {"id": "r3", "verb": "rollback"}, "invocation": {"catalog": "c.yml", "run": "last"}, "flags": {"run": "r2"}, "services": {}}
    told = "ansible-playbook lifeboat.recovery.rollback -i c.yml -e lifeboat_services=rock,mill -e lifeboat_run="
    assert commands.following(plan, ["rock", "mill"])["resume"] == told + "r2", "the last one of each service may be another"
    assert commands.following({**plan, "flags": {}}, ["rock", "mill"])["resume"] == told + "last", "a run that was refused has found none"


def test_human_waits_are_apart(tmp_path: Path) -> None:
    run = run_sample.make(str(tmp_path))
    run_sample.mark(run, "", "plan", "human_start", 1.0)
    run_sample.mark(run, "", "plan", "human_start", 2.0)
    run_sample.mark(run, "", "plan", "human_end", 3.0)
    run_sample.mark(run, "", "plan", "human_end", 5.0)
    document = lifecycle.write_documents(run)
    assert document["wall"]["human_wait_seconds"] == 4.0 and document["wall"]["net_seconds"] == pytest.approx(document["wall"]["seconds"] - 4.0)
    rto = document["services"]["orders"]["rto"]
    assert rto["net"] == pytest.approx(rto["raw"] - 4.0)


def test_durations_use_the_monotonic_clock_when_the_wall_clock_jumps() -> None:
    start = {"time": 1000.0, "mono": 5.0, "boot": "b"}
    assert timings.seconds_between(start, {"time": 900.0, "mono": 8.0, "boot": "b"}) == 3.0
    assert timings.seconds_between(start, {"time": 1004.0, "mono": 1.0, "boot": "another"}) == 4.0
    assert timings.seconds_between(start, {"time": 900.0, "mono": 1.0, "boot": "another"}) == 0.0


def test_an_altered_ledger_entry_is_a_problem_of_the_service() -> None:
    entries = run_sample.ledger("orders", "db", "restore.live")
    assert evidence.chain_state(entries)["whole"]
    entries[3]["data"]["source"] = "other"
    assert "was altered" in str(evidence.chain_state(entries)["problem"])
    cut = run_sample.ledger("orders", "db", "restore.live")
    del cut[2]  # a gap is what collecting parts looks like, and no problem
    assert evidence.chain_state(cut)["whole"]


@pytest.mark.parametrize("junk", [
    None, 5, "x", [], {}, [None], {"sources": 5}, {"results": 5}, {"results": [5]}, {"findings": 5}, {"sources": [5], "warnings": 7},
])
def test_whatever_a_module_answers_can_be_read(junk: Any) -> None:
    kept = {"staged": junk, "checks": junk, "live": junk}
    assert isinstance(evidence.sources(kept, []), dict) and isinstance(evidence.checks(kept), list) and isinstance(evidence.findings(kept), list)
    assert evidence.touched({}, kept, [{"event": None, "data": 5}], set(), "r") in ("untouched",)


@pytest.mark.parametrize(("value", "text"), [
    (0.004, "0.00 s"), (9.99, "9.99 s"), (9.999, "10.0 s"), (59.96, "60.0 s"), (245.2, "4m05s"), (7400, "2h03m"), (None, "-"),
])
def test_durations_for_people(value: Any, text: str) -> None:
    assert words.duration(value) == text


def test_warnings_of_modules_are_told_once_and_whole(tmp_path: Path) -> None:
    run = run_sample.make(str(tmp_path))
    note = {"what": "the role shop differs", "where": "cluster 5432", "remedy": "compare them"}
    for subject in ("staged", "live"):
        before = run.kept("orders").get(subject, {})
        run.keep("orders", subject, {**before, "notes": [note, "db: an extension is older"], "warnings": ["in Ansible's own words"]})
    document = lifecycle.write_documents(run)
    wanted = ["the role shop differs: cluster 5432; compare them", "db: an extension is older"]
    assert document["services"]["orders"]["warnings"] == wanted
    assert document["warnings"] == [f"orders: {text}" for text in wanted]
    assert all(f"  warning:     orders: {text}" in screens.ending(run, document) for text in wanted)
    assert "compare them" in Path(run.file("report.html")).read_text()


def test_a_host_that_went_away_in_the_cutover_may_have_been_switched() -> None:
    """The ledger that came before tells of staging only; what was written there since, nobody knows here."""
    staged = [{"run": "r", "event": "stage.done"}]
    began = {"stage", "stop", "cutover"}
    assert evidence.touched({"done": ["stage", "stop"]}, {}, staged, began, "r") == "switching"
    assert evidence.touched({"done": ["stage", "stop"]}, {"live": {"failed": True}}, staged, began, "r") == "stopped"
    assert evidence.touched({"done": ["stage", "stop"]}, {}, staged, began - {"cutover"}, "r") == "stopped"
