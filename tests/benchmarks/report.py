# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the measured rounds to medians, a table and the page in docs/."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

MIB = 1 << 20
PHASES = ("first backup", "second backup", "restore")

#: What is required of the median ratio restic / Lifeboat: (data sets, phase, at least).
REQUIRED = (
    (("postgresql", "incompressible"), "first backup", 2.0),
    (("postgresql", "incompressible"), "restore", 1.5),
    (("small-files",), "first backup", 1.0),
    (("small-files",), "restore", 1.0),
)
PEAK = 512 * MIB


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(rounds: list[dict[str, Any]], over: str, under: str) -> dict[str, float]:
    """Times of ``over`` divided by those of ``under``, pair by pair of the same round."""
    return spread([one[over]["seconds"] / one[under]["seconds"] for one in rounds])


def summarise(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per data set, phase and contender, in the order measured."""
    rows = []
    for name, data in result["data"].items():
        for phase in PHASES:
            rounds = data["rounds"][phase]
            for contender in rounds[0]:
                mine = [one[contender] for one in rounds]
                row = {
                    "data": name, "phase": phase, "contender": contender, "seconds": spread([one["seconds"] for one in mine]),
                    "cpu": statistics.median(one["cpu"] for one in mine), "peak": max(one["peak"] for one in mine),
                }
                if contender != "Lifeboat" and "Lifeboat" in rounds[0]:
                    row["slower"] = ratios(rounds, contender, "Lifeboat")
                rows.append(row)
    return rows


def judge(result: dict[str, Any]) -> list[str]:
    """What is required and what was measured, one line each; lines that begin with SHORT are missed."""
    lines = []
    rows = {(row["data"], row["phase"], row["contender"]): row for row in summarise(result)}
    for names, phase, least in REQUIRED:
        for name in names:
            row = rows.get((name, phase, "restic"))
            if row and "slower" in row:
                median = row["slower"]["median"]
                lines.append(f"{'ok   ' if median >= least else 'SHORT'} {name}, {phase}: restic / Lifeboat {median:.2f}, required {least:.1f}")
    peaks = [row["peak"] for row in rows.values() if row["contender"] == "Lifeboat"]
    if peaks:
        word = "ok   " if max(peaks) <= PEAK else "SHORT"
        lines.append(f"{word} peak memory of Lifeboat: {max(peaks) / MIB:.0f} MiB, required at most {PEAK // MIB} MiB")
    return lines


def _ratio(row: dict[str, Any]) -> str:
    if "slower" not in row:
        return "1"
    slower = row["slower"]
    return f"{slower['median']:.2f} ({slower['least']:.2f}–{slower['most']:.2f})"


def table(result: dict[str, Any]) -> str:
    """A markdown table that reads well in a terminal too."""
    head = ("data", "step", "who", "seconds (least–most)", "MiB/s", "time / Lifeboat's", "CPU s", "peak MiB")
    lines = [head]
    for row in summarise(result):
        seconds = row["seconds"]
        size = result["data"][row["data"]]["bytes"]
        lines.append((
            row["data"], row["phase"], row["contender"], f"{seconds['median']:.2f} ({seconds['least']:.2f}–{seconds['most']:.2f})",
            f"{size / MIB / seconds['median']:.0f}", _ratio(row), f"{row['cpu']:.1f}", f"{row['peak'] / MIB:.0f}",
        ))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    out = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    out.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(out)


def stored_table(result: dict[str, Any]) -> str:
    lines = ["| data | files | MiB | " + " | ".join(f"{name} stores MiB" for name in result["contenders"]) + " |"]
    lines.append("|---" * (3 + len(result["contenders"])) + "|")
    for name, data in result["data"].items():
        stored = " | ".join(f"{data['stored'][contender] / MIB:.0f}" for contender in result["contenders"])
        lines.append(f"| {name} | {data['files']} | {data['bytes'] / MIB:.0f} | {stored} |")
    return "\n".join(lines)


def restore_parts(result: dict[str, Any]) -> str:
    """How much of Lifeboat's restore is the reading back that restic and cp do not do."""
    lines = []
    for name, data in result["data"].items():
        parts = [one["Lifeboat"]["detail"].get("seconds", {}) for one in data["rounds"]["restore"] if "Lifeboat" in one]
        if parts and all("read_back" in part for part in parts):
            median = {key: statistics.median(part[key] for part in parts) for key in ("stage", "read_back", "go_live")}
            back = f"{median['read_back']:.2f} s"
            lines.append(f"- {name}: staging {median['stage']:.2f} s, of which reading back and flushing {back}; going live {median['go_live']:.2f} s")
    return "\n".join(lines)


def profile_text(result: dict[str, Any]) -> str:
    lines = []
    for title, report in result.get("profiles", {}).items():
        lines += [f"{title}: {report['threads_busy']} threads busy on average", ""]
        lines += ["| % of busy samples | where |", "|---|---|"]
        lines += [f"| {share} | `{place}` |" for share, place in report["busy"][:8]]
        lines.append("")
    return "\n".join(lines).rstrip()


def page(result: dict[str, Any]) -> str:
    """The measured part of docs/benchmarks.md."""
    about = result["about"]
    parts = [
        f"Measured {about['time']} on {about['machine']}; {about['rounds']} rounds, cache {about['cache']}, {about['workers']} workers, "
        f"zstd level {about['level']}; Lifeboat {about['lifeboat']}, {about['restic']}, Python {about['python']}, file system {about['file_system']}, "
        f"load average at the start {about['load']}.",
        table(result), stored_table(result), "Required and measured:", "```text\n" + "\n".join(judge(result)) + "\n```",
    ]
    told = restore_parts(result)
    if told:
        parts.append("Inside Lifeboat's restore:\n\n" + told)
    if result.get("profiles"):
        parts.append("### Where the time goes\n\n" + profile_text(result))
    return "\n\n".join(parts)


def update(path: Path, text: str, mark: str = "measured") -> None:
    """Put the text between the markers of a document."""
    document = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {mark}: begin -->\n).*?(<!-- {mark}: end -->)", re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"bench: {path} has no markers <!-- {mark}: begin --> and <!-- {mark}: end -->")
    path.write_text(pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", document), encoding="utf-8")
