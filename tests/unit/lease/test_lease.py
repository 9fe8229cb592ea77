# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease: who works on a service, when it is taken over, and what the ledger says then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec


@pytest.fixture
def spec(tmp_path):
    return Spec.from_dict({
        "service": "orders", "entry": {}, "repository": {"url": "file:///nowhere"}, "keys": {"provider": "file", "path": "/nowhere"},
        "state_dir": str(tmp_path / "state"),
    })


def run(name, **changes):
    return {**lease.new_run("restore"), "id": name, **changes}


def take(spec, one, phase="stage", **options):
    with lease.hold(spec, Ledger.for_spec(spec), one, phase, **options):
        return lease.read(spec)


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait(60)
    return process.pid


def events(spec):
    return [(entry["event"], entry["run"]) for entry in Ledger.for_spec(spec).entries()]


def test_reading_changes_nothing(spec, tmp_path):
    assert lease.read(spec) is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_the_lease_between_its_calls_and_after_them(spec):
    first = take(spec, run("a"))
    assert (first["run"], first["phase"], first["alive"]) == ("a", "stage", True)
    second = take(spec, run("a"), "cutover")
    assert (second["phase"], second["since"]) == ("cutover", first["since"])
    assert events(spec) == [("run.begin", "a")]
    assert lease.read(spec)["why"] == "its controller process lives"


def test_a_second_operator_is_told_who_since_when_and_which_phase(spec):
    held = take(spec, run("a", user="maria"))
    with pytest.raises(ConflictError) as caught:
        take(spec, run("b"))
    for word in ("run a", "maria", held["since"], "phase stage"):
        assert word in str(caught.value)
    assert events(spec) == [("run.begin", "a")]


def test_release_frees_and_ends_once(spec):
    one = run("a")
    take(spec, one)
    book = Ledger.for_spec(spec)
    lease.release(spec, book, one, "verified")
    lease.release(spec, book, one, "verified")
    assert lease.read(spec) is None
    assert events(spec) == [("run.begin", "a"), ("run.end", "a")]
    take(spec, run("b"))
    assert events(spec)[-1] == ("run.begin", "b")


def test_a_dead_controller_is_taken_over_and_recorded(spec, dead_pid):
    take(spec, run("a", pid=dead_pid, pid_started="1"))
    assert lease.read(spec)["alive"] is False
    take(spec, run("b"))
    book = Ledger.for_spec(spec).entries()
    assert [(entry["event"], entry["run"]) for entry in book] == [("run.begin", "a"), ("run.interrupted", "b"), ("run.begin", "b")]
    assert book[1]["data"]["run"] == "a"
    assert book[2]["data"]["resumes"] == "a"


def test_a_reused_process_id_is_not_the_controller(spec):
    take(spec, run("a", pid=os.getpid(), pid_started="1"))
    assert lease.read(spec)["alive"] is False


def test_a_machine_of_the_same_name_is_not_this_one(spec):
    """Host names are not unique; another boot id is another machine, or this one before a reboot: its lease runs out."""
    held = take(spec, run("a", boot="another boot"))
    assert lease.read(spec)["alive"] is True
    with open(spec.path("lease.json"), "w", encoding="utf-8") as handle:
        json.dump({**{key: value for key, value in held.items() if key not in ("alive", "why")}, "renewed": "2020-01-01T00:00:00.000000Z"}, handle)
    assert lease.read(spec)["alive"] is False
    assert take(spec, run("b"))["run"] == "b"


def test_another_controller_counts_while_it_renews(spec):
    take(spec, run("a", controller="elsewhere", pid=1))
    assert lease.read(spec)["alive"] is True
    with pytest.raises(ConflictError, match="renewed"):
        take(spec, run("b"))
    path = spec.path("lease.json")
    with open(path, encoding="utf-8") as handle:
        held = json.load(handle)
    held["renewed"] = "2020-01-01T00:00:00.000000Z"
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(held, handle)
    take(spec, run("b"))
    assert ("run.interrupted", "b") in events(spec)


def test_a_controller_vouches_for_the_processes_of_its_own_machine(spec, dead_pid):
    """A host cannot see them. Who resumes a run only by what the host remembers of it may be a second operator."""
    take(spec, run("a", controller="elsewhere", pid=1))
    with pytest.raises(ConflictError, match="in use"):
        take(spec, run("b", resumes="a"))
    assert take(spec, {**run("b", resumes="a"), "gone": ["a"]})["run"] == "b"
    with pytest.raises(ConflictError, match="its controller process lives"):
        take(spec, {**run("c"), "gone": ["b"]})
    own = run("x", pid=dead_pid)
    assert lease.gone(own) and not lease.gone(run("x")) and lease.gone(run("x"), os.getpid())
    assert not lease.gone({**own, "controller": "elsewhere"})


def test_a_controller_restarted_with_the_same_process_lives_on(spec):
    take(spec, run("a"))
    assert take(spec, run("a"))["run"] == "a"


HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
spec = Spec.from_dict({"service": "orders", "entry": {}, "repository": {"url": "file:///nowhere"}, "keys": {}, "state_dir": sys.argv[2]})
run = {"id": "a", "verb": "restore", "controller": sys.argv[3], "pid": int(sys.argv[4]), "pid_started": sys.argv[5], "user": "maria"}
with lease.hold(spec, Ledger.for_spec(spec), run, "stage"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(spec, pytestconfig):
    started = []

    def start(controller, pid, pid_started):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(pytestconfig.rootpath / ".dev"), spec.state_dir, controller, str(pid), pid_started],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()


def test_an_orphan_of_a_dead_controller_is_waited_for(spec, holder, dead_pid):
    import platform

    process = holder(platform.node(), dead_pid, "1")
    assert lease.read(spec)["why"] == "a process on this host works for it"
    with pytest.raises(ConflictError, match="a call of it still works on this host"):
        take(spec, run("b"), orphan_seconds=0.3)
    threading.Timer(0.2, process.stdin.close).start()
    begin = time.monotonic()
    assert take(spec, run("b"), orphan_seconds=60)["run"] == "b"
    assert time.monotonic() - begin < 60
    assert ("run.interrupted", "b") in events(spec)


def test_a_call_of_a_living_operator_is_refused_at_once(spec, holder):
    holder("elsewhere", 1, "")
    with pytest.raises(ConflictError, match="maria@elsewhere"):
        take(spec, run("b"), orphan_seconds=3600)


def test_the_last_call_of_a_controller_known_to_be_gone_is_waited_for(spec, holder):
    process = holder("elsewhere", 1, "")
    threading.Timer(0.2, process.stdin.close).start()
    assert take(spec, {**run("b"), "gone": ["a"]}, orphan_seconds=60)["run"] == "b"


def test_calls_nest_in_one_process(spec):
    one, book = run("a"), Ledger.for_spec(spec)
    with lease.hold(spec, book, one, "capture"):
        with lease.hold(spec, book, one, "inner"):
            pass
        assert lease.read(spec)["why"] == "a process on this host works for it"
        with pytest.raises(ConflictError), lease.hold(spec, book, run("b"), "other"):
            pass
    assert events(spec) == [("run.begin", "a")]
