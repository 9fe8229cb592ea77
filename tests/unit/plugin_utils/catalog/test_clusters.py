# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service whose data is on one host and whose replicas are on others."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.filter import replicas_short
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import clusters

HTTP, SQL = {"http": "http://127.0.0.1:8080/health"}, {"sql": "select 1", "equals": 1}
ENTRY: dict[str, Any] = {
    "host": "app1", "sources": {"db": {"type": "postgresql", "host": "db1"}}, "runtime": {"start": ["run"], "status": ["ask"], "hosts": ["app1", "app2"]},
    "health": [HTTP, SQL], "invariants": [{"name": "sums", "sql": "select 0", "equals": 0}],
}


def test_checks_are_made_where_what_they_ask_is() -> None:
    data, runtime = clusters.part(ENTRY, "data"), clusters.part(ENTRY, "runtime")
    assert (data["health"], runtime["health"]) == ([SQL], [HTTP])
    assert (len(data["invariants"]), len(runtime["invariants"])) == (1, 0)
    assert data["sources"] == ENTRY["sources"] and runtime["sources"] == {}, "a store is asked where it is"
    assert "status" not in data["runtime"] and runtime["runtime"]["status"] == ["ask"]
    assert data["health"] + runtime["health"] == [SQL, HTTP], "none is asked twice, none is left out"


def test_the_hosts_that_it_runs_on() -> None:
    assert clusters.data_host(ENTRY) == "db1" and clusters.runtime_hosts(ENTRY) == ["app1", "app2"]
    assert clusters.runtime_hosts({"host": "db1", "sources": {"db": {}}, "runtime": {}}) == [], "one host for both: one call checks all"
    assert clusters.runtime_hosts({"host": "app1", "sources": {"db": {"host": "db1"}}, "runtime": {}}) == ["app1"]


def test_what_is_not_well_is_named_with_its_host() -> None:
    bad = {"kind": "health", "name": "http 8080", "ok": False, "detail": "no answer"}
    results = [{"item": "app1", "ok": True}, {"item": "app2", "ok": False, "results": [bad]}, {"item": "app3", "unreachable": True}]
    assert replicas_short.replicas_short(results) == ["app2: health http 8080: no answer", "app3: it does not answer"]
