# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live view: which lines appear when, and what the callback does around a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.callback import run_view
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import lifecycle, lines
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

PLAN: dict[str, Any] = {"order": ["orders", "payments"], "services": {"orders": {}, "payments": {}}}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return lifecycle.begin("restore", "shop", PLAN, ["orders", "payments"], root=str(tmp_path / "runs"))


@pytest.fixture
def view(run: RunDirectory) -> lines.View:
    found = lines.View(run, every=2.0, began=100.0)
    assert found.tick(100.0) == []  # everybody is in phase plan: nothing to tell
    return found


def counters(done: int, total: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "service": "orders", "phase": "stage", "detail": "", "bytes_done": done, "bytes_total": total, "items_done": 0, "started": 50.0, "updated": 54.0,
        **more,
    }


def test_a_phase_is_told_once(run: RunDirectory, view: lines.View) -> None:
    run.phase("orders", "stage")
    assert view.tick(101.0) == ["     1.0s  orders    stage"]
    assert view.tick(102.0) == []


def test_counters_are_told_when_they_moved_and_not_too_often(run: RunDirectory, view: lines.View) -> None:
    run.phase("orders", "stage")
    view.tick(101.0)
    run.progress("orders", counters(1 << 20, 4 << 20))
    assert view.tick(101.5) == []
    assert view.tick(103.1) == ["     3.1s  orders    stage       1.0 MiB of 4.0 MiB 25 %  256.0 KiB/s  4.00 s"]
    run.progress("orders", counters(2 << 20, 4 << 20))
    assert view.tick(104.0) == []
    assert view.tick(105.2) != []
    assert view.tick(110.0) == []  # nothing moved


def test_who_is_waited_for_is_told_when_it_changes(run: RunDirectory, view: lines.View) -> None:
    run.phase("payments", "gate")
    run.waiting("payments", [{"service": "orders", "kind": "hard"}, {"service": "identity", "kind": "hard"}])
    assert view.tick(101.0) == ["     1.0s  payments  gate        waits for orders, identity"]
    run.waiting("payments", [{"service": "orders", "kind": "hard"}])
    assert view.tick(102.0) == ["     2.0s  payments  gate        waits for orders"]


def test_a_verdict_says_why(run: RunDirectory, view: lines.View) -> None:
    run.verdict("orders", "failed", "health: 503")
    run.verdict("payments", "blocked", "blocked by orders", root={"service": "orders", "verdict": "failed", "message": "health: 503"})
    assert view.tick(101.0) == ["     1.0s  orders    failed      health: 503", "     1.0s  payments  blocked     by orders: health: 503"]


def test_lines_fit_and_hostile_text_stays_one_line(run: RunDirectory, view: lines.View) -> None:
    run.verdict("orders", "failed", "x\n\x1b[2J" * 60)
    (line,) = view.tick(101.0)
    assert len(line) == view.width and "\x1b" not in line and "\n" not in line and "\\x1b[2J" in line


@pytest.mark.parametrize("junk", ["", "null", "[]", '{"bytes_done": "many", "started": "then", "updated": null, "detail": 5}'])
def test_broken_files_do_not_stop_the_view(run: RunDirectory, view: lines.View, junk: str) -> None:
    run.phase("orders", "stage")
    Path(run.file("progress", "orders.json")).write_text(junk)
    Path(run.file("state", "payments.json")).write_text(junk[:1])
    assert len(view.tick(101.0)) == 1


class Screen:
    """Stands where Ansible's display is."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def display(self, text: str, *_more: object, **_named: object) -> None:
        self.text.append(text)

    warning = display


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> Iterator[run_view.CallbackModule]:
    found = run_view.CallbackModule()
    found._display = Screen()
    options = {"live": False, "every": 2.0, "width": 100, "exit_code": True, "precedence": 0}
    monkeypatch.setattr(found, "get_option", options.__getitem__)
    found.options_of_test = options
    yield found
    found._ended = True


def result(run: RunDirectory, **answer: Any) -> Any:
    host = SimpleNamespace(get_name=lambda: "orders")
    told = {"run_dir": run.path, "plan_file": run.file("plan.json"), **answer}
    return SimpleNamespace(result=told, host=host, task=SimpleNamespace(ignore_unreachable=False, action="lifeboat.recovery.run_state"))


STATS = SimpleNamespace(failures={}, dark={})


@pytest.mark.parametrize(("verdicts", "code"), [
    (("verified", "verified"), 0), (("verified", "degraded"), 2), (("verified", "blocked"), 3), (("verified", ""), 3),
])
def test_the_process_gets_the_exit_code_of_the_run(callback: Any, run: RunDirectory, verdicts: tuple[str, str], code: int) -> None:
    callback.v2_runner_on_ok(result(run))
    for name, verdict in zip(("orders", "payments"), verdicts):
        if verdict:
            run.verdict(name, verdict)
    if code:
        with pytest.raises(SystemExit) as ended:
            callback.v2_playbook_on_stats(STATS)
        assert ended.value.code == code
    else:
        callback.v2_playbook_on_stats(STATS)
    assert json.loads(Path(run.file("run.json")).read_text())["exit"]["code"] == code and os.path.isfile(run.file("report.html"))
    assert any("Time-line of" in text for text in callback._display.text)


def test_the_exit_code_can_be_left_to_ansible(callback: Any, run: RunDirectory) -> None:
    callback.options_of_test["exit_code"] = False
    callback.v2_runner_on_ok(result(run))
    callback.v2_playbook_on_stats(STATS)
    assert run.sealed()


def test_a_failure_before_a_run_began_is_not_degraded(callback: Any) -> None:
    callback.v2_playbook_on_task_start(SimpleNamespace(resolved_action="lifeboat.recovery.run_state"), False)
    with pytest.raises(SystemExit) as ended:
        callback.v2_playbook_on_stats(SimpleNamespace(failures={"orders": 1}, dark={}))
    assert ended.value.code == 3


def test_playbooks_of_others_are_left_alone(callback: Any) -> None:
    callback.v2_playbook_on_task_start(SimpleNamespace(resolved_action="ansible.builtin.ping"), False)
    callback.v2_playbook_on_stats(SimpleNamespace(failures={"web": 1}, dark={}))
    assert callback._display.text == []


def test_an_unreachable_host_ends_its_service_at_once(callback: Any, run: RunDirectory) -> None:
    callback.v2_runner_on_ok(result(run))
    ignored = result(run, msg="no route")
    ignored.task.ignore_unreachable = True
    callback.v2_runner_on_unreachable(ignored)
    assert (run.state("orders") or {})["verdict"] is None
    callback.v2_runner_on_unreachable(result(run, msg="no route"))
    state = run.state("orders") or {}
    assert state["verdict"] == "failed" and "no route" in state["message"]


def test_an_interruption_says_what_is_live_and_how_to_go_on(callback: Any, run: RunDirectory, capfd: pytest.CaptureFixture[str]) -> None:
    callback.v2_runner_on_ok(result(run))
    run.phase("orders", "cutover")
    callback._signal = "SIGINT"
    callback._at_exit()
    callback._at_exit()
    text = capfd.readouterr().err
    assert text.count("Interrupted: restore") == 1
    assert "orders               UNSURE" in text and "payments             old data, not touched" in text
    assert "resume:" in text and "rollback:" in text and "status:" in text


def test_a_check_is_not_a_run(callback: Any, tmp_path: Path) -> None:
    checked = lifecycle.begin("restore", "shop", PLAN, ["orders"], root=str(tmp_path / "checks"), check=True)
    callback.v2_runner_on_ok(result(checked))
    callback.v2_playbook_on_stats(STATS)
    assert not os.path.exists(checked.file("run.json"))


def test_a_second_run_in_one_process_is_shown_too(callback: Any, run: RunDirectory, tmp_path: Path) -> None:
    second = lifecycle.begin("backup", "shop", PLAN, ["orders"], root=str(tmp_path / "runs"))
    callback.v2_runner_on_ok(result(run))
    callback.v2_runner_on_ok(result(second))
    second.verdict("orders", "captured")
    with pytest.raises(SystemExit) as ended:
        callback.v2_playbook_on_stats(STATS)
    assert ended.value.code == 3 and run.sealed() and second.sealed()
