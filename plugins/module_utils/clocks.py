# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How far apart two clocks are, as far as one question tells: an interval, never a guess, so that a slow answer is no skew."""

from __future__ import annotations

from typing import Callable, NamedTuple

from .errors import ClockError

#: Seconds from which a skew is told, refuses a restore to a time, and refuses any restore (S3 stores refuse requests from here on).
TOLD, TIMED, ANY = 2.0, 60.0, 900.0

#: What a limit is for.
_WHY = {TOLD: "", TIMED: " for a restore to a time", ANY: ""}
_REMEDY = "set the clock right (chronyc makestep)"


class Skew(NamedTuple):
    """Seconds by which another clock is ahead of ours (behind, when negative): somewhere from ``low`` to ``high``."""

    low: float
    high: float

    @property
    def least(self) -> float:
        """The smallest skew that explains what was seen, with its sign; 0 when none is needed."""
        return self.low if self.low > 0 else self.high if self.high < 0 else 0.0


def between(asked: float, answered: float, theirs: float, step: float = 0.0) -> Skew:
    """From our times before and after a question and the other clock's answer, which it gives in steps of ``step`` seconds."""
    return Skew(theirs - answered, theirs + step - asked)


def ask(clock: Callable[[], float], question: Callable[[], float | None], step: float = 0.0) -> Skew | None:
    """Ask another clock; None when it does not say."""
    asked = clock()
    theirs = question()
    return None if theirs is None else between(asked, clock(), theirs, step)


def judge(skew: Skew, whose: str, ours: str, timed: bool) -> tuple[str, ClockError] | None:
    """(level, error) for a skew that matters. whose, ours: the two clocks in words. timed: the restore ends at a time."""
    seconds = skew.least
    size = abs(seconds)
    if size < TOLD:
        return None
    limit = ANY if size >= ANY else TIMED if timed and size >= TIMED else TOLD
    level = "warning" if limit == TOLD else "error"
    what = f"the clock of {whose} is {size:.0f} s {'ahead of' if seconds > 0 else 'behind'} that of {ours} (limit {limit:g} s{_WHY[limit]})"
    remedy = _REMEDY
    if limit == TIMED:
        remedy += ", or name a point or a position instead of a time as lifeboat_target"
    return level, ClockError(what, whose, remedy)
