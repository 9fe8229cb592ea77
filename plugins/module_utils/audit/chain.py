# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What is wrong with the lines of a journal: which entries were altered, removed, put elsewhere or brought in.

``expected`` is the truth to compare with: sequence number -> hash. It comes from a seal, or, where there is none, from the entries
themselves (each names the hash of the one before it, read from the newest backwards).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass
from typing import Iterable, Iterator

from ..ledger import ZERO, Entry, canonical, entry_hash

#: So many problems are spelt out; more would say nothing more.
MOST = 200


@dataclass
class Line:
    """One line of a file: its number, and its entry when it decodes. ``computed`` is what its content hashes to, "" when it is not written as we write."""

    number: int
    entry: Entry | None
    computed: str = ""

    @property
    def seq(self) -> int:
        """The number that the entry claims."""
        return int(self.entry["seq"]) if self.entry is not None else -1

    @property
    def claimed(self) -> str:
        return str(self.entry["hash"]) if self.entry is not None else ""

    @property
    def prev(self) -> str:
        return str(self.entry["prev"]) if self.entry is not None else ""

    @property
    def consistent(self) -> bool:
        return bool(self.computed) and self.computed == self.claimed

    def about(self) -> str:
        """What an entry says it is, for a message."""
        entry = self.entry or {}
        words = [str(entry.get("event") or "?")[:60], f"of {str(entry['service'])[:60]}" if entry.get("service") else "", str(entry.get("time") or "")[:30]]
        return f"line {self.number}: " + " ".join(word for word in words if word).encode("ascii", "replace").decode()


def line_of(number: int, raw: bytes) -> Line:
    """Decode one line; whatever is no entry has none."""
    try:
        entry = json.loads(raw)
        seq = entry["seq"]
        if isinstance(seq, bool) or not isinstance(seq, int) or seq < 0 or not isinstance(entry["hash"], str) or not isinstance(entry["prev"], str):
            return Line(number, None)
        # the same content in other bytes (a key twice, a space) is no entry of ours: readers may differ about what it says
        return Line(number, entry, entry_hash(entry) if canonical(entry) == raw else "")
    except (ValueError, KeyError, TypeError, RecursionError):
        return Line(number, None)


def deduced(lines: list[Line]) -> dict[int, str]:
    """Number -> hash as the entries themselves tell it, the newest first: an entry is believed when it agrees with itself and with the next."""
    by_seq: dict[int, list[Line]] = {}
    for line in lines:
        if line.entry is not None:
            by_seq.setdefault(line.seq, []).append(line)
    expected: dict[int, str] = {}
    named: dict[int, str] = {}  # what the believed entry after it says
    for seq in sorted(by_seq, reverse=True):
        want = named.get(seq)
        sound = [line for line in by_seq[seq] if line.consistent]
        believed = next((line for line in sound if want in (None, line.computed)), None)
        expected[seq] = believed.computed if believed else want or by_seq[seq][0].claimed
        if believed is not None and seq > 0:
            named[seq - 1] = believed.prev
    for seq, want in named.items():
        if want != ZERO:
            expected.setdefault(seq, want)
    return expected


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, last) of each unbroken stretch."""
    first = last = -1
    for number in numbers:
        if first >= 0 and number == last + 1:
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last


def shown(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def differences(lines: list[Line], expected: dict[int, str], run: str) -> list[str]:
    """Every way in which the lines are not the expected entries in their order; nothing when they are.

    run: whose entries they should be, "" where a ledger holds many runs.
    """
    place = {value: seq for seq, value in expected.items()}
    stands: dict[int, Line] = {}
    altered: dict[int, Line] = {}
    strangers: list[Line] = []
    problems: list[str] = []
    copies: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        if line.consistent and line.computed in place:
            copies.setdefault(place[line.computed], []).append(index)
        else:
            strangers.append(line)
    for seq, found in copies.items():
        at = min(found, key=lambda index: not _neighbours(lines, index, seq, expected))
        stands[seq] = lines[at]
        problems += [f"entry {seq} stands there once more ({lines[index].about()})" for index in found if index != at]
    # those that can still say which entry they were first, so that what cannot is measured by its neighbours
    for line in sorted(strangers, key=lambda one: (one.entry is None, one.number)):
        meant = _meant(line, place, run) if line.entry is not None else _after(line, stands)
        if meant is None or meant not in expected or meant in stands:
            problems.append(_foreign(line, run))
        else:
            stands[meant] = altered[meant] = line
    problems = [*_alterations(altered), *_missing(expected, stands), *_moved(stands), *problems]
    return problems if len(problems) <= MOST else [*problems[:MOST], f"and {len(problems) - MOST} more"]


def _neighbours(lines: list[Line], index: int, seq: int, expected: dict[int, str]) -> bool:
    """Does the line before or after a copy of an entry show that it is the copy in its own place?"""
    before = index > 0 and lines[index - 1].computed == expected.get(seq - 1, ZERO)
    return before or (index + 1 < len(lines) and lines[index + 1].computed == expected.get(seq + 1, ZERO))


def _meant(line: Line, place: dict[str, int], run: str) -> int | None:
    """Which entry an altered line was: the one whose hash it still carries, else the one whose number it has."""
    if line.claimed in place:
        return place[line.claimed]
    foreign = run and line.entry is not None and line.entry.get("run") != run
    return None if foreign and line.consistent else line.seq


def _after(line: Line, stands: dict[int, Line]) -> int | None:
    """Which entry a line was that does not decode: the one after its neighbour."""
    before = [(other.number, seq) for seq, other in stands.items() if other.number < line.number]
    if before:
        return max(before)[1] + 1
    after = [(other.number, seq) for seq, other in stands.items()]
    return min(after)[1] - 1 if after else 0


def _foreign(line: Line, run: str) -> str:
    if line.entry is None:
        return f"line {line.number} is no entry: it was brought in"
    if run and line.entry.get("run") != run:
        return f"an entry of another run was brought in: {str(line.entry.get('run'))[:80]!r}, its number {line.seq} ({line.about()})"
    return f"an entry was brought in, its number {line.seq} ({line.about()})"


def _alterations(altered: dict[int, Line]) -> Iterator[str]:
    """Stretches of two or more that agree with themselves are told as what they are: a chain that was built anew."""
    anew = sorted(seq for seq, line in altered.items() if line.consistent)
    for first, last in ranges(anew):
        if first < last:
            yield f"{shown(first, last)} altered, their chain was built anew from entry {first} on ({altered[first].about()})"
        else:
            yield f"entry {first} altered and its hash made anew ({altered[first].about()})"
    for seq in sorted(set(altered) - set(anew)):
        yield f"entry {seq} altered ({altered[seq].about()})" if altered[seq].entry else f"entry {seq} altered: line {altered[seq].number} is no entry any more"


def _missing(expected: dict[int, str], stands: dict[int, Line]) -> Iterator[str]:
    if not expected:
        return
    lowest, highest = min(expected), max(expected)
    have = sorted(stands)
    gaps, at = [], lowest
    for seq in [*have, highest + 1]:
        if seq > at:
            gaps.append((at, seq - 1))
        at = seq + 1
    for first, last in gaps:
        if last == highest:
            yield f"tail missing: {highest - lowest + 1} entries were sealed, {len(have)} found, {shown(first, last)} removed"
        else:
            yield f"{shown(first, last)} removed"


def _moved(stands: dict[int, Line]) -> Iterator[str]:
    """What stands elsewhere: each entry of a swap, or only the entries that were moved when the others merely made room."""
    ordered = [seq for seq, _line in sorted(stands.items(), key=lambda item: item[1].number)]
    wrong = [(seq, belongs) for seq, belongs in zip(ordered, sorted(ordered)) if seq != belongs]
    kept = _longest(ordered)
    if len(wrong) > 2 * (len(ordered) - len(kept)):
        wrong = [(seq, belongs) for seq, belongs in wrong if seq not in kept]
    for seq, belongs in wrong:
        yield f"entry {seq} stands where entry {belongs} belongs (re-ordered, line {stands[seq].number})"


def _longest(numbers: list[int]) -> set[int]:
    """The members of a longest ascending subsequence."""
    tails: list[int] = []
    before: dict[int, int] = {}
    for number in numbers:
        spot = bisect_left(tails, number)
        tails[spot:spot + 1] = [number]
        before[number] = tails[spot - 1] if spot else -1
    kept, at = set(), tails[-1] if tails else -1
    while at >= 0:
        kept.add(at)
        at = before[at]
    return kept
