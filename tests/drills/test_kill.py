# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at every named fault point of every verb; the same command again must end well, with nothing done twice."""

from __future__ import annotations

import collections
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.tests.drills import scenes

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(verb: str, home: pathlib.Path, fault: str = "", trace: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "LIFEBOAT_FAULT": fault, "LIFEBOAT_FAULT_TRACE": trace}
    module = "ansible_collections.lifeboat.recovery.tests.drills.scenes"
    return subprocess.run([sys.executable, "-m", module, verb, str(home)], env=environment, capture_output=True, text=True, timeout=120, check=False)


def trace(verb: str, tmp_path: pathlib.Path) -> collections.Counter[str]:
    """How often each point is passed when nothing goes wrong."""
    home = tmp_path / "traced"
    scene = scenes.SCENES[verb](home)
    scene.prepare()
    log = tmp_path / "trace"
    done = run(verb, home, trace=str(log))
    assert done.returncode == 0, done.stderr
    scene.check()
    return collections.Counter(log.read_text().split())


def kill_everywhere(verb: str, tmp_path: pathlib.Path) -> list[str]:
    """Kill at the first and at the last pass of every point; returns what went wrong."""
    wrong = []
    for point, count in sorted(trace(verb, tmp_path).items()):
        for nth in sorted({1, count}):
            home = tmp_path / f"{point}-{nth}"
            scene = scenes.SCENES[verb](home)
            scene.prepare()
            killed = run(verb, home, f"{point}:{nth}")
            if killed.returncode != -signal.SIGKILL:
                wrong.append(f"{point}:{nth} was not reached: {killed.returncode} {killed.stderr[-500:]}")
                continue
            again = run(verb, home)
            if again.returncode != 0:
                wrong.append(f"{point}:{nth} the same command again failed: {again.stderr[-800:]}")
                continue
            try:
                scene.check()
            except AssertionError as error:
                wrong.append(f"{point}:{nth} {error}")
    return wrong


@pytest.mark.parametrize("verb", sorted(scenes.SCENES))
def test_kill_at_every_point(verb: str, tmp_path: pathlib.Path) -> None:
    wrong = kill_everywhere(verb, tmp_path)
    assert not wrong, "\n".join(wrong)


def test_every_listed_point_is_passed(tmp_path: pathlib.Path) -> None:
    """A point that no verb passes would be proven by nothing."""
    passed: set[str] = set()
    for verb in scenes.SCENES:
        directory = tmp_path / verb
        directory.mkdir()
        passed |= set(trace(verb, directory))
    listed = set(faults.points())
    assert passed == listed, f'not passed: {sorted(listed - passed)}; not listed: {sorted(passed - listed)}'
