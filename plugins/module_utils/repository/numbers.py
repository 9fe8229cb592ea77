# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Objects that are numbered from 0 without gaps: the newest one is found by asking for names, not by a list, which may omit it."""

from __future__ import annotations

from typing import Callable

from .backend import Backend

_LAST = 999_999  # generations have six digits


def present(backend: Backend, name: str) -> bool:
    """Whether an object is there."""
    try:
        backend.size(name)
    except FileNotFoundError:
        return False
    return True


def newest_number(exists: Callable[[int], bool]) -> int | None:
    """The highest of numbers that run from 0 without gaps, by a few questions; None when there is no 0 and no 1."""
    if not exists(1):
        return 0 if exists(0) else None
    low, high = 1, 2
    while high <= _LAST and exists(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return low
