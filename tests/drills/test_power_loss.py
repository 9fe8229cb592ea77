# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power lost after every durable operation: what was acknowledged lasts, the same command again ends well.

The controls disable one sync, rename or ledger check and must see the suite fail.
"""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import durable, faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.inspect import list_snapshots
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.tests.drills import power, scenes
from ansible_collections.lifeboat.recovery.tests.lab import service

#: Images tried per verb, beside the first and the last: each costs a whole run of the verb.
SAMPLE = 30


def lose_power(verb: str, home: pathlib.Path, sample: int = SAMPLE, weaken: Callable[[], None] = lambda: None) -> list[str]:
    """Run a verb under the disk model, lose power at many moments, run it again; returns what went wrong."""
    scene = scenes.SCENES[verb](home)
    scene.prepare()
    weaken()
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    with power.Disk(home) as disk:
        service.controller_pid = dead.pid
        try:
            scene.run()
        finally:
            service.controller_pid = 0
    wrong = []
    chosen = sorted({0, len(disk.images) - 1, *random.Random(verb).sample(range(len(disk.images)), min(sample, len(disk.images)))})
    for number in chosen:
        image = disk.images[number]
        power.power_up(image, home)
        again = scenes.SCENES[verb](home)
        try:
            if image.operation == "end":
                acknowledged(verb, again)
            again.run()
            again.check()
        except (AssertionError, LifeboatError, OSError) as error:
            wrong.append(f"power lost after {image.operation} (image {number}): {error!r}")
    return wrong


def acknowledged(verb: str, scene: scenes.Scene) -> None:
    """The command had said that it was done: without running it again, what it did must be there."""
    if verb in ("first", "capture"):
        snapshots = list_snapshots(scene.service.spec)
        assert len(snapshots["snapshots"]) == (1 if verb == "first" else 2) and not snapshots["warnings"], snapshots
        assert verify_service(scene.service.spec)["ok"]
    else:
        scene.check()


@pytest.mark.parametrize("verb", sorted(set(scenes.SCENES) - {"restage"}))
def test_power_loss(verb: str, tmp_path: pathlib.Path) -> None:
    wrong = lose_power(verb, tmp_path / "home")
    assert not wrong, "\n".join(wrong)


# -- controls: a suite that cannot fail proves nothing


def _no_fsync(_descriptor: int, _path: str, subject: str) -> None:
    faults.point(f"{subject}.fsync.before")
    faults.point(f"{subject}.fsync.after")


def _no_dirsync(_path: str, subject: str) -> None:
    faults.point(f"{subject}.dirsync.before")
    faults.point(f"{subject}.dirsync.after")


def _no_sync_tree(_path: str, _subject: str) -> None:
    """Nothing is flushed."""


def _publish_in_place(temporary: str, path: str, _subject: str) -> None:
    """The final name first, its content later: what rename and link exist to prevent."""
    data = pathlib.Path(temporary).read_bytes()
    os.unlink(temporary)
    pathlib.Path(path).write_bytes(data)
    if durable.observe is not None:
        durable.observe("link", path, path)


def _no_entry(_self: Ledger, _run: dict[str, Any], _phase: str, _event: str, _data: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"seq": 0, "hash": ""}


@pytest.mark.parametrize(("verb", "name", "replacement"), [
    ("capture", "fsync_file", _no_fsync),
    ("capture", "fsync_dir", _no_dirsync),
    ("capture", "publish_file", _publish_in_place),
    ("restore", "sync_tree", _no_sync_tree),
    ("restore", "fsync_dir", _no_dirsync),
])
def test_the_suite_fails_when_the_durable_layer_is_weakened(
    verb: str, name: str, replacement: Callable[..., Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lose_power(verb, tmp_path / "home", 10, lambda: monkeypatch.setattr(durable, name, replacement))


def test_the_suite_fails_when_the_ledger_is_not_written(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scenes.Restore(tmp_path / "home")
    scene.prepare()
    monkeypatch.setattr(Ledger, "append", _no_entry)
    with pytest.raises((AssertionError, LifeboatError, StopIteration)):
        scene.run()
        scene.check()
