# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what scale_bench.py measured to tables and the page in docs/."""

from __future__ import annotations

import collections
from typing import Any

MIB = 1 << 20
#: What is required of the measured recovery time, as a multiple of the lower bound, and of the critical path.
REQUIRED, PATH = 1.15, 150.0


def cost(told: dict[str, Any], count: int) -> dict[str, Any]:
    """CPU seconds per service by class of process, tasks and calls per service; "all" tasks by their cost."""
    groups: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0, 0.0])
    for line in told["tasks"]:
        group = groups[f"{line['action'].split('.')[-1]}: {line['task']}"]
        group[0] += 1
        group[1] += line["worker"]
        group[2] += line["children"]
    workers, modules = sum(group[1] for group in groups.values()), sum(group[2] for group in groups.values()) + told["waiting"]
    first = sorted(groups.items(), key=lambda item: -item[1][1] - item[1][2])
    return {
        "seconds": told["seconds"] / count, "rto": told["rto"], "cpu": told["cpu"] / count, "workers": workers / count, "modules": modules / count,
        "controller": (told["cpu"] - workers - modules) / count, "tasks": len(told["tasks"]) / count,
        "calls": sum(1 for line in told["tasks"] if line["children"] > 0.01) / count,
        "all": [[name, group[0] / count, group[1] / count, group[2] / count] for name, group in first],
    }


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A markdown table that reads well in a terminal too."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    out = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    out.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(out)


def judge(result: dict[str, Any]) -> list[str]:
    """What is required and what was measured, one line each; lines that begin with SHORT are missed."""
    lines = []
    bound, graph = result.get("bound"), result.get("graph")
    if bound and graph:
        ratio = graph["rto"] / bound["seconds"]
        lines.append(f"{'ok   ' if ratio <= REQUIRED else 'SHORT'} {bound['services']} services: {ratio:.3f} of the lower bound, required at most {REQUIRED}")
        starts = bound["start_seconds"]
        lines.append(f"{'ok   ' if starts >= PATH else 'SHORT'} critical path of start times {starts:.0f} s, required {PATH:.0f}")
        good = sum(graph["verdicts"].get(word, 0) for word in ("verified", "restored"))
        lines.append(f"{'ok   ' if good == bound['services'] else 'SHORT'} verified or restored: {good} of {bound['services']}")
    warned = sum(result[part]["deprecations"] for part in ("graph", "waves", "sequence") if part in result)
    if lines:
        lines.append(f"{'ok   ' if not warned else 'SHORT'} deprecation warnings: {warned}")
    return lines


def _ways(result: dict[str, Any]) -> str:
    bound = result["bound"]
    rows = [("lower bound", f"{bound['seconds']:.1f}", "1", "", "", "")]
    for part, name in (("graph", "in the order of requirements"), ("waves", "in waves, each level a barrier")):
        if part in result:
            told = result[part]
            rows.append((name, f"{told['rto']:.1f}", f"{told['rto'] / bound['seconds']:.2f}", f"{told['first']:.1f}", f"{told['cpu']:.0f}", str(told["forks"])))
    if "sequence" in result:
        told = result["sequence"]
        whole = told["rto"] / told["services"] * bound["services"] + bound["starts"]
        rows.append(("one after the other (computed)", f"{whole:.0f}", f"{whole / bound['seconds']:.2f}", "", "", "1"))
    return table(("how", "recovery time s", "of the bound", "first service s", "CPU s", "forks"), rows)


def _costs(costs: dict[str, Any]) -> str:
    rows = [
        (count, *(f"{one[key]:.2f}" for key in ("cpu", "controller", "workers", "modules", "seconds")), f"{one['tasks']:.0f}", f"{one['calls']:.1f}")
        for count, one in costs.items()
    ]
    return table(("services", "CPU s per service", "controller", "its workers", "modules and commands", "wall s per service", "tasks", "calls"), rows)


def _growth(costs: dict[str, Any]) -> str:
    """The tasks that cost most with many services, beside what they cost with few."""
    few, many = list(costs)[0], list(costs)[-1]
    before = {name: worker + children for name, _times, worker, children in costs[few]["all"]}
    rows = [
        (name, f"{times:.1f}", f"{worker:.3f}", f"{children:.3f}", f"{before.get(name, 0.0):.3f}") for name, times, worker, children in costs[many]["all"][:12]
    ]
    return "Per service, the tasks that cost most:\n\n" + table(
        ("task", "times", f"worker CPU s, {many} services", f"call CPU s, {many} services", f"both, {few} services"), rows)


def page(result: dict[str, Any]) -> str:
    """The measured part of docs/benchmarks.md."""
    about = result["about"]
    parts = [f"Measured {about['time']} on {about['cores']} cores, ansible-core {about['ansible']}, Python {about['python']}, load average at the start "
             f"{about['load']}."]
    if "bound" in result:
        bound = result["bound"]
        parts += [
            f"{bound['services']} services in {bound['islands']} islands and {bound['levels']} levels, {bound['bytes'] / MIB:.0f} MiB, start times of "
            f"{bound['starts']:.0f} s together. Lower bound {bound['seconds']:.1f} s, the largest of: critical path {bound['path_seconds']:.1f} s "
            f"(of it {bound['start_seconds']:.1f} s of starts: {' > '.join(bound['path'])}), all bytes at {bound['speed'] / MIB:.0f} MiB/s "
            f"{bound['bytes_seconds']:.1f} s, the CPU time of the same work in one process ({bound['alone']['cpu_seconds']:.1f} s) over the cores "
            f"{bound['cpu_seconds']:.1f} s.",
            _ways(result),
        ]
        if "sequence" in result:
            told = result["sequence"]
            parts.append(f"One after the other is computed: {told['services']} services with one fork and no start time took {told['rto']:.1f} s; that per "
                         "service, and the start times of all.")
        parts.append("Required and measured:\n\n```text\n" + "\n".join(judge(result)) + "\n```")
    if result.get("orchestration"):
        costs = result["orchestration"]
        parts += ["Orchestration, with services that start at once and next to no data:\n\n" + _costs(costs), _growth(costs)]
    return "\n\n".join(parts)
