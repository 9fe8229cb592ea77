# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching what clients see: a process that asks, tells, and is gone when it should be."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import client_probe
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.lab.service import run_record


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody who listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: _serve(server), daemon=True).start()
        yield int(server.getsockname()[1])


def _serve(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


def spec(tmp_path, *health: dict[str, Any]) -> Spec:
    return Spec.from_dict({
        "service": "shop", "entry": {"sources": {}, "health": list(health)}, "repository": {"url": f"file://{tmp_path}/r"},
        "keys": {"provider": "file", "path": str(tmp_path / "keys")}, "state_dir": str(tmp_path / "state"),
    })


def until(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def record(one: Spec) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(one.path("probe.json")).read_text(encoding="utf-8"))
    return found


def gone(told: dict[str, Any]) -> bool:
    return lease.process_started(told["pid"]) != told["pid_started"]


def test_it_watches_until_it_is_stopped_and_leaves_nothing(tmp_path, port: int) -> None:
    one = spec(tmp_path, {"tcp": f"127.0.0.1:{port}"}, {"tcp": "127.0.0.1:1"}, {"command": ["false"]})
    assert client_probe.start(one, run_record("restore-1"), 0.2, 300) == {"changed": True, "watching": 2}
    told = record(one)
    until(lambda: os.path.exists(one.path("probe-result.json")))
    assert not gone(told)
    seen = client_probe.stop(one)["clients"]
    assert gone(told) and seen["probes"] >= 1 and 0 <= seen["errors"] <= seen["probes"] and seen["p50"] <= seen["p95"] <= seen["max"]
    assert [name for name in os.listdir(one.service_dir) if name.startswith("probe")] == []
    assert client_probe.stop(one) == {"changed": False, "clients": None}


def test_it_ends_at_its_limit_and_with_a_controller_of_this_machine(tmp_path, port: int) -> None:
    one = spec(tmp_path, {"tcp": f"127.0.0.1:{port}"})
    client_probe.start(one, run_record("restore-1"), 0.2, 0.3)
    told = record(one)
    until(lambda: gone(told))
    assert client_probe.stop(one)["clients"]["probes"] >= 1
    dead = {**run_record("restore-2"), **lease.identity(), "pid": 2 ** 22 - 1, "pid_started": "1"}
    client_probe.start(one, dead, 0.2, 300)
    told = record(one)
    until(lambda: gone(told))
    client_probe.stop(one)


def test_beginning_again_replaces_the_one_that_watches(tmp_path, port: int) -> None:
    one = spec(tmp_path, {"tcp": f"127.0.0.1:{port}"})
    client_probe.start(one, run_record("restore-1"), 0.2, 300)
    first = record(one)
    client_probe.start(one, run_record("restore-2"), 0.2, 300)
    assert gone(first) and record(one)["run"] == "restore-2"
    client_probe.stop(one)


def test_nothing_is_begun_without_a_probe_or_at_an_impossible_rate(tmp_path) -> None:
    assert client_probe.start(spec(tmp_path, {"command": ["true"]}), run_record("restore-1"), 1, 10) == {"changed": False, "watching": 0}
    assert not os.path.exists(tmp_path / "state")
    with pytest.raises(ConfigError, match="not a rate"):
        client_probe.start(spec(tmp_path, {"tcp": "127.0.0.1:1"}), run_record("restore-1"), 0.001, 10)


def test_errors_and_latencies_are_counted_in_turn() -> None:
    answers = iter([(True, 0.1), (False, 0.5), (True, 0.2), (True, 0.3)])

    def ask(name: str, probe: dict[str, Any]) -> dict[str, Any]:
        asked.append(name)
        ok, seconds = next(answers)
        return {"ok": ok, "seconds": seconds}

    asked: list[str] = []
    watch = client_probe.Watch(ask, [("a", {}), ("b", {})], 1)
    assert watch.seen()["p50"] is None
    for _turn in range(4):
        watch.once()
    seen = watch.seen()
    assert asked == ["a", "b", "a", "b"] and (seen["probes"], seen["errors"], seen["p50"], seen["max"]) == (4, 1, 0.25, 0.5)
