# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every claim of the threat model names a test that is there."""

from __future__ import annotations

import re

from ansible_collections.lifeboat.recovery.tests.tools.places import ROOT

TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_named_test_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w./]+)(?:::(\w+))?`", TEXT))
    assert len(named) > 40
    for path, test in sorted(named):
        assert (ROOT / path).exists(), path
        assert not test or re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), f"{path}::{test}"


def test_every_row_of_a_claim_names_one() -> None:
    """In the tables whose last column is the evidence, no cell is empty."""
    tables = [table for table in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE) if table.splitlines()[0].rstrip(" |").endswith("shown by")]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(tables) == 6 and len(rows) > 30
    for row in rows:
        assert re.search(r"`tests/|the same|– \(", row.rstrip(" |").rpartition("|")[2]), row
