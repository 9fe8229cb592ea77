# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at every moment of a restore over several hosts: no false success, nothing twice, and it ends verified or, on demand, rolled back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.ecosystem.fleet.shape import Member
from ansible_collections.lifeboat.recovery.tests.lab import chaos
from ansible_collections.lifeboat.recovery.tests.lab.hosts import Lab

#: An engine killed after a swap, then a rollback whose controller is killed; and, when there is time, a controller killed at a cutover.
SHORT = (5644, pytest.param(165, marks=pytest.mark.soak))


@pytest.fixture(scope="module")
def fleet() -> Iterator[chaos.ChaosFleet]:
    """As small as it can be: what costs is the number of services."""
    below = Member("store-00", "files", "db1", 0, 0, 8000, folder=f"{chaos.DATA}/store-00")
    above = Member("core-01", "files", "db2", 1, 0, 8001, ["store-00"], folder=f"{chaos.DATA}/core-01")
    with Lab() as lab, chaos.ChaosFleet(lab, ("db1", "db2"), members=[below, above]) as made:
        made.bootstrap()
        made.backup()
        yield made


@pytest.fixture(scope="module")
def walk(fleet: chaos.ChaosFleet) -> chaos.Walk:
    return chaos.Walk(fleet)


@pytest.mark.parametrize("seed", SHORT)
def test_a_fault_and_what_an_operator_does_then(walk: chaos.Walk, seed: int) -> None:
    print(walk.round(seed))


@pytest.mark.soak
def test_two_operators_at_once(fleet: chaos.ChaosFleet, walk: chaos.Walk) -> None:
    """From two machines: the second is told who works there, and nothing that the first does is disturbed or done twice."""
    fleet.alter("operators")
    once = {name: len(fleet.cutovers(name)) for name in walk.data}
    first = fleet.begin("restore", controller="harbourmaster")
    first.await_phase("store-00", "stage")
    second = fleet.begin("restore", controller="pilot").wait()
    outcome = first.wait()
    assert second.code != 0 and "is in use by root on harbourmaster" in second.text, second.text
    assert outcome.code == 0 and set(outcome.verdicts().values()) == {"verified"}, outcome.text
    assert fleet.content() == walk.captured
    assert {name: len(fleet.cutovers(name)) - once[name] for name in walk.data} == dict.fromkeys(walk.data, 1)


@pytest.mark.soak
def test_the_long_walk() -> None:
    """CHAOS_SEED=17 CHAOS_ROUNDS=1 goes on with one round of it."""
    with Lab() as lab, chaos.ChaosFleet(lab, ("db1", "db2", "app1"), services=6, depth=3, ordinary=("app1",)) as made:
        made.bootstrap()
        made.backup()
        walk = chaos.Walk(made)
        failed = []
        for seed in chaos.seeds():
            try:
                print(walk.round(seed), flush=True)
            except AssertionError as error:
                print(f"FAILED {error}", flush=True)
                failed.append(seed)
                break
        assert not failed
