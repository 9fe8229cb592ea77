# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat copy``: bring the copies of a service's repository up to date; needs no key that opens content."""

from __future__ import annotations

import argparse

from .. import lease
from ..pipeline import operations
from . import text
from .shared import answer, chosen


def copy(options: argparse.Namespace) -> int:
    """Copy what is not there yet; 3 when something could not be copied."""
    run = lease.new_run("copy")
    told = {spec.service: operations.copy(spec, run, options.to, options.origin, options.check, options.repair) for spec in chosen(options)}
    lines = []
    for service, one in told.items():
        for place in one["copies"]:
            done = f"{len(place['snapshots'])} snapshots would be copied" if options.check else (
                f"{place['objects']} objects, {text.size(place['bytes'])}, {len(place['snapshots'])} snapshots complete")
            what = f"repair of {place['name']}" if options.repair else f"{place['from']} to {place['name']}"
            lines.append(f"{service}: {what}: {'NOT COMPLETE, ' if place['problems'] else ''}{done}")
            lines += [f"  {problem['what']}: {problem['where']}; {problem['remedy']}" for problem in place["problems"]]
        if not one["copies"]:
            lines.append(f"{service}: its repository has no copies")
    answer(options, told, "\n".join(lines))
    return 0 if all(one["ok"] for one in told.values()) else 3
