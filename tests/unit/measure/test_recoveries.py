# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mean time to recover, trend and rates, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import recoveries


def run(number: int, verdict: str = "verified", raw: float | None = None, net: float | None = None, failure: str = "", verb: str = "restore",
        **more: Any) -> dict[str, Any]:
    recovery = {"raw": raw, "net": raw if net is None else net, "limit": 100, "met": None if raw is None else raw <= 100, "noop": more.pop("noop", False)}
    return {
        "run": f"r{number}", "verb": verb, "began": f"2030-01-{number:02d}T00:00:00Z", "verdict": verdict,
        "measured": {"verdict": verdict, "recovery": recovery, "failure": {"type": failure, "phase": "stage"} if failure else None, **more},
    }


def stats(*runs: dict[str, Any]) -> dict[str, Any]:
    return recoveries.of_service(recoveries.outcomes(runs))


def test_times_are_mean_median_and_p90() -> None:
    told = recoveries.times([10, 20, 30, 40, 100])
    assert told == {"count": 5, "mean": 40, "median": 30, "p90": 76, "longest": 100}
    assert recoveries.times([7]) == {"count": 1, "mean": 7, "median": 7, "p90": 7, "longest": 7} and recoveries.times([]) is None


@pytest.mark.parametrize(("values", "wanted"), [
    ([], None), ([5.0], None), ([5.0, 3.0], {"last": 3, "previous": 5, "change": -2, "slope": -2}),
    ([10.0, 12.0, 14.0, 500.0, 18.0, 20.0], {"last": 20, "previous": 18, "change": 2, "slope": 2}),
])
def test_a_trend_is_not_turned_around_by_one_odd_recovery(values: list[float], wanted: dict[str, float] | None) -> None:
    assert recoveries.trend(values) == wanted


def test_what_counts_as_a_recovery_and_what_as_a_failure() -> None:
    told = stats(
        run(1, raw=50), run(2, "failed", failure="no_space"), run(3, "blocked", failure="blocked"), run(4, raw=150, net=90),
        run(5, raw=3, noop=True), run(6, "skipped"), run(7, "failed", failure="no_space"), run(8, "degraded", raw=40), run(9, raw=1, verb="backup"),
        {"run": "r10", "verb": "restore", "began": "2030-01-10T00:00:00Z", "verdict": None, "measured": None},
    )
    assert told["mttr"] == {"count": 3, "mean": 80, "median": 50, "p90": 130, "longest": 150} and told["net"]["mean"] == 60
    assert (told["runs"], told["succeeded"], told["success_rate"]) == (8, 4, 0.5)
    assert told["failures"] == {"no_space": 2, "blocked": 1, "interrupted": 1} and told["rto"] == {"met": 2, "missed": 1}
    assert told["trend"]["last"] == 40 and told["trend"]["previous"] == 150 and told["last"]["run"] == "r8"
    assert [one["run"] for one in told["recoveries"]] == ["r1", "r4", "r8"]


def test_a_proof_that_came_with_the_next_attempt_is_the_recovery() -> None:
    told = stats(
        run(1, "failed", failure="unhealthy"), run(2, raw=30, noop=True, chain=["r1"]), run(3, raw=2, noop=True, chain=["r1"]), run(4, raw=1, noop=True),
    )
    assert [one["run"] for one in told["recoveries"]] == ["r2"] and told["mttr"]["mean"] == 30


def test_a_domain_is_back_with_its_last_service_and_not_while_one_failed() -> None:
    members = {
        "orders": recoveries.outcomes([run(1, raw=50), run(2, "failed", failure="unhealthy"), run(3, raw=300, net=80), run(4, raw=60)]),
        "payments": recoveries.outcomes([run(1, raw=70), run(2, raw=20), run(3, raw=10, noop=True)]),
    }
    told = recoveries.of_group(members)
    assert told["mttr"]["count"] == 3 and told["mttr"]["mean"] == pytest.approx((70 + 300 + 60) / 3, abs=0.001)
    assert told["rto"] == {"met": 4, "missed": 1} and told["failures"] == {"unhealthy": 1} and told["services"] == ["orders", "payments"]
    assert (told["runs"], told["succeeded"]) == (7, 6)


def test_forecasts_are_held_against_the_work_and_not_the_waiting() -> None:
    phases = {"gate": {"seconds": 100.0, "waited_for": "x"}, "stage": {"seconds": 8.0, "waited_for": None}, "start": {"seconds": 2.0}}
    told = stats(run(1, raw=110, phases=phases, forecast=11.0), run(2, raw=110, phases=phases, forecast=7.0), run(3, raw=9))
    assert told["forecast"] == {"count": 2, "median_error": 0.2} and told["phases"] == {"gate": 100, "stage": 8, "start": 2}


def test_a_report_has_services_domains_tiers_and_whom_it_could_not_ask() -> None:
    facts = {"orders": {"domain": "commerce", "tier": "gold", "rto": 100}, "payments": {"domain": "commerce", "tier": None, "rto": None}}
    told = recoveries.report({"orders": [run(1, raw=50)], "payments": []}, facts, "shop", "2030-02-01T00:00:00Z", silent={"stock": "its host does not answer"})
    assert set(told["services"]) == {"orders", "payments"} and set(told["domains"]) == {"commerce"} and set(told["tiers"]) == {"gold"}
    assert told["services"]["payments"]["mttr"] is None and told["services"]["payments"]["success_rate"] is None
    assert told["services"]["orders"]["limit"] == 100 and told["services"]["orders"]["rto"] == {"met": 1, "missed": 0}
    assert told["domains"]["commerce"]["mttr"]["count"] == 1 == told["all"]["mttr"]["count"] and told["silent"] == {"stock": "its host does not answer"}


@pytest.mark.parametrize("junk", [
    {}, {"verb": "restore"}, {"verb": "restore", "measured": 5}, {"verb": "restore", "measured": {"recovery": [], "phases": {"a": 1}, "failure": "x"}},
    {"verb": "restore", "verdict": "verified", "measured": {"seconds": True, "phases": {"a": {"seconds": -1}}}},
])
def test_old_and_odd_entries_are_passed_over(junk: dict[str, Any]) -> None:
    assert stats(junk)["mttr"] is None
