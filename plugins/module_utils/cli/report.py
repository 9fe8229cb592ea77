# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat report``: how long recoveries took, from the histories of services; and its tables, which the playbook prints too."""

from __future__ import annotations

import argparse
from typing import Any, Mapping

from .. import recoveries
from ..ledger import now
from . import text
from .history import told
from .shared import answer, chosen

HEAD = ("RECOVERIES", "MEAN", "MEDIAN", "P90", "LAST", "TREND", "SUCCESS", "RTO MET", "WAITED FOR PEOPLE", "FAILURES")


def report(options: argparse.Namespace) -> int:
    """One row per service; 3 when a copy of a ledger is damaged or missing."""
    histories, damaged = told(options)
    facts = {} if options.repository else {
        spec.service: {"domain": spec.entry.get("domain"), "tier": spec.entry.get("tier"), "rto": spec.entry.get("rto")} for spec in chosen(options)
    }
    document = recoveries.report({name: one["runs"] for name, one in histories.items()}, facts, "", now())
    answer(options, document, "\n".join(lines(document)))
    return 3 if damaged else 0


def lines(document: Mapping[str, Any]) -> list[str]:
    """The tables of a report's document."""
    found = []
    for head, kind in (("SERVICE", "services"), ("DOMAIN", "domains"), ("TIER", "tiers")):
        if document[kind]:
            found += ["", *text.table([head, *HEAD], [[name, *_cells(one)] for name, one in document[kind].items()]).splitlines()]
    found += [f"{service}: no history: {why}" for service, why in document["silent"].items()]
    return found[1:]


def _cells(one: Mapping[str, Any]) -> list[str]:
    mttr, moved, met = one["mttr"], one["trend"], one["rto"]
    times = [text.duration(mttr[key]) for key in ("mean", "median", "p90")] if mttr else ["", "", ""]
    judged = met["met"] + met["missed"]
    return [
        str(mttr["count"]) if mttr else "none", *times, text.duration(one["last"]["raw"]) if one["last"] else "", trend(moved),
        f"{one['succeeded']} of {one['runs']}" if one["runs"] else "", f"{met['met']} of {judged}" if judged else "",
        text.duration(one["human_seconds"]) if one["human_seconds"] else "", ", ".join(f"{kind} {count}" for kind, count in one["failures"].items()),
    ]


def trend(moved: Mapping[str, float] | None) -> str:
    """The slope in words; "" where one recovery is all there is."""
    if moved is None:
        return ""
    slope = moved["slope"]
    return "steady" if abs(slope) < 0.005 else f"{'slower' if slope > 0 else 'faster'} by {text.duration(abs(slope))} each"
