# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat log``: ship the log of a source, and say how far it is proven."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..errors import ConfigError, LifeboatError
from ..log import config
from ..spec import Spec
from . import text
from .shared import answer, chosen, load


def add(commands: Any) -> None:
    """The words behind ``log``."""
    one = commands.add_parser("log", help="ship the log of a source, and say how far it is proven", description=__doc__)
    words = one.add_subparsers(required=True, metavar="WORD")
    about = "ship the log in the foreground until SIGTERM"
    one = words.add_parser("run", help=about, description=about)
    one.set_defaults(command=run)
    _source(one)
    one.add_argument("--take-over", action="store_true",
                     help="this server is a copy of the one that was shipped before, was not restored by lifeboat on this host, and has taken its place")
    about = "how far the log is proven in the repository, how far the server is, what is wrong; 3 when something is"
    one = words.add_parser("status", help=about, description=about)
    one.set_defaults(command=status)
    one.add_argument("service", nargs="?", help="a service of this host (default: all)")
    one.add_argument("--json", action="store_true", help="answer in JSON")
    about = "put one complete segment into the repository: for archive_command"
    one = words.add_parser("push", help=about, description=about)
    one.set_defaults(command=push)
    _source(one)
    one.add_argument("path", help="the segment (%%p)")


def _source(one: argparse.ArgumentParser) -> None:
    one.add_argument("service", help="a service of this host; SERVICE.SOURCE names the source too")
    one.add_argument("source", nargs="?", default="", help="its source (default: the only one with a log)")


def _named(options: argparse.Namespace) -> tuple[Spec, str]:
    service, _dot, source = options.service.partition(".")
    spec = load(options, service)
    wanted = options.source or source
    known = config.names(spec)
    if not wanted and len(known) != 1:
        raise ConfigError("name the source" if known else "no source has a log", f"service {spec.service}",
                          f"sources with a log: {', '.join(known)}" if known else "set log: {} for a source of type postgresql in the catalog")
    return spec, wanted or known[0]


def run(options: argparse.Namespace) -> int:
    """Ship until asked to stop. 0: all that was received is proven; 3: the rest lies in the spool and on the server."""
    from ..log import shipper

    spec, source = _named(options)
    if shipper.run(spec, source, options.take_over):
        return 0
    sys.stderr.write(f"lifeboat: log of {spec.service}.{source}: ended before all that was received was proven; the next start goes on from there\n")
    return 3


def push(options: argparse.Namespace) -> int:
    """One segment."""
    from ..log.push import push as work

    spec, source = _named(options)
    sys.stderr.write(work(spec, source, options.path) + "\n")
    return 0


def status(options: argparse.Namespace) -> int:
    """Every log of the service, or of this host."""
    from ..log.status import status as ask

    told: dict[str, Any] = {}
    for spec in chosen(options):
        for source in config.names(spec):
            try:
                told[f"{spec.service}.{source}"] = ask(spec, source)
            except LifeboatError as error:
                told[f"{spec.service}.{source}"] = {"ok": False, "alarms": [{"name": "config", "since": None, **error.as_dict()}]}
    answer(options, told, "\n".join(line for name, one in told.items() for line in _lines(name, one)) or "no source of this host has a log")
    return 0 if all(one["ok"] for one in told.values()) else 3


def _lines(name: str, one: dict[str, Any]) -> list[str]:
    found = [f"{name}: {'well' if one['ok'] else 'NOT WELL'}, {one.get('state', 'unknown')}"]
    mark, lag, server, slot, spool = (one.get(key) for key in ("proven", "lag", "server", "slot", "spool"))
    if mark:
        held = {True: "", False: " (the repository does not show it)", None: " (the repository cannot be asked now)"}[mark["in_repository"]]
        found.append(f"  proven in repository: {mark['position']} of timeline {mark['timeline']}, {text.age(mark['time'])}{held};"
                     f" without a gap from {mark['from']}")
    elif "proven" in one:
        found.append("  proven in repository: nothing yet")
    if server:
        behind = f", {text.size(lag['bytes'])} and {lag['seconds']} s behind it" if lag and lag["bytes"] is not None else ""
        found.append(f"  server: {server['position']}{behind}")
    if slot:
        found.append(f"  slot: {slot['name']}, {'active' if slot['active'] else 'not active'}, {slot['wal_status'] or 'not there'}")
    if spool:
        found.append(f"  spool: {text.size(spool['bytes'])} of {text.size(spool['limit'])}")
    closed = [gap for gap in one.get("gaps", []) if gap["closed_by"]]
    found += [f"  gap: {gap['from']} to {gap['to']} of timeline {gap['timeline']}, closed by {gap['closed_by']}" for gap in closed]
    found += [f"  ALARM: {alarm['what']}: {alarm['where']}; {alarm['remedy']}" for alarm in one["alarms"]]
    return found
