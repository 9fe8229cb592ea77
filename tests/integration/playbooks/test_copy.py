# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies as an operator meets them: made by backup and copy, and read when the repository is lost, which the run says."""

from __future__ import annotations

import shutil

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, differences


def test_a_lost_repository_is_restored_from_its_copy_and_every_place_says_so() -> None:
    with Harbour({"lamp": []}) as harbour:
        far = harbour.home / "far"
        harbour.catalog["repositories"]["far"] = {"url": f"file://{far}", "copy_of": "local"}
        harbour.write_catalog()
        harbour.succeed("bootstrap")
        harbour.succeed("backup")
        captured = harbour.contents()
        assert len(list(far.rglob("snapshots/*/*.json"))) == 1, "the backup made the copy that was due"
        shutil.rmtree(far)
        copied = harbour.succeed("copy", "-e", "lifeboat_to=far")
        assert copied.verdicts() == {"lamp": "verified"} and copied.changed()["lamp"] == 1

        shutil.rmtree(harbour.repository)
        harbour.wreck("lamp")
        words = "repository local cannot be used (no repository there), far is read instead"
        restored = harbour.succeed("restore")
        assert restored.verdicts() == {"lamp": "verified"} and not differences(captured, harbour.contents())
        told = restored.document["services"]["lamp"]["warnings"]
        assert any(words in warning for warning in told) and any("is not protected" in warning for warning in told)
        assert restored.directory is not None and words in (restored.directory / "report.html").read_text() and words in restored.text
