# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot whose service is not healthy after cutover: its dependants are blocked and say by whom, the rest is verified, rollback undoes it.

One whose policy says so goes back by itself.
"""

from __future__ import annotations

import sys

from ansible_collections.lifeboat.recovery.tests.lab.harbour import SCREEN, Harbour

MIGRATE = "import sys; open(sys.argv[1], 'a').write('m')"
GRAPH: dict[str, list[str]] = {"quay": [], "crane": ["quay"], "lamp": [], "buoy": []}


def test_an_unhealthy_snapshot_blocks_its_dependants_only_and_rolls_back() -> None:
    with Harbour(GRAPH) as harbour:
        for name in ("quay", "buoy"):  # they will not be healthy, however long one waits
            harbour.catalog["services"][name]["policy"]["health"]["timeout"] = "2s"
        harbour.catalog["services"]["buoy"]["policy"]["health"]["on_error"] = "rollback"
        harbour.catalog["services"]["lamp"]["runtime"]["migrate"] = [sys.executable, "-c", MIGRATE, str(harbour.home / "migrated")]
        harbour.catalog["services"]["lamp"]["prewarm"] = {"http": [{"http": f"http://127.0.0.1:{harbour.ports['lamp']}/audit"}]}
        harbour.write_catalog()
        harbour.succeed("bootstrap")
        for name in ("quay", "buoy"):
            harbour.set_state(name, "poisoned")  # captured: health of whatever is restored from it fails
        harbour.succeed("backup")
        for name in ("quay", "buoy"):
            harbour.set_state(name, "good")
        for name in GRAPH:
            harbour.wreck(name)
        former, processes = harbour.contents(), {name: harbour.pid(name) for name in GRAPH}
        assert harbour.healthy("quay")

        outcome = harbour.play("restore")
        assert outcome.code not in (0, 2), outcome.text
        assert "Traceback" not in outcome.text
        assert outcome.verdicts() == {"lamp": "verified", "quay": "failed", "crane": "blocked", "buoy": "failed"}
        assert f":{harbour.ports['quay']}/health: answered 503, expected 200" in outcome.message("quay"), outcome.message("quay")
        assert outcome.message("crane").startswith("blocked by quay (failed in phase health)"), outcome.message("crane")
        assert outcome.document["services"]["crane"]["root"]["service"] == "quay"
        assert harbour.contents(["crane"])["crane"] == former["crane"], "who is blocked was not touched"
        lamp = outcome.document["services"]["lamp"]
        assert "migrate" in [phase["name"] for phase in lamp["phases"]] and (harbour.home / "migrated").read_text() == "m"
        assert ("prewarm", True) in [(check["kind"], check["ok"]) for check in lamp["proof"]["checks"]]

        assert outcome.message("buoy").endswith("as its policy says it went back into its former data, which is live and healthy"), outcome.message("buoy")
        buoy = outcome.document["services"]["buoy"]
        assert (buoy["phase"], buoy["touched"], buoy["root"]["phase"]) == ("health", "back", "health")
        assert harbour.contents(["buoy"])["buoy"] == former["buoy"] and harbour.healthy("buoy")
        ending = "\n".join(outcome.lines()[-SCREEN:])
        assert "root cause:  quay failed in phase health" in ending
        assert "blocks: crane" in ending
        assert "lifeboat.recovery.rollback" in ending

        back = harbour.succeed("rollback")
        assert set(back.verdicts().values()) == {"rolled_back"}
        assert harbour.contents() == former
        assert all(harbour.healthy(name) for name in GRAPH), "also those that were stopped and then blocked"
        assert all(harbour.pid(name) != processes[name] for name in ("quay", "lamp", "buoy")), "they were started over the former data"
