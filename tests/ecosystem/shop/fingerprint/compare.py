# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is different between two fingerprints, in words."""

from __future__ import annotations

from typing import Any

#: What a restored file may occupy beyond the original before its holes count as lost, in bytes.
_ALLOCATION_SLACK = 128 * 1024


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Differences, none if the content is the same. A key whose time has come since the first is no difference."""
    before, after = dict(first), dict(second)
    clock = after.get("redis", {}).get("taken_ms", 0)
    before["redis"], after["redis"] = _unexpired(before.get("redis"), clock), _unexpired(after.get("redis"), clock)
    differences: list[str] = []
    _walk("", before, after, differences)
    return differences


def _unexpired(redis: Any, clock: int) -> Any:
    if not isinstance(redis, dict) or "databases" not in redis:
        return redis
    live = {
        number: {key: value for key, value in keys.items() if value[2] < 0 or value[2] > clock} for number, keys in redis["databases"].items()
    }
    return {"databases": {number: keys for number, keys in live.items() if keys}}


def _walk(path: str, before: Any, after: Any, differences: list[str]) -> None:
    if path.endswith(" > sparse") and isinstance(before, dict) and isinstance(after, dict) and "allocated" in before and "allocated" in after:
        if abs(after["allocated"] - before["allocated"]) > _ALLOCATION_SLACK:
            differences.append(f"{path}: {before['allocated']} bytes allocated, now {after['allocated']}")
    elif isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            inner = f"{path} > {key}" if path else key
            if key not in after:
                differences.append(f"{inner}: missing")
            elif key not in before:
                differences.append(f"{inner}: new ({_short(after[key])})")
            else:
                _walk(inner, before[key], after[key], differences)
    elif isinstance(before, list) and isinstance(after, list) and path.endswith(" > roles"):
        differences += [f"{path}: missing: {_short(line)}" for line in before if line not in after]
        differences += [f"{path}: new: {_short(line)}" for line in after if line not in before]
    elif isinstance(before, list) and isinstance(after, list) and " > objects > " in path:
        lines, now = ("\n".join(map(str, texts)).splitlines() for texts in (before, after))
        differences += [f"{path}: missing: {_short(line)}" for line in lines if line not in now]
        differences += [f"{path}: new: {_short(line)}" for line in now if line not in lines]
        if lines != now and set(lines) == set(now):
            differences.append(f"{path}: lines in another order")
    elif before != after:
        differences.append(f"{path}: {_short(before)}, now {_short(after)}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
