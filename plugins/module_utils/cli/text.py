# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Sizes, ages and tables for a terminal."""

from __future__ import annotations

import datetime
from typing import Any, Sequence


def size(count: Any) -> str:
    """Bytes for people; "-" when unknown."""
    if not isinstance(count, (int, float)):
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float | None) -> str:
    """Seconds for people: 0.42 s, 12.3 s, 4m05s, 2h03m."""
    if seconds is None:
        return "-"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = int(round(seconds))
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def age(stamp: Any) -> str:
    """How long ago an ISO time was; "-" when unknown."""
    try:
        then = datetime.datetime.fromisoformat(str(stamp).replace("Z", "+00:00"))
        seconds = (datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()
    except (ValueError, TypeError):
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Left-aligned columns; control characters in cells are escaped."""
    cells = [list(head)] + [[_plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def _plain(cell: Any) -> str:
    text = "-" if cell is None or cell == "" else str(cell)
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)
