# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that cannot be reached, from the beginning or from some moment on: what needs it is blocked, everything else is finished, and the same command
goes on when the host is back, doing nothing twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.ecosystem.fleet.fleet import Fleet
from ansible_collections.lifeboat.recovery.tests.ecosystem.fleet.shape import shape
from ansible_collections.lifeboat.recovery.tests.lab.hosts import Lab

from .conftest import HOSTS

#: A service on the host that goes, one that builds on it, one of another island, and the host.
STRUCK, ABOVE, APART, HOST = "domain-02", "flow-03", "store-04", "app1"
#: What it builds on, on other hosts.
BELOW = ("store-00", "core-01")
PARTIAL = ("-e", "lifeboat_partial=true")

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    members = shape(HOSTS, 5, 4)
    members[2].kind = "files"
    with Fleet(lab, HOSTS, members=members, ordinary=("app1",)) as made:
        made.bootstrap()
        made.backup()
        yield made


@pytest.fixture(scope="module")
def captured(fleet: Fleet) -> dict[str, str]:
    return fleet.content()


def finish(fleet: Fleet, captured: dict[str, str], once: dict[str, list[str]], *arguments: str) -> None:
    """The same command again: everything verified, what is there is what was captured, and every source was cut over once since ``once``."""
    outcome = fleet.restore(*arguments)
    assert outcome.code == 0, outcome.text
    assert outcome.verdicts() == dict.fromkeys(fleet.members, "verified")
    assert fleet.content() == captured
    for name in fleet.members:
        new = fleet.cutovers(name)[len(once[name]):]
        assert sorted(new) == sorted(fleet.catalog["services"][name]["sources"]), f"{name}: {new}"


def test_a_host_that_is_cut_off_before(lab: Lab, fleet: Fleet, captured: dict[str, str]) -> None:
    fleet.destroy()
    once = {name: fleet.cutovers(name) for name in fleet.members}
    lab.cut(HOST)
    try:
        refused = fleet.restore()
        assert refused.code != 0, refused.text
        assert refused.verdicts() == {**dict.fromkeys((*BELOW, APART), "skipped"), STRUCK: "failed", ABOVE: "blocked"}, refused.text
        assert {name: fleet.cutovers(name) for name in fleet.members} == once, "something was touched"
        assert any(HOST in line or STRUCK in line for line in refused.lines()[-40:]), refused.text
        partial = fleet.restore(*PARTIAL)
    finally:
        lab.heal()
    assert partial.code != 0
    assert partial.verdicts() == {**dict.fromkeys((*BELOW, APART), "verified"), STRUCK: "failed", ABOVE: "blocked"}, partial.text
    finish(fleet, captured, once)


def cut(lab: Lab) -> None:
    lab.cut(HOST)


def hang(lab: Lab) -> None:
    lab.hang(HOST)


@pytest.mark.parametrize("strike", [cut, hang])
@pytest.mark.parametrize("phase", ["stage", "cutover", "health"])
def test_a_host_that_goes_in_the_middle(lab: Lab, fleet: Fleet, captured: dict[str, str], phase: str, strike: Callable[[Lab], None]) -> None:
    fleet.destroy()
    once = {name: fleet.cutovers(name) for name in fleet.members}
    going = fleet.begin("restore")
    try:
        going.await_phase(STRUCK, phase)
        strike(lab)
        outcome = going.wait()
    finally:
        lab.heal()
        lab.resume(HOST)
    # an island goes on when all of it is staged; another island has nothing to do with it
    blocked = [*BELOW, ABOVE] if phase == "stage" else [ABOVE]
    assert outcome.code != 0
    assert outcome.verdicts() == {**dict.fromkeys(fleet.members, "verified"), **dict.fromkeys(blocked, "blocked"), STRUCK: "failed"}, outcome.text
    said = outcome.message(STRUCK)
    assert re.fullmatch(rf"the host does not answer \(.+\): {HOST}", said), said
    assert STRUCK in outcome.message(ABOVE)
    resume = [line for line in outcome.lines() if line.strip().startswith("go on with:")]
    assert resume and f"restore -i {fleet.inventory}" in resume[-1], outcome.text[-4000:]
    assert f"blocks: {', '.join(blocked)}" in [line.strip() for line in outcome.lines()], outcome.text[-4000:]
    finish(fleet, captured, once)


def test_two_forks_for_many_services(fleet: Fleet, captured: dict[str, str]) -> None:
    fleet.destroy()
    once = {name: fleet.cutovers(name) for name in fleet.members}
    outcome = fleet.restore(forks=2)
    assert outcome.code == 0, outcome.text
    assert outcome.verdicts() == dict.fromkeys(fleet.members, "verified")
    finish(fleet, captured, once)
