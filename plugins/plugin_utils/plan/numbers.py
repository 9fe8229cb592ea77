# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Small-sample arithmetic of the forecast: lines through few points, and how far the next value may be off."""

from __future__ import annotations

import math
from statistics import median
from typing import Sequence

#: What is believed before anything was compared: forecasts are off by a fifth, as if one had been. A rule of thumb.
PRIOR_SPREAD = 0.2
#: By which power of a host's pace the phases of a service change, before it was seen; and which paces are too much alike to show it.
PRIOR_ELASTICITY = 0.7
APART = 0.15
#: Quantile 0.9 of Student's t by degrees of freedom: two of them enclose 80 %.
_T90 = (3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372, 1.363, 1.356, 1.350, 1.345, 1.341, 1.337, 1.333, 1.330, 1.328, 1.325)
#: No interval is narrower than this, in seconds to either side: a clock tick of the playbook, a process that had to wait.
FLOOR = 0.2


def t90(freedom: int) -> float:
    """The quantile; of the normal distribution from 100 on, linear in 1/freedom between the table and there."""
    if freedom <= len(_T90):
        return _T90[max(1, freedom) - 1]
    return 1.2816 + (_T90[-1] - 1.2816) * len(_T90) / freedom


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """(fixed, per unit) of y over x by the median of pairwise slopes (Theil-Sen), both at least 0; None when the x hardly differ."""
    widest = max((x for x, _y in points), default=0.0) - min((x for x, _y in points), default=0.0)
    if len(points) < 2 or widest <= 0.2 * max(x for x, _y in points):
        return None
    slopes = [(other[1] - one[1]) / (other[0] - one[0]) for index, one in enumerate(points) for other in points[index + 1:]
              if abs(other[0] - one[0]) >= widest / 4]
    slope = max(0.0, median(slopes))
    fixed = median(y - slope * x for x, y in points)
    if fixed < 0:  # then nothing of it is fixed
        return 0.0, max(0.0, median(y / x for x, y in points if x > 0))
    return fixed, slope


def elasticity(points: Sequence[tuple[float, float]]) -> float:
    """By which power of x y grows, 0 to 1: from how they changed together (medians), leaning on the rule of thumb while little was seen."""
    slopes = [math.log(other[1] / one[1]) / math.log(other[0] / one[0]) for index, one in enumerate(points) for other in points[index + 1:]
              if min(*one, *other) > 0 and abs(math.log(other[0] / one[0])) >= APART]
    return min(1.0, max(0.0, median([*slopes, *[PRIOR_ELASTICITY] * 3])))


def spread(residuals: Sequence[float], runs: int, distance: float = 0.0) -> float:
    """Half the width of the 80 % interval, as a logarithm of a factor.

    residuals: logarithms of measured over forecast, of forecasts that were made before. runs: how many runs this forecast stands on.
    distance: logarithm of how far what is forecast lies from what was measured (twice the bytes: log 2).
    """
    variance = (PRIOR_SPREAD ** 2 + sum(value ** 2 for value in residuals)) / (1 + len(residuals))
    return t90(2 + len(residuals)) * math.sqrt(variance * (1 + 1 / max(1, runs)) + (distance / 4) ** 2)


def around(seconds: float, width: float, floor: float = FLOOR) -> tuple[float, float]:
    """(low, high) of a duration."""
    return max(0.0, min(seconds * math.exp(-width), seconds - floor)), max(seconds * math.exp(width), seconds + floor)


def logs(measured: Sequence[tuple[float, float]]) -> list[float]:
    """Residuals of (forecast, measured) pairs."""
    return [math.log(found / told) for told, found in measured if told > 0 and found > 0]
