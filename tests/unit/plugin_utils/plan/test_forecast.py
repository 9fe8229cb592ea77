# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forecast against restores that another clock steps through: error, coverage, what decides, what forks and faster steps change."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import history, numbers
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.forecast import Inputs, forecast, link_rates
from ansible_collections.lifeboat.recovery.tests.doubles.restore_clock import MIB, Attempt, Ecosystem, Service

FAST, SLOW = 200.0 * MIB, 8.0 * MIB
#: Ten restores after three alike: (times the data, bytes a second).
TEN = [(1, FAST), (2, FAST), (1, SLOW), (2, SLOW), (1, FAST), (1.5, FAST), (1, 2 * SLOW), (2, FAST), (1, FAST), (0.5, SLOW)]


def ecosystem(seed: int, **more: Any) -> Ecosystem:
    return Ecosystem({
        "identity": Service(size=40 * MIB, phases={"start": 4, "health": 1}),
        "mail": Service(phases={"start": 0.5}),
        "stock": Service(size=160 * MIB, phases={"start": 2, "invariants": 3}),
        "orders": Service(("identity", "stock"), size=80 * MIB, phases={"start": 6, "cutover": 1.5}),
        "search": Service(("stock",), phases={"start": 9}),
        "gateway": Service(("orders", "mail"), phases={"start": 1, "health": 2}),
    }, seed, **more)


def inputs(attempt: Attempt, past: list[Any], **more: Any) -> Inputs:
    services = attempt.world.document()
    order = list(services)
    sizes = {name: int(one["bytes"]) for name, one in attempt.estimates.items()}
    return Inputs(services, order, [order], sizes, past, estimates=attempt.estimates, elapsed=attempt.elapsed, **{"forks": len(order), **more})


def campaign(seed: int, blind: bool = False, **more: Any) -> tuple[list[float], int]:
    """Three runs, then TEN; (errors, how many lay inside). blind: preflight does not tell how fast the link is."""
    world, past = ecosystem(seed, **more), []
    errors, inside = [], 0
    for number, (scale, link) in enumerate([(1.0, FAST)] * 3 + TEN):
        attempt = world.prepare(scale, link)
        given = inputs(attempt, past)
        if blind:
            usual = sum(one["bytes"] for one in attempt.estimates.values()) * (1 / link - 1 / FAST)
            untold = {name: {**one, "link": None, "seconds": 0} for name, one in attempt.estimates.items()}
            given = replace(given, estimates=untold, elapsed=attempt.elapsed - usual)
        told = forecast(given)["forecast"]
        run = attempt.carry_out(f"{number:04d}", told=told)
        past.append(run)
        if number >= 3:
            errors.append(abs(told["seconds"] - run["seconds"]) / run["seconds"])
            inside += told["low"] <= run["seconds"] <= told["high"]
    return errors, inside


def test_ten_forecasts_among_them_twice_the_data_and_a_slowed_link() -> None:
    outcomes = [campaign(seed) for seed in range(6)]
    assert max(median(errors) for errors, _inside in outcomes) <= 0.1, outcomes  # a fifth is promised
    assert min(inside for _errors, inside in outcomes) >= 7, outcomes


def test_the_interval_narrows_with_good_forecasts_and_widens_with_bad_ones() -> None:
    def factor(residuals: list[float], runs: int, distance: float = 0.0) -> float:
        return round(math.exp(numbers.spread(residuals, runs, distance)), 2)

    assert [factor([0.03] * count, count + 1) for count in (0, 1, 2, 5, 10)] == [1.7, 1.33, 1.23, 1.14, 1.1]
    assert factor([0.4] * 5, 6) > 1.7 and factor([0.03] * 5, 6, math.log(4)) > 1.5
    assert numbers.t90(20) > numbers.t90(21) > numbers.t90(10**6) > 1.28
    # half of the values of a normal distribution with the right spread lie inside, and not all: 80 % are promised
    source = random.Random(1)
    drawn = [source.gauss(0, 0.1) for _number in range(2000)]
    width = numbers.spread(drawn[:30], 30)
    assert 0.74 < sum(abs(value) <= width for value in drawn[30:]) / len(drawn[30:]) < 0.9


def test_without_the_measured_link_the_slow_ones_are_missed() -> None:
    slow = [number for number, (_scale, link) in enumerate(TEN) if link == SLOW][:2]
    knowing, ignorant = campaign(1)[0], campaign(1, blind=True)[0]
    assert max(knowing[number] for number in slow) < 0.15 < 0.3 < min(ignorant[number] for number in slow), (knowing, ignorant)


def test_a_busy_machine_is_noticed_in_preflight() -> None:
    noisy = [median(campaign(seed, busy=0.4)[0]) for seed in range(3)]
    deaf = []
    for seed in range(3):
        world, past = ecosystem(seed, busy=0.4), []
        for number in range(8):
            attempt = world.prepare()
            told = forecast(replace(inputs(attempt, [{**run, "forecast": None} for run in past]), elapsed=None))["forecast"]
            past.append(attempt.carry_out(f"{number:04d}", told=told))
            if number >= 3:
                deaf.append(abs(told["seconds"] / past[-1]["seconds"] - 1))
    assert max(noisy) <= 0.1 < median(deaf), (noisy, deaf)


def quiet(**more: Any) -> tuple[Ecosystem, list[Any]]:
    """Without noise, with three runs behind it."""
    world, past = ecosystem(0, noise=0.0, busy=0.0, **more), []
    for number in range(3):
        attempt = world.prepare()
        past.append(attempt.carry_out(f"{number:04d}", told=forecast(inputs(attempt, past))["forecast"]))
    return world, past


def test_what_forks_cost_is_what_a_run_with_few_forks_takes_longer() -> None:
    world, past = quiet()
    attempt = world.prepare()
    whole = attempt.carry_out("a")["seconds"]
    for forks in (1, 2, 4):
        found = forecast(inputs(attempt, past, forks=forks))["forecast"]
        took = attempt.carry_out("b", forks=forks)["seconds"]
        assert found["seconds"] == pytest.approx(took, rel=0.06), forks
        assert found["forks"] == {"given": forks, "services": 6, "costs": pytest.approx(took - whole, abs=0.06 * took)}
    assert forecast(inputs(attempt, past, forks=6))["forecast"]["forks"]["costs"] == 0


def test_the_critical_path_and_what_a_faster_step_gains() -> None:
    world, past = quiet()
    attempt = world.prepare()
    found = forecast(inputs(attempt, past))
    path = found["critical_path"]
    assert path["by"] == "history" and path["services"] == ["stock", "orders", "gateway"]
    assert path["steps"][0]["phase"] == "preflight" and path["steps"][1] == {
        "service": "stock", "phase": "stage", "seconds": found["services"]["stock"]["forecast"]["stage_seconds"]}
    assert sum(step["seconds"] for step in path["steps"]) == pytest.approx(path["seconds"], abs=0.01) == found["forecast"]["seconds"]
    best = found["forecast"]["advice"][0]
    assert (best["service"], best["phase"]) == ("orders", "start")
    assert 2 < best["gain"] < 3 < 5 < best["seconds"] < 7  # then search decides, so not all of it is gained
    # carried out with that start taking no time it is as much faster as was promised
    world.services["orders"].phases["start"] = 0.0
    assert path["seconds"] - attempt.carry_out("c")["seconds"] == pytest.approx(best["gain"], abs=0.6)


def test_a_service_that_was_never_measured_is_like_the_others_and_said_to_be() -> None:
    world, past = quiet()
    for run in past:
        del run["services"]["identity"]
    found = forecast(inputs(world.prepare(), past))
    assert "never measured and taken from others: identity" in found["forecast"]["reason"]
    new, old = (found["services"][name]["forecast"] for name in ("identity", "orders"))
    assert new["runs"] == 0 and found["forecast"]["runs"] == 0 and old["runs"] == 3
    wide, narrow = (one["phases"]["stage"]["high"] / one["phases"]["stage"]["seconds"] for one in (new, old))
    assert new["seconds"] > 0 and wide > narrow


def test_a_run_that_only_moved_data_tells_nothing_of_a_recovery() -> None:
    world, past = quiet()
    given = inputs(world.prepare(1.0, FAST), past)
    given = replace(given, services={name: {**one, "runtime": {"start": ["/bin/x"]}} for name, one in given.services.items()})
    assert forecast(given)["forecast"]["seconds"] is not None
    moved = [{**run, "services": {name: {**one, "phases": {phase: seconds for phase, seconds in one["phases"].items() if phase in ("stage", "cutover")}}
                                  for name, one in run["services"].items()}} for run in past]
    assert forecast(replace(given, past=moved))["forecast"]["seconds"] is None, "how long they take to come up was never measured"


def test_what_is_left_running_costs_a_look_only() -> None:
    world, past = quiet()
    attempt = world.prepare()
    still = {name: {**one, "reused": one["bytes"], "written": 0, "fetched": 0} for name, one in attempt.estimates.items()}
    found = forecast(replace(inputs(attempt, past), estimates=still, untouched=frozenset(still)))
    one = found["services"]["orders"]["forecast"]
    assert one["reason"] == "nothing is left to do" and set(one["phases"]) == {"stage", "island", "verdict"}
    assert attempt.elapsed < found["forecast"]["seconds"] < attempt.elapsed + 8


def test_links_of_one_host_are_added_where_they_were_read_at_the_same_time() -> None:
    def link(size: float, seconds: float, began: float, ended: float) -> dict[str, Any]:
        return {"link": {"bytes": size, "seconds": seconds, "began": began, "ended": ended}}

    hosts = {"a": "db1", "b": "db1", "c": "db2", "d": "db2", "e": "db3"}
    together = {"a": link(100, 10, 0, 10), "b": link(100, 10, 0, 10)}
    found = link_rates({**together, "c": link(100, 10, 0, 10), "d": link(300, 10, 10, 20), "e": {"link": None}}, hosts)
    assert found == {"db1": 20.0, "db2": 20.0}


def test_the_accuracy_of_earlier_forecasts_is_told_and_kept() -> None:
    _world, past = quiet()
    found = forecast(inputs(ecosystem(0).prepare(), past))["forecast"]["accuracy"]
    assert found["runs"] == 2 and found["median_error"] < 0.1 and found["inside"] == 2
    assert history.by_service(past)["orders"][0]["run"] == "0000"
