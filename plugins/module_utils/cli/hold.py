# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat hold``: legal holds on snapshots: list, set and clear."""

from __future__ import annotations

import argparse

from .. import lease
from ..errors import ConfigError
from ..pipeline import operations
from . import text
from .shared import answer, chosen


def hold(options: argparse.Namespace) -> int:
    """Set or clear the hold on a target of one service, or list those of all."""
    if options.target:
        if not options.service:
            raise ConfigError("a hold is for one service", "--target", "name it: lifeboat hold SERVICE --target SNAPSHOT")
        (spec,) = chosen(options)
        told = operations.hold(spec, lease.new_run("hold"), options.target, "clear" if options.clear else "set", options.reason, False)
        word = ("no longer held" if options.clear else "held") + ("" if told["changed"] else " already")
        answer(options, told, "\n".join(f"{spec.service}: {snapshot} is {word}" for snapshot in told["snapshots"]))
        return 0
    listed = {spec.service: operations.holds(spec) for spec in chosen(options)}
    rows = [[service, one["snapshot"], one["damaged"] or one["reason"], one["by"], one["time"], ", ".join(one["repositories"])]
            for service, told in listed.items() for one in told["holds"]]
    answer(options, listed, text.table(["SERVICE", "SNAPSHOT", "REASON", "BY", "SINCE", "IN"], rows))
    return 0
