# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module as a job on another host: broken connections, jobs that hang, and what is removed when."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lifeboat.recovery.plugins.action import snapshot_restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import SourceError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import actions, lifecycle
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

COUNTERS = {"service": "orders", "phase": "stage", "bytes_done": 1, "bytes_total": 2, "started": 1.0, "updated": 2.0}
RUNNING, ENDED = '{"started": true, "finished": false, "ansible_job_id": "j1.2"}', '{"changed": true}'
FOLDER, RESULTS = "/home/x/.ansible/tmp/ansible-tmp-1", "/home/x/.ansible_async/j1.2"


class Host(actions.LongModule):
    """An action whose host answers from a list: (progress, head of the job's file), or an exception."""

    MODULE = "lifeboat.recovery.snapshot"

    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        return "capture"

    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        return "snapshot"

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.removed: list[str] = []
        self._task = SimpleNamespace(async_val=0)
        self._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=FOLDER))

    def _execute_module(self, module_name: str, module_args: dict[str, Any], task_vars: Any, wrap_async: bool = False) -> dict[str, Any]:
        if wrap_async:
            self._connection._shell.tmpdir = None
            return {"ansible_job_id": "j1.2", "results_file": RESULTS, "changed": True}
        assert module_name == "ansible.legacy.async_status" and module_args["jid"] == "j1.2"
        return {"changed": True, "ansible_job_id": "j1.2", "finished": True, "ledger": []}

    def unreachable(self) -> dict[str, Any]:
        raise AnsibleConnectionFailure("no route to host")

    def _low_level_execute_command(self, command: str) -> dict[str, Any]:
        if command.startswith("rm -rf"):
            self.removed.append(command)
            return {}
        if RESULTS not in command:  # the look before the job begins
            return {"stdout": ""}
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        counters, head = found
        return {"stdout": f"{json.dumps(counters) if counters else ''}\n{actions._CUT}\n{head}"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return lifecycle.begin("restore", "shop", {"order": ["orders"]}, ["orders"], root=str(tmp_path))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by sleeping only: the tests wait for nothing."""
    clock = [1000.0]
    monkeypatch.setattr(actions, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds)))


def work(host: Host, run: RunDirectory, timeout: int = 3600) -> dict[str, Any]:
    return host._as_job({"service": "orders"}, {}, actions._Teller(run, "orders"), "orders", timeout)


def test_the_arguments_go_as_soon_as_the_module_works(run: RunDirectory) -> None:
    host = Host([(None, RUNNING), (COUNTERS, RUNNING), (None, ENDED)])
    assert work(host, run) == {"changed": True, "ledger": []}
    assert FOLDER in host.removed[0] and RESULTS not in host.removed[0] and RESULTS in host.removed[-1]
    assert host._task.async_val == 0


def test_a_connection_that_breaks_for_a_moment_does_no_harm(run: RunDirectory) -> None:
    broken: list[Any] = [AnsibleConnectionFailure("reset")] * 5
    assert work(Host([(COUNTERS, RUNNING), *broken, (None, ENDED)]), run)["changed"] is True


def test_a_host_that_stays_away_is_given_up(run: RunDirectory) -> None:
    host = Host([(COUNTERS, RUNNING), AnsibleConnectionFailure("gone")])
    with pytest.raises(AnsibleConnectionFailure):
        work(host, run)


def test_an_answer_that_is_none_counts_as_broken(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host([(None, RUNNING)])
    monkeypatch.setattr(Host, "_low_level_execute_command", lambda self, command: {"stdout": "", "stderr": "sh: not found"})
    with pytest.raises(AnsibleConnectionFailure, match="did not answer"):
        work(host, run)


def test_a_job_that_hangs_is_ended_and_named(run: RunDirectory) -> None:
    with pytest.raises(SourceError, match="did not end within 300 s"):
        work(Host([(COUNTERS, RUNNING)]), run, 300)


def test_a_job_that_could_not_begin_is_told(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host([])
    monkeypatch.setattr(Host, "_execute_module", lambda *args, **named: {"failed": True, "msg": "no interpreter"})
    assert work(host, run)["msg"] == "no interpreter" and FOLDER in host.removed[0]


@pytest.mark.parametrize("state_dir", ["", "/srv/state dir", "~/own state", "/srv/$(touch pwned)';x"])
def test_the_script_reads_the_file_and_runs_nothing_else(tmp_path: Path, state_dir: str) -> None:
    home: Optional[Path] = tmp_path / "home"
    place = {"": f"{home}/.local/state/lifeboat", "~/own state": f"{home}/own state"}.get(state_dir)
    if place:
        os.makedirs(f"{place}/services/orders-run-view-test")
        Path(f"{place}/services/orders-run-view-test/progress.json").write_text("FOUND")
    script = actions._remote_script(state_dir, "orders-run-view-test")
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(["/bin/sh", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == ("FOUND" if place else "") and not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("retries", "failures", "answered"), [(2, 2, True), (2, 3, False), (0, 1, False)])
def test_a_host_that_cannot_be_reached_is_called_again_as_its_policy_says(retries: int, failures: int, answered: bool) -> None:
    left = [AnsibleConnectionFailure("no route to host")] * failures

    def call() -> dict[str, Any]:
        if left:
            raise left.pop()
        return {"changed": True}

    args = {"service": "orders", "entry": {"policy": {"stage": {"retries": retries, "backoff": 4}}}}
    if answered:
        assert Host([])._patiently("stage", args, call) == {"changed": True}
    else:
        with pytest.raises(AnsibleConnectionFailure):
            Host([])._patiently("stage", args, call)
        assert len(left) == failures - retries - 1
    with pytest.raises(AnsibleConnectionFailure):
        Host([])._patiently("capture", args, Host([]).unreachable)


@pytest.mark.parametrize("check, depth, job", [(False, "exists", True), (True, "exists", False), (True, None, False), (True, "decode", True)])
def test_only_what_may_take_long_becomes_a_job(check: bool, depth: Optional[str], job: bool) -> None:
    action = snapshot_restore.ActionModule.__new__(snapshot_restore.ActionModule)
    action._task = SimpleNamespace(check_mode=check)
    assert action.long({"depth": depth}) is job


@pytest.mark.parametrize("said", [
    "Task failed: Failed to connect to the host via ssh: ssh: connect to host 10.20.0.11 port 22: Connection timed out",
    'Data could not be sent to remote host "10.20.0.11". Make sure this host can be reached over ssh: ssh: connect to host 10.20.0.11 port 22: '
    "Connection timed out\r\n",
])
def test_a_host_that_is_gone_is_one_line(said: str) -> None:
    assert actions.no_answer(said, "db1") == "the host does not answer (ssh: connect to host 10.20.0.11 port 22: Connection timed out): db1"


def test_a_lost_connection_is_unreachable_and_names_the_machine() -> None:
    host = Host([])
    host._task = SimpleNamespace(args={"entry": {"host": "db1"}}, ignore_unreachable=False, check_mode=False)

    def lost() -> dict[str, Any]:
        raise AnsibleConnectionFailure("Connection reset by peer")

    said = "the host does not answer (Connection reset by peer): db1"
    assert host.guarded({}, lost) == {"unreachable": True, "changed": False, "msg": said}
    host._task.ignore_unreachable = True
    assert host.guarded({}, lost) == {"failed": True, "no_answer": True, "changed": False, "msg": said}, "a play that goes on rescues only failures"
    host._task.check_mode = True
    assert host.guarded({}, lost)["unreachable"], "a preflight is told, and decides later"
    host._task.check_mode = False
    host._task.args["fail"] = False
    assert host.guarded({}, lost)["unreachable"], "who asks to be told does not fail"
