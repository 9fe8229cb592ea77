# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""--check writes nothing, a second restore changes nothing, a restore of one service leaves the others alone."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, differences


@pytest.mark.parametrize("verb", ["restore", "backup"])
def test_check_writes_only_the_plan(harbour: Harbour, verb: str) -> None:
    before = harbour.everything()
    outcome = harbour.succeed(verb, "--check")
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


def test_a_second_restore_changes_nothing_and_one_service_leaves_the_others_alone(harbour: Harbour) -> None:
    assert set(harbour.succeed("restore").verdicts().values()) == {"verified"}
    before = harbour.fingerprint()
    again = harbour.succeed("restore")
    assert again.changed() == dict.fromkeys(harbour.ports, 0)
    assert again.verdicts() == dict.fromkeys(harbour.ports, "verified")
    assert harbour.fingerprint() == before, "files and processes are the same"

    harbour.wreck("lamp")
    others = harbour.fingerprint(["quay", "crane"])
    one = harbour.succeed("restore", "--limit", "lamp")
    assert one.verdicts() == {"lamp": "verified"}
    assert harbour.fingerprint(["quay", "crane"]) == others
    assert harbour.pid("lamp") != before["lamp"][2]
    assert harbour.contents(["lamp"])["lamp"].keys() == before["lamp"][0].keys()
