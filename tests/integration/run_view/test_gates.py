# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates over twelve services: the order holds for any number of forks, failures block their dependants only."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ansible_collections.lifeboat.recovery.tests.doubles.playbook_site import GRAPH, ROOT, TWENTY, Outcome, Site

#: Seconds after which a playbook counts as hung.
LIMIT = 300


def after(graph: dict[str, list[str]], name: str, hard_only: bool = True) -> set[str]:
    """Everything that needs ``name``, directly or not."""
    found: set[str] = set()
    while True:
        more = {
            service for service, needs in graph.items()
            if any((one.lstrip("~") in found | {name}) and not (hard_only and one[0] == "~") for one in needs)
        } - found
        if not more:
            return found
        found |= more


def check_order(outcome: Outcome, graph: dict[str, list[str]]) -> None:
    """No service's cutover begins before the verdict of what it requires."""
    services = outcome.document["services"]
    begins = {name: phase["offset"] for name, item in services.items() for phase in item["phases"] if phase["name"] == "cutover"}
    for name, needs in graph.items():
        for one in needs:
            if name in begins:
                assert begins[name] >= services[one.lstrip("~")]["seconds"] - 0.002, f"{name} before {one}"


def check_schema(document: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "docs" / "run.schema.json").read_text())
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(document)


@pytest.mark.parametrize(("forks", "graph"), [(1, GRAPH), pytest.param(2, GRAPH, marks=pytest.mark.soak), (12, GRAPH), (5, TWENTY)])
def test_the_order_holds_for_any_number_of_forks(site: Site, forks: int, graph: dict[str, list[str]]) -> None:
    outcome = site.play(forks=forks, graph=graph)
    assert outcome.code == 0, outcome.out + outcome.error
    assert outcome.document["counts"] == {"picked": len(graph), "verdicts": len(graph), "by": {"verified": len(graph)}}
    assert "DEPRECATION" not in outcome.out + outcome.error
    check_order(outcome, graph)
    check_schema(outcome.document)
    assert "Time-line of" in outcome.out and outcome.directory and (outcome.directory / "report.html").is_file()


@pytest.mark.parametrize("forks", [pytest.param(1, marks=pytest.mark.soak), 2, 12])
def test_a_failure_blocks_its_dependants_only_and_names_the_root(site: Site, forks: int) -> None:
    outcome = site.play(forks=forks, fake_fail=["s5"])
    assert outcome.code == 3
    blocked = after(GRAPH, "s5")
    assert outcome.verdicts() == {name: "failed" if name == "s5" else "blocked" if name in blocked else "verified" for name in GRAPH}
    for name in blocked:
        root = outcome.document["services"][name]["root"]
        assert root["service"] == "s5" and root["phase"] == "health" and root["message"] == "GET /health answered 500"
        assert outcome.document["services"][name]["touched"] == "untouched"
    said = r"s12: blocked by s5 \(failed in phase health\): GET /health answered 500 \[through s1[01]\]; s12 was not touched; do: "
    assert re.search(said, outcome.out + outcome.error)
    assert "root cause:  s5 failed in phase health" in outcome.out and "blocks: s7, s8, s10, s11, s12" in outcome.out
    check_order(outcome, GRAPH)
    check_schema(outcome.document)


def test_a_soft_requirement_that_fails_lets_the_service_pass_degraded(site: Site) -> None:
    outcome = site.play(fake_fail=["s6"])
    assert outcome.code == 3  # s6 itself failed
    assert outcome.verdicts() == {name: {"s6": "failed", "s8": "degraded"}.get(name, "verified") for name in GRAPH}
    assert outcome.document["services"]["s8"]["degraded_by"] == ["s6"]


def test_degraded_alone_exits_with_2(site: Site) -> None:
    outcome = site.play(fake_degraded={"s9": ["mail"]})
    assert outcome.code == 2 and outcome.verdicts()["s9"] == "degraded" and outcome.document["outcome"] == "degraded"
    site.view = False
    outcome = site.play(fake_degraded={"s9": ["mail"]})
    assert outcome.code == 2 and "Time-line of" in outcome.out and outcome.document["exit"]["code"] == 2


def test_without_the_view_the_end_is_shown_by_the_last_task(site: Site) -> None:
    site.view = False
    outcome = site.play(fake_fail=["s1"])
    # Ansible's own code for failed hosts; run.json has the one of the run
    assert outcome.code == 2 and outcome.document["exit"]["code"] == 3
    assert outcome.out.count("Time-line of") == 1 and outcome.out.count("root cause:  s1 failed in phase health") == 1


@pytest.mark.parametrize(("forks", "view"), [
    (1, True), (12, False), pytest.param(1, False, marks=pytest.mark.soak), pytest.param(12, True, marks=pytest.mark.soak),
])
def test_an_unreachable_host_is_a_failure_like_any_other(site: Site, forks: int, view: bool) -> None:
    site.view = view
    outcome = site.play(forks=forks, remote=("s2",))
    blocked = after(GRAPH, "s2")
    assert outcome.verdicts() == {name: "failed" if name == "s2" else "blocked" if name in blocked else "verified" for name in GRAPH}
    assert "unreachable" in outcome.document["services"]["s12"]["root"]["message"]
    assert outcome.code == (3 if view else 2)


def test_a_host_that_goes_away_in_the_middle_ends_its_service_at_once(site: Site) -> None:
    # no ping before: the task is unreachable, which no rescue sees; only the view can end the service
    outcome = site.play(remote=("s2",), fake_ping=False)
    assert outcome.code == 3
    assert outcome.verdicts()["s2"] == "failed" and outcome.verdicts()["s12"] == "blocked" and outcome.verdicts()["s9"] == "verified"
    assert outcome.document["services"]["s12"]["root"]["service"] == "s2"


def test_limit_narrows_and_the_rest_is_not_waited_for(site: Site) -> None:
    outcome = site.play(more=("--limit", "s5,s7,s12"))
    assert outcome.code == 0 and outcome.verdicts() == {"s5": "verified", "s7": "verified", "s12": "verified"}
    check_order(outcome, {"s5": [], "s7": ["s5"], "s12": []})


def test_check_mode_writes_the_plan_and_nothing_else(site: Site) -> None:
    outcome = site.play(more=("--check",))
    assert outcome.code == 0 and outcome.directory is not None
    assert [path.name for path in outcome.directory.rglob("*") if path.is_file()] == ["plan.json"]


def test_a_play_that_ends_early_still_ends_the_run(site: Site) -> None:
    # every host fails outside any rescue, so no later play runs: the view writes run.json
    outcome = site.play(playbook="broken.yml")
    assert outcome.code == 3 and set(outcome.verdicts().values()) == {"failed"}
    assert "never got a verdict" in outcome.document["services"]["s1"]["message"]


def test_an_empty_group_is_no_success(site: Site) -> None:
    outcome = site.play(playbook="empty.yml")
    assert outcome.code == 3 and outcome.document["counts"]["verdicts"] == 12 and set(outcome.verdicts().values()) == {"failed"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_tells_how_to_go_on_and_the_next_run_resumes(site: Site, number: signal.Signals) -> None:
    graph: dict[str, list[str]] = {"s1": [], "s2": ["s1"]}
    hold = site.folder / "go-on"
    process = site.start("run.yml", graph, fake_hold=str(hold))
    deadline = time.monotonic() + LIMIT
    while not list(site.runs.glob("*/state/s1.json")) or json.loads(next(site.runs.glob("*/state/s1.json")).read_text())["phase"] != "health":
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, number)
    out, error = process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert "Interrupted: restore" in error or "Terminated: restore" in error, out + error
    assert re.search(r"s1 +restored data is live", error) and re.search(r"s2 +old data, not touched", error)
    assert re.search(r"resume: +ansible-playbook lifeboat.recovery.restore -i fake.catalog.yml -e lifeboat_services=s1,s2 -e lifeboat_target=p1", error)
    assert "rollback: ansible-playbook lifeboat.recovery.rollback" in error and "status:   ansible-playbook lifeboat.recovery.status" in error
    former = next(site.runs.iterdir())
    assert not (former / "run.json").exists()
    hold.touch()
    outcome = site.play(graph=graph, fake_hold=str(hold))
    assert outcome.code == 0 and outcome.document["run"]["resumes"] == [former.name]
    sealed = json.loads(Path(former / "run.json").read_text())
    assert sealed["outcome"] == "interrupted" and {item["verdict"] for item in sealed["services"].values()} == {"interrupted"}
    check_schema(sealed)


def children(pid: int) -> list[int]:
    return [int(one) for path in Path(f"/proc/{pid}/task").glob("*/children") for one in path.read_text().split()]


def test_workers_do_not_outlive_a_killed_playbook(site: Site) -> None:
    graph: dict[str, list[str]] = {"s1": [], "s2": ["s1"]}
    hold = site.folder / "go-on"
    process = site.start("run.yml", graph, fake_hold=str(hold))
    deadline = time.monotonic() + LIMIT
    while not list(site.runs.glob("*/state/s2.json")) or not json.loads(next(site.runs.glob("*/state/s2.json")).read_text())["waiting"]:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    workers = children(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=LIMIT)
    hold.touch()  # the one that works may end; the one at the gate has nobody to answer to
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    outcome = site.play(graph=graph, fake_hold=str(hold))
    assert outcome.code == 0 and len(outcome.document["run"]["resumes"]) == 1
