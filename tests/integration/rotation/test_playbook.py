# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs as an operator runs them: rotate, and restore with the escrow key when all others are gone."""

from __future__ import annotations

import shutil

from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import escrow
from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour


def test_rotate_keys_and_a_restore_from_escrow() -> None:
    with Harbour({"rock": [], "mill": ["rock"]}) as harbour:
        safe = harbour.home / "safe.key"
        harbour.catalog["keys"]["escrow"] = escrow.new_key(str(safe))
        harbour.write_catalog()
        harbour.succeed("bootstrap")
        harbour.succeed("backup")
        captured = harbour.contents()
        rotated = harbour.succeed("rotate_keys")
        assert rotated.verdicts() == {"rock": "verified", "mill": "verified"}
        assert rotated.message("rock") == "version 2, 1 of 1 data keys wrapped anew"
        assert len(list(harbour.repository.rglob("keys/*.000001.json"))) == 2

        shutil.rmtree(harbour.home / "keys")
        harbour.wreck("rock")
        harbour.wreck("mill")
        done = harbour.succeed("restore", "-e", f"lifeboat_escrow_key={safe}")
        assert set(done.verdicts().values()) == {"verified"}
        assert harbour.contents() == captured
        assert "the keys come from escrow" in done.text
        assert safe.read_text().strip() not in done.text
