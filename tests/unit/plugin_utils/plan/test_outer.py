# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Outer variables: what is misspelt is refused, what is documented is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.outer import VARIABLES, check

VERBS = Path(__file__).resolve().parents[4] / "docs/verbs.md"


@pytest.mark.parametrize(("given", "line"), [
    ({"lifeboat_untill": "staged"}, 'unknown variable "lifeboat_untill": -e; did you mean "lifeboat_until"?'),
    ({"lifeboat_quux": 1}, 'unknown variable "lifeboat_quux": -e; docs/verbs.md lists the variables of the verbs'),
    ({"lifeboat_until": "stage"}, 'lifeboat_until has an unknown value "stage": lifeboat_until; known are staged, cutover'),
    ({"lifeboat_force": "maybe"}, 'lifeboat_force has an unknown value "maybe": lifeboat_force; write true or false'),
    ({"lifeboat_resident": "never"}, 'lifeboat_resident has an unknown value "never": lifeboat_resident; write true or false'),
    ({"lifeboat_gate_timeout": -1}, 'lifeboat_gate_timeout has an unknown value "-1": lifeboat_gate_timeout; write seconds'),
    ({"lifeboat_incident_started": "2030-01-31T12:00:00"}, 'lifeboat_incident_started has an unknown value "2030-01-31T12:00:00": '
     "lifeboat_incident_started; write an ISO 8601 time with zone, as 2030-01-31T12:00:00Z"),
])
def test_what_is_wrong(given: dict[str, Any], line: str) -> None:
    assert [str(error) for error in check(given, given)] == [line]


@pytest.mark.parametrize("given", [
    {"lifeboat_until": "staged", "lifeboat_force": "true", "lifeboat_partial": False, "lifeboat_gate_timeout": "60"},
    {"lifeboat_until": "", "lifeboat_dependants": None, "lifeboat_incident_started": "2030-01-31T12:00:00+01:00"},
    {"their_own": 1, "lifeboat_services": "a,b"},
])
def test_what_is_right(given: dict[str, Any]) -> None:
    assert check(given, given) == []


@pytest.mark.parametrize(("verb", "given", "line"), [
    ("restore", {"lifeboat_database": "shop"},
     "restore takes no lifeboat_database: lifeboat_database; it is for extract; leave it out to restore the whole service"),
    ("rollback", {"lifeboat_tables": ["public.orders"]},
     "rollback takes no lifeboat_tables: lifeboat_tables; it is for extract; leave it out to rollback the whole service"),
    ("extract", {"lifeboat_tables": "public.orders"}, "extract needs the name of a database: lifeboat_database; add -e lifeboat_database=NAME"),
])
def test_what_a_verb_does_not_know(verb: str, given: dict[str, Any], line: str) -> None:
    assert [str(error) for error in check(given, given, verb)] == [line]
    assert check({}, {"lifeboat_database": "shop", "lifeboat_as": "x"}, "extract") == check({}, {"lifeboat_as": ""}, "restore") == []


def test_names_of_the_inventory_are_not_looked_at() -> None:
    assert check({}, {"lifeboat_service": "orders", "lifeboat_whatever": 1}) == []


def test_every_documented_variable_is_known() -> None:
    table = "\n".join(line for line in VERBS.read_text().splitlines() if line.startswith("| `lifeboat_"))
    documented = set(re.findall(r"`(lifeboat_\w+)", table))
    assert documented and documented <= set(VARIABLES)
