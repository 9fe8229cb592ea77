# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Check journals offline: bytes and public keys in, findings out. Reads nothing, asks nobody."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import DamageError
from ..keys import envelope
from ..ledger import ZERO
from . import chain, publics, seal
from .chain import Line
from .seal import Seal


@dataclass
class Report:
    """About one journal. ``problems``: what is not as it was written. ``open``: what could not be told, and why.

    head: the last hash. before: {run: head} of the journals that its first entry names as written before it.
    signed_by: the key that vouches for it, as it names itself; "" when no key given here does. sealed: it has a readable seal.
    """

    where: str
    run: str = ""
    verb: str = ""
    ecosystem: str = ""
    entries: int = 0
    head: str = ""
    before: dict[str, str] = field(default_factory=dict)
    sealed: bool = False
    signed_by: str = ""
    problems: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Nothing contradicts it."""
        return not self.problems

    @property
    def vouched(self) -> bool:
        """Nothing contradicts it, and a key that was given says so."""
        return self.whole and bool(self.signed_by)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "whole": self.whole, "vouched": self.vouched}


def verify(data: bytes, keys: list[bytes], where: str = "", run: str = "") -> list[Report]:
    """One report per journal in ``data``: a journal ends with its seal, and a file may hold the journals of many runs.

    keys: raw public keys that may have signed. run: whose journal it has to be, when that is known.
    """
    reports: list[Report] = []
    lines: list[Line] = []
    torn = data.rpartition(b"\n")[2]
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        if not seal.is_line(raw):
            lines.append(chain.line_of(number, raw))
            continue
        reports.append(_journal(lines, raw, keys, f"{where}:{number}"))
        lines = []
    if lines or torn or not reports:
        reports.append(_unsealed(lines, reports[-1] if reports else None, where))
    if torn:
        reports[-1].problems.append(f"the last line is torn ({len(torn)} bytes)")
    for report in reports:
        if run and report.run != run:
            report.problems.append(f"this is not the journal of run {run}: it is that of {report.run or 'no run'} (replayed)")
    return reports


def _journal(lines: list[Line], raw: bytes, keys: list[bytes], where: str) -> Report:
    """The lines before a seal, and the seal."""
    report = Report(where, entries=len(lines))
    try:
        found = seal.read(raw, where)
    except DamageError as error:
        report.problems.append(error.what)
        return _by_themselves(report, lines)
    report.sealed = True
    report.run, report.verb, report.ecosystem = (str(found.data[key]) for key in ("run", "verb", "ecosystem"))
    trusted = publics.signer(found.text, found.signature, keys) is not None
    if trusted:
        report.signed_by = publics.described(found.signature)
    elif found.signature is None:
        report.open.append("the seal is not signed: whoever can write the file could have made all of it")
    elif not keys:
        report.open.append(f"the signature by {publics.described(found.signature)} was not checked: no public key was given")
    else:
        report.problems.append(_refused(found, keys))
        return _by_themselves(report, lines)
    report.head, report.before = str(found.data["head"]), _named(lines, found.hashes[0])
    expected = dict(enumerate(found.hashes))
    report.problems += chain.differences(lines, expected, report.run)
    if not report.problems and any(line.entry is not None and line.entry.get("run") != report.run for line in lines):
        report.problems.append("the seal names another run than the entries")
    return report


def _named(lines: list[Line], first: str) -> dict[str, str]:
    """What the first entry says was written before; nothing when it is not the entry that was sealed."""
    try:
        named = next(line.entry["data"]["before"] for line in lines if line.entry is not None and line.consistent and line.computed == first)
        return {str(one["run"]): str(one["head"]) for one in named}
    except (StopIteration, KeyError, TypeError):
        return {}


def complete(reports: list[Report]) -> list[str]:
    """What is missing of journals that are said to be all since the oldest of them: whole ones, as later ones name them."""
    have = {report.run: report for report in reports if report.sealed}
    oldest = min(have, default="")
    problems = {}
    for name, report in sorted(have.items()):
        for former, head in sorted(report.before.items()):
            if former >= oldest and former not in have:
                problems[former] = f"the journal of run {former} is missing: run {name} names it"
            elif former in have and have[former].head != head:
                problems[former] = f"the journal of run {former} is not the one that run {name} names"
    return list(problems.values())


def _refused(found: Seal, keys: list[bytes]) -> str:
    """Why a signature by none of the keys is there, as far as that can be told."""
    name = publics.described(found.signature)
    marks = [envelope.fingerprint(key) for key in keys]
    mark = str(found.signature.get("key") if isinstance(found.signature, dict) else "").rpartition("@")[2]
    if mark in marks:
        return f"the seal was altered: its signature by {name} does not fit what it says"
    return f"sealed with another key: by {name}, and none of the keys given here ({', '.join(marks)}) made this signature"


def _by_themselves(report: Report, lines: list[Line]) -> Report:
    """Where no seal can be relied on, the entries are held against each other."""
    decoded = [line for line in lines if line.entry is not None]
    runs = {str(line.entry.get("run")) for line in decoded if line.entry is not None}
    report.run = report.run or (runs.pop() if len(runs) == 1 else "")
    first = min(decoded, key=lambda line: line.seq, default=None)
    expected = chain.deduced(lines)
    report.problems += chain.differences(lines, expected, "")
    if first is not None and first.prev != ZERO and min(expected) == first.seq:
        report.problems.append(f"entry {first.seq} does not begin a journal: what came before it was removed")
    return report


def _unsealed(lines: list[Line], before: Report | None, where: str) -> Report:
    report = _by_themselves(Report(where, entries=len(lines)), lines)
    if before is not None and report.run and report.run == before.run:
        report.problems.append(f"{len(lines)} lines were added after the seal of run {before.run}")
    elif _is_ledger(lines):
        report.open.append("a ledger of a host has no seal: its signed copies are in the repository (lifeboat history)")
    else:
        report.problems.append("no seal: the tail is missing, or the run has not ended")
    return report


def _is_ledger(lines: list[Line]) -> bool:
    """Ledgers count from 1, and each of their entries is of a service."""
    decoded = [line for line in lines if line.entry is not None]
    return bool(decoded) and all(line.seq > 0 and line.entry and line.entry.get("service") for line in decoded)
