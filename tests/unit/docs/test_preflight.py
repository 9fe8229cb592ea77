# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/preflight.md lists the kinds of findings that there are, the code uses no other, and the limits of clocks are those of the text."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import clocks, errors, findings
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import preflight_target
from ansible_collections.lifeboat.recovery.plugins.modules import snapshot_restore

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8")


def test_the_table_has_every_kind_and_no_other() -> None:
    assert re.findall(r"^\| `([a-z]+)` \|", TEXT, re.M) == list(findings.KINDS)
    for row in re.findall(r"^\| `[a-z]+` \|(.*)\|$", TEXT, re.M):
        assert all(cell.strip() for cell in row.split("|")), f"no remedy: {row}"


def test_every_error_has_a_kind() -> None:
    kinds = {kind.kind for _name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LifeboatError)}
    assert kinds <= set(findings.KINDS)


def test_a_kind_that_is_not_in_the_list_cannot_be_found() -> None:
    for level, kind in (("error", "space"), ("note", "clock")):
        assert findings.finding(level, errors.StorageError("full", "disk", "free it"), kind)["kind"] == kind
    for level, kind in (("error", "disk"), ("fatal", "space")):
        with pytest.raises(AssertionError, match="no such finding"):
            findings.finding(level, errors.StorageError("full", "disk", "free it"), kind)


def test_no_kind_is_there_for_nothing() -> None:
    rooms = (ROOT / "plugins" / "module_utils", ROOT / "plugins" / "plugin_utils" / "plan")
    code = "".join(path.read_text(encoding="utf-8") for room in rooms for path in room.rglob("*.py") if path.name != "findings.py")
    assert [kind for kind in findings.KINDS if f'"{kind}"' not in code] == []


def test_the_limits_of_clocks_are_those_of_the_text() -> None:
    section = TEXT[TEXT.index("## Clocks"):TEXT.index("## Whose data")]
    assert [float(number) for number in re.findall(r"[Ff]rom (\d+) s", section)] == [clocks.TOLD, clocks.TIMED, clocks.ANY]


def test_the_words_of_the_operator_are_the_options_of_the_module() -> None:
    assert f"choices: [{', '.join(preflight_target.WORDS)}]" in snapshot_restore.DOCUMENTATION
    assert all(f"lifeboat_{word}s" in TEXT for word in preflight_target.WORDS)
