# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forecast after preflight as a plan keeps it and an operator reads it, and the gate on the RTO."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import build, foresee, foretelling, judge
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.pick import pick_services
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import forecasts, words

MIB = 1 << 20
STARTED = "2030-01-01T12:00:00Z"
BEGAN = words.from_iso(STARTED) or 0.0


def service(*requires: str, tier: str = "gold", rto: int | None = 60, sources: tuple[str, ...] = ("db",)) -> dict[str, Any]:
    return {"host": "db1", "tier": tier, "owner": "team", "priority": None, "consistency_group": None, "rto": rto,
            "sources": {name: {"type": "files"} for name in sources}, "requires": [{"service": name, "kind": "hard"} for name in requires]}


DOCUMENT: dict[str, Any] = {
    "ecosystem": "shop", "production": False, "tiers": {"gold": {"rto": 60, "rto_gate": "refuse"}, "tin": {"rto": 60, "rto_gate": "warn"}, "rust": {}},
    "services": {"identity": service(), "orders": service("identity", tier="tin"), "gateway": service("orders", tier="rust", rto=None, sources=())},
}
ORDER = ["identity", "orders", "gateway"]


def answers(stored: int = 10 * MIB, seconds: float = 0.1, current: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """What preflight says: each service reads its part of the repository alone, one after the other."""
    found: dict[str, dict[str, Any]] = {"gateway": {"data_current": True, "estimate": None, "findings": []}}
    for number, name in enumerate(ORDER[:2]):
        still = name in current
        found[name] = {"data_current": still, "findings": [], "estimate": {
            "bytes": 100 * MIB, "reused": (100 if still else 40) * MIB, "written": 0 if still else 60 * MIB, "fetched": 0 if still else stored, "cores": 2,
            "link": {"bytes": stored, "seconds": seconds, "began": BEGAN + number * seconds, "ended": BEGAN + (number + 1) * seconds},
        }}
    return found


def past(start: float) -> list[Any]:
    phases = {"stage": 5.0, "island": 0.0, "stop": 0.5, "gate": 0.0, "cutover": 1.0, "start": start, "verdict": 0.5}
    item = {"bytes": 100 * MIB, "phases": phases, "waited": {}, "offset": 4.0, "moved": {"written": 60 * MIB, "fetched": 10 * MIB}}
    return [{"run": f"{number}", "seconds": None, "forecast": None, "services": dict.fromkeys(ORDER, item)} for number in range(3)]


def points() -> dict[str, list[dict[str, Any]]]:
    point = {"id": "r1", "time": STARTED, "complete": True, "missing": [], "proven": True, "bytes": 100 * MIB, "snapshots": {"db": "x-000001-aa"}}
    return {name: [point] for name in ORDER[:2]}


def planned(start: float = 2.0, said: str = "", later: float = 0.0, incident: str = STARTED, told: dict[str, Any] | None = None) -> dict[str, Any]:
    plan = build.build(DOCUMENT, pick_services(DOCUMENT), points(), forks=3)
    plan["flags"] = {"rto_gate": said, "force": False}
    return foresee.after_preflight(DOCUMENT, plan, told or answers(), past(start), {"started": STARTED}, {"time": incident}, BEGAN + 4.0 + later)


def test_the_plan_keeps_what_hosts_said_and_what_follows_from_it() -> None:
    plan = planned()
    assert json.loads(json.dumps(plan)) == plan
    assert plan["moves"] == {"bytes": 200 * MIB, "reused": 80 * MIB, "written": 120 * MIB, "fetched": 20 * MIB}
    assert plan["forecast"]["elapsed"] == 4.0 and plan["forecast"]["links"] == {"db1": 100 * MIB}
    assert plan["services"]["orders"]["estimate"]["written"] == 60 * MIB
    assert plan["forecast"]["seconds"] == plan["services"]["gateway"]["forecast"]["seconds"] > plan["services"]["orders"]["forecast"]["seconds"]
    text = "\n".join(foretelling.lines(plan))
    reasons = {name: entry["resolution"]["why"] for name, entry in plan["services"].items()}
    assert reasons == {"identity": "the newest complete point", "orders": "the newest complete point", "gateway": "it has no data"}
    assert "  back to  r1, the newest complete point\n" in text
    for part in ("to move  120.0 MiB, of it 20.0 MiB stored bytes over the link, 80.0 MiB of 200.0 MiB are in place", "db1 reads 100.0 MiB/s",
                 "cores decide", "(80 %)", "rule of thumb", "there after", "critical preflight 4.50 s > ", "orders start 2.00 s", "faster   ", "of the whole"):
        assert part in text, (part, text)
    assert "forks" not in text and "so far" not in text and "RTO" not in text
    assert json.loads(foretelling.render(plan, "json")) == plan


def test_who_gives_way_is_told_with_and_without_forecasts() -> None:
    document = {**DOCUMENT, "services": {**DOCUMENT["services"], "mail": service(tier="rust", rto=None, sources=())}}
    plan = build.build(document, pick_services(document), points())
    assert all("gives_way" not in entry for entry in plan["services"].values()), "it is told once, after preflight"
    measured = past(2.0)
    for run in measured:
        run["services"]["mail"] = run["services"]["gateway"]
    for known in ([], measured):
        found = foresee.after_preflight(document, plan, answers(), known, {"started": STARTED}, now=BEGAN)["services"]
        assert (found["mail"]["forecast"]["seconds"] is not None) is bool(known)
        assert {name: entry["gives_way"] for name, entry in found.items()} == {"identity": False, "orders": False, "gateway": False, "mail": True}


@pytest.mark.parametrize("resolution, reason", [
    ({"target": "proven"}, "the newest point that a restore or drill has proven"),
    ({"target": "2030-01-31T12:00:00Z", "at": "p@time:2030-01-31T12:00:00Z"}, "the newest state before the time asked for, with its log"),
    ({"target": "p"}, "as asked for"), ({"together": ["a", "b"]}, "the newest complete point of a, b together"),
    ({"fallback_from": "q"}, "q does not verify, and lifeboat_max_loss allows this older point"),
])
def test_why_a_service_goes_there(resolution: dict[str, Any], reason: str) -> None:
    assert foresee.why({"target": "latest", "point": "p", "at": "p", "together": ["a"], **resolution}) == reason
    assert foresee.why({"target": "latest", "point": "p", "at": "p"}, "some-restore") == "kept from the unfinished restore that is gone on with"


def test_a_slow_link_makes_the_same_bytes_take_longer() -> None:
    slow = planned(told=answers(10 * MIB, 20.0))
    assert slow["forecast"]["bound"] == {"db1": "link"} and "it decides how long staging takes" in "\n".join(foretelling.lines(slow))
    assert slow["forecast"]["seconds"] > planned()["forecast"]["seconds"] + 20


def test_what_is_the_target_already_is_left_running_with_all_it_builds_on() -> None:
    told = planned(told=answers(current=("identity",)))["services"]
    assert told["identity"]["forecast"]["reason"] == "nothing is left to do"
    assert told["orders"]["forecast"]["reason"] == told["gateway"]["forecast"]["reason"] == "from 3 measured runs"
    every = planned(told=answers(current=("identity", "orders")))
    assert {entry["forecast"]["reason"] for entry in every["services"].values()} == {"nothing is left to do"}


@pytest.mark.parametrize("start, said, refused", [
    (2.0, "", []), (60.0, "", ["identity"]), (60.0, "warn", []), (60.0, "refuse", ["identity", "orders"]),
])
def test_a_forecast_that_misses_the_rto_is_refused_where_the_tier_or_the_command_line_says_so(start: float, said: str, refused: list[str]) -> None:
    plan = planned(start, said)
    errors = foresee.refusals(DOCUMENT, plan)
    longest = {f"service {name}": entry["forecast"]["longest"]["service"] for name, entry in plan["services"].items()}
    assert [error.where for error in errors] == [f"service {name}" for name in refused]
    for error in errors:
        assert "the forecast misses the RTO of 60.0 s: it takes " in error.what and "between" in error.what
        assert error.remedy == f"make start of {longest[error.where]} faster (60.0 s of it), or go on all the same with -e lifeboat_rto_gate=warn"
        assert ("lifeboat_rto_gate=refuse was given" if said else "tier gold has rto_gate: refuse") in error.what
    late = "by the forecast these miss their RTO: identity, orders" in "\n".join(foretelling.lines(plan))
    assert late == (start == 60.0)


def test_the_clock_of_the_rto_runs_from_the_incident() -> None:
    assert foresee.refusals(DOCUMENT, planned(incident="2030-01-01T11:59:59Z")) == []
    assert [error.where for error in foresee.refusals(DOCUMENT, planned(incident="2030-01-01T11:59:00Z"))] == ["service identity"]


def test_a_refusal_stops_a_run_that_preflight_would_let_go_on() -> None:
    plan = planned(60.0)
    found = judge.judge(DOCUMENT["services"], plan, answers(), {}, "0", False)
    assert not found["stop"]
    foresee.refuse(found, foresee.refusals(DOCUMENT, plan))
    assert found["stop"] and "misses the RTO" in found["message"] and found["lines"][-1].startswith("error   the forecast misses the RTO")
    assert {name: verdict["verdict"] for name, verdict in found["left_out"].items()} == dict.fromkeys(ORDER, "skipped")
    assert "stopped before anything was touched: service identity: the forecast misses" in found["left_out"]["gateway"]["message"]


def test_what_came_out_is_kept_beside_the_forecast() -> None:
    plan = planned()
    took = plan["forecast"]["seconds"] / 1.1
    services = {name: {"verdict": "verified", "seconds": took - 2 + number} for number, name in enumerate(ORDER)}
    found = forecasts.compared(plan, services)
    assert found is not None and found["measured"] == round(took, 3) and found["error"] == pytest.approx(0.1, abs=1e-3) and found["inside"] is True
    assert found["services"]["orders"]["moved"] == {"bytes": 100 * MIB, "reused": 40 * MIB, "written": 60 * MIB, "fetched": 10 * MIB}
    assert forecasts.sentence(found).endswith(f"it took {words.duration(took)}")
    waiting = [{"name": "start", "seconds": 3.0, "waited_for": []}, {"name": "gate", "seconds": 9.0, "waited_for": [{"service": "identity", "seconds": 8.5}]}]
    orders = forecasts.compared(plan, {**services, "orders": {**services["orders"], "phases": waiting}})
    assert orders is not None
    phases = orders["services"]["orders"]["phases"]
    assert phases["start"]["seconds"] == 2.0
    assert [phases[name]["measured"] for name in ("start", "gate", "stage")] == [3.0, 0.5, None]
    outside = forecasts.compared(plan, {**services, "orders": {"verdict": "verified", "seconds": 500.0}})
    assert outside is not None and outside["inside"] is False and "which is outside" in forecasts.sentence(outside)
    unfinished = forecasts.compared(plan, {**services, "orders": {"verdict": "failed", "seconds": 5.0}})
    assert unfinished is not None and unfinished["measured"] is None and unfinished["error"] is None
    assert forecasts.compared({"verb": "backup"}, services) is None
