# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twenty-four services six deep over three hosts, with their snapshots in an S3 store that every host reaches over the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.tests.ecosystem.fleet.fleet import Fleet
from ansible_collections.lifeboat.recovery.tests.lab import harbour
from ansible_collections.lifeboat.recovery.tests.lab.hosts import Lab

from .conftest import HOSTS
from .test_restore import trees

pytestmark = pytest.mark.soak

#: docs/runs.md, "What a host keeps of the modules".
CODE = ".cache/lifeboat/code/"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    with Fleet(lab, HOSTS, services=24, depth=6, repository="s3", ordinary=("app1",)) as made:
        made.bootstrap()
        made.backup()
        yield made


def test_everything_is_lost_and_comes_back_and_a_second_run_changes_nothing(fleet: Fleet) -> None:
    captured = fleet.content()
    assert len(fleet.members) == 24 and max(member.layer for member in fleet.members.values()) == 5
    fleet.destroy()
    outcome = fleet.restore()
    assert outcome.code == 0, outcome.text
    assert outcome.verdicts() == dict.fromkeys(fleet.members, "verified") and fleet.content() == captured
    assert "deprecat" not in outcome.text.lower()
    ledgers = {name: fleet.cutovers(name) for name in fleet.members}
    again = fleet.restore()
    assert again.code == 0 and set(again.verdicts().values()) == {"verified"}, again.text
    assert set(again.changed()) >= set(fleet.members) and not any(again.changed().values()), again.changed()
    assert {name: fleet.cutovers(name) for name in fleet.members} == ledgers


def test_one_service_with_neighbours_everywhere(lab: Lab, fleet: Fleet) -> None:
    """Whether what it requires is well, and whether what requires it runs, is asked on their hosts; nothing but the code that asks is left there."""
    captured = fleet.content()
    service = next(name for name, member in fleet.members.items() if member.layer == 3 and member.kind == "files")
    host = fleet.member(service).host
    assert {fleet.member(name).host for name in fleet.members[service].requires} - {host}
    others = [name for name in HOSTS if name != host]
    fleet.damage(service)

    def left() -> dict[str, Any]:
        found = {name: written for name, (written, _log) in trees(lab, fleet, *others).items()}
        for written in found.values():
            written["root"] = {path: what for path, what in written["root"].items() if not path.startswith(CODE)}
        return found

    before = left()
    ledgers = {name: fleet.ledger(name) for name in fleet.members if name != service}
    outcome = fleet.restore("--limit", service, "-e", "lifeboat_dependants=ignore")
    assert outcome.code == 0, outcome.text
    assert outcome.verdicts() == {service: "verified"}
    assert harbour.differences(before, left()) == []
    assert {name: fleet.ledger(name) for name in ledgers} == ledgers and fleet.content() == captured


def test_a_host_is_lost_with_its_disk(lab: Lab, fleet: Fleet) -> None:
    """A new machine with the keys of the old one: its services come back there, and nothing else is restored a second time."""
    captured = fleet.content()
    lost = HOSTS[0]
    kept = {name: fleet.cutovers(name) for name in fleet.members if fleet.member(name).host != lost}
    lab.kill(lost)
    lab.wipe(lost)
    lab.up(lost)
    fleet.equip(lost)
    fleet.bootstrap()
    outcome = fleet.restore()
    assert outcome.code == 0, outcome.text
    assert set(outcome.verdicts().values()) == {"verified"} and fleet.content() == captured
    assert {name: fleet.cutovers(name) for name in kept} == kept
    assert all(fleet.cutovers(name) for name in fleet.on(lost) if fleet.catalog["services"][name]["sources"])
