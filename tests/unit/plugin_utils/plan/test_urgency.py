# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services leave the processors to others."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.urgency import giving_way


def ways(islands: list[list[str]], **given: tuple[int, float | None, dict[str, Any]]) -> set[str]:
    """name=(level, forecast in seconds, what the catalog says)"""
    entries = {name: {"level": level, "forecast": {"seconds": seconds}} for name, (level, seconds, _said) in given.items()}
    return giving_way({name: said for name, (_level, _seconds, said) in given.items()}, entries, islands)


def test_without_forecasts_the_longest_chains_go_first() -> None:
    services = {"a": (0, None, {}), "b": (2, None, {}), "c": (2, 5.0, {}), "d": (1, 400.0, {})}
    assert ways([["a", "b"], ["c"], ["d"]], **services) == {"d"}, "as long as one has no forecast, none counts"


def test_with_forecasts_what_is_nearly_as_long_does_not_give_way() -> None:
    services = {"a": (0, 20.0, {}), "b": (1, 100.0, {}), "c": (5, 91.0, {}), "d": (0, 89.0, {}), "e": (0, 10.0, {})}
    assert ways([["a", "b"], ["c"], ["d", "e"]], **services) == {"d", "e"}


def test_what_is_more_urgent_never_gives_way() -> None:
    first = {"priority": 20, "rto": 300.0}
    services = {"a": (3, None, first), "b": (0, None, {"priority": 10}), "c": (0, None, {"rto": 60.0}), "d": (0, None, first), "e": (0, None, {})}
    assert ways([["a"], ["b"], ["c"], ["d"], ["e"]], **services) == {"d", "e"}
    assert ways([["a"], ["b"]], a=(3, None, {}), b=(0, None, {"priority": 900})) == set(), "none is the least urgent"


def test_alone_nobody_gives_way() -> None:
    assert ways([["a", "b"], []], a=(0, None, {}), b=(1, None, {})) == set()
