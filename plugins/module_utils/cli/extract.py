# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat extract``: one database or a few tables of a snapshot, beside the live ones; nothing is stopped and nothing replaced."""

from __future__ import annotations

import argparse

from .. import lease
from ..pipeline import operations
from . import text
from .restore import confirm, say, warn
from .shared import answer, load


def arguments(one: argparse.ArgumentParser) -> None:
    """The options of the command."""
    one.add_argument("source", help="the source to extract from, of type postgresql")
    one.add_argument("--target", default="latest", help="where to: as for restore (default: latest)")
    one.add_argument("--database", required=True, help="the database, as it was called at the target")
    one.add_argument("--table", action="append", default=[], metavar="SCHEMA.NAME", help="only this table, with its partitions; may be repeated")
    one.add_argument("--as", dest="name", default="", metavar="NAME", help="new name of the database, or of the schema for tables (default: from the target)")
    one.add_argument("--check", action="store_true", help="say what would be done; change nothing")
    one.add_argument("--confirm", metavar="ECOSYSTEM", default="", help="name of the ecosystem, where the catalog marks production")


def extract(options: argparse.Namespace) -> int:
    """Extract, or with --check only look."""
    from ..pipeline.extract import Request

    spec = load(options, options.service)
    if not options.check:
        confirm(spec, options)
    run = lease.new_run("extract")
    request = Request(options.target, options.database, tuple(options.table), options.source, options.name)
    say(f"run {run['id']}: extract from {spec.service}.{options.source} at {options.target}")
    told = operations.extract(spec, run, request, options.check)
    for finding in told["findings"]:
        say(f"  {finding['level']}: {finding['what']}: {finding['where']}; {finding['remedy']}")
    warn(told["warnings"])
    if options.check:
        if not told["ok"]:
            say("nothing was changed")
            answer(options, told, f"{spec.service}: it would be refused")
            return 1
        what = f"would become {told['kind']} {told['name']}" if told["changed"] else f"is there already as {told['kind']} {told['name']}"
        answer(options, told, f"{spec.service}: {', '.join(told['wanted']) or told['database']} of {told['point']['id']} {what}")
        return 0
    lines = [f"{spec.service}: {told['message']}"]
    lines += [f"  {table['table']}: {table['rows']} rows" for table in told["tables"][:20]]
    lines += [f"  left out: {item}" for item in told["left_out"]]
    if told.get("reached"):
        lines.append(f"  recovery ended at {told['reached'].get('position')}, last commit {told['reached'].get('last_commit') or 'unknown'};"
                     f" {text.size(told['bytes'])} moved")
    answer(options, told, "\n".join(lines))
    return 0
