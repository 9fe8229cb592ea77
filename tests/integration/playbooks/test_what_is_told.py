# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator is told: a failure in one line, phases as they were measured, a forecast from the runs before, every warning."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, Outcome


@pytest.fixture(scope="module")
def harbour() -> Iterator[Harbour]:
    with Harbour({"quay": [], "crane": ["quay"]}) as made:
        slow = {"name": "a slow look", "command": [sys.executable, "-c", "import time; time.sleep(1.5)"]}
        made.catalog["services"]["quay"]["invariants"].append(slow)
        made.catalog["tiers"] = {"gold": {"rto": "1s", "rto_gate": "refuse"}, "tin": {"rto": "1s"}}
        made.catalog["services"]["quay"]["tier"] = "tin"
        made.write_catalog()
        made.succeed("bootstrap")
        made.succeed("backup")
        yield made


def test_a_failed_call_is_one_line_and_its_ledger_is_in_the_run(harbour: Harbour) -> None:
    data = harbour.data("crane")
    shutil.move(data, data.with_name("aside"))
    try:
        outcome = harbour.play("backup")
    finally:
        shutil.move(data.with_name("aside"), data)
    assert outcome.code not in (0, 2)
    said = f"source directory does not exist: {data}; correct 'path' in the catalog, or restore the service"
    fatal = [line for line in outcome.lines() if line.startswith("fatal: [crane]") and "does not exist" in line]
    assert fatal and all(json.loads(line.partition(" => ")[2])["msg"].endswith(said) for line in fatal)
    assert set(json.loads(fatal[0].partition(" => ")[2])) <= {"msg", "error", "changed"}, fatal[0]
    assert sum(said in line for line in outcome.lines() if line.startswith("[ERROR]")) >= 1
    service = outcome.document["services"]["crane"]
    assert service["ledger"]["entries"] >= 4 and service["ledger"]["whole"] and outcome.message("crane") == said
    assert outcome.directory is not None
    events = [json.loads(line)["event"] for line in (outcome.directory / "services" / "crane.jsonl").read_text().splitlines()]
    assert "capture.failed" in events and events[-1] == "run.end"


@pytest.fixture(scope="module")
def restores(harbour: Harbour) -> tuple[Outcome, Outcome]:
    """The first restore, and a second one by somebody who may not sign quay's ledger."""
    for name in harbour.ports:
        harbour.wreck(name)
    first = harbour.succeed("restore")
    key = harbour.home / "keys" / "host" / "quay" / "sign.key"
    shutil.move(key, key.with_name("sign.aside"))
    try:
        for name in harbour.ports:
            harbour.wreck(name)
        return first, harbour.succeed("restore", "-e", "lifeboat_force=true")
    finally:
        shutil.move(key.with_name("sign.aside"), key)


def test_phases_are_measured_and_the_next_plan_has_a_forecast(restores: tuple[Outcome, Outcome]) -> None:
    first, second = restores
    assert "forecast none: no measured times" in first.text and first.plan["forecast"]["seconds"] is None
    phases = {phase["name"]: phase["seconds"] for phase in first.document["services"]["quay"]["phases"]}
    assert 1.5 <= phases["invariants"] <= first.document["services"]["quay"]["seconds"] and phases["protect"] > 0

    forecast = second.plan["forecast"]
    assert forecast["runs"] == 1 and 0 < forecast["low"] < forecast["seconds"] < forecast["high"], forecast
    assert forecast["seconds"] >= phases["invariants"]
    line = next(line for line in second.lines() if line.startswith("  forecast "))
    assert "between" in line and "from 1 measured run," in line and "quay > crane" in line
    assert set(second.plan["critical_path"]["services"]) == {"quay", "crane"}


def test_what_it_took_is_recorded_and_the_report_makes_times_to_recover_of_it(harbour: Harbour, restores: tuple[Outcome, Outcome]) -> None:
    first = restores[0].document["services"]["crane"]
    assert first["failure"] is None and {"fetch", "write", "verify"} <= set(first["measured"]["steps"])
    assert first["measured"]["bytes"]["written"] > 0 < first["measured"]["usage"]["cpu_seconds"] and first["measured"]["calls"] >= 4
    entries = [json.loads(line) for line in (restores[0].directory / "services" / "crane.jsonl").read_text().splitlines()]
    data = next(entry["data"] for entry in entries if entry["event"] == "measured")
    assert data["phases"]["gate"]["waited_for"] == "quay" and data["bytes"] == first["measured"]["bytes"] and data["verdict"] == "verified"

    outcome = harbour.play("report")
    assert outcome.code == 0, outcome.text[-3000:]
    told = json.loads((harbour.runs / "report" / "report.json").read_text())
    assert told["services"]["crane"]["mttr"]["count"] == len(restores) == told["all"]["mttr"]["count"] and told["silent"] == {}
    assert told["services"]["crane"]["recoveries"][0]["raw"] == data["recovery"]["raw"]
    assert told["services"]["quay"]["trend"]["last"] > 0 and "Time to recover" in (harbour.runs / "report" / "report.html").read_text()
    assert any(line.startswith("SERVICE") and "MEAN" in line for line in outcome.lines())


def test_the_forecast_is_kept_beside_what_came_out(restores: tuple[Outcome, Outcome]) -> None:
    first, second = restores
    assert first.document["forecast"]["seconds"] is None and first.document["forecast"]["measured"] > 0
    told = second.document["forecast"]
    assert told["measured"] == max(item["seconds"] for item in second.document["services"].values())
    assert told["inside"] == (told["low"] <= told["measured"] <= told["high"]) and "it took " in second.text
    assert told["services"]["quay"]["moved"]["written"] == second.plan["services"]["quay"]["bytes"] > 0
    assert second.plan["moves"]["written"] == sum(one["moved"]["written"] for one in told["services"].values())


def test_a_forecast_that_misses_the_rto_stops_a_restore_where_the_catalog_gates_on_it(harbour: Harbour, restores: tuple[Outcome, Outcome]) -> None:
    assert "these miss their RTO: quay" in restores[1].text  # its tier only warns
    harbour.catalog["services"]["quay"]["tier"] = "gold"
    before = harbour.everything()
    try:
        gated = harbour.play("restore", "-e", "lifeboat_force=true", "-e", "lifeboat_plan_format=json", "--check",
                             catalog=harbour.write_catalog(harbour.home / "gated.catalog.yml"))
    finally:
        harbour.catalog["services"]["quay"]["tier"] = "tin"
    assert gated.code not in (0, 2) and "the forecast misses the RTO of 1.00 s" in gated.text and "-e lifeboat_rto_gate=warn" in gated.text
    printed = json.JSONDecoder().raw_decode(gated.text[gated.text.index('{\n  "added"'):])[0]
    assert printed["forecast"] == gated.plan["forecast"] and printed["services"]["quay"]["rto_at_risk"] is True
    assert harbour.everything() == before


def test_warnings_are_in_the_report_the_document_and_the_last_screen(restores: tuple[Outcome, Outcome]) -> None:
    # whoever restores with a role that may not sign is told that the ledger's copy waits
    outcome = restores[1]
    wanted = "the ledger was not copied to the repository"
    assert any(text.startswith(wanted) and "catches up" in text for text in outcome.document["services"]["quay"]["warnings"])
    assert any(text.startswith(f"quay: {wanted}") for text in outcome.document["warnings"])
    assert outcome.document["services"]["crane"]["warnings"] == []
    assert outcome.directory is not None and wanted in (outcome.directory / "report.html").read_text()
    ending = outcome.text.partition("restore: 2 of 2")[2] or outcome.text[-3000:]
    assert sum(line.startswith(f"  warning:     quay: {wanted}") for line in ending.splitlines()) == 1, ending


def test_the_history_of_it_all_is_read_from_the_repository_alone(harbour: Harbour, restores: tuple[Outcome, Outcome]) -> None:
    harbour.succeed("backup")  # catches up
    command = next(path for path in harbour.home.rglob("bin/lifeboat"))
    done = subprocess.run(
        [command, "history", "quay", "--repository", f"file://{harbour.repository}", "--keys", harbour.private, "--json"],
        check=False, capture_output=True, text=True, timeout=60, env={"PATH": harbour.environment()["PATH"], "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["quay"]
    assert told["signed"] and not told["warnings"]
    assert [run["verdict"] for run in told["runs"] if run["verb"] == "restore"] == ["verified"] * len(restores)
    assert told["runs"][-1]["verdict"] == "captured"
