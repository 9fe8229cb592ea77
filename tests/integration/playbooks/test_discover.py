# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb discover: what really is connected is held against the catalog, the line that is missing is told, and nothing is touched."""

from __future__ import annotations

import json

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour
from ansible_collections.lifeboat.recovery.tests.lab.talker import talking


def test_an_undeclared_dependency_is_told_with_the_line_that_declares_it() -> None:
    with Harbour({"quay": [], "crane": []}) as harbour, talking(harbour.ports["quay"], harbour.data("crane")):
        before = harbour.everything()
        outcome = harbour.play("discover", "-e", "lifeboat_strict=true")
        assert outcome.code not in (0, 4), outcome.text[-3000:]
        line = next(line for line in outcome.lines() if "crane uses quay" in line)
        assert line.strip().startswith("warning: crane uses quay and does not require it") and line.endswith("add it to services.crane: requires: [quay]")
        told = json.loads((harbour.runs / "discovery" / "discovery.json").read_text())
        assert [(edge["service"], edge["uses"], edge["declared"]) for edge in told["edges"]] == [("crane", "quay", "")]
        assert told["machines"]["localhost"]["running"] == ["crane", "quay"]
        assert harbour.everything() == before and set(outcome.changed().values()) == {0}
