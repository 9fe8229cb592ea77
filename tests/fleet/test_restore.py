# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore over ssh brings a whole fleet back in order; of one service it touches no other host; of what is whole it changes nothing."""

from __future__ import annotations

import os
import threading
from typing import Any

from ansible_collections.lifeboat.recovery.tests.ecosystem.fleet.fleet import Fleet
from ansible_collections.lifeboat.recovery.tests.lab import harbour, processes
from ansible_collections.lifeboat.recovery.tests.lab.hosts import Lab

from .conftest import HOSTS, SLOW

#: What the other hosts keep besides the data of services: ledgers and leases, configuration, what ssh left in homes.
PLACES = ("var/lib/lifeboat", "etc", "root", "home", "var/tmp")


def trees(lab: Lab, fleet: Fleet, *hosts: str) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Everything that a visitor might leave on these hosts, and every log-in and session of their sshd.

    Of databases only names: their servers write all the time.
    """
    found = {}
    for name in hosts:
        upper = lab.host(name).home / "upper"
        written: dict[str, Any] = {place: harbour.tree(upper / place) for place in PLACES}
        written["names"] = {str(path): sorted(os.listdir(path)) for path in (upper / "srv/fleet").glob("*")}
        written["data"] = {service: harbour.tree(upper / fleet.member(service).folder.lstrip("/") / "data") for service in fleet.on(name)}
        journal = (upper / "var/log/sshd.log").read_text(encoding="utf-8").splitlines()
        found[name] = (written, [line for line in journal if line.startswith(("Accepted ", "Starting session"))])
        assert found[name][1], "the journal of sshd tells nothing"
    return found


def test_all_comes_back_in_order_and_no_island_waits_for_another(fleet: Fleet, captured: dict[str, str]) -> None:
    """The slow service loads until a service of the other island was usable: were there any wait for it, neither would come."""
    fleet.hold(SLOW)
    fleet.destroy()
    gone = fleet.content()
    assert all(gone[name] != captured[name] for name, member in fleet.members.items() if member.kind != "stateless")
    first = next(iter(fleet.members))
    assert fleet.member(first).island != fleet.member(SLOW).island
    going = fleet.begin("restore")
    seen: list[str] = []

    def release() -> None:
        processes.wait_for(lambda: fleet.usable(first) or going.process.poll() is not None, f"{first} to be usable", 800)
        seen.append("usable" if fleet.usable(first) and not fleet.usable(SLOW) else f"{first} was not usable while {SLOW} loaded")
        fleet.release(SLOW)

    watch = threading.Thread(target=release)
    watch.start()
    outcome = going.wait()
    watch.join(60)
    assert seen == ["usable"]
    assert outcome.code == 0, outcome.text
    assert outcome.verdicts() == dict.fromkeys(fleet.members, "verified")
    assert fleet.content() == captured
    assert "deprecat" not in outcome.text.lower()
    # a service of the fleet refuses to start unless what it requires is usable, over the network; here is that nothing was tried twice
    ended = {mark["service"]: mark["mono"] for mark in going.marks() if mark["event"] == "verdict"}
    began = {mark["service"]: mark["mono"] for mark in going.marks() if (mark["phase"], mark["event"]) == ("cutover", "start")}
    assert all(began[name] > ended[need] for name, member in fleet.members.items() for need in member.requires if name in began)
    for name in fleet.members:
        sources = list(fleet.catalog["services"][name]["sources"])
        assert sorted(fleet.cutovers(name)) == sorted(sources)


def test_of_one_service_no_other_host_is_touched(lab: Lab, fleet: Fleet, captured: dict[str, str]) -> None:
    """Neither files nor ledgers of the other hosts change, and nobody even logs in there."""
    service = SLOW
    others = [name for name in HOSTS if name != fleet.member(service).host]
    neighbours = [name for name in fleet.on(fleet.member(service).host) if name != service]
    fleet.damage(service)
    before, ledgers = trees(lab, fleet, *others), {name: fleet.ledger(name) for name in fleet.members if name != service}
    outcome = fleet.restore("--limit", service)
    assert outcome.code == 0, outcome.text
    assert outcome.verdicts() == {service: "verified"}
    assert harbour.differences(before, trees(lab, fleet, *others)) == []
    assert {name: fleet.ledger(name) for name in ledgers} == ledgers
    assert fleet.content() == captured and all(fleet.usable(name) for name in neighbours)
