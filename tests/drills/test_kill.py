# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at every named fault point of every verb; the same command again must end well, with nothing done twice."""

from __future__ import annotations

import collections
import pathlib
import signal

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.tests.clusters import test_cluster_capture_kills, test_cluster_extract
from ansible_collections.lifeboat.recovery.tests.drills import scenes


def trace(verb: str, tmp_path: pathlib.Path) -> collections.Counter[str]:
    """How often each point is passed when nothing goes wrong."""
    home = tmp_path / "traced"
    scene = scenes.SCENES[verb](home)
    scene.prepare()
    log = tmp_path / "trace"
    code, told = scenes.run_killed(scene.run, trace=str(log))
    assert code == 0, told
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
            code, told = scenes.run_killed(scene.run, f"{point}:{nth}")
            if code != -signal.SIGKILL:
                wrong.append(f"{point}:{nth} was not reached: {code} {told}")
                continue
            code, told = scenes.run_killed(scene.run)
            if code != 0:
                wrong.append(f"{point}:{nth} the same command again failed: {told}")
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
    """A point that no verb passes would be proven by nothing. Those of a running cluster are killed at beside the other tests of clusters."""
    passed = {*test_cluster_capture_kills.OWN, *test_cluster_extract.OWN}
    for verb in scenes.SCENES:
        directory = tmp_path / verb
        directory.mkdir()
        passed |= set(trace(verb, directory))
    listed = set(faults.points())
    assert passed == listed, f'not passed: {sorted(listed - passed)}; not listed: {sorted(passed - listed)}'
