# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat backup``: one snapshot of each source of the services of this host, under one point; needs only the right to seal."""

from __future__ import annotations

import argparse
import sys

from .. import lease
from ..pipeline import operations
from . import text
from .shared import answer, chosen


def backup(options: argparse.Namespace) -> int:
    """Capture; the point is the id of the run."""
    run = lease.new_run("backup")
    told, lines = {}, []
    for spec in chosen(options):
        told[spec.service] = one = operations.capture(spec, run, options.mode)
        stored = sum(int(snapshot["bytes_stored"]) for snapshot in one["snapshots"])
        lines.append(f"{spec.service}: {len(one['snapshots'])} snapshots, {text.size(stored)} stored, point {run['id']}")
        for warning in one["warnings"]:
            sys.stderr.write(f"lifeboat: warning: {spec.service}: {warning['what']}: {warning['where']}; {warning['remedy']}\n")
    answer(options, told, "\n".join(lines))
    return 0
