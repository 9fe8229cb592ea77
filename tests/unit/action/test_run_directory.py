# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run directory and the life of a run: begin, verdicts, collected ledgers, end, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, ConflictError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import journal, lifecycle, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

PLAN: dict[str, Any] = {"order": ["a", "b"], "services": {"a": {}, "b": {"requires": [{"service": "a", "kind": "hard"}]}}, "islands": [["a", "b"]]}


def begin(root: Path, **more: Any) -> RunDirectory:
    more.setdefault("pid", os.getppid())
    return lifecycle.begin("restore", "shop", dict(PLAN), ["a", "b"], root=str(root), **more)


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_ids_sort_by_time_and_say_the_verb() -> None:
    one, two = lifecycle.new_run_id("restore", 0, "0a1b2c"), lifecycle.new_run_id("recovery_point", 86400)
    assert one == "19700101T000000Z-restore-0a1b2c" and one < two and words.RUN_ID.match(two)
    with pytest.raises(ConfigError):
        lifecycle.new_run_id("../../etc")


def test_begin_makes_a_private_directory(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert run.picked() == ["a", "b"] and set(run.states()) == {"a", "b"}
    assert os.stat(run.path).st_mode & 0o077 == 0 and os.stat(run.file("plan.json")).st_mode & 0o077 == 0
    owner = run.run
    assert {"id", "verb", "controller", "pid", "user", "started", "resumes"} <= set(owner) and run.alive() is True
    assert journal.read(run.file("journal.jsonl")).entries[0]["event"] == "begun"


def test_check_mode_writes_the_plan_and_nothing_else(tmp_path: Path) -> None:
    run = begin(tmp_path, check=True)
    found = sorted(str(path.relative_to(run.path)) for path in Path(run.path).rglob("*") if path.is_file())
    assert found == ["plan.json"]


@pytest.mark.parametrize(("change", "say"), [
    ({"verb": "explode"}, "verb"), ({"picked": []}, "no service was picked"), ({"incident_started": "yesterday"}, "not a time with a zone"),
    ({"incident_started": "2030-01-31T12:00:00"}, "not a time with a zone"),
])
def test_bad_arguments_create_nothing(tmp_path: Path, change: dict[str, Any], say: str) -> None:
    arguments = {"verb": "restore", "ecosystem": "shop", "plan": PLAN, "picked": ["a"], "root": str(tmp_path / "runs"), **change}
    with pytest.raises(ConfigError, match=say):
        lifecycle.begin(**arguments)
    assert not (tmp_path / "runs").exists()


def test_names_that_are_paths_are_refused(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for name in ("../x", "a/b", "", ".hidden", "a\nb"):
        with pytest.raises(ConfigError):
            run.enter(name)


def test_phases_end_each_other_and_the_verdict_ends_the_last(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.phase("a", "stage")
    run.phase("a", "gate")
    assert (run.state("a") or {})["done"] == ["stage"]
    run.phase("a", "gate", "end", "failed")
    assert (run.state("a") or {})["done"] == ["stage"]
    run.phase("a", "health")
    run.verdict("a", "verified")
    assert (run.state("a") or {})["done"] == ["stage", "health"]
    with pytest.raises(ConfigError, match="no such phase"):
        run.phase("a", "lunch")


def test_starting_an_open_phase_again_goes_on_with_it(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.phase("a", "protect")
    run.phase("a", "protect")
    run.verdict("a", "verified")
    run.verdict("b", "verified")
    assert [phase["name"] for phase in lifecycle.finish(run)["services"]["a"]["phases"]] == ["protect"]


def test_one_call_may_be_two_phases(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.phase("a", "health")
    run.split("a", "invariants", 0.0)
    run.phase("a", "invariants", "end")
    run.split("b", "invariants", 1.0)  # nothing is open there
    assert (run.state("a") or {})["done"] == ["health", "invariants"] and (run.state("b") or {})["done"] == []
    run.verdict("a", "verified")
    run.verdict("b", "verified")
    assert [phase["name"] for phase in lifecycle.finish(run)["services"]["a"]["phases"]] == ["health", "invariants"]


def test_the_first_verdict_stands_and_unknown_is_failed(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.verdict("a", "blocked", "by db", root={"service": "db", "verdict": "failed"})
    assert run.verdict("a", "verified")["verdict"] == "blocked"
    state = run.verdict("b", "splendid")
    assert state["verdict"] == "failed" and "splendid" in state["message"] and state["root"]["service"] == "b"


def test_a_soft_requirement_down_makes_a_success_degraded(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.degraded("a", ["mail"])
    assert run.verdict("a", "verified")["verdict"] == "degraded"
    assert "mail" in (run.state("a") or {})["message"]


def test_a_failure_without_a_message_says_what_the_module_said(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.trouble("a", {"failed": True, "msg": "Disk full: /srv; free space", "error": {"what": "Disk full", "remedy": "free space"}})
    state = run.verdict("a", "failed")
    assert state["message"].startswith("Disk full") and state["remedy"] == "free space"


def test_ledger_entries_are_kept_once(tmp_path: Path) -> None:
    run = begin(tmp_path)
    entry = {"seq": 1, "event": "e", "data": {}, "prev": journal.ZERO}
    entry["hash"] = journal.digest(entry)
    assert run.collect("a", [entry, entry, "junk", {"no": "hash"}]) == 1
    assert run.collect("a", [entry]) == 0 and run.collected("a") == [entry]
    assert run.collect("a", None) == 0


def test_finish_fails_what_has_no_verdict_and_may_be_repeated(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.phase("b", "stage")
    run.verdict("a", "verified")
    document = lifecycle.finish(run)
    assert document["outcome"] == "failed" and document["exit"]["code"] == 3
    assert document["services"]["b"]["verdict"] == "failed" and "stage" in document["services"]["b"]["message"]
    entries = len(journal.read(run.file("journal.jsonl")).entries)
    assert lifecycle.finish(run)["services"] == document["services"]
    assert len(journal.read(run.file("journal.jsonl")).entries) == entries
    rebuilt = lifecycle.write_documents(run)
    assert rebuilt["services"] == document["services"] and rebuilt["wall"] == document["wall"]


@pytest.mark.parametrize(("verdicts", "code"), [
    (("verified", "restored"), 0), (("verified", "degraded"), 2), (("verified", "skipped"), 3), (("degraded", "blocked"), 3),
])
def test_exit_codes(tmp_path: Path, verdicts: tuple[str, str], code: int) -> None:
    run = begin(tmp_path)
    for name, verdict in zip(("a", "b"), verdicts):
        run.verdict(name, verdict)
    assert lifecycle.finish(run)["exit"]["code"] == code


def test_a_killed_run_is_sealed_by_the_next_which_resumes_it(tmp_path: Path) -> None:
    former = begin(tmp_path, pid=dead_process(), incident_started="2030-01-31T12:00:00Z")
    former.verdict("a", "verified")
    former.phase("b", "stage")
    with open(former.file("journal.jsonl"), "ab") as handle:
        handle.write(b'{"seq":99,"torn')  # killed in the middle of a write
    run = begin(tmp_path)
    assert run.plan["resumes"] == [former.run["id"]] and run.run["resumes"] == former.run["id"]
    assert run.plan["incident_started"]["time"] == "2030-01-31T12:00:00Z"
    document = json.loads(Path(former.file("run.json")).read_text())
    assert document["outcome"] == "interrupted" and document["run"]["resumed_by"] == run.run["id"]
    assert document["services"]["a"]["verdict"] == "verified" and document["services"]["b"]["verdict"] == "interrupted"
    chain = journal.read(former.file("journal.jsonl"))
    assert chain.whole and "journal_tail_cut" in [entry["event"] for entry in chain.entries]


def test_a_living_run_on_the_same_services_is_refused(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(ConflictError, match="works on these services"):
        begin(tmp_path, pid=os.getpid())
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unfinished_part_of_the_same_playbook_is_sealed(tmp_path: Path) -> None:
    former = begin(tmp_path, pid=os.getpid())
    run = begin(tmp_path, pid=os.getpid())
    assert former.sealed() and run.plan["resumes"] == [former.run["id"]]
    lifecycle.begin("restore", "shop", dict(PLAN), ["c"], root=str(tmp_path), pid=os.getpid())  # other services: both go on
    assert not run.sealed()


def test_a_run_of_another_controller_is_left_alone_and_named(tmp_path: Path) -> None:
    former = begin(tmp_path)
    plan = json.loads(Path(former.file("plan.json")).read_text())
    plan["run"]["controller"] = "elsewhere"
    Path(former.file("plan.json")).write_text(json.dumps(plan))
    run = begin(tmp_path)
    assert not os.path.exists(former.file("run.json")) and "elsewhere" in run.plan["warnings"][0]


def test_torn_files_of_a_crashed_run_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.verdict("a", "verified")
    Path(run.file("state", "b.json")).write_text('{"service": "b", "verd')
    with open(run.file("timings.jsonl"), "a") as handle:
        handle.write('{"service": "b", "phase": "st\n{"service": 5, "phase": [], "event": null, "time": "x"}\nnull\n')
    document = lifecycle.finish(run)
    assert document["services"]["a"]["verdict"] == "verified" and document["services"]["b"]["verdict"] == "failed"
