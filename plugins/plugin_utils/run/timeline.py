# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The time-line for a terminal: one bar per service, one letter per phase, and a table of the measured seconds."""

from __future__ import annotations

import textwrap
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words

#: The letter that draws a phase. Waiting is a dot, so that work stands out.
LETTERS = {
    "plan": "-", "preflight": "p", "stage": "s", "island": ".", "stop": "x", "gate": ".", "cutover": "C", "migrate": "g", "start": "u", "health": "h",
    "invariants": "i", "protect": "r", "verdict": "v", "capture": "c", "verify": "v", "commit": "m", "rollback": "b",
}

#: What the letters stand for, where the phase's own name would not be enough.
_NAMES = {"island": "waits", "gate": "waits", "protect": "re-protect", "start": "start (up)"}

#: A short piece of work is shown even when a cell is mostly waiting.
_WEIGHT = {".": 0.25, "C": 3.0}


def strip(phases: list[dict[str, Any]], total: float, width: int) -> str:
    """One service's bar of ``width`` characters over ``total`` seconds: per cell the phase that filled most of it."""
    if total <= 0 or width < 1:
        return " " * max(0, width)
    share: list[dict[str, float]] = [{} for _cell in range(width)]
    for phase in phases:
        letter = LETTERS.get(phase["name"], "?")
        begin = min(max(0.0, phase["offset"]) / total * width, width - 1e-9)
        end = min(max(begin + 1e-6, (phase["offset"] + phase["seconds"]) / total * width), float(width))
        for cell in range(int(begin), min(width, int(end) + 1)):
            part = min(end, cell + 1.0) - max(begin, float(cell))
            if part > 0:
                share[cell][letter] = share[cell].get(letter, 0.0) + part * _WEIGHT.get(letter, 1.0)
    return "".join(max(sorted(cell), key=cell.__getitem__) if cell else " " for cell in share)


def axis(total: float, width: int) -> str:
    """The scale under the bars: 0 at the left, the whole time at the right, the middle where there is room."""
    right = words.duration(total)
    line = ["-"] * width
    for at in (0, width // 4, width // 2, width * 3 // 4, width - 1):
        if 0 <= at < width:
            line[at] = "+"
    scale = [" "] * (width + 1)
    for text, at in (("0", 0), (words.duration(total / 2), width // 2 - len(words.duration(total / 2)) // 2), (right, width - len(right))):
        if at >= 0 and all(c == " " for c in scale[max(0, at - 1):at + len(text) + 1]):
            scale[at:at + len(text)] = list(text)
    return "".join(line) + "\n" + "".join(scale).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "~"


def render(document: dict[str, Any], width: int = 100) -> str:
    """The time-line of a run.json document, ``width`` columns (80 to 120) at most. Every number in it was measured."""
    width = max(80, min(120, width))
    services: dict[str, dict[str, Any]] = document["services"]
    total = max(
        [float(document["wall"]["seconds"])] + [phase["offset"] + phase["seconds"] for item in services.values() for phase in item["phases"]] + [1e-3]
    )
    name_width = min(20, max([len("service"), *(len(words.one_line(name)) for name in services)]))
    tail_width = 12 + 1 + 8
    room = width - name_width - tail_width - 4
    lines = [f"Time-line of {document['run']['id']}, {words.duration(total)} in all"]
    used: list[str] = []
    for name, item in services.items():
        used += [phase["name"] for phase in item["phases"] if phase["name"] not in used]
        verdict = str(item["verdict"] or "running")
        lines.append(
            f"{_cut(words.one_line(name), name_width):<{name_width}} |{strip(item['phases'], total, room)}| {verdict:<12}{words.duration(item['seconds']):>8}"
        )
    scale = axis(total, room).split("\n")
    lines += [" " * (name_width + 2) + text for text in scale]
    shown: dict[str, list[str]] = {}
    for phase in words.PHASES:
        if phase in used:
            label = _NAMES.get(phase, phase)
            if label not in shown.setdefault(LETTERS[phase], []):
                shown[LETTERS[phase]].append(label)
    legend = "  ".join(f"{letter}\u00a0{'/'.join(names).replace(' ', chr(0xA0))}" for letter, names in shown.items())
    if legend:
        margin = " " * (name_width + 2)
        lines += textwrap.wrap(legend, width, initial_indent=margin, subsequent_indent=margin, break_long_words=False)
        lines = [line.replace("\u00a0", " ") for line in lines]  # they only kept a letter with its word
    lines += ["", *table(services, name_width, width)]
    human = float(document["wall"]["human_wait_seconds"])
    if human:
        lines.append(f"waited for people: {words.duration(human)} of {words.duration(float(document['wall']['seconds']))}")
    return "\n".join(lines)


def table(services: dict[str, dict[str, Any]], name_width: int, width: int) -> list[str]:
    """Measured seconds per service and phase; phases that nobody was in are left out, and what does not fit is named below."""
    columns = [phase for phase in words.PHASES if any(entry["name"] == phase for item in services.values() for entry in item["phases"])]
    if not columns:
        return []
    cell = {phase: max(6, min(10, len(phase))) for phase in columns}
    room = width - name_width - 9
    fitting: list[str] = []
    for phase in columns:
        if sum(cell[one] + 1 for one in fitting) + cell[phase] + 1 <= room:
            fitting.append(phase)
    lines = [f"{'seconds':<{name_width}}" + "".join(f" {_cut(phase, cell[phase]):>{cell[phase]}}" for phase in fitting) + f" {'in all':>8}"]
    for name, item in services.items():
        sums = phase_sums(item["phases"])
        cells = "".join(f" {_number(sums.get(phase)):>{cell[phase]}}" for phase in fitting)
        lines.append(f"{_cut(words.one_line(name), name_width):<{name_width}}{cells} {_number(item['seconds']):>8}")
    left_out = [phase for phase in columns if phase not in fitting]
    if left_out:
        lines.append("not shown for lack of room, see run.json: " + ", ".join(left_out))
    return lines


def phase_sums(phases: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds per phase name; a phase that came twice counts twice."""
    sums: dict[str, float] = {}
    for phase in phases:
        sums[phase["name"]] = sums.get(phase["name"], 0.0) + float(phase["seconds"])
    return sums


def _number(value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 999.995 else f"{value:.0f}"
