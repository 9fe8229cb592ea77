# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Who may take its time in a restore: services that do not decide when the last is back leave the processors to those that do."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

#: An island whose forecast is less than this part of the longest can wait a little without becoming the longest.
_SHORTER = 0.9


def giving_way(document: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Mapping[str, Any]], islands: Sequence[Sequence[str]]) -> set[str]:
    """Services of islands that are shorter than the longest: by their forecasts where all have one, else by how many services follow each other.

    document: services of the catalog, with "priority" and "rto". entries: of a plan, with "level" and "forecast". An island with a lower priority number
    or a shorter RTO than any in the longest never gives way.
    """
    parts = [part for part in islands if part]
    if len(parts) < 2:
        return set()
    known = all((entries[service].get("forecast") or {}).get("seconds") is not None for part in parts for service in part)
    lengths = [max(_length(entries[service], known) for service in part) for part in parts]
    longest = max(lengths)
    limit = longest * _SHORTER if known else longest
    first = [part for part, length in zip(parts, lengths) if length == longest]

    def urgent(part: Sequence[str]) -> bool:
        return any(_least(document, part, key) < min(_least(document, other, key) for other in first) for key in ("priority", "rto"))

    return {service for part, length in zip(parts, lengths) if length < limit and not urgent(part) for service in part}


def _length(entry: Mapping[str, Any], known: bool) -> float:
    return float(entry["forecast"]["seconds"]) if known else float(entry.get("level") or 0)


def _least(document: Mapping[str, Mapping[str, Any]], part: Sequence[str], key: str) -> float:
    return min((float(document[service][key]) for service in part if document[service].get(key) is not None), default=float("inf"))
