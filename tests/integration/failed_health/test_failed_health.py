# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot whose service is not healthy after cutover: its dependants are blocked and say by whom, the rest is verified, rollback undoes it."""

from __future__ import annotations

from ansible_collections.lifeboat.recovery.tests.lab.harbour import SCREEN, Harbour

GRAPH: dict[str, list[str]] = {"quay": [], "crane": ["quay"], "lamp": []}


def test_an_unhealthy_snapshot_blocks_its_dependants_only_and_rolls_back() -> None:
    with Harbour(GRAPH) as harbour:
        harbour.catalog["services"]["quay"]["timeouts"]["health"] = "2s"  # it will not be healthy, however long one waits
        harbour.write_catalog()
        harbour.succeed("bootstrap")
        harbour.set_state("quay", "poisoned")  # captured: health of whatever is restored from it fails
        harbour.succeed("backup")
        harbour.set_state("quay", "good")
        for name in GRAPH:
            harbour.wreck(name)
        former, processes = harbour.contents(), {name: harbour.pid(name) for name in GRAPH}
        assert harbour.healthy("quay")

        outcome = harbour.play("restore")
        assert outcome.code not in (0, 2), outcome.text
        assert "Traceback" not in outcome.text
        assert outcome.verdicts() == {"lamp": "verified", "quay": "failed", "crane": "blocked"}
        assert f":{harbour.ports['quay']}/health: answered 503, expected 200" in outcome.message("quay"), outcome.message("quay")
        assert outcome.message("crane").startswith("blocked by quay (failed in phase health)"), outcome.message("crane")
        assert outcome.document["services"]["crane"]["root"]["service"] == "quay"
        assert harbour.contents(["crane"])["crane"] == former["crane"], "who is blocked was not touched"
        ending = "\n".join(outcome.lines()[-SCREEN:])
        assert "root cause:  quay failed in phase health" in ending
        assert "blocks: crane" in ending
        assert "lifeboat.recovery.rollback" in ending

        back = harbour.succeed("rollback")
        assert set(back.verdicts().values()) == {"rolled_back"}
        assert harbour.contents() == former
        assert all(harbour.healthy(name) for name in GRAPH), "also those that were stopped and then blocked"
        assert all(harbour.pid(name) != processes[name] for name in ("quay", "lamp")), "they were started over the former data"
