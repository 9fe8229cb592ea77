# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long modules: their progress is seen while they work, what they answer is kept, and nothing is left on the host."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.tests.doubles.playbook_site import Outcome, Site

ONE: dict[str, list[str]] = {"orders": []}
#: auto reads the file of this machine in a thread; async is what a remote host gets.
WAYS = ["auto", "async", "false"]
SHOWN = r"s  orders +stage"
CANARY = "CANARY-7f3a91"


def answer(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.folder / "answer.json").read_text())
    return found


def play(site: Site, way: str, args: dict[str, Any], *more: str, **variables: Any) -> Outcome:
    return site.play(
        "long.yml", ONE, more=more, fake_progress=way, fake_state=str(site.folder / "state"), fake_args=args,
        fake_answer=str(site.folder / "answer.json"), **variables,
    )


@pytest.mark.parametrize("way", WAYS)
def test_what_a_module_answers_is_kept(site: Site, way: str) -> None:
    outcome = play(site, way, {})
    assert outcome.code == 0, outcome.out + outcome.error
    found = answer(site)
    assert found["changed"] is True and "ansible_job_id" not in found and "results_file" not in found
    assert "directory" not in found["keys_of_run"] and "id" in found["keys_of_run"]
    item = outcome.document["services"]["orders"]
    assert item["snapshots"] == {"db": "orders.db-000001-aa"}
    assert item["ledger"] == {"entries": 1, "head": found["ledger"][0]["hash"], "seq": 1, "whole": True, "problem": None}
    assert [(phase["name"], phase["outcome"]) for phase in item["phases"]] == [("stage", "done")]


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_is_the_modules_own(site: Site, way: str) -> None:
    outcome = play(site, way, {"fail": "Disk full"})
    found = answer(site)
    assert found["failed"] is True and found["msg"] == "Disk full" and found["error"]["remedy"] == "free space"
    item = outcome.document["services"]["orders"]
    assert item["verdict"] == "failed" and item["message"] == "Disk full" and item["remedy"] == "free space" and item["ledger"]["entries"] == 1
    assert [(phase["name"], phase["outcome"]) for phase in item["phases"]] == [("stage", "failed")]


@pytest.mark.parametrize("way", ["auto", "async"])
@pytest.mark.parametrize("view", [True, False])
def test_progress_is_seen_while_the_module_works(site: Site, way: str, view: bool) -> None:
    site.view = view
    hold, seen = site.folder / "go-on", []

    def watch() -> None:
        # the module works until its progress has come as far as the run directory, and from there to the screen
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            for path in site.runs.glob("*/progress/orders.json"):
                seen.append(json.loads(path.read_text()))
            if seen and seen[-1]["bytes_done"] == 5 << 20 and (not view or re.search(SHOWN, site.screen.read_text())):
                break
            time.sleep(0.02)
        hold.touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    outcome = play(site, way, {"steps": 5, "hold": str(hold)})
    watcher.join()
    assert outcome.code == 0, outcome.out + outcome.error
    assert seen and seen[-1]["bytes_done"] == seen[-1]["bytes_total"] == 5 << 20 and seen[-1]["phase"] == "stage"
    assert outcome.directory and list((outcome.directory / "progress").iterdir()) == []
    if view:
        assert re.search(SHOWN, outcome.out)


@pytest.mark.parametrize("way", ["auto", "async"])
def test_progress_of_a_killed_call_is_not_shown_again(site: Site, way: str) -> None:
    folder = site.folder / "state" / "services" / "orders"
    folder.mkdir(parents=True)
    stale = folder / "progress.json"
    stale.write_text(json.dumps({"service": "orders", "phase": "stage", "bytes_done": 77 << 30, "bytes_total": 0, "started": 1.0, "updated": 2.0}))
    outcome = play(site, way, {"steps": 3})
    assert outcome.code == 0 and "77.0 GiB" not in outcome.out


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_shown_or_left(site: Site, way: str) -> None:
    outcome = play(site, way, {"secret": CANARY, "steps": 2}, "-vvv")
    assert outcome.code == 0 and answer(site)["echo"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    # the arguments themselves come from extra.json of this test; at -vvv Ansible shows no values of a no_log option
    assert CANARY not in outcome.out + outcome.error
    left = [path for path in site.folder.rglob("*") if path.is_file() and path.name != "extra.json" and CANARY.encode() in path.read_bytes()]
    assert left == []
    assert not (site.folder / ".ansible_async").exists() or list((site.folder / ".ansible_async").iterdir()) == []
    assert not list((site.folder / "tmp").glob("ansible-tmp-*"))


@pytest.mark.parametrize("way", WAYS)
def test_a_preflight_is_check_mode_within_a_run(site: Site, way: str) -> None:
    outcome = play(site, way, {}, fake_check=True)
    assert answer(site)["changed"] is False
    assert [phase["name"] for phase in outcome.document["services"]["orders"]["phases"]] == ["preflight"]


def test_outside_a_run_it_is_just_the_module(site: Site) -> None:
    outcome = play(site, "auto", {"steps": 1}, fake_in_run=False)
    assert outcome.code == 0 and answer(site)["changed"] is True and outcome.directory is None


def test_a_check_of_everything_writes_nothing_but_the_plan(site: Site) -> None:
    outcome = play(site, "auto", {}, "--check")
    assert outcome.code == 0 and answer(site)["changed"] is False and outcome.directory is not None
    assert [path.name for path in outcome.directory.rglob("*") if path.is_file()] == ["plan.json"]


def test_state_dir_of_the_user_is_found(site: Site) -> None:
    # empty: as root /var/lib/lifeboat, else below the home directory; given with a tilde: below the home directory
    outcome = play(site, "async", {"state_dir": "~/own state"})
    assert outcome.code == 0 and (Path(site.folder) / "own state" / "services" / "orders").is_dir()
