# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Room for what is staged, measured per file system and memory, and added up over everything that is staged there at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from .errors import StorageError

if TYPE_CHECKING:
    from .sources.contract import Need

_MEMORY = "memory"


def measured(need: Need) -> dict[str, Any] | None:
    """{"device", "mount", "path", "bytes", "entries", "free", "free_entries", "hint"} of a need; None where nobody can tell what is free.

    device: the same for all paths of one file system, on one running kernel; "memory". free_entries None: the file system has no such limit.
    """
    if not need.path:
        free = _available()
        return None if free is None else {
            "device": _MEMORY, "mount": _MEMORY, "path": "", "bytes": need.bytes, "entries": 0, "free": free, "free_entries": None, "hint": need.hint}
    path = need.path
    while not os.path.isdir(path) and path not in ("", "/"):
        path = os.path.dirname(path)
    try:
        device, status = os.stat(path).st_dev, os.statvfs(path)
    except OSError:
        return None  # not readable for us: whoever writes there will say so
    return {
        "device": f"{os.major(device)}:{os.minor(device)}", "mount": _mount(path, device), "path": need.path, "bytes": need.bytes, "entries": need.entries,
        "free": status.f_bavail * status.f_frsize, "free_entries": status.f_favail if status.f_files else None, "hint": need.hint,
    }


def added_up(needs: Iterable[Mapping[str, Any]], key: str = "device") -> dict[str, dict[str, Any]]:
    """key -> the sum of what is needed there, with what is free: as measured(), and "paths" and "hints", each once."""
    sums: dict[str, dict[str, Any]] = {}
    for need in needs:
        found = sums.setdefault(str(need[key]), {**need, "bytes": 0, "entries": 0, "paths": [], "hints": []})
        found["bytes"] += int(need["bytes"])
        found["entries"] += int(need["entries"])
        # measured by several calls, one after another: the last word is the smallest
        found["free"] = min(int(found["free"]), int(need["free"]))
        for name, value in (("paths", need["path"]), ("hints", need["hint"])):
            if value and value not in found[name]:
                found[name].append(value)
    return sums


def lacking(found: Mapping[str, Any], of: str = "") -> list[StorageError]:
    """What a sum of added_up() lacks. of: who needs it, for people."""
    errors = []
    where = str(found["mount"]) if found["device"] != _MEMORY else "memory of the host"
    if found["bytes"] > found["free"]:
        what = "not enough memory to check the staged copies" if found["device"] == _MEMORY else "not enough space to stage beside the live data"
        remedy = "free memory on this host" if found["device"] == _MEMORY else "free space or enlarge the file system"
        errors.append(StorageError(
            f"{what}: {size(found['bytes'])} needed{of}, {size(found['free'])} free", where, ", ".join([remedy, *found["hints"]]),
        ))
    if found["free_entries"] is not None and found["entries"] > found["free_entries"]:
        errors.append(StorageError(
            f"not enough free inodes to stage beside the live data: {found['entries']} needed{of}, {found['free_entries']} free", where,
            "remove files or enlarge the file system",
        ))
    return errors


def size(count: int) -> str:
    """For people."""
    return f"{count} bytes" if count < 10 << 20 else f"{count >> 20} MiB"


def _mount(path: str, device: int) -> str:
    """The highest directory above a path that is still on its file system."""
    while path != "/":
        above = os.path.dirname(path)
        if os.stat(above).st_dev != device:
            break
        path = above
    return path


def _available() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            return next(int(line.split()[1]) * 1024 for line in handle if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
