# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many gates look at many services: a state is read when it has changed, and no change is missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import gates
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory


def test_a_state_is_read_again_only_when_its_file_was_replaced(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    run.make()
    names = [f"s{number}" for number in range(50)]
    for name in names:
        run.enter(name)
    read: list[str] = []

    def reading(name: str) -> Optional[dict[str, Any]]:
        read.append(name)
        return run.state(name)

    watch = gates.Watch(run.file("state"), reading, [*names, "elsewhere"])
    for _look in range(20):
        states = watch.look([*names, "elsewhere"])
    assert sorted(read) == sorted(names) and states["elsewhere"] is None

    for name in names:  # each right after the other, within one tick of the file system's clock
        run.phase(name, "stage")
        phase = watch.look(names)[name]
        assert phase is not None and phase["phase"] == "stage"
    assert len(read) == 2 * len(names)
    run.phase("s7", "stage", "end")
    assert (watch.look([])["s7"] or {})["done"] == [], "nobody asked for it"
    assert (watch.look(["s7"])["s7"] or {})["done"] == ["stage"]
