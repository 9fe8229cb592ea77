# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/measured.md and the schema say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ansible_collections.lifeboat.recovery.plugins.module_utils import failures, meter
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import chain

ROOT = Path(__file__).parents[3]


def test_the_documented_types_are_the_closed_list() -> None:
    text = (ROOT / "docs" / "measured.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", text.partition("## Failures by type")[2].partition("\n## ")[0], re.M))
    assert table == failures.TYPES
    assert all(f"| {step} |" in text for step in meter.STEPS) and all(f"`{kind}`" in text for kind in meter.BYTES)
    assert chain.PATIENCE == 86400, "the text says a day"


def test_the_schema_has_the_same_lists() -> None:
    service = json.loads((ROOT / "docs" / "run.schema.json").read_text())["$defs"]["service"]["properties"]
    assert service["failure"]["oneOf"][1]["properties"]["type"]["enum"] == list(failures.TYPES)
    assert list(service["measured"]["properties"]["steps"]["properties"]) == list(meter.STEPS)
    assert list(service["measured"]["properties"]["bytes"]["properties"]) == list(meter.BYTES)
