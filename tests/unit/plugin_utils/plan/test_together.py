# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What no host sees alone, and how findings of many services become few lines."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import errors, identity
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import judge, refusals, together
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import causes

GIB = 1 << 30


def host(name: str = "db1", boot: str = "boot-a", machine: str = "aa") -> dict[str, Any]:
    return {"name": name, "boot": boot, "id": machine}


def need(size: int, free: int = 10 * GIB, device: str = "8:1", **more: Any) -> dict[str, Any]:
    return {"source": "db", "device": device, "mount": "/srv", "path": "/srv/x", "bytes": size, "entries": 0, "free": free, "free_entries": None,
            "hint": "", **more}


def place(live: str, inode: str = "", **more: Any) -> dict[str, Any]:
    return {"source": "db", "live": live, "network": False, "inode": inode, "system": "", "captured": "", **more}


def answer(**more: Any) -> dict[str, Any]:
    return {"findings": [], "ok": True, "host": host(), "needs": [], "places": [], **more}


def kinds(found: together.Findings) -> dict[str, list[str]]:
    return {service: [one["kind"] for one in more] for service, more in found.items() if more}


# -- room ------------------------------------------------------------------------------------------------------------------


def test_copies_that_fit_alone_and_not_together_are_named_together_with_the_sum() -> None:
    found = together.look({"a": answer(needs=[need(6 * GIB)]), "b": answer(needs=[need(5 * GIB, free=9 * GIB)])}, {}, False)
    assert kinds(found) == {"a": ["space"], "b": ["space"]}
    assert "11264 MiB needed by 2 services together, 9216 MiB free" in found["a"][0]["what"] and found["a"][0]["where"] == "/srv on db1"
    assert not kinds(together.look({"a": answer(needs=[need(6 * GIB)]), "b": answer(needs=[need(3 * GIB)])}, {}, False))


def test_other_disks_and_other_machines_are_not_added_up_and_one_machine_with_two_names_is() -> None:
    big = [need(6 * GIB)]
    assert not kinds(together.look({"a": answer(needs=big), "b": answer(needs=[need(6 * GIB, device="8:2")])}, {}, False))
    assert not kinds(together.look({"a": answer(needs=big), "b": answer(needs=big, host=host("db2", "boot-b", "bb"))}, {}, False))
    assert kinds(together.look({"a": answer(needs=big), "b": answer(needs=big, host=host("alias"))}, {}, False))


def test_inodes_and_memory_are_added_up_too() -> None:
    inodes = [need(1, entries=60, free_entries=100)]
    memory = [need(6 * GIB, device="memory", mount="memory", path="")]
    for needs, word in ((inodes, "inodes: 120"), (memory, "memory")):
        found = together.look({"a": answer(needs=needs), "b": answer(needs=needs)}, {}, False)
        assert kinds(found) == {"a": ["space"], "b": ["space"]}
        assert word.split(":", maxsplit=1)[0] in found["a"][0]["what"] + found["a"][0]["where"]


def test_what_a_service_said_of_the_same_disk_is_said_once() -> None:
    own = {"level": "error", "kind": "space", "source": None, "cause": "8:1", "code": "storage", "what": "too little", "where": "/srv", "remedy": "free"}
    found = together.look({"a": answer(needs=[need(20 * GIB)], findings=[own]), "b": answer(needs=[need(1)])}, {}, False)
    assert [len(more) for more in found.values()] == [1, 1] and found["a"] == found["b"]


# -- whose data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other", "same"), [
    (place("/srv/a"), place("/srv/a"), "the same data"),
    (place("/srv/a", "7:42"), place("/mnt/a", "7:42"), "the same data"),
    (place("/srv/a"), place("/srv/a/b"), "inside the other"),
    (place("/srv/a"), place("/srv/ab"), ""),
    (place("db:5432, database x", network=True), place("db:5432, database x", network=True), "the same data"),
    (place("db:5432, database x", network=True), place("db:5432, database y", network=True), ""),
])
def test_two_services_in_one_place(one: dict[str, Any], other: dict[str, Any], same: str) -> None:
    found = together.look({"a": answer(places=[one]), "b": answer(places=[other])}, {}, False)
    assert kinds(found) == ({"a": ["identity"], "b": ["identity"]} if same else {})
    assert not same or (same in found["a"][0]["what"] and "a.db and b.db" in found["a"][0]["what"])


def test_one_path_on_two_hosts_is_two_places_and_a_server_on_the_network_is_one() -> None:
    there = host("db2", "boot-b", "bb")
    assert not kinds(together.look({"a": answer(places=[place("/srv/a", "7:42")]), "b": answer(places=[place("/srv/a", "7:42")], host=there)}, {}, False))
    shared = [place("db:5432, database x", network=True)]
    assert kinds(together.look({"a": answer(places=shared), "b": answer(places=shared, host=there)}, {}, False))


def test_two_sources_of_one_service_in_one_place_are_refused_too() -> None:
    found = together.look({"a": answer(places=[place("/srv/a"), place("/srv/a/b", source="files")])}, {}, False)
    assert kinds(found) == {"a": ["identity"]}


def test_a_cluster_in_place_that_is_another_services() -> None:
    answers = {"a": answer(places=[place("/srv/a", system="77", captured="55")]), "b": answer(places=[place("/srv/b", system="77", captured="77")])}
    found = together.look(answers, {}, False)
    assert kinds(found) == {"a": ["identity"]} and "that of service b" in found["a"][0]["what"]


def test_what_the_catalog_never_restores_into() -> None:
    raw = "0123456789abcdef0123456789abcdef"
    mine = answer(host=host("prod1", machine=identity.hashed(raw)), places=[place("/srv/prod/db", system="77")])
    for never in ({"hosts": ["prod1"]}, {"machines": [raw]}, {"systems": ["77"]}, {"paths": ["/srv/prod"]}):
        assert kinds(together.look({"a": mine}, never, False)) == {"a": ["identity"]}, never
    for never in ({"hosts": ["prod2"]}, {"machines": [raw[::-1]]}, {"systems": ["78"]}, {"paths": ["/srv/pro"]}):
        assert not kinds(together.look({"a": mine}, never, False)), never


# -- clocks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("skew", "timed", "level"), [
    ((-30.0, 30.0), True, ""),  # a slow answer is no skew
    ((1.0, 1.5), True, ""),
    ((5.0, 6.0), True, "warning"),
    ((61.0, 62.0), True, "error"),
    ((61.0, 62.0), False, "warning"),
    ((-62.0, -61.0), True, "error"),
    ((-2000.0, -901.0), False, "error"),
])
def test_clocks_are_judged_by_the_least_skew_that_explains_them(skew: tuple[float, float], timed: bool, level: str) -> None:
    found = together.look({"a": answer(clock={"began": 0, "ended": 0, "skew": list(skew)})}, {}, timed)["a"]
    assert [one["level"] for one in found] == ([level] if level else [])
    assert not found or "host db1" in found[0]["what"] and "controller" in found[0]["what"] and found[0]["kind"] == "clock"


def test_an_old_ansible_is_an_error_of_all() -> None:
    assert together.controller("2.18.9", "2.19.0")[0]["kind"] == "version" and not together.controller("2.19.0rc1", "2.19.0")
    assert not together.controller("2.20.1", "2.19.0")


# -- few lines -------------------------------------------------------------------------------------------------------------


def many(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [f"s{number:02d}" for number in range(count)]
    plan = {"order": names, "islands": [[name] for name in names], "target": "latest",
            "services": {name: {"host": "h", "waits_for": [], "needed_by": []} for name in names}}
    return plan, {name: answer(host=host(name, name, name)) for name in names}


def test_one_dead_repository_is_one_line_that_names_all_its_services() -> None:
    plan, answers = many(50)
    for name, one in answers.items():
        one["findings"] = [{"level": "error", "kind": "repository", "source": None, "cause": "s3://b", "code": "storage",
                            "what": "cannot read in the repository (6 attempts)", "where": f"s3://b/services/{name}", "remedy": "check it"}]
    answers["s03"]["findings"].append({"level": "warning", "kind": "port", "source": None, "cause": "", "code": "conflict", "what": "w", "where": "p",
                                       "remedy": "r"})
    services = {name: {"host": "h", "requires": [], "sources": {}} for name in plan["order"]}
    found = judge.judge(services, plan, answers, {}, "0", False)
    assert found["lines"] == [
        "error   all 50 services: cannot read in the repository (6 attempts): s3://b/services/s00 and 49 other places; check it", "warning s03: w: p; r"]
    assert found["stop"] and found["errors"] == 50 and {item["verdict"] for item in found["left_out"].values()} == {"failed"}
    told = {name: {"verdict": item["verdict"], "phase": "preflight", **item} for name, item in found["left_out"].items()}
    assert [len(group["names"]) for group in causes.failures(told)] == [50]


def test_causes_that_differ_are_lines_of_their_own_and_a_silent_host_is_one() -> None:
    plan, answers = many(6)
    for name in ("s00", "s01"):
        answers[name] = {"unreachable": True, "msg": "no route"}
    for name, what in (("s02", "not enough space: 5 MiB"), ("s03", "not enough space: 7 MiB"), ("s04", "not enough inodes: 5 MiB")):
        answers[name]["findings"] = [{"level": "error", "kind": "space", "source": "db", "cause": "d", "code": "storage", "what": what, "where": "/srv",
                                      "remedy": "r"}]
    services = {name: {"host": "h", "requires": [], "sources": {}} for name in plan["order"]}
    lines = judge.judge(services, plan, answers, {}, "0", False, own=together.controller("2.1", "2.19"))["lines"]
    assert [line.split(":", maxsplit=1)[0] for line in lines] == ["error   s00, s01", "error   all 6 services", "error   s02, s03", "error   s04.db"]


def test_who_could_not_be_planned_stops_the_run_after_the_others_were_looked_at() -> None:
    plan, answers = many(3)
    plan["order"] = ["s01", "s02"]
    told = errors.StorageError("no repository there", "s00: file:///b", "mount it")
    plan["stopping"] = {"s00": told.as_dict(), "s07": {**told.as_dict(), "where": "s07: file:///b"}}
    services = {name: {"host": "h", "requires": [], "sources": {}} for name in plan["services"]}
    found = judge.judge(services, plan, answers, {}, "0", False)
    assert found["stop"] and found["lines"] == ["error   s00, s07: no repository there: file:///b; mount it"]
    assert {name: item["verdict"] for name, item in found["left_out"].items()} == {"s01": "skipped", "s02": "skipped"}
    assert "preflight of s00 failed" in found["left_out"]["s01"]["message"] and found["message"].startswith("no repository there: s00, s07: file:///b")
    answers["s02"]["findings"] = [{"level": "error", "kind": "port", "source": None, "cause": "", "code": "conflict", "what": "w", "where": "p",
                                   "remedy": "r"}]
    found = judge.judge(services, plan, answers, {}, "0", False)
    assert found["lines"][1:] == ["error   s02: w: p; r"] and found["left_out"]["s02"]["verdict"] == "failed"


def test_refusals_with_one_cause_are_one_line() -> None:
    broken = {name: errors.StorageError("gone", f"{name}: file:///b", "mount it") for name in ("a", "b", "c", "d", "e")}
    broken["f"] = errors.StorageError("gone", "f: file:///c", "mount it")
    assert [str(error) for error in refusals.told_once(broken)] == ["gone: a, b, c and 2 more: file:///b; mount it", "gone: f: file:///c; mount it"]


def test_what_only_the_controller_found_is_kept_for_the_report() -> None:
    plan, answers = many(2)
    own = {"level": "warning", "kind": "port", "source": None, "cause": "", "code": "conflict", "what": "w", "where": "p", "remedy": "r"}
    for one in answers.values():
        one.update(host=host(), places=[place("/srv/a")], findings=[own])
    services = {name: {"host": "h", "requires": [], "sources": {}} for name in plan["order"]}
    found = judge.judge(services, plan, answers, {}, "0", False)
    assert {name: [one["kind"] for one in more] for name, more in found["findings"].items()} == {"s00": ["identity"], "s01": ["identity"]}
