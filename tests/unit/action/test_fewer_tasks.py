# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one task does that would else be several: waits in a row, phases of a start and a stop, and the verdict of a service."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lifeboat.recovery.plugins.action import gate, service_control, service_state
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import lifecycle, standing
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory


def planned(name: str, *needs: str, by: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"waits_for": [{"service": need, "kind": "hard"} for need in needs], "needed_by": list(by), "island": 0}


PLAN: dict[str, Any] = {
    "order": ["db", "orders"], "islands": [["db", "orders"]],
    "services": {"db": planned("db", by=("orders",)), "orders": planned("orders", "db")},
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return lifecycle.begin("restore", "shop", PLAN, ["db", "orders"], root=str(tmp_path))


def done(run: RunDirectory, service: str, phase: str) -> None:
    run.phase(service, phase)
    run.phase(service, phase, "end")


def events(run: RunDirectory, service: str) -> list[tuple[str, str]]:
    return [(mark["phase"], mark["event"]) for mark in run.timings(service) if mark["service"] == service]


# -- gate --------------------------------------------------------------------------------------------------------------


def wait(run: RunDirectory, service: str, **given: Any) -> dict[str, Any]:
    action = gate.ActionModule.__new__(gate.ActionModule)
    action._task = SimpleNamespace(check_mode=False)
    args = {
        "run": {"directory": run.path}, "run_dir": None, "service": service, "waits": "island_staged", "services": None, "open_on": ["verified"],
        "begins": None, "unless_untouched": True, "timeout": 0.0, "poll": 0.02, **given,
    }
    return action._wait(args, {})


def test_a_gate_says_whether_anything_is_left_to_do(run: RunDirectory) -> None:
    for service in ("db", "orders"):
        done(run, service, "stage")
    told = wait(run, "db", begins="stop")
    assert told["opened"] and not told["untouched"] and told["because_of"] == ["db"]
    assert events(run, "db")[2:] == [("island", "start"), ("island", "end"), ("stop", "start")]
    run.keep("db", "staged", {"noop": True})
    told = wait(run, "db")
    assert told["opened"] and told["untouched"] and told["because_of"] == []
    assert "untouched" not in wait(run, "db", unless_untouched=False)


def test_a_gate_that_does_not_open_says_nothing_more_and_begins_nothing(run: RunDirectory) -> None:
    done(run, "db", "stage")
    told = wait(run, "db", begins="stop")
    assert told["failed"] and not told["opened"] and "untouched" not in told
    assert ("stop", "start") not in events(run, "db") and (run.state("db") or {})["verdict"] == "failed"


def test_one_that_builds_on_a_change_is_not_left_alone(run: RunDirectory) -> None:
    run.keep("orders", "staged", {"noop": True})
    assert standing.to_change(run, "orders") == ["db"]


def test_whom_a_gate_waits_for_is_in_the_plan(run: RunDirectory) -> None:
    assert standing.others(run, "orders", "requirements") == [{"service": "db", "kind": "hard"}]
    assert standing.others(run, "db", "dependants_stopped") == ["orders"] == standing.others(run, "db", "island_staged")
    with pytest.raises(ConfigError, match="tells nothing of this service"):
        standing.others(run, "web", "requirements")
    run.replace_plan({"flags": {"partial": True}})
    assert standing.others(run, "db", "island_staged") == [] and standing.others(run, "orders", "island_staged") == ["db"]


# -- start and stop ----------------------------------------------------------------------------------------------------


class Control(service_control.ActionModule):
    """Its host gives one answer, or none."""

    def __init__(self, answer: Optional[dict[str, Any]], ignored: bool = True) -> None:
        self.answer = answer
        self._task = SimpleNamespace(check_mode=False, async_val=0, ignore_unreachable=ignored, args={}, delegate_to="app1")
        self._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir=None))
        self._play_context = SimpleNamespace(remote_addr="app1")

    def _execute_module(self, module_args: dict[str, Any], **_more: Any) -> dict[str, Any]:
        assert "run" not in module_args and "gate" not in module_args
        if self.answer is None:
            raise AnsibleConnectionFailure("no route to host")
        return dict(self.answer)

    def _remove_tmp_path(self, _path: Any) -> None:
        return


def control(action: Control, run: RunDirectory, state: str, runtime: Optional[dict[str, Any]] = None) -> dict[str, Any]:
    runtime = {"start": ["x"], "stop": ["x"]} if runtime is None else runtime
    return action.call({"service": "db", "state": state, "runtime": runtime, "run": {"directory": run.path}}, {})


@pytest.mark.parametrize(("state", "phase"), [("stopped", "stop"), ("started", "start")])
def test_a_start_and_a_stop_are_phases(run: RunDirectory, state: str, phase: str) -> None:
    assert control(Control({"changed": True}), run, state) == {"changed": True}
    assert events(run, "db") == [(phase, "start"), (phase, "end")] and (run.state("db") or {})["done"] == [phase]


def test_a_stop_that_failed_lets_nobody_go_on(run: RunDirectory) -> None:
    assert control(Control({"failed": True, "msg": "it hangs"}), run, "stopped")["failed"]
    assert (run.state("db") or {})["done"] == []


@pytest.mark.parametrize(("state", "said"), [("stopped", "db may still run: the host does not answer"), ("started", "db could not be started: the host")])
def test_a_host_that_does_not_answer_is_a_failure_of_its_service(run: RunDirectory, state: str, said: str) -> None:
    told = control(Control(None), run, state)
    assert told["failed"] and told["no_answer"] and told["msg"].startswith(said) and "app1" in told["msg"] and "unreachable" not in told
    now = run.state("db") or {}
    assert now["done"] == [] and now["trouble"]["type"] == "host_unreachable"
    assert control(Control(None, ignored=False), run, state)["unreachable"], "a play of one's own goes on with the other hosts"


def test_without_a_command_no_host_is_asked(run: RunDirectory) -> None:
    assert control(Control(None), run, "stopped", {}) == {"changed": False, "tries": []}
    assert (run.state("db") or {})["done"] == ["stop"]


def test_what_is_done_behind_the_verdict_is_no_phase(run: RunDirectory) -> None:
    run.verdict("db", "failed", "boom")
    before = events(run, "db")
    assert control(Control({"changed": True}), run, "stopped")["changed"] and events(run, "db") == before


STOPPED = {"waits": "dependants_stopped", "timeout": 0}


def gated(run: RunDirectory, answer: Optional[dict[str, Any]] = None, wanted: Any = None, **task: Any) -> dict[str, Any]:
    action = Control({"changed": True} if answer is None else answer)
    vars(action._task).update(task)
    return action.call({
        "service": "db", "state": "stopped", "runtime": {"stop": ["x"]}, "run": {"directory": run.path}, "gate": STOPPED if wanted is None else wanted}, {})


def test_a_stop_waits_at_its_gate_and_is_timed_without_that(run: RunDirectory) -> None:
    done(run, "orders", "stop")
    assert gated(run)["changed"]
    assert events(run, "db") == [("gate", "start"), ("gate", "end"), ("stop", "start"), ("stop", "end")]


def test_a_stop_whose_gate_stays_closed_stops_nothing(run: RunDirectory) -> None:
    told = gated(run)
    assert told["failed"] and told["changed"] is False and "still waiting for orders" in told["msg"]
    now = run.state("db") or {}
    assert now["verdict"] == "failed" and now["done"] == [] and ("stop", "start") not in events(run, "db")


def test_a_stop_behind_one_that_failed_is_blocked(run: RunDirectory) -> None:
    run.verdict("orders", "failed", "it hangs", "look why")
    told = gated(run)
    assert told["failed"] and told["verdict"] == "blocked" and told["root"]["service"] == "orders" and "look why" in told["msg"]


@pytest.mark.parametrize("strange", ["requirements", {"waits": "for Godot"}, {"waits": "requirements", "services": []}, {**STOPPED, "timeout": "x"}])
def test_a_gate_that_is_none_is_told(run: RunDirectory, strange: Any) -> None:
    told = gated(run, wanted=strange)
    assert told["failed"] and told["msg"].startswith("a call cannot wait for ") and "gate of db" in told["msg"] and events(run, "db") == []


def test_a_look_waits_for_nobody(run: RunDirectory) -> None:
    assert gated(run, check_mode=True)["changed"] and events(run, "db") == []


def test_a_gate_needs_a_run() -> None:
    told = Control({"changed": True}).call({"service": "db", "state": "stopped", "runtime": {"stop": ["x"]}, "run": {}, "gate": STOPPED}, {})
    assert told["failed"] and told["msg"].startswith("the gate needs a run: gate of db;")


# -- verdict -----------------------------------------------------------------------------------------------------------


class State(service_state.ActionModule):
    """Its host answers as asked."""

    def __init__(self, run: RunDirectory, answer: Optional[dict[str, Any]], verdict: str, ignored: bool = True) -> None:
        self.answer = answer
        self._task = SimpleNamespace(check_mode=False, ignore_unreachable=ignored, args={
            "service": "db", "verdict": verdict, "text": "why", "run": {"id": "r", "directory": run.path},
        })

    def _ask(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        assert args["run"] == {"id": "r"} and isinstance(args["measured"], dict)
        if self.answer is None:
            raise AnsibleConnectionFailure("no route to host")
        return self.answer


def test_a_verdict_is_given_as_soon_as_the_host_has_it(run: RunDirectory) -> None:
    State(run, {"changed": False, "ledger": [{"hash": "a"}], "notes": ["n"]}, "verified")._run({})
    now = run.state("db") or {}
    assert (now["verdict"], now["message"], now["phase"]) == ("verified", "why", "verdict")
    assert run.collected("db") == [{"hash": "a"}] and run.kept("db")["recorded"] == {"notes": ["n"]}


def test_a_host_that_could_not_record_it_has_none(run: RunDirectory) -> None:
    State(run, {"failed": True, "msg": "disk full"}, "verified")._run({})
    now = run.state("db") or {}
    assert now["verdict"] is None and now["trouble"]["message"] == "disk full"


@pytest.mark.parametrize(("ignored", "verdict"), [(True, "verified"), (False, None)])
def test_what_is_proven_stays_proven_where_the_play_goes_on_without_the_host(run: RunDirectory, ignored: bool, verdict: Optional[str]) -> None:
    with pytest.raises(AnsibleConnectionFailure):
        State(run, None, "verified", ignored)._run({})
    assert (run.state("db") or {})["verdict"] == verdict


def test_the_first_verdict_stands_and_begins_no_phase(run: RunDirectory) -> None:
    run.verdict("db", "blocked", "by orders")
    State(run, {"changed": False}, "failed")._run({})
    now = run.state("db") or {}
    assert (now["verdict"], now["phase"]) == ("blocked", "plan")
