# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A catalog that is wrong: every verb ends with one line that says what, where and what to do, and touches nothing."""

from __future__ import annotations

import copy
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.tests.integration.bad_input.said import refused
from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, differences


def _cycle(services: dict[str, Any]) -> None:
    services["quay"]["requires"] = ["crane"]


def _unknown_key(services: dict[str, Any]) -> None:
    services["quay"]["helth"] = []


def _missing_requirement(services: dict[str, Any]) -> None:
    services["quay"]["requires"] = ["lamb"]


def _relative_path(services: dict[str, Any]) -> None:
    services["quay"]["sources"]["files"]["path"] = "srv/quay"


def _leaving_path(services: dict[str, Any]) -> None:
    services["quay"]["sources"]["files"]["path"] = "/srv/quay/../../etc"


def _leaving_task_file(services: dict[str, Any]) -> None:
    services["quay"]["runtime"]["start"] = {"tasks": "../start.yml"}


def _wrong_type(services: dict[str, Any]) -> None:
    services["quay"]["priority"] = "high"


def _wrong_kind(services: dict[str, Any]) -> None:
    services["quay"]["sources"] = ["files"]


def _unknown_source_type(services: dict[str, Any]) -> None:
    services["quay"]["sources"]["files"]["type"] = "file"


TABLE: dict[str, tuple[Callable[[dict[str, Any]], None], str, str, str]] = {
    "cycle": (_cycle, "requirements form a cycle crane -> quay -> crane", r"\.yml:\d+", "remove one"),
    "unknown key": (_unknown_key, r'unknown key "helth" in services\.quay', r"\.yml:\d+", 'did you mean "health"'),
    "missing requirement": (_missing_requirement, 'quay requires unknown service "lamb"', r"\.yml:\d+", 'did you mean "lamp"'),
    "relative path": (_relative_path, r"services\.quay\.sources\.files\.path is not an absolute path", r"\.yml:\d+", "begin it with /"),
    "path outside its root": (_leaving_path, r"services\.quay\.sources\.files\.path leaves its root", r"\.yml:\d+", r"without \.\."),
    "task file outside its root": (_leaving_task_file, r"services\.quay\.runtime\.start\.tasks leaves the directory", r"\.yml:\d+", r"without \.\."),
    "wrong type": (_wrong_type, r'services\.quay\.priority must be a whole number, is the text "high"', r"\.yml:\d+", "write digits"),
    "wrong kind": (_wrong_kind, r"services\.quay\.sources must be a mapping", r"\.yml:\d+", "write"),
    "unknown source type": (_unknown_source_type, r'services\.quay\.sources\.files\.type is unknown \("file"\)', r"\.yml:\d+", 'did you mean "files"'),
}


@pytest.mark.parametrize("case", sorted(TABLE))
def test_one_line_and_nothing_touched(harbour: Harbour, case: str) -> None:
    change, what, where, remedy = TABLE[case]
    catalog = copy.deepcopy(harbour.catalog)
    change(catalog["services"])
    before = harbour.everything()
    outcome = harbour.play("restore", catalog=harbour.write_catalog(harbour.home / "bad.catalog.yml", catalog))
    refused(outcome, what, where, remedy)
    assert len(outcome.lines()) == 1, "one fault is one line, and nothing else"
    assert outcome.directory is None
    assert differences(before, harbour.everything()) == []


def test_a_name_that_is_used_twice(harbour: Harbour) -> None:
    path = harbour.home / "twice.catalog.yml"
    path.write_text(harbour.file.read_text(encoding="utf-8") + "  quay: {host: localhost}\n", encoding="utf-8")
    before = harbour.everything()
    refused(harbour.play("backup", catalog=path), 'service "quay" is declared twice', r"\.yml:\d+; the first is at line \d+", "rename or remove one")
    assert differences(before, harbour.everything()) == []
