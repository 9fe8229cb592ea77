# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the measured rounds beside pgBackRest to medians, a table, what falls short, and the page in docs/."""

from __future__ import annotations

import statistics
from typing import Any

import cluster_lag

MIB = 1 << 20
PEAK = 512 * MIB
RIVAL = "pgBackRest"
#: Told beside the others, and not judged.
INSTALLED = "pgBackRest as installed"
#: What the disk allows: the same files copied and flushed, and nothing else.
COPY = "cp -a"
#: Least median of pgBackRest's time / Lifeboat's, by the beginning and the end of a step's name; 1 for what is not named.
REQUIRED = (
    ("full backup", "", 3.0), ("restore to empty", "files there", 3.0), ("delta restore", "files there", 2.0),
)
#: Most that an incremental may store, beside pgBackRest's.
STORED = 1.2


def steps(result: dict[str, Any]) -> list[str]:
    return list(result["rounds"][0])


def spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def ratio(result: dict[str, Any], step: str, who: str) -> tuple[float, float, float]:
    """pgBackRest's seconds / ``who``'s, round by round."""
    return spread([one[step][RIVAL]["seconds"] / one[step][who]["seconds"] for one in result["rounds"]])


def stored(result: dict[str, Any], step: str) -> tuple[float, float, float] | None:
    """Lifeboat's bytes stored / pgBackRest's."""
    if any("stored" not in one[step]["Lifeboat"] for one in result["rounds"]):
        return None
    return spread([one[step]["Lifeboat"]["stored"] / max(1, one[step][RIVAL]["stored"]) for one in result["rounds"]])


def required(step: str) -> float:
    return next((least for begin, end, least in REQUIRED if step.startswith(begin) and step.endswith(end)), 1.0)


def judge(result: dict[str, Any]) -> list[str]:
    """Each target and what was measured; lines that begin with SHORT are missed."""
    lines, peaks = [], []
    for step in steps(result):
        for who in result["rounds"][0][step]:
            if who == INSTALLED:
                slower = statistics.median(one[step][who]["seconds"] / one[step]["Lifeboat"]["seconds"] for one in result["rounds"])
                lines.append(f"      {step}: {who} / Lifeboat {slower:.2f}, for comparison")
            if who == COPY:
                lines.append(f"      {step}: pgBackRest / {who} {ratio(result, step, who)[0]:.2f}: no restore that writes the files can do better")
            if who in (RIVAL, INSTALLED, COPY):
                continue
            median = ratio(result, step, who)[0]
            least = required(step)
            lines.append(f"{'ok   ' if median >= least else 'SHORT'} {step}: pgBackRest / {who} {median:.2f}, required {least:.1f}")
            peaks += [one[step][who]["peak"] for one in result["rounds"] if one[step][who]["peak"]]
        told = stored(result, step)
        if told and step.startswith("incremental"):
            word = "ok   " if told[0] <= STORED else "SHORT"
            lines.append(f"{word} {step}: Lifeboat stores {told[0]:.2f} of what pgBackRest stores, required at most {STORED}")
    if result["about"].get("lag"):
        lines.append(cluster_lag.judge(result["about"]["lag"]))
    lines.append(f"{'ok   ' if max(peaks) <= PEAK else 'SHORT'} peak memory of Lifeboat: {max(peaks) / MIB:.0f} MiB, required at most {PEAK // MIB} MiB")
    return lines


def _line(result: dict[str, Any], step: str, who: str) -> tuple[str, ...]:
    mine = [one[step][who] for one in result["rounds"]]
    seconds = spread([one["seconds"] for one in mine])
    speed = statistics.median(one["bytes"] / MIB / one["seconds"] for one in mine)
    told = "1" if who == RIVAL else "{:.2f} ({:.2f}–{:.2f})".format(*ratio(result, step, who))
    cpu = [one["cpu"] for one in mine if one["cpu"] is not None]
    peaks = [one["peak"] for one in mine if one["peak"]]
    kept = [one["stored"] for one in mine if "stored" in one]
    return (
        step, who, "{:.2f} ({:.2f}–{:.2f})".format(*seconds), f"{speed:.0f}", told, f"{statistics.median(cpu):.1f}" if cpu else "",
        f"{max(peaks) / MIB:.0f}" if peaks else "", f"{statistics.median(kept) / MIB:.1f}" if kept else "",
    )


def table(result: dict[str, Any]) -> str:
    lines: list[tuple[str, ...]] = [("step", "who", "seconds (least–most)", "MiB/s", "pgBackRest's time / its", "CPU s", "peak MiB", "stored MiB")]
    for step in steps(result):
        present = result["rounds"][0][step]
        lines += [_line(result, step, who) for who in ("Lifeboat", "Lifeboat in place", RIVAL, INSTALLED, COPY) if who in present]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    out = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    out.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(out)


def parts(result: dict[str, Any]) -> str:
    """Where Lifeboat's time until the server answers goes."""
    lines = []
    for step in steps(result):
        for who in ("Lifeboat", "Lifeboat in place"):
            told = [one[step][who]["parts"] for one in result["rounds"] if "parts" in one[step].get(who, {})]
            if not told:
                continue
            median = {name: statistics.median(one[name] for one in told) for name in told[0]}
            lines.append(
                f"- {step.split(':')[0]}, {who}: files {median['files']:.2f} s ({median['bytes_reused'] / MIB:.0f} MiB taken from the live cluster, "
                f"{median['bytes_fetched'] / MIB:.0f} MiB from the repository), recovery on the private server {median['recovery']:.2f} s, "
                f"checks {median['checks']:.2f} s, of {median['whole']:.2f} s")
    return "\n".join(lines)


def compression(result: dict[str, Any]) -> str:
    """What the levels cost, as a table; empty where it was not measured."""
    rows = result["about"].get("compression", [])
    lines = [f"| {row['name']} | {row['speed']:.0f} | {100 * row['share']:.1f} |" for row in rows]
    return "\n".join(["| level | MiB/s of one core | stored % |", "|---|---|---|", *lines]) if rows else ""


def page(result: dict[str, Any]) -> str:
    told = result["about"]
    note = f" {told['note'].rstrip('.')}." if told["note"] else ""
    head = (
        f"Measured {told['time']} on {told['machine']}; cluster of {told['size']} MiB, {told['wal']} MiB of log, {told['rounds']} rounds, cache warm, "
        f"{told['workers']} workers, zstd level 1, encrypted, page checksums verified; Lifeboat {told['lifeboat']}, {told['pgbackrest']}, "
        f"PostgreSQL {told['postgresql']}, Python {told['python']}, file system {told['file_system']}; load average at the start and after each round "
        f"{', '.join(told['load'])}.{note}"
    )
    lag = [cluster_lag.line(told["lag"])] if told.get("lag") else []
    levels = compression(result)
    return "\n\n".join([head, table(result), *lag, "Required and measured:", "```text\n" + "\n".join(judge(result)) + "\n```",
                        "Inside Lifeboat's restores until the server answers:", parts(result),
                        *(["Compression of chunks of this cluster:", levels] if levels else [])])
