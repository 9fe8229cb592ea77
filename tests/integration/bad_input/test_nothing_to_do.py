# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""--check writes nothing, and fails where the verb would. What a second restore and one of one service leave alone: see playbooks/test_restore.py."""

from __future__ import annotations

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, differences


def test_check_of_a_backup_writes_only_the_plan(harbour: Harbour) -> None:
    before = harbour.everything()
    outcome = harbour.succeed("backup", "--check")
    assert differences(before, harbour.everything()) == []
    assert outcome.directory is not None
    assert sorted(path.name for path in outcome.directory.iterdir()) == ["plan.json"]
    assert set(outcome.plan["picked"]) == set(harbour.ports)


def test_check_of_what_cannot_work_fails(harbour: Harbour) -> None:
    before = harbour.everything()
    harbour.control("stop", "lamp")
    (harbour.folder("lamp") / "data").rename(harbour.folder("lamp") / "aside")
    (harbour.folder("lamp") / "data").write_text("no directory", encoding="utf-8")
    try:
        outcome = harbour.play("restore", "--check", "-e", "lifeboat_services=lamp")
        assert outcome.code != 0
        assert "what stands in the place of the source is no directory" in outcome.text
        outcome = harbour.play("backup", "--check", "-e", "lifeboat_services=lamp")
        assert outcome.code != 0 and "lamp" in outcome.text
        outcome = harbour.play("verify", "--check", "-e", "lifeboat_services=lamp", "-e", "lifeboat_target=no-such-point")
        assert outcome.code != 0 and "no-such-point" in outcome.text
    finally:
        (harbour.folder("lamp") / "data").unlink()
        (harbour.folder("lamp") / "aside").rename(harbour.folder("lamp") / "data")
        harbour.control("start", "lamp")
    assert before["state"] == harbour.everything()["state"]
