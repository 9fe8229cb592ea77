# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Arguments and the commands that only look; the restore is in restore.py."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Callable

from .. import faults, lease
from ..errors import LifeboatError
from ..keys import escrow
from ..pipeline import operations
from ..pipeline.host import config_dir
from . import audit, backup, copy, extract, history, hold, log, report, restore, text
from .shared import answer, chosen


def main(argv: list[str]) -> int:
    """Run one command; the exit status: 0 success, 1 it failed, 2 wrong usage, 3 something is damaged or unhealthy."""
    options = _parser().parse_args(argv)
    try:
        status = int(options.command(options))
        sys.stdout.flush()
        return status
    except LifeboatError as error:
        sys.stderr.write(f"lifeboat: {error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read our output is gone; so may the rest of it
        return 1
    except OSError as error:
        sys.stderr.write(f"lifeboat: the operating system refused ({error.strerror or error}): {error.filename or ''}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("lifeboat: interrupted; 'lifeboat status' says what is live, the same command goes on from here\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lifeboat", description="Back up and restore the services of this host, without Ansible.")
    parser.add_argument("--config", default=os.environ.get("LIFEBOAT_CONFIG") or config_dir(""), help="directory that holds services/<service>.json")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int], about: str, service: str = "?") -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(command=function)
        if service == "?":
            one.add_argument("service", nargs="?", help="a service of this host (default: all)")
        elif service:
            one.add_argument("service", help="a service of this host")
        one.add_argument("--json", action="store_true", help="answer in JSON")
        return one

    def keys(one: argparse.ArgumentParser) -> None:
        one.add_argument("--keys", metavar="DIR", help="directory with the private halves of the keys (key provider file)")
        one.add_argument("--escrow-key", metavar="FILE", help="private half of the catalog's keys.escrow, when the key provider is gone")

    add("status", status, "who works on a service, what is unfinished, which restores are not committed")
    add("points", points, "what a service can be restored to")
    one = add("verify", verify, "check that stored snapshots can be restored")
    one.add_argument("--target", default="all", help="all, latest, proven, an ISO time with zone, a snapshot or a point (default: all)")
    one.add_argument("--depth", choices=["exists", "hash", "decode"], default="hash", help="how deep; decode opens every chunk and needs --keys")
    one.add_argument("--from", dest="origin", metavar="NAME", default="", help="verify this copy instead of the repository")
    keys(one)
    one = add("restore", restore.restore, "restore one service: preflight, stage, stop, cutover, start, checks", "one")
    one.add_argument("--target", default="latest", help="latest, proven, an ISO time with zone, a snapshot or a point (default: latest)")
    one.add_argument("--check", action="store_true", help="preflight only; change nothing")
    one.add_argument("--until", choices=["staged", "cutover", "verdict"], default="verdict", help="stop there")
    one.add_argument("--force", action="store_true", help="restore even when the live data is the target already")
    one.add_argument("--no-runtime", action="store_true", help="neither stop nor start the service; it is stopped by hand")
    one.add_argument("--confirm", metavar="ECOSYSTEM", default="", help="name of the ecosystem, where the catalog marks production")
    one.add_argument("--new-host", action="store_true", help="this is another machine than the one of the snapshot, and the service moves here")
    keys(one)
    for name, function, about in (
        ("rollback", restore.rollback, "put back what a restore displaced"),
        ("commit", restore.commit, "delete what a restore displaced or a rollback set aside"),
    ):
        one = add(name, function, about, "one")
        one.add_argument("--run", default="last", help="the run that restored (default: last)")
        one.add_argument("--check", action="store_true", help="say what would be done; change nothing")
        one.add_argument("--no-runtime", action="store_true", help="neither stop nor start the service; it is stopped by hand")
        one.add_argument("--confirm", metavar="ECOSYSTEM", default="", help="name of the ecosystem, where the catalog marks production")
    one = add("extract", extract.extract, "move one database or a few tables of a snapshot beside the live ones, under a new name", "one")
    extract.arguments(one)
    keys(one)
    one = add("backup", backup.backup, "capture the services of this host: one snapshot of each source")
    one.add_argument("--mode", choices=["auto", "full"], default="auto", help="full reads everything anew (default: auto)")
    one = add("copy", copy.copy, "bring the copies of the repository up to date")
    one.add_argument("--from", dest="origin", metavar="NAME", default="", help="copy from this repository (default: the one the service writes to)")
    one.add_argument("--to", metavar="NAME", action="append", default=[], help="copy to this one only; may be repeated (default: all others)")
    one.add_argument("--check", action="store_true", help="say what would be copied; change nothing")
    one.add_argument("--repair", action="store_true", help="replace what is damaged or missing in the repository named with --to, from wherever it is sound")
    one = add("hold", hold.hold, "keep a snapshot from ever being deleted until the hold is cleared; without a target, list the holds")
    one.add_argument("--target", default="", help="a snapshot or a point")
    one.add_argument("--reason", default="", help="why it is held; kept with the hold")
    one.add_argument("--clear", action="store_true", help="end the hold")
    one = add("history", history.history, "what was done to a service, from the repository and this host")
    one.add_argument("--run", default="", metavar="ID", help="show the entries of this run, 'last' for the newest")
    one.add_argument("--repository", metavar="URL", default="", help="read this repository alone; needs nothing else of this host")
    one.add_argument("--keys", metavar="DIR", default="", help="with --repository: directory with the services' public signing keys")
    one = add("report", report.report, "how long recoveries of services took, and what failed")
    one.add_argument("--repository", metavar="URL", default="", help="read this repository alone; needs nothing else of this host")
    one.add_argument("--keys", metavar="DIR", default="", help="with --repository: directory with the services' public signing keys")
    log.add(commands)
    audit.add(commands)
    add("rebuild-index", rebuild_index, "build this host's chunk index anew from the repository")
    one = add("escrow-key", escrow_key, "make an escrow key pair unless FILE is there; the public half, as keys.escrow takes it", "")
    one.add_argument("file", metavar="FILE", help="where the private half is; keep it in a safe, not on a host")
    add("faults", list_faults, "list the fault points at which the tests kill a run", "")
    return parser


def status(options: argparse.Namespace) -> int:
    """What the host knows of its services."""
    told = {spec.service: operations.known(spec) for spec in chosen(options)}
    rows = []
    for name, one in told.items():
        held = one["lease"]
        work = f"{held['verb']} {held['run']} by {held['user']}@{held['controller']}, phase {held['phase']}" if held and held["alive"] else ""
        if not work and one["unfinished"]:
            work = f"unfinished {one['unfinished']['verb']} {one['unfinished']['run']}"
        origin, proof = one["origin"] or {}, one["proof"] or {}
        rows.append([
            name, work, origin.get("point"), origin.get("verdict"), proof.get("point"), text.age(proof.get("time")) if proof else "",
            ", ".join(one["uncommitted"]), text.size(one["held_bytes"]) if one["uncommitted"] else "",
        ])
    logs = [f"log of {name}.{source}: {log['state']}" + (f", WRONG: {', '.join(log['alarms'])}; see: lifeboat log status {name}" if log["alarms"] else "")
            for name, one in told.items() for source, log in one["logs"].items()]
    table = text.table(["SERVICE", "WORK", "RESTORED FROM", "VERDICT", "LAST PROOF", "WHEN", "UNCOMMITTED", "HOLDS"], rows)
    answer(options, told, "\n".join([table, *logs]))
    return 0


def points(options: argparse.Namespace) -> int:
    """What can be restored, newest first."""
    told, rows, warnings = {}, [], []
    for spec in chosen(options):
        found = operations.snapshots(spec)
        told[spec.service] = found
        warnings += [f"{spec.service}: {w['what']}: {w['where']}; {w['remedy']}" for w in found["warnings"]]
        for point in reversed(found["points"]):
            rows.append([
                spec.service, point["id"], text.age(point["time"]), "complete" if point["complete"] else f"lacks {', '.join(point['missing'])}",
                text.size(point["bytes"]), f"{point['skew_seconds']} s", "proven" if point["proven"] else "", ", ".join(point.get("repositories") or []),
            ])
    answer(options, told, text.table(["SERVICE", "POINT", "AGE", "STATE", "SIZE", "SKEW", "PROOF", "WHERE"], rows))
    for warning in warnings:
        sys.stderr.write(f"lifeboat: warning: {warning}\n")
    return 3 if warnings else 0


def verify(options: argparse.Namespace) -> int:
    """Check stored snapshots; 3 when something needed is damaged."""
    told = {spec.service: operations.verify(spec, options.target, options.depth, options.origin) for spec in chosen(options)}
    lines = []
    for name, one in told.items():
        checked = one["checked"]
        lines.append(
            f"{name}: {'sound' if one['ok'] else 'NOT SOUND'}, {checked['snapshots']} snapshots, {checked['objects']} objects,"
            f" {text.size(checked['bytes'])} read, depth {one['depth']}"
        )
        if not one["mark"]:
            lines.append("  no high-water mark on this host: that the newest snapshot is missing would not be noticed")
        for finding in one["findings"]:
            needed = f" (needed by {', '.join(finding['snapshots'])})" if finding["snapshots"] else ""
            lines.append(f"  {finding['level']}: {finding['what']}: {finding['where']}{needed}; {finding['remedy']}")
    answer(options, told, "\n".join(lines))
    return 0 if all(one["ok"] for one in told.values()) else 3


def rebuild_index(options: argparse.Namespace) -> int:
    """Throw the local chunk index away and read the repository's indexes and packs again."""
    told = {spec.service: operations.rebuild_index(spec, lease.new_run("rebuild-index")) for spec in chosen(options)}
    lines = []
    for name, one in told.items():
        lines.append(f"{name}: {one['packs']} packs indexed")
        lines += [f"  {finding['what']}: {finding['where']}; {finding['remedy']}" for finding in one["findings"]]
    answer(options, told, "\n".join(lines))
    return 0


def escrow_key(options: argparse.Namespace) -> int:
    """The public half of an escrow key."""
    public = escrow.new_key(options.file)
    answer(options, {"escrow": public}, public)
    return 0


def list_faults(options: argparse.Namespace) -> int:
    """The names, one per line."""
    answer(options, faults.points(), "\n".join(faults.points()))
    return 0
