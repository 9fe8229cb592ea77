# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a gate opens, and whom it blames."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import gates, words

FAILED = {"service": "db", "verdict": "failed", "failed_phase": "health", "message": "boom", "remedy": "mend it", "root": None}


def hard(*names: str) -> list[dict[str, str]]:
    return [{"service": name, "kind": "hard"} for name in names]


@pytest.mark.parametrize("verdict", words.USABLE)
def test_a_good_verdict_opens(verdict: str) -> None:
    assert gates.decide("requirements", hard("a"), {"a": {"verdict": verdict}}).open


@pytest.mark.parametrize("verdict", [word for word in words.VERDICTS if word not in words.USABLE])
def test_a_bad_verdict_blocks(verdict: str) -> None:
    decision = gates.decide("requirements", hard("a"), {"a": {"verdict": verdict, "message": "m"}})
    assert not decision.open and decision.root is not None and decision.root["service"] == "a"


def test_no_verdict_yet_is_waited_for() -> None:
    decision = gates.decide("requirements", hard("a", "b"), {"a": {"verdict": None}, "b": {"verdict": "verified"}})
    assert not decision.open and decision.root is None and [item["service"] for item in decision.pending] == ["a"]


def test_nothing_to_wait_for_is_open() -> None:
    assert gates.decide("requirements", [], {}).open


def test_one_failure_blocks_at_once_although_others_still_work() -> None:
    decision = gates.decide("requirements", hard("a", "db"), {"a": {"verdict": None}, "db": FAILED})
    assert decision.root is not None and decision.root["service"] == "db"


def test_a_soft_failure_opens_and_degrades() -> None:
    decision = gates.decide("requirements", [{"service": "db", "kind": "soft"}], {"db": FAILED})
    assert decision.open and decision.degraded_by == ["db"]


def test_a_soft_one_is_waited_for_too() -> None:
    assert not gates.decide("requirements", [{"service": "db", "kind": "soft"}], {"db": {"verdict": None}}).open


def test_what_is_not_in_the_run_is_named_and_not_waited_for() -> None:
    decision = gates.decide("requirements", hard("elsewhere"), {"elsewhere": None})
    assert decision.open and decision.not_picked == ["elsewhere"]


def test_the_root_is_named_through_a_chain() -> None:
    def blocked(by: str) -> dict[str, Any]:
        return {"verdict": "blocked", "root": {"service": by, "verdict": "blocked"}}

    # each state names only its neighbour: the root is still found
    states: dict[str, Optional[dict[str, Any]]] = {"c": blocked("b"), "b": blocked("a"), "a": blocked("db"), "db": FAILED}
    decision = gates.decide("requirements", hard("c"), states)
    assert decision.root == {"service": "db", "verdict": "failed", "phase": "health", "message": "boom", "remedy": "mend it"}
    assert decision.via == "c"


def test_a_root_outside_the_known_states_is_taken_from_the_chain() -> None:
    states: dict[str, Optional[dict[str, Any]]] = {"a": {"verdict": "blocked", "root": {"service": "far", "verdict": "failed", "message": "gone"}}}
    decision = gates.decide("requirements", hard("a"), states)
    assert decision.root is not None and decision.root["service"] == "far" and decision.root["message"] == "gone"


def test_roots_in_a_circle_end() -> None:
    states: dict[str, Optional[dict[str, Any]]] = {
        "a": {"verdict": "blocked", "root": {"service": "b"}}, "b": {"verdict": "blocked", "root": {"service": "a"}},
    }
    assert gates.root_of("a", states)["service"] in ("a", "b")


@pytest.mark.parametrize(("waits", "phase"), [("island_staged", "stage"), ("dependants_stopped", "stop")])
def test_gates_for_phases(waits: str, phase: str) -> None:
    assert gates.decide(waits, hard("a"), {"a": {"done": [phase], "verdict": None}}).open
    assert not gates.decide(waits, hard("a"), {"a": {"done": [], "verdict": None, "phase": phase}}).open
    assert gates.decide(waits, hard("a"), {"a": {"done": [], "verdict": "verified"}}).open
    assert gates.decide(waits, hard("a"), {"a": {"done": [], "verdict": "failed"}}).root is not None


def test_open_on_may_be_narrowed() -> None:
    decision = gates.decide("requirements", hard("a"), {"a": {"verdict": "degraded"}}, ("verified", "restored"))
    assert not decision.open and decision.root is not None
