# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark of many services: its ecosystem, its lower bound, and what it calls short."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import model

from .test_scripts import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    return {name: importlib.import_module(name) for name in ("lower_bound", "scale_ecosystem", "scale_report")}


def test_the_bound_is_the_largest_of_its_terms(bench: dict[str, ModuleType]) -> None:
    catalog = {"services": {"a": {}, "b": {"requires": ["a"]}, "c": {"requires": [{"service": "a", "kind": "soft"}]}, "d": {"requires": ["b", "c"]}, "e": {}}}
    declared = {"a": {"seconds": 1, "bytes": 100}, "b": {"seconds": 5, "bytes": 0}, "c": {"seconds": 4, "bytes": 20}, "d": {"seconds": 2, "bytes": 0},
                "e": {"seconds": 7, "bytes": 100}}
    bound = bench["lower_bound"].bound
    # by time alone a b d is the longest chain; with the bytes of c at this speed it is a c d
    told = bound(catalog, declared, 10.0, 3.0, 2)
    assert (told["path"], told["path_seconds"], told["start_seconds"]) == (["a", "c", "d"], 19.0, 8.0)
    assert told["decides"] == "bytes" and told["seconds"] == told["bytes_seconds"] == 22.0
    assert bound(catalog, declared, 1e9, 3.0, 2)["path"] == ["a", "b", "d"]
    assert bound(catalog, declared, 1e9, 300.0, 2)["seconds"] == 150.0
    with pytest.raises(SystemExit, match="cycle"):
        bound({"services": {"a": {"requires": ["e"]}, "e": {"requires": ["a"]}}}, declared, 1.0, 0.0, 1)


def test_the_ecosystem_is_what_it_says(bench: dict[str, ModuleType]) -> None:
    ecosystem, lower_bound = bench["scale_ecosystem"], bench["lower_bound"]
    services = ecosystem.grow(50, 512 << 20, 200.0)
    assert services == ecosystem.grow(50, 512 << 20, 200.0) and len(services) == 50
    requires = {name: list(one.requires) for name, one in services.items()}
    longest, path = lower_bound.critical_path(requires, {name: one.seconds for name, one in services.items()})
    assert longest == pytest.approx(200.0, abs=0.1) and len(path) > 3
    assert ecosystem.depth(services) == ecosystem.DEPTH and ecosystem.islands(services) == 4
    assert sum(one.size for one in services.values()) == pytest.approx(512 << 20, rel=0.01)
    waves = ecosystem.reshaped(services, "waves")
    assert max(len(needed) for needed in waves.values()) > 5 and lower_bound.critical_path(
        {name: list(needed) for name, needed in waves.items()}, {name: one.seconds for name, one in services.items()})[0] > longest
    chain = ecosystem.reshaped(services, "sequence")
    assert [len(needed) for needed in chain.values()] == [0] + [1] * 49


def test_its_catalogs_are_accepted(bench: dict[str, ModuleType]) -> None:
    with bench["scale_ecosystem"].Fleet(bench["scale_ecosystem"].grow(6, 6000, 2.0)) as fleet:
        for path in fleet.catalogs.values():
            assert len(model.load(str(path)).document["services"]) == 6


def test_what_falls_short_is_said(bench: dict[str, ModuleType]) -> None:
    bound = {"seconds": 100.0, "start_seconds": 100.0, "services": 2}
    graph = {"rto": 116.0, "verdicts": {"verified": 1, "degraded": 1}, "deprecations": 1}
    assert all(line.startswith("SHORT") for line in bench["scale_report"].judge({"bound": bound, "graph": graph}))
    good = {"rto": 115.0, "verdicts": {"verified": 1, "restored": 1}, "deprecations": 0}
    assert all(line.startswith("ok") for line in bench["scale_report"].judge({"bound": {**bound, "start_seconds": 150.0}, "graph": good}))
