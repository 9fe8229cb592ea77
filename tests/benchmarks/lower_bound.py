# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The least time in which a catalog can be brought back, whoever does it. Knows nothing of Lifeboat.

usage: lower_bound.py CATALOG DECLARED --speed BYTES_PER_SECOND [--cpu-seconds S] [--cores N]

CATALOG: who requires whom (services.NAME.requires). DECLARED: {"NAME": {"seconds": from start to healthy, "bytes": of data}}, as JSON.
The bound is the largest of: the critical path, where each service needs its bytes at that speed and then its seconds after all that it requires are
healthy; all bytes at that speed; the CPU seconds of the same work in one process over the cores. Standard library and PyYAML.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

import yaml


def critical_path(requires: dict[str, list[str]], seconds: dict[str, float]) -> tuple[float, list[str]]:
    """The longest chain of requirements by the seconds of its services: (their sum, their names from the first to the last)."""
    ends: dict[str, float] = {}
    before: dict[str, str] = {}

    def end(name: str, way: tuple[str, ...] = ()) -> float:
        if name in way:
            raise SystemExit(f"lower_bound: a cycle through {name}")
        if name not in ends:
            after = [(end(needed, (*way, name)), needed) for needed in requires[name]]
            latest, last = max(after, default=(0.0, ""))
            ends[name], before[name] = latest + seconds[name], last
        return ends[name]

    name = max(requires, key=end)
    longest, path = ends[name], [name]
    while before[path[0]]:
        path.insert(0, before[path[0]])
    return longest, path


def bound(catalog: dict[str, Any], declared: dict[str, dict[str, float]], speed: float, cpu_seconds: float, cores: int) -> dict[str, Any]:
    """{"path_seconds", "path", "start_seconds" (of the path), "bytes_seconds", "cpu_seconds", "seconds", "decides"}."""
    requires = {
        name: [edge if isinstance(edge, str) else edge["service"] for edge in entry.get("requires") or []] for name, entry in catalog["services"].items()
    }
    starts = {name: float(declared[name]["seconds"]) for name in requires}
    longest, path = critical_path(requires, {name: starts[name] + declared[name]["bytes"] / speed for name in requires})
    terms = {"path": longest, "bytes": sum(declared[name]["bytes"] for name in requires) / speed, "cpu": cpu_seconds / cores}
    decides = max(terms, key=lambda term: terms[term])
    return {
        "path_seconds": longest, "path": path, "start_seconds": critical_path(requires, starts)[0], "bytes_seconds": terms["bytes"],
        "cpu_seconds": terms["cpu"], "seconds": terms[decides], "decides": decides,
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog")
    parser.add_argument("declared")
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--cpu-seconds", type=float, default=0.0)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    with open(options.catalog, encoding="utf-8") as handle:
        catalog = yaml.safe_load(handle)
    with open(options.declared, encoding="utf-8") as handle:
        declared = json.load(handle)
    print(json.dumps(bound(catalog, declared, options.speed, options.cpu_seconds, options.cores), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
