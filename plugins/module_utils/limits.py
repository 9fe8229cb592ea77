# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The time limit of the step that this process performs, asked where the work is done and where it waits.

A process works on one service and one step at a time, in many threads: the limit is the process's, and each thread looks at it. Work ends at its
next look, by an error, on the same way out as after any other failure: so nothing is left half-done that a failure would not leave.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Iterator

from .errors import LimitError


@dataclass(frozen=True)
class _Limit:
    end: float
    seconds: float
    step: str
    service: str

    def error(self) -> LimitError:
        return LimitError(f"the step {self.step} did not end within {self.seconds:g} s", self.service,
                          f"see what takes so long; the limit is policy.{self.step}.timeout in the catalog")


_current: list[_Limit] = []
_lifted = threading.local()


@contextlib.contextmanager
def within(seconds: float, step: str, service: str) -> Iterator[None]:
    """Let the work of the block end with LimitError when it takes longer; 0 is no limit."""
    if not seconds:
        yield
        return
    limit = _Limit(time.monotonic() + seconds, seconds, step, service)
    _current.append(limit)
    try:
        yield
    finally:
        _current.remove(limit)


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Clearing up after a step that ran out of time is not cut short by the same limit (in this thread)."""
    before = getattr(_lifted, "on", False)
    _lifted.on = True
    try:
        yield
    finally:
        _lifted.on = before


def _limit() -> _Limit | None:
    return None if not _current or getattr(_lifted, "on", False) else _current[-1]


def check() -> None:
    """Raise LimitError when the time of the step is over."""
    limit = _limit()
    if limit is not None and time.monotonic() > limit.end:
        raise limit.error()


def at_most(seconds: float) -> float:
    """As many of these seconds as the step still has; never less than a moment, so that a command is begun and then ended."""
    limit = _limit()
    return seconds if limit is None else max(0.01, min(seconds, limit.end - time.monotonic()))
