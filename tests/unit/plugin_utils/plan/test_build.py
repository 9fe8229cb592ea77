# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as a whole, its forecast, and the outcome of a run."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import build, forecast, outcome
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.pick import pick_services
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.words import SUCCESS, VERDICTS

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=timezone.utc)


def service(*requires: str, sources: tuple[str, ...] = ("db",), rto: int | None = None) -> dict[str, Any]:
    return {"host": "db1", "tier": "gold", "owner": "team", "priority": None, "consistency_group": None, "rto": rto,
            "sources": {source: {"type": "files"} for source in sources},
            "requires": [{"service": name.rstrip("?"), "kind": "soft" if name.endswith("?") else "hard"} for name in requires]}


DOCUMENT: dict[str, Any] = {"ecosystem": "shop", "production": True, "tiers": {}, "services": {
    "identity": service(rto=60), "mail": service(), "orders": service("identity", "mail?", sources=("db", "files"), rto=60),
    "gateway": service("orders", sources=()), "reports": service(),
}}


def points(*names: str) -> dict[str, list[dict[str, Any]]]:
    return {name: [{"id": "r1", "time": "2026-11-22T17:00:00Z", "complete": True, "missing": [], "proven": True, "bytes": 1000,
                    "snapshots": {"db": f"{name}.db-000001-aa"}}] for name in names}


ALL = points("identity", "mail", "orders", "reports")


def test_the_plan() -> None:
    plan = build.build(DOCUMENT, pick_services(DOCUMENT), ALL, now=NOW, digest="d", forks=5)
    assert json.loads(json.dumps(plan)) == plan
    assert plan["order"] == plan["picked"] == ["identity", "mail", "orders", "gateway", "reports"]
    assert plan["islands"] == [["identity", "mail", "orders", "gateway"], ["reports"]]
    assert (plan["levels"], plan["bytes"], plan["production"], plan["catalog"], plan["dependants"]) == (3, 4000, True, "d", [])
    orders = plan["services"]["orders"]
    assert orders["waits_for"] == [{"service": "identity", "kind": "hard"}, {"service": "mail", "kind": "soft"}]
    assert (orders["island"], orders["level"], orders["position"], orders["host"]) == (0, 1, 2, "db1")
    assert orders["resolution"]["snapshots"] == {"db": "orders.db-000001-aa"}
    assert plan["forecast"]["seconds"] is None and "no measured times" in plan["forecast"]["reason"]
    assert plan["critical_path"]["by"] == "levels" and plan["critical_path"]["services"] in (["identity", "orders", "gateway"], ["mail", "orders", "gateway"])
    assert plan["warnings"] == ["orders.files is not in point r1: it stays as it is"]


def test_a_gate_waits_through_services_that_are_not_picked() -> None:
    plan = build.build(DOCUMENT, pick_services(DOCUMENT, "gateway,identity,mail"), ALL, now=NOW, dependants="stop")
    assert plan["services"]["gateway"]["waits_for"] == [{"service": "identity", "kind": "hard"}, {"service": "mail", "kind": "soft"}]
    assert plan["services"]["gateway"]["requires"] == [{"service": "orders", "kind": "hard", "picked": False}]
    assert plan["dependants"] == [{"service": "orders", "chain": ["orders", "identity"], "action": "stop"}]


def test_a_source_that_left_the_catalog_is_named() -> None:
    document = {**DOCUMENT, "services": {"mail": service(sources=("files",))}}
    plan = build.build(document, pick_services(document), ALL, now=NOW)
    assert plan["warnings"] == ["mail.files is not in point r1: it stays as it is", "mail.db is in point r1 but no longer in the catalog: it is not restored"]


def run(stage: float, rest: float, size: int = 1000) -> dict[str, Any]:
    return {"bytes": size, "phases": {"plan": 9, "stage": stage, "island": 99, "gate": 99, "cutover": rest / 2, "start": rest / 2, "verdict": 5}}


def test_forecast_is_the_median_of_what_was_measured() -> None:
    assert forecast.forecast_service("a", [run(1, 10), run(100, 10), run(3, 10)]) == {
        "seconds": 13.0, "low": 9.75, "high": 110.0, "stage_seconds": 3.0, "runs": 3, "reason": "median of 3 measured runs"}
    assert forecast.forecast_service("a", [run(4, 2, size=1000)], 2000)["seconds"] == 10.0  # twice the bytes, twice the staging
    assert forecast.forecast_service("a", [run(900, 0)] + [run(1, 1)] * 5)["runs"] == 5
    assert forecast.forecast_service("a", [{"bytes": 1, "phases": {}}]) == {
        "seconds": None, "low": None, "high": None, "stage_seconds": None, "runs": 0, "reason": "no measured restore or drill of a yet"}


def test_the_uncertainty_shrinks_with_the_runs_and_holds_what_was_measured() -> None:
    spans = []
    for runs in (1, 2, 5):
        found = forecast.forecast_service("a", [run(4, 6)] * runs)
        spans.append((found["low"], found["high"]))
    assert spans == [(5.0, 20.0), (6.667, 15.0), (8.333, 12.0)]
    found = forecast.forecast_service("a", [run(4, 6)] * 4 + [run(400, 6)])
    assert found["seconds"] == 10.0 and found["high"] == 406.0


def test_preflight_is_done_by_all_at_once() -> None:
    measured = {"bytes": 1000, "phases": {"preflight": 7, "stage": 2, "cutover": 1}}
    assert forecast.forecast_service("a", [measured], 2000)["stage_seconds"] == 11.0  # preflight does not grow with the bytes


def test_critical_path_by_history() -> None:
    history = {"identity": [run(2, 10)], "mail": [run(30, 1)], "orders": [run(5, 20)], "gateway": [run(0, 3)], "reports": [run(40, 1)]}
    plan = build.build(DOCUMENT, pick_services(DOCUMENT), ALL, now=NOW, history=history)
    # the first island begins when mail is staged (30), then identity 10, orders 20, gateway 3
    assert plan["critical_path"] == {"by": "history", "services": ["identity", "orders", "gateway"], "seconds": 63.0, "low": 31.5, "high": 126.0,
                                     "reason": "medians of measured runs; staging of all services at once, each island after its slowest stage"}
    assert plan["forecast"]["seconds"] == 63.0
    assert plan["services"]["orders"]["forecast"]["seconds"] == 25.0 and plan["services"]["orders"]["rto_at_risk"] is False
    assert plan["services"]["gateway"]["rto_at_risk"] is None
    without = build.build(DOCUMENT, pick_services(DOCUMENT), ALL, now=NOW, history={**history, "orders": []})
    assert without["critical_path"]["by"] == "levels" and without["critical_path"]["reason"] == "no measured times of orders: the longest chain, counted"


# -- outcome -----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("verdicts, verb, picked, code, message", [
    ({"a": "verified", "b": "restored"}, "restore", None, 0, "restore: 2 of 2 succeeded"),
    ({"a": "verified", "b": "degraded"}, "restore", None, 2, "restore: 1 of 2 succeeded; degraded: b"),
    ({"a": "degraded"}, "drill", None, 2, "drill: 0 of 1 succeeded; degraded: a"),
    ({"a": "verified", "b": "degraded", "c": "blocked"}, "restore", None, 3, "restore: 1 of 3 succeeded; degraded: b; blocked: c"),
    ({"a": "verified"}, "restore", ["a", "b"], 3, "restore: 1 of 2 succeeded; failed: b; without a verdict: b"),
    ({"a": "verified", "b": None}, "restore", ["a", "b"], 3, "restore: 1 of 2 succeeded; failed: b; without a verdict: b"),
    ({"a": "verified", "x": "verified"}, "restore", ["a"], 3, "restore: 1 of 1 succeeded; not picked, but with a verdict: x"),
    ({}, "restore", None, 3, "restore: no service was picked, so nothing was done: that is a failure"),
    ({"a": "verified"}, "restore", [], 3, "restore: no service was picked, so nothing was done: that is a failure"),
    ({"a": "Verified"}, "restore", None, 3, "restore: 0 of 1 succeeded; failed: a"),
    ({"a": "ok"}, "restore", None, 3, "restore: 0 of 1 succeeded; failed: a"),
    ({"a": ["verified"]}, "restore", None, 3, "restore: 0 of 1 succeeded; failed: a"),
    ({"a": {"verdict": "captured"}}, "backup", None, 0, "backup: 1 of 1 succeeded"),
    ({"a": "captured"}, "restore", None, 3, "restore: 0 of 1 succeeded; captured: a"),
    ({"a": "skipped"}, "backup", None, 3, "backup: 0 of 1 succeeded; skipped: a"),
    ({"a": "rolled_back"}, "rollback", None, 0, "rollback: 1 of 1 succeeded"),
    ({"a": "committed"}, "commit", None, 0, "commit: 1 of 1 succeeded"),
    ({"a": "restored"}, "verify", None, 3, "verify: 0 of 1 succeeded; restored: a"),
])
def test_outcome(verdicts: dict[str, object], verb: str, picked: list[str] | None, code: int, message: str) -> None:
    result = outcome.outcome(verdicts, verb, picked)
    assert (result["exit"], result["ok"], result["message"]) == (code, code == 0, message)


@given(st.dictionaries(st.sampled_from("abcdef"), st.one_of(st.sampled_from(VERDICTS), st.text(max_size=5), st.none(), st.integers())),
       st.sampled_from(sorted(SUCCESS)), st.lists(st.sampled_from("abcdef"), unique=True))
def test_no_input_turns_into_a_success_that_is_none(verdicts: dict[str, object], verb: str, picked: list[str]) -> None:
    result = outcome.outcome(verdicts, verb, picked)
    assert sum(result["counts"].values()) == len(picked) == result["picked"]
    assert result["ok"] == (bool(picked) and set(verdicts) <= set(picked) and all(verdicts.get(name) in SUCCESS[verb] for name in picked))
    assert set(result["verdicts"].values()) <= set(VERDICTS)


def test_an_unknown_verb_is_refused() -> None:
    with pytest.raises(ConfigError, match='unknown verb "restor": verdicts; did you mean "restore"\\?'):
        outcome.outcome({"a": "verified"}, "restor")
