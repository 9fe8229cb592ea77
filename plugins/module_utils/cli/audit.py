# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat audit``: check journals offline, approve plans, make a key for either. Needs no host, no repository and no network."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from typing import Any

from ..audit import approval, publics
from ..audit.verify import complete
from ..audit.verify import verify as examine
from ..errors import ConfigError, StorageError
from ..keys import envelope
from ..keys.key_files import read_private
from .shared import answer

#: The largest file that is read, in bytes.
_LIMIT = 1 << 30
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add(commands: Any) -> None:
    """The words behind ``audit``."""
    one = commands.add_parser("audit", help="check journals offline, approve plans", description=__doc__)
    words = one.add_subparsers(required=True, metavar="WORD")
    about = "check journals: what was altered, removed, re-ordered or brought in. 0 vouched for, 3 not as written, 4 nothing wrong, but nobody vouches"
    one = words.add_parser("verify", help="check journals offline with the public key", description=about)
    one.set_defaults(command=verify)
    one.add_argument("files", nargs="+", metavar="FILE", help="a journal (journal.jsonl, an object of journals/, a file of many), or a run directory")
    one.add_argument("--key", action="append", default=[], metavar="FILE", help="a public signing key that may have signed (sign.pub, vault-sign.json)")
    one.add_argument("--keys", action="append", default=[], metavar="DIR", help="directory with such keys, also below it")
    one.add_argument("--run", default="", metavar="ID", help="it has to be the journal of this run")
    one.add_argument("--complete", action="store_true", help="these are all journals of a folder or a second place: name whole ones that are missing")
    one.add_argument("--json", action="store_true", help="answer in JSON")
    one = words.add_parser("approve", help="sign a yes to a plan", description="Show what a plan would do, and sign a yes to exactly that.")
    one.set_defaults(command=approve)
    one.add_argument("--plan", required=True, metavar="FILE", help="plan.json of a run with --check")
    one.add_argument("--key", required=True, metavar="FILE", help="your private key, as lifeboat audit key made it")
    one.add_argument("--valid", default="4h", metavar="TIME", help="how long it holds, as 90m, 4h or 1d (default: 4h)")
    one.add_argument("--out", default="", metavar="FILE", help="write it there instead of printing it")
    one = words.add_parser("key", help="make a signing key", description="Make an ed25519 key: FILE for its owner only, FILE.pub to hand out.")
    one.set_defaults(command=key)
    one.add_argument("file", metavar="FILE")


def verify(options: argparse.Namespace) -> int:
    """Check every journal in every file; the exit status is that of the worst."""
    keys = [public for path in [*options.key, *options.keys] for public in publics.load_publics(path)]
    reports = [report for path in options.files for report in examine(_read(path), keys, path, options.run)]
    lines = []
    for report in reports:
        subject = f"{report.where}: {report.verb or 'journal'} {report.run or 'of no run'}"
        if report.vouched:
            lines.append(f"{subject}: sound, {report.entries} entries, sealed and signed by {report.signed_by}")
        elif report.whole:
            lines.append(f"{subject}: nothing is wrong with its {report.entries} entries, but nothing vouches for them")
        else:
            lines.append(f"{subject}: NOT AS IT WAS WRITTEN" + (f" (sealed and signed by {report.signed_by})" if report.signed_by else ""))
        lines += [f"  {problem}" for problem in report.problems] + [f"  note: {note}" for note in report.open]
    missing = complete(reports) if options.complete else []
    answer(options, {"journals": [report.as_dict() for report in reports], "missing": missing}, "\n".join([*lines, *missing]))
    if missing or not all(report.whole for report in reports):
        return 3
    return 0 if all(report.vouched for report in reports) else 4


def _read(path: str) -> bytes:
    name = os.path.join(path, "journal.jsonl") if os.path.isdir(path) else path
    try:
        with open(name, "rb") as handle:
            data = handle.read(_LIMIT + 1)
    except OSError as error:
        raise StorageError(f"cannot read a journal ({error.strerror})", name, "check its name and permissions") from error
    if len(data) > _LIMIT:
        raise StorageError("a journal is larger than 1 GiB", name, "split it behind a line that begins with {\"seal\"")
    return data


def approve(options: argparse.Namespace) -> int:
    """Say on standard error what is approved, and print or write the approval."""
    seconds = _seconds(options.valid)
    try:
        with open(options.plan, encoding="utf-8") as handle:
            plan = json.load(handle)
        if not isinstance(plan, dict):
            raise ValueError("not an object")
    except OSError as error:
        raise ConfigError(f"cannot read a plan ({error.strerror})", options.plan, "give the plan.json that a run with --check wrote") from error
    except ValueError as error:
        raise ConfigError("not a plan", options.plan, "give the plan.json that a run with --check wrote") from error
    text = approval.make(plan, read_private(options.key), seconds)
    meant = approval.meaning(plan)
    marked = ", marked production" if meant["production"] else ""
    sys.stderr.write(f"you approve for {options.valid}: {meant['verb']} of {meant['ecosystem']}{marked}\n")
    for name in meant["order"] or meant["services"]:
        one = meant["services"][name]
        goes = one["resolution"]["at"] or one["resolution"]["point"]
        sys.stderr.write(f"  {name} on {one['host']}" + (f" to {goes}" if goes else "") + "\n")
    flags = {name: value for name, value in (meant["flags"] or {}).items() if value not in ("", None, False)}
    sys.stderr.write("".join(f"  with {name}={value}\n" for name, value in sorted(flags.items())) + f"plan {approval.digest(plan)}\n")
    if not options.out:
        sys.stdout.write(text)
        return 0
    try:
        with open(options.out, "w", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as error:
        raise StorageError(f"cannot write the approval ({error.strerror})", options.out, "name a file that you may write to") from error
    return 0


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not seconds:
        raise ConfigError("not a time", f"--valid {text}", "write it like 90m, 4h or 1d")
    return seconds


def key(options: argparse.Namespace) -> int:
    """Make a key and print its public half."""
    public = publics.make_private(options.file)
    sys.stdout.write(f"{envelope.to_text(public)}\n")
    return 0
