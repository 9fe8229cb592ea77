# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order, islands and cycles hold for every graph, not only for the ones we thought of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import graph
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import order

Graph = dict[str, dict[str, Any]]


def make(edges: dict[str, str], groups: str = "", **priorities: int) -> Graph:
    """{"a": "b c?"}: a requires b, and softly c. groups: services of one consistency group."""
    names = set(edges) | {word.rstrip("?") for words in edges.values() for word in words.split()}
    return {
        name: {"requires": [{"service": word.rstrip("?"), "kind": "soft" if word.endswith("?") else "hard"} for word in edges.get(name, "").split()],
               "priority": priorities.get(name), "consistency_group": "g" if name in groups.split() else None}
        for name in sorted(names)
    }


@st.composite
def dags(draw: st.DrawFn, size: int = 14) -> Graph:
    """Acyclic graphs: a service only requires services of a smaller rank; names are shuffled against the ranks."""
    count = draw(st.integers(1, size))
    names = draw(st.permutations([f"s{number}" for number in range(count)]))
    services: Graph = {}
    for rank, name in enumerate(names):
        needed = draw(st.lists(st.sampled_from(names[:rank]), max_size=4, unique=True)) if rank else []
        services[name] = {
            "requires": [{"service": other, "kind": draw(st.sampled_from(["hard", "soft"]))} for other in needed],
            "priority": draw(st.one_of(st.none(), st.integers(0, 5))),
            "consistency_group": draw(st.sampled_from([None, None, None, "g", "h"])),
        }
    return services


@st.composite
def picks(draw: st.DrawFn) -> tuple[Graph, list[str]]:
    services = draw(dags())
    return services, draw(st.lists(st.sampled_from(sorted(services)), unique=True))


def above(services: Graph, service: str) -> set[str]:
    """Everything a service requires, directly or not."""
    return graph.reachable({name: graph.requirements(services, name) for name in services}, [service]) - {service}


@settings(deadline=None)
@given(picks())
def test_requirements_come_first_also_through_services_that_are_not_picked(case: tuple[Graph, list[str]]) -> None:
    services, pick = case
    result = order.topological_order(services, pick)
    assert sorted(result) == sorted(pick)
    position = {service: index for index, service in enumerate(result)}
    for service in pick:
        for needed in above(services, service):
            assert needed not in position or position[needed] < position[service]


@settings(deadline=None)
@given(picks(), st.randoms())
def test_the_order_does_not_depend_on_the_order_of_the_input(case: tuple[Graph, list[str]], random: Any) -> None:
    services, pick = case
    names = list(services)
    random.shuffle(names)
    shuffled = {name: {**services[name], "requires": random.sample(services[name]["requires"], len(services[name]["requires"]))} for name in names}
    random.shuffle(pick)
    assert order.topological_order(services, pick) == order.topological_order(shuffled, pick)
    assert order.islands(services, pick) == order.islands(shuffled, pick)


@settings(deadline=None)
@given(picks())
def test_a_smaller_pick_keeps_the_order_of_the_larger(case: tuple[Graph, list[str]]) -> None:
    services, pick = case
    assert order.topological_order(services, pick) == [service for service in order.topological_order(services) if service in pick]


@settings(deadline=None)
@given(dags())
def test_at_every_step_the_most_urgent_service_that_could_come_comes(services: Graph) -> None:
    urgency = graph.effective_priorities(services)
    started: set[str] = set()
    for service in order.topological_order(services):
        could = [name for name in services if name not in started and set(graph.requirements(services, name)) <= started]
        assert service == min(could, key=lambda name: (urgency[name], name))
        started.add(service)


@settings(deadline=None)
@given(dags(), st.data())
def test_one_edge_back_is_always_found_as_a_true_cycle(services: Graph, data: st.DataObject) -> None:
    assert graph.cycles(services) == []
    start = data.draw(st.sampled_from(sorted(services)))
    target = data.draw(st.sampled_from(sorted(above(services, start) | {start})))
    services[target]["requires"].append({"service": start, "kind": "hard"})
    found = graph.cycles(services)
    assert found
    for cycle in found:
        assert cycle[0] == cycle[-1] == min(cycle) and len(set(cycle)) == len(cycle) - 1
        for service, needed in zip(cycle, cycle[1:]):
            assert needed in graph.requirements(services, service)
    with pytest.raises(order.CycleError) as caught:
        order.topological_order(services)
    assert caught.value.cycles == found and " -> ".join(found[0]) in str(caught.value)


@settings(deadline=None)
@given(picks())
def test_islands_are_the_pick_cut_where_nothing_connects(case: tuple[Graph, list[str]]) -> None:
    services, pick = case
    parts = order.islands(services, pick)
    assert sorted(service for part in parts for service in part) == sorted(pick)
    where = {service: number for number, part in enumerate(parts) for service in part}
    for part in parts:
        assert part == order.topological_order(services, part)
    waits = order.nearest_picked(services, pick)
    for service in pick:
        assert all(where[needed] == where[service] for needed in waits[service])
        assert all(where[needed] == where[service] for needed in above(services, service) & set(pick))
    for group in ("g", "h"):
        assert len({where[service] for service in pick if services[service]["consistency_group"] == group}) <= 1
    # no island can be cut further
    for part in parts:
        joined = {part[0]}
        while True:
            groups = {services[other]["consistency_group"] for other in joined} - {None}
            more = joined | {service for service in part if services[service]["consistency_group"] in groups
                             or any(other in waits[service] or service in waits[other] for other in joined)}
            if more == joined:
                break
            joined = more
        assert joined == set(part)


@settings(deadline=None)
@given(picks())
def test_who_waits_for_whom_is_never_later_in_the_order(case: tuple[Graph, list[str]]) -> None:
    """A gate may wait only for hosts earlier in the order, or few forks stall."""
    services, pick = case
    position = {service: index for index, service in enumerate(order.topological_order(services, pick))}
    depth = order.levels(services, pick)
    for kinds in (graph.HARD, graph.BOTH):
        for service, needed in order.nearest_picked(services, pick, kinds).items():
            assert all(position[other] < position[service] for other in needed)
    for service, needed in order.nearest_picked(services, pick).items():
        assert depth[service] == max((depth[other] + 1 for other in needed), default=0)


def test_sorting_only_the_picked_would_lose_what_stands_between() -> None:
    services = make({"z": "m", "m": "a"})
    assert order.topological_order(services, ["z", "a"]) == ["a", "z"]
    services = make({"a": "m", "m": "z"})
    assert order.topological_order(services, ["z", "a"]) == ["z", "a"]
    assert order.nearest_picked(services, ["z", "a"]) == {"a": ["z"], "z": []}
    assert order.islands(services, ["z", "a"]) == [["z", "a"]]


def test_priority_is_inherited_by_what_is_required() -> None:
    services = make({"urgent": "base", "other": ""}, urgent=1, other=5)
    assert order.topological_order(services) == ["base", "urgent", "other"]


def test_soft_edges_order_and_connect_but_do_not_gate() -> None:
    services = make({"b": "a?"})
    assert order.topological_order(services) == ["a", "b"]
    assert order.islands(services) == [["a", "b"]]
    assert order.nearest_picked(services, ["a", "b"], graph.HARD) == {"a": [], "b": []}


def test_a_consistency_group_is_one_island() -> None:
    assert order.islands(make({"a": "", "b": "", "c": ""}, groups="a c")) == [["a", "c"], ["b"]]


def test_the_shortest_cycle_is_shown() -> None:
    assert graph.cycles(make({"a": "b", "b": "c", "c": "d b", "d": "a"})) == [["b", "c", "b"]]
    assert graph.cycles(make({"b": "a", "a": "b", "y": "x", "x": "y", "z": "x"})) == [["a", "b", "a"], ["x", "y", "x"]]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='unknown service "ordres": the pick; did you mean "orders"\\?'):
        order.topological_order(make({"orders": "", "mail": ""}), ["ordres"])


def test_a_long_chain_does_not_exhaust_the_stack() -> None:
    services = {f"s{n:05}": {"requires": [{"service": f"s{n - 1:05}", "kind": "hard"}] if n else [], "priority": None} for n in range(5000)}
    assert order.topological_order(services) == sorted(services)
    assert graph.cycles(services) == []
    services["s00000"]["requires"] = [{"service": "s04999", "kind": "hard"}]
    assert len(graph.components(services)) == 1


def test_who_stops_before_whom() -> None:
    entries: dict[str, Any] = {name: {"waits_for": [{"service": need, "kind": "hard"} for need in needs]} for name, needs in
                               (("db", []), ("queue", []), ("orders", ["db", "queue"]))}
    outside = [{"service": "pay", "action": "stop", "of": "orders"}, {"service": "web", "action": "leave", "of": "orders"},
               {"service": "log", "action": "stop", "of": "db"}, {"service": "shop", "action": "stop", "of": "orders"}]
    order.note_stops(entries, outside)
    assert {name: entry["needed_by"] for name, entry in entries.items()} == {"db": ["orders"], "queue": ["orders"], "orders": []}
    # the last to start is the first to stop, and what is left alone does not stop
    assert {name: entry["stops_first"] for name, entry in entries.items()} == {"db": ["log"], "queue": [], "orders": ["shop", "pay"]}
