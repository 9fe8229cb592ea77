# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as a whole, its forecast, and the outcome of a run."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import build, outcome
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
    assert orders["forecast"]["reason"] == "no measured restore or drill of orders yet" and orders["rto_at_risk"] is None
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


@settings(deadline=None)
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
