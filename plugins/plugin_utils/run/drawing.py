# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The time-line as inline SVG: a lane per service, a bar per phase, its measured seconds in the title."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words

_WIDTH = 1180.0
_LEFT = 150.0
_RIGHT = 120.0
_LANE = 30.0
_TOP = 8.0
#: Narrower bars are drawn this wide, so that a short phase can be seen; their title has the true number.
_LEAST = 1.5
#: Width of a letter of the smallest text, about.
_LETTER = 5.6


def text(value: Any, limit: int = 400) -> str:
    """Any value as HTML text: one line, no control characters, everything that could be markup escaped."""
    return escape(words.one_line(value, limit), quote=True)


def ticks(total: float) -> list[float]:
    """Round moments for the scale: five to ten of them, in seconds."""
    if total <= 0:
        return [0.0]
    raw = total / 7.0
    step: float
    if raw >= 60:
        step = next((one for one in (60.0, 120, 300, 600, 900, 1800, 3600, 7200, 14400) if one >= raw), math.ceil(raw / 14400) * 14400)
    else:
        power = 10.0 ** math.floor(math.log10(raw))
        step = next((one * power for one in (1, 2, 5, 10) if one * power >= raw), 10 * power)
    count = int(total / step + 1e-9)
    return [round(index * step, 6) for index in range(count + 1)]


def _label(seconds: float) -> str:
    if seconds >= 60:
        return words.duration(seconds)
    return f"{seconds:g} s"


def svg(document: dict[str, Any]) -> str:
    """The drawing of a run.json document; colours come from the page's style sheet (classes ``p-<phase>``)."""
    services: dict[str, dict[str, Any]] = document["services"]
    total = max([float(document["wall"]["seconds"])] + [p["offset"] + p["seconds"] for item in services.values() for p in item["phases"]] + [1e-3])
    span = _WIDTH - _LEFT - _RIGHT
    lanes_end = _TOP + _LANE * len(services)
    height = lanes_end + 30
    out = [
        f'<svg class="timeline" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-labelledby="tl-title" xmlns="http://www.w3.org/2000/svg">',
        f'<title id="tl-title">Time-line of {text(document["run"]["id"])}: {len(services)} services in {text(words.duration(total))}</title>',
        '<defs><pattern id="waits" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" class="wait-ground"/><rect width="1.6" height="6" class="wait-line"/></pattern></defs>',
    ]
    for moment in ticks(total):
        x = _LEFT + moment / total * span
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:.0f}" y2="{lanes_end:.0f}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{lanes_end + 18:.0f}" text-anchor="middle">{text(_label(moment))}</text>')
    for index, (name, item) in enumerate(services.items()):
        top = _TOP + index * _LANE
        if index % 2:
            out.append(f'<rect class="lane" x="0" y="{top:.1f}" width="{_WIDTH:.0f}" height="{_LANE:.0f}"/>')
        short = words.one_line(name, 20)
        out.append(f'<text class="name" x="{_LEFT - 10:.0f}" y="{top + 20:.1f}" text-anchor="end">{text(short)}<title>{text(name)}</title></text>')
        for phase in item["phases"]:
            out.append(_bar(phase, top, total, span))
        verdict = str(item["verdict"] or "unfinished")
        out.append(
            f'<text class="v v-{text(verdict, 20)}" x="{_WIDTH - _RIGHT + 10:.0f}" y="{top + 15:.1f}">{text(verdict, 20)}</text>'
            f'<text class="tick" x="{_WIDTH - _RIGHT + 10:.0f}" y="{top + 27:.1f}">{text(words.duration(item["seconds"]))}</text>'
        )
    out.append("</svg>")
    return "\n".join(out)


def _bar(phase: dict[str, Any], top: float, total: float, span: float) -> str:
    x = _LEFT + max(0.0, phase["offset"]) / total * span
    width = max(_LEAST, phase["seconds"] / total * span)
    name = phase["name"] if phase["name"] in words.PHASES else "plan"
    waits = name in words.WAITING_PHASES
    inset, height = (11.0, _LANE - 22) if waits else (5.0, _LANE - 10)
    title = f"{phase['name']}: {words.duration(phase['seconds'])}, from {phase['offset']:.2f} s"
    for wait in phase["waited_for"]:
        title += f"; waited {words.duration(wait['seconds'])} for {wait['service']}"
    if phase["outcome"] != "done":
        title += f" ({phase['outcome']})"
    bad = " bad" if phase["outcome"] in ("failed", "open") else ""
    return (
        f'<rect class="bar p-{name}{bad}" x="{x:.2f}" y="{top + inset:.1f}" width="{width:.2f}" height="{height:.0f}" rx="1.5">'
        f"<title>{text(title)}</title></rect>"
    ) + (_whom(phase, x, width, top) if waits else "")


def _whom(phase: dict[str, Any], x: float, width: float, top: float) -> str:
    """The name of the service that it waited for longest, where the bar is wide enough for it."""
    longest = max(phase["waited_for"], key=lambda wait: float(wait["seconds"]), default=None)
    name = words.one_line(longest["service"], 40) if longest else ""
    if not name or len(name) * _LETTER > width - 6:
        return ""
    return f'<text class="whom" x="{x + width / 2:.1f}" y="{top + _LANE / 2 - 6:.1f}" text-anchor="middle">{text(name)}</text>'


def legend(document: dict[str, Any]) -> str:
    """The colours in use, as an HTML list."""
    used = {phase["name"] for item in document["services"].values() for phase in item["phases"]}
    names = [phase for phase in words.PHASES if phase in used and phase not in words.WAITING_PHASES]
    items = [f'<li><span class="swatch s-{name}"></span>{text(name)}</li>' for name in names]
    if used & set(words.WAITING_PHASES):
        items.append('<li><span class="swatch s-wait"></span>waits for others</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'
