# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of a cluster: the same entry from another server's place, who is the primary, and when nobody can be relied on."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.filter import cluster_choice, cluster_short
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, ConflictError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members as members

ENTRY: dict[str, Any] = {
    "host": "db1",
    "sources": {"db": {"type": "postgresql", "data_directory": "/srv/pg", "port": 5432, "address": "127.0.0.1", "server": {"start": {"unit": "pg"}},
                       "conninfo": "host=10.0.0.1 user=replicator passfile=/etc/replication"}},
    "members": {"db": [{"host": "db2", "data_directory": "/data/pg", "port": 5433, "conninfo": "host=10.0.0.2"}, {"host": "db3", "replication_slot": "three"}]},
}


def said(host: str, role: str | None, timeline: int = 1, system: str = "7", **more: Any) -> dict[str, Any]:
    return {"host": host, "role": role, "timeline": timeline, "system_identifier": system, "position": "0/3000000", **more}


def test_the_entry_from_another_place_and_back() -> None:
    moved = members.entry_at(ENTRY, "db2")
    assert {key: moved["sources"]["db"][key] for key in ("host", "data_directory", "port", "server")} == {
        "host": "db2", "data_directory": "/data/pg", "port": 5433, "server": {"start": {"unit": "pg"}}}
    assert moved["host"] == "db1", "the service runs where it ran"
    assert members.hosts_of(moved) == ["db2", "db1", "db3"] and members.hosts_of(ENTRY) == ["db1", "db2", "db3"]
    third = members.entry_at(moved, "db3")["sources"]["db"]
    assert (third["data_directory"], third["port"]) == ("/srv/pg", 5432), "what a member does not say is as the catalog has it, wherever the entry was moved to"
    back = members.entry_at(moved, "db1")
    for name in members.hosts_of(ENTRY):
        one, other = members.entry_at(ENTRY, name)["sources"]["db"], members.entry_at(back, name)["sources"]["db"]
        assert {key: one[key] for key in ("data_directory", "port", "server")} == {key: other[key] for key in ("data_directory", "port", "server")}
    with pytest.raises(ConfigError, match="no member of the cluster"):
        members.entry_at(ENTRY, "db9")
    assert ENTRY["members"]["db"][0]["host"] == "db2", "the entry itself is left alone"


def test_the_way_of_a_standby_to_its_primary_holds_no_password_and_verifies() -> None:
    way = members.way_between(ENTRY, "db1", "db2")
    assert way["slot"] == "lifeboat_standby_db2" and members.way_between(ENTRY, "db1", "db3")["slot"] == "three"
    assert way["conninfo"] == {"host": "10.0.0.1", "user": "replicator", "passfile": "/etc/replication", "port": "5432", "application_name": "db2",
                               "sslmode": "verify-full"}
    other = members.way_between(members.entry_at(ENTRY, "db2"), "db2", "db1")["conninfo"]
    assert (other["host"], other["port"], other["user"], other["application_name"]) == ("10.0.0.2", "5433", "replicator", "db1")
    assert members.way_between(ENTRY, "db3", "db1")["conninfo"]["host"] == "db3", "without a word of its own it is reached by its name"


@pytest.mark.parametrize("text, words", [
    ("host=a password=b", "holds a password"), ("host=a hots=b", "unknown parameter 'hots'"), ("host", "cannot be read"), ("host='a", "cannot be read"),
])
def test_a_conninfo_that_cannot_be_used(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        members.parse_conninfo(text)


def test_a_conninfo_survives_its_quotes() -> None:
    parameters = {"host": "/run/pg sql", "application_name": "it's \\ here", "user": "a-b"}
    assert members.parse_conninfo(members.format_conninfo(parameters)) == parameters


def test_two_servers_that_take_writes_are_both_named() -> None:
    answers = [said("db1", "primary"), said("db2", "primary", 2), said("db3", "standby", receiving="streaming")]
    with pytest.raises(ConflictError) as refused:
        members.choose(ENTRY, answers)
    assert "db1 (primary on timeline 1" in str(refused.value) and "db2 (primary on timeline 2" in str(refused.value) and "split brain" in str(refused.value)


def test_servers_of_different_clusters_are_refused() -> None:
    with pytest.raises(ConflictError, match="different clusters: db1 is 7, db2 is 8"):
        members.choose(ENTRY, [said("db1", "primary"), said("db2", "standby", system="8")])


def test_what_is_captured_and_from_where() -> None:
    standby = {**ENTRY, "sources": {"db": {**ENTRY["sources"]["db"], "capture_from": "standby"}}}
    answers = [said("db1", "down"), said("db2", "primary", 2), said("db3", "standby", 2, receiving="streaming")]
    assert members.choose(ENTRY, answers) == ("db2", ["db1 is down"])
    assert members.choose(standby, answers)[0] == "db3"
    stale = [*answers[:2], said("db3", "standby", 1, receiving="streaming")]
    assert members.choose(standby, stale) == ("db2", ["db1 is down", "no standby streams: captured from the primary db2"])
    with pytest.raises(ConflictError, match="no member of the cluster is a primary: db1: down, db2: standby"):
        members.choose(ENTRY, [said("db1", "down"), said("db2", "standby")])


def test_the_choice_of_a_restore() -> None:
    def choice(*answers: dict[str, Any], **options: Any) -> dict[str, Any]:
        return cluster_choice.cluster_choice([{**answer, "item": answer["host"]} for answer in answers], ENTRY, **options)

    failed_over = [said("db1", "down"), said("db2", "primary", 2), {"host": "db3", "unreachable": True, "msg": "no route"}]
    found = choice(*failed_over, purpose="restore")
    assert (found["host"], found["others"], found["silent"]) == ("db2", ["db1", "db3"], ["db3"]) and found["entry"]["sources"]["db"]["port"] == 5433
    assert choice(*failed_over, purpose="restore", primary="db1")["host"] == "db1"
    nobody = [said("db1", "down"), said("db2", "standby"), said("db3", "down")]
    assert choice(*nobody, purpose="restore")["host"] == "db1", "where all is lost, the one that the catalog names"
    with pytest.raises(Exception, match="no member of the cluster is a primary"):
        choice(*nobody, purpose="follow")
    with pytest.raises(Exception, match="split brain"):
        choice(said("db1", "primary"), said("db2", "primary"), purpose="restore", primary="db1")


def test_who_only_looks_is_refused_nothing() -> None:
    def look(*answers: dict[str, Any]) -> tuple[str, list[str]]:
        found = cluster_choice.cluster_choice([{**answer, "item": answer["host"]} for answer in answers], ENTRY, purpose="look")
        return found["host"], found["warnings"]

    gone = {"host": "db1", "unreachable": True, "msg": "no route"}
    assert look(gone, said("db2", "primary", 2), said("db3", "down")) == ("db2", [])
    assert look(gone, said("db2", "down"), said("db3", "standby")) == ("db2", []), "its host answers"
    assert look(said("db1", "down"), said("db2", "standby"), said("db3", "standby")) == ("db1", [])
    assert look(gone)[0] == "db1", "nobody answers: the catalog's host says so"
    host, (split,) = look(said("db1", "primary"), said("db2", "primary", 2), said("db3", "down"))
    assert host == "db1" and "split brain" in split


def test_a_standby_that_does_not_follow_is_told_with_the_command() -> None:
    primary = {"role": "primary", "standbys": [{"slot": "a", "state": "streaming"}, {"slot": "b", "state": None}]}
    results = [
        {"item": "db2", "proof": {"slot": "a"}}, {"item": "db3", "proof": {"slot": "b"}}, {"item": "db4", "failed": True, "msg": "no space"},
        {"item": "db5", "unreachable": True},
    ]
    lines = cluster_short.cluster_short(results, primary, "orders", "shop")
    assert [line.split(";")[0] for line in lines] == [
        "standby db3 does not follow: it says that it streams, and the primary does not see it (slot b: nobody)",
        "standby db4 does not follow: no space", "standby db5 does not follow: it does not answer",
    ]
    assert lines[1].endswith("ansible-playbook lifeboat.recovery.reseed -i shop -e lifeboat_services=orders -e lifeboat_members=db4")
