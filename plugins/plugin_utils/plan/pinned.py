# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A run that resumes another goes to the point that the other one resolved, although ``latest`` may mean a newer one by now."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ..catalog.graph import Services
from .target import Point, units


def unfinished(answer: Mapping[str, Any], asked: str) -> Mapping[str, Any] | None:
    """The restore of a service that was asked for with the same words and never came to a verdict; None when there is none."""
    restores = answer.get("restores") or []
    last = restores[-1] if restores else None
    if last and last.get("open") and not last.get("verdict") and last.get("asked") == asked and last.get("point"):
        found: Mapping[str, Any] = last
        return found
    return None


def pin(services: Services, picked: Sequence[str], points: Mapping[str, Sequence[Point]], answers: Mapping[str, Mapping[str, Any]],
        asked: str) -> tuple[dict[str, list[Point]], list[str], list[str]]:
    """(points cut down to the pinned ones, warnings, runs that are resumed).

    A service or consistency group with an unfinished restore of the same target keeps only the point of that restore,
    so that every way of resolving the target finds this one.
    """
    result = {service: list(own) for service, own in points.items()}
    warnings: list[str] = []
    resumed: list[str] = []
    for _owner, members in units(services, picked):
        found = [unfinished(answers.get(member) or {}, asked) for member in members]
        begun = [restore for restore in found if restore is not None]
        kept = {str(restore["point"]).partition("@")[0] for restore in begun}
        if len(kept) != 1:
            continue
        point = kept.pop()
        if not all(any(candidate["id"] == point and candidate.get("complete") for candidate in points.get(member) or ()) for member in members):
            continue  # it is gone from the repository: the target is resolved anew, and the host gives the old copy up
        for member in members:
            result[member] = [candidate for candidate in points[member] if candidate["id"] == point]
            if result[member][-1:] != list(points[member])[-1:]:
                warnings.append(f"{member} goes on with point {point} of the unfinished run, although newer points exist")
        resumed += [str(run) for restore in begun for run in (restore.get("runs") or [])[-1:]]
    return result, warnings, sorted(set(resumed))
