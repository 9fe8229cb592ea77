# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules shipped and run by Ansible itself: everything they import travels with them, and no secret shows at any verbosity."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lifeboat.recovery.tests.lab import quick

ROOT = Path(__file__).resolve().parents[3]
CANARY = "canary-b41d77"


def play(top: Path, tasks: list[dict[str, Any]], *options: str) -> tuple[int, str, list[dict[str, Any]]]:
    """(exit status, all output, the registered results) of tasks on localhost."""
    registered = [{**task, "register": f"result_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
    names = ", ".join(f"result_{number}" for number in range(len(tasks)))
    keep = {
        "name": "Keep", "ansible.builtin.copy": {"dest": str(top / "results.json"), "content": f"{{{{ [{names}] | to_json }}}}"},
        "check_mode": False, "no_log": True, "diff": False,
    }
    (top / "play.yml").write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [*registered, keep]}]))
    (top / "ansible.cfg").write_text("[defaults]\ninternal_poll_interval = 0.05\n")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}, "HOME": str(top / "home"),
        **quick.variables(ROOT / ".dev"),
        "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "ANSIBLE_NOCOLOR": "true",
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(top / "play.yml"), *options], env=environment, text=True, capture_output=True,
        timeout=600, check=False, cwd=top,
    )
    results = json.loads((top / "results.json").read_text()) if (top / "results.json").exists() else []
    assert len(results) == len(tasks), done.stdout[-3000:] + done.stderr[-3000:]
    return done.returncode, done.stdout + done.stderr, results


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("captured")
    return tmp_path


def task(top: Path, module: str, **more: Any) -> dict[str, Any]:
    base = {
        "service": "orders", "repository": {"url": f"file://{top}/repository"}, "state_dir": str(top / "state"),
        "entry": {
            "sources": {"tree": {"type": "files", "path": str(top / "data")}}, "health": [{"command": ["true"]}],
            "runtime": {"start": ["true"], "environment": {"password": CANARY}},
        },
        "keys": {"provider": "file", "path": str(top / "keys"), "private_path": str(top / "private")},
    }
    return {"name": module, f"lifeboat.recovery.{module}": {**base, **more}}


def test_life_of_a_service(top: Path) -> None:
    status, output, results = play(top, [
        task(top, "repository"), task(top, "snapshot"), task(top, "snapshot_info", target="latest"), task(top, "snapshot_verify", depth="decode"),
        task(top, "service_check"), task(top, "snapshot_restore", state="live"), task(top, "service_state"),
        task(top, "snapshot_restore", state="rolled_back"), task(top, "snapshot_restore", state="committed"),
    ], "-vvv", "--diff")
    assert status == 0, output[-3000:]
    assert [result.get("failed", False) for result in results] == [False] * len(results), output[-3000:]
    assert [result["changed"] for result in results] == [True, True, False, False, False, True, False, True, True]
    assert results[5]["diff"]["after"]["snapshots"] == {"tree": results[1]["snapshots"][0]["id"]}
    assert CANARY not in output
    assert CANARY not in (top / "results.json").read_text()


def test_check_mode_writes_nothing(top: Path) -> None:
    assert play(top, [task(top, "repository"), task(top, "snapshot")])[0] == 0
    shutil.rmtree(top / "home")
    (top / "home").mkdir()

    def files() -> dict[str, bytes]:
        parts = [top / part for part in ("repository", "state", "keys", "private", "data")]
        return {str(path): path.read_bytes() for part in parts for path in sorted(part.rglob("*")) if path.is_file()}

    before = files()
    _status, _output, results = play(top, [
        task(top, "repository"), task(top, "snapshot"), task(top, "snapshot_restore", state="staged"), task(top, "snapshot_restore", state="committed"),
        task(top, "service_state", verdict="failed"),
    ], "--check")
    assert files() == before
    assert [result.get("changed") for result in results[:3]] == [False, True, True]
    assert not results[2]["findings"] and results[2]["ok"], json.dumps(results[2]["findings"])
    assert results[3]["failed"]
    assert "no restore on record" in results[3]["msg"]


#: source, check, and what the check says when nothing listens on port 1
UNANSWERED = [
    ({"type": "postgresql_database", "database": "shop", "port": 1}, {"name": "x", "sql": "select 1", "equals": 1}, "does not answer"),
    ({"type": "redis", "port": 1}, {"name": "x", "redis": ["PING"], "source": "tree", "equals": "PONG"}, "does not answer"),
    ({"type": "files", "path": "/"}, {"name": "x", "http": "http://127.0.0.1:1/", "json": "a", "equals": 1}, "no answer"),
]


def test_what_a_check_needs_travels_with_it(top: Path) -> None:
    """That a probe gets as far as asking means that all its imports are there."""
    tasks = [task(top, "service_check", entry={"sources": {"tree": source}, "invariants": [check]}) for source, check, _said in UNANSWERED]
    _status, _output, results = play(top, tasks)
    for result, (_source, _check, said) in zip(results, UNANSWERED):
        assert result["failed"]
        assert said in result["msg"], result["msg"]
        assert "\n" not in result["msg"]
