# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and stopping a service by what its entry says."""

from __future__ import annotations

import os
import sys

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import control
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, SourceError

YES, NO, ABSENT = ["/bin/true"], ["/bin/false"], ["/nonexistent/program"]
HANGS = [sys.executable, "-c", "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"]
#: Fails until it was asked three times.
THIRD = [sys.executable, "-c", "import sys; f = open(sys.argv[1], 'a+'); f.write('x'); f.seek(0); sys.exit(0 if len(f.read()) > 2 else 'port in use')"]


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_start_that_fails_is_tried_again_after_ever_longer_pauses(tmp_path):
    pauses = []
    told = control.start("orders", {"runtime": {"start": [*THIRD, str(tmp_path / "n")]}, "policy": {"start": {"retries": 3, "backoff": 8}}}, pauses.append)
    assert told["changed"] and len(told["tries"]) == 2
    assert "the start command ended with exit status 1 ('port in use'): orders:" in told["tries"][0]
    assert 4 <= pauses[0] <= 8 <= pauses[1] <= 16


def test_without_retries_the_first_failure_is_told(tmp_path):
    with pytest.raises(SourceError, match="exit status 1") as caught:
        control.start("orders", {"runtime": {"start": [*THIRD, str(tmp_path / "n")]}})
    assert caught.value.transient


def test_a_program_that_is_not_there_is_not_tried_again():
    pauses = []
    with pytest.raises(SourceError, match="cannot run .No such file or directory."):
        control.start("orders", {"runtime": {"start": ABSENT}, "policy": {"start": {"retries": 3}}}, pauses.append)
    assert pauses == []


def test_a_start_that_hangs_is_ended_where_it_runs(tmp_path):
    with pytest.raises(SourceError, match="the start command did not end within 1 s"):
        control.start("orders", {"runtime": {"start": [*HANGS, str(tmp_path / "pid")]}, "policy": {"start": {"timeout": 1}}})
    if (tmp_path / "pid").exists():
        assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(("stop", "status", "changed"), [(YES, YES, True), (NO, NO, False)], ids=["stops", "was down already"])
def test_stop(stop, status, changed):
    assert control.stop("orders", {"runtime": {"stop": stop, "status": status}})["changed"] is changed


@pytest.mark.parametrize("status", [YES, ABSENT, None], ids=["still runs", "nobody can tell", "nobody knows"])
def test_a_stop_that_is_not_known_to_have_worked_is_a_failure(status):
    with pytest.raises(SourceError, match="orders may still run"):
        control.stop("orders", {"runtime": {"stop": NO, "status": status}})


def test_nothing_declared_is_nothing_done_and_a_task_file_is_refused():
    assert control.start("orders", {}) == control.stop("orders", {"runtime": {"start": YES}}) == {"changed": False, "tries": []}
    with pytest.raises(ConfigError, match="only Ansible can run"):
        control.start("orders", {"runtime": {"start": {"tasks": "start.yml"}}})


def test_systemd_is_asked_before_it_is_told(tmp_path, monkeypatch):
    """A unit that runs is left alone."""
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" != is-active ] || [ -e {tmp_path}/active ]\n')
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    entry = {"runtime": {"start": {"unit": "orders.service"}}}
    assert control.start("orders", entry)["changed"]
    (tmp_path / "active").touch()
    assert not control.start("orders", entry)["changed"]
    assert (tmp_path / "asked").read_text().splitlines() == [
        "is-active --quiet orders.service", "start orders.service", "is-active --quiet orders.service"]
