# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and playbooks agree with what they say of themselves."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def load(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_argument_specs(role: str) -> None:
    folder = ROOT / "roles" / role
    promised: dict[str, Any] = {}
    for entry in load(folder / "meta" / "argument_specs.yml")["argument_specs"].values():
        for name, option in entry["options"].items():
            if "default" in option:
                assert promised.setdefault(name, option["default"]) == option["default"], f"{name} has two defaults"
            else:
                assert option.get("required"), f"{name} is neither required nor has it a default"
    assert load(folder / "defaults" / "main.yml") == promised


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_tasks_and_every_role_its_line(role: str) -> None:
    folder = ROOT / "roles" / role
    for entry in load(folder / "meta" / "argument_specs.yml")["argument_specs"]:
        assert (folder / "tasks" / f"{entry}.yml").is_file()
    assert len((folder / "README.md").read_text(encoding="utf-8").strip().splitlines()) == 3, "a title and one line"
    assert load(folder / "meta" / "main.yml")["galaxy_info"]["license"] == "GPL-3.0-or-later"


def test_every_role_that_is_used_exists() -> None:
    used = set()
    for path in [*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "roles").rglob("tasks/*.yml")]:
        text = path.read_text(encoding="utf-8")
        used |= {(name, tasks or "main.yml") for name, tasks in re.findall(r"name: lifeboat\.recovery\.(\w+)\n(?:\s+tasks_from: (\S+)\n)?", text)}
    assert used
    for name, tasks in used:
        assert (ROOT / "roles" / name / "tasks" / tasks).is_file(), f"{name} {tasks}"


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_verb_has_no_dash_and_says_what_it_does(playbook: pathlib.Path) -> None:
    assert "-" not in playbook.stem
    lines = playbook.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "---" and lines[1].startswith("# ")
    first, *others = load(playbook)
    assert first["hosts"] == "{{ groups | lifeboat.recovery.catalog_hosts(ansible_inventory_sources | default([])) }}", "without services it must not succeed"
    assert all(play["hosts"] == "lifeboat_services" or "groups[" in play["hosts"] for play in others)
    assert f"| `{playbook.stem}` |" in (ROOT / "docs" / "verbs.md").read_text(encoding="utf-8")


def test_a_condition_that_its_own_tasks_change_stands_on_no_import() -> None:
    """A condition on an import or a block is asked again by each task in it, also by those of a rescue."""
    for path in PLAYBOOKS:
        for play in load(path):
            for task in walk(play.get("tasks") or []):
                condition = str(task.get("when", ""))
                if "is not defined" in condition:
                    assert "block" not in task and not any("import_" in key for key in task), f"{path.name}: {task['name']}"


def walk(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        found.append(task)
        for part in ("block", "rescue", "always"):
            found += walk(task.get(part) or [])
    return found
