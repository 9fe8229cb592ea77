# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role runtime: a stop that is not known to have worked is a failure, a service that is down already is fine. More in tests/unit/control."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.lifeboat.recovery.tests.lab import quick
from ansible_collections.lifeboat.recovery.tests.lab.harbour import ROOT

YES, NO, HANGS = ["/bin/true"], ["/bin/false"], ["/bin/sleep", "20"]
PLAYBOOK = """
- hosts: all
  gather_facts: false
  ignore_unreachable: true
  tasks:
    - name: Try
      block:
        - ansible.builtin.include_role: {name: lifeboat.recovery.runtime, tasks_from: "{{ step }}.yml"}
        - ansible.builtin.debug: {msg: OUTCOME done}
      rescue:
        - ansible.builtin.debug: {msg: "OUTCOME failed {{ ansible_failed_result.results | default([]) | map(attribute='msg') | join(' ') }}"}
"""


def play(folder: pathlib.Path, step: str, runtime: dict[str, list[str]], *arguments: str) -> str:
    """What the role came to, in one line. What hangs is given up soon; whatever else ends by itself may take as long as a slow machine needs."""
    limit = 2 if HANGS in runtime.values() else 60
    (folder / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
    (folder / "ansible.cfg").write_text("[defaults]\ninternal_poll_interval = 0.05\n", encoding="utf-8")
    variables = {
        "step": step, "lifeboat_service": "orders", "lifeboat_entry": {"runtime": runtime, "policy": {"start": {"timeout": limit}, "stop": {"timeout": limit}}},
        "ansible_python_interpreter": sys.executable,
    }
    environment = {
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.defpath}", "HOME": str(folder), "LC_ALL": "C.UTF-8",
        **quick.variables(ROOT / ".dev"), "ANSIBLE_HOME": str(folder / "ansible"),
    }
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "here,", "play.yml", "-e", json.dumps(variables), *arguments],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
    found = [line for line in done.stdout.splitlines() if "OUTCOME" in line]
    assert len(found) == 1, done.stdout
    return found[0].partition("OUTCOME ")[2].rstrip('"')


@pytest.mark.parametrize(("stop", "status", "outcome"), [
    (NO, NO, "done"),
    (NO, YES, "failed"),
], ids=["was down already", "still runs"])
def test_stop(tmp_path: pathlib.Path, stop: list[str], status: list[str], outcome: str) -> None:
    assert play(tmp_path, "stop", {"stop": stop, "status": status}, "-c", "local").startswith(outcome)


@pytest.mark.parametrize(("start", "outcome"), [
    (YES, "done"),
    (HANGS, "did not end within 2 s"),
], ids=["starts", "hangs"])
def test_start(tmp_path: pathlib.Path, start: list[str], outcome: str) -> None:
    assert outcome in play(tmp_path, "start", {"start": start}, "-c", "local")


def test_a_service_that_is_never_started_is_no_failure(tmp_path: pathlib.Path) -> None:
    assert play(tmp_path, "start", {}, "-c", "local") == "done"


@pytest.mark.parametrize("step", ["start", "stop"])
def test_a_host_that_does_not_answer_is_a_failure(tmp_path: pathlib.Path, step: str) -> None:
    assert play(tmp_path, step, {step: YES, "status": NO}, "-e", "ansible_host=127.0.0.1", "-e", "ansible_port=1").startswith("failed")


@pytest.mark.parametrize("step", ["start", "stop"])
def test_task_files_are_relative_to_the_catalog(tmp_path: pathlib.Path, step: str) -> None:
    """A file of the same name beside the playbook is another one."""
    for folder, word in (("site", "catalog"), ("plays", "playbook")):
        (tmp_path / folder / ".tasks").mkdir(parents=True)
        task = {"name": "Say", "ansible.builtin.set_fact": {"said": f"{word} {{{{ lifeboat_entry.owner }}}}"}}
        (tmp_path / folder / ".tasks" / "own.yml").write_text(json.dumps([task]), encoding="utf-8")
    runtime = {name: {"tasks": ".tasks/own.yml"} if name == step else YES for name in ("start", "stop")}
    catalog = {
        "plugin": "lifeboat.recovery.catalog", "repositories": {"local": {"url": f"file://{tmp_path}/repository"}},
        "keys": {"provider": "file", "path": f"{tmp_path}/keys"}, "services": {"orders": {"host": "localhost", "owner": "checkout", "runtime": runtime}},
    }
    (tmp_path / "site" / "shop.catalog.yml").write_text(json.dumps(catalog), encoding="utf-8")
    (tmp_path / "plays" / "play.yml").write_text(json.dumps([{
        "hosts": "lifeboat_services", "gather_facts": False, "tasks": [
            {"ansible.builtin.include_role": {"name": "lifeboat.recovery.runtime", "tasks_from": f"{step}.yml"}},
            {"ansible.builtin.debug": {"msg": "OUTCOME {{ said }}"}},
        ],
    }]), encoding="utf-8")
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "../site/shop.catalog.yml", "play.yml"], cwd=tmp_path / "plays",
        env={"PATH": f"{pathlib.Path(sys.executable).parent}:{os.defpath}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8",
             **quick.variables(ROOT / ".dev"), "ANSIBLE_HOME": str(tmp_path / "ansible")},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "OUTCOME catalog checkout" in done.stdout, done.stdout
