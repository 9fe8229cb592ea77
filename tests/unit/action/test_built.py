# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible gathers for a module is gathered once, and again when anything that goes along has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import built

NAME = "ansible_collections.lifeboat.recovery.plugins.modules.snapshot-ZIP_DEFLATED-none"


class Gathering:
    """Stands in for Ansible: looks into its folder, gathers what is not there, and counts."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.runs = 0
        self.gathered = 0

    def run(self, module: str = "snapshot") -> None:
        """One ansible-playbook with a temporary directory of its own."""
        self.runs += 1
        temporary = self.top / f"tmp{self.runs}"
        for _call in range(2):
            with built.remembered(module, str(temporary)):
                file = temporary / "ansiballz_cache" / NAME.replace("snapshot", module)
                if not file.exists():
                    self.gathered += 1
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.with_name(file.name + ".lock").touch()
                    file.write_bytes(b"gathered")
                assert file.read_bytes() == b"gathered"


@pytest.fixture
def gathering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gathering:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Gathering(tmp_path)


def test_it_is_gathered_once_for_all_runs_and_per_module(gathering: Gathering) -> None:
    for _run in range(3):
        gathering.run()
    assert gathering.gathered == 1
    gathering.run("snapshot_restore")  # a name that begins like the other
    assert gathering.gathered == 2


def test_a_change_of_any_file_gathers_anew(gathering: Gathering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "plugins"
    (copy / "modules").mkdir(parents=True)
    (copy / "modules" / "snapshot.py").write_text("one")
    shutil.copytree(Path(list(built.own_utils.__path__)[0]) / "checks", copy / "module_utils" / "checks")
    monkeypatch.setattr(built, "own_utils", type("package", (), {"__path__": [str(copy / "module_utils")]}))
    gathering.run()
    gathering.run()
    assert gathering.gathered == 1
    (copy / "module_utils" / "checks" / "tcp.py").write_text("changed")
    gathering.run()
    (copy / "modules" / "snapshot.py").write_text("changed")
    gathering.run()
    (copy / "module_utils" / "new.py").write_text("")
    gathering.run()
    gathering.run()
    assert gathering.gathered == 4


def test_without_a_folder_of_its_own_ansible_does_as_ever(gathering: Gathering, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "lifeboat"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    gathering.run()
    gathering.run()
    assert gathering.gathered == 2 and not list(folder.iterdir())
