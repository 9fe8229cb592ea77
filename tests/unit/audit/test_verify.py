# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offline verification names what was done to a journal, whatever was done to it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.recovery.plugins.module_utils.audit import publics, seal, verify
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import signing
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import ZERO, canonical, entry_hash

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PUBLIC, OTHER_PUBLIC = signing.public_of(KEY), signing.public_of(OTHER)
RUN, OLDER = "20300131T120000Z-restore-0a1b2c", "20300130T120000Z-restore-0a1b2d"


def chained(texts: list[str], run: str = RUN, begin: int = 0) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for number, text in enumerate(texts, begin):
        entry: dict[str, Any] = {
            "seq": number, "time": "2030-01-31T12:00:00Z", "run": run, "verb": "restore", "service": "orders" if begin else "", "phase": "", "event": "step",
            "data": {"text": text}, "prev": entries[-1]["hash"] if entries else ZERO,
        }
        entries.append({**entry, "hash": entry_hash(entry)})
    return entries


def body(entries: list[dict[str, Any]]) -> list[bytes]:
    return [canonical(entry) for entry in entries]


def sealed(entries: list[dict[str, Any]], key: bytes | None = KEY, name: str = "audit") -> bytes:
    text = seal.text_of(entries, "shop")
    return seal.line_of(text, publics.sign(key, name, text) if key else None)[:-1]


def check(lines: list[bytes], keys: list[bytes] | None = None, run: str = "") -> list[verify.Report]:
    return verify.verify(b"".join(line + b"\n" for line in lines), [PUBLIC] if keys is None else keys, "journal.jsonl", run)


def problems(lines: list[bytes], **more: Any) -> list[str]:
    found = check(lines, **more)
    assert len(found) == 1
    assert found[0].whole == (not found[0].problems)
    return [problem.partition(" (")[0] for problem in found[0].problems]


ENTRIES = chained([f"number {n}" for n in range(40)])
SEAL = sealed(ENTRIES)
LINES = body(ENTRIES)


def test_a_journal_as_it_was_written_is_vouched_for() -> None:
    report = check([*LINES, SEAL])[0]
    assert report.vouched and (report.run, report.verb, report.ecosystem, report.entries) == (RUN, "restore", "shop", 40)
    assert report.signed_by.startswith("audit@") and not report.open


def changed(entry: dict[str, Any], **fields: Any) -> bytes:
    return canonical({**entry, **fields})


def anew(entry: dict[str, Any], **fields: Any) -> bytes:
    fresh = {**entry, **fields}
    return canonical({**fresh, "hash": entry_hash(fresh)})


@pytest.mark.parametrize("field", ["seq", "time", "run", "verb", "service", "phase", "event", "data", "prev", "hash"])
@pytest.mark.parametrize("number", [0, 17, 39])
def test_every_field_of_an_entry_is_covered(field: str, number: int) -> None:
    value = {"seq": 7777, "data": {"text": "another"}, "prev": "f" * 64, "hash": "f" * 64}.get(field, "another")
    lines = [*LINES, SEAL]
    lines[number] = changed(ENTRIES[number], **{field: value})
    assert problems(lines) == [f"entry {number} altered"]
    if field not in ("hash", "run", "seq"):  # those name an entry as nobody's: it was removed, and another one brought in
        lines[number] = anew(ENTRIES[number], **{field: value})
        assert problems(lines) == [f"entry {number} altered and its hash made anew"]


def test_what_is_no_entry_any_more_is_named_too() -> None:
    for number in (0, 5, 39):
        lines = [*LINES, SEAL]
        lines[number] = LINES[number][:-9]
        assert problems(lines) == [f"entry {number} altered: line {number + 1} is no entry any more"]


def test_removed_entries() -> None:
    assert problems([*LINES[:18], *LINES[21:], SEAL]) == ["entries 18 to 20 removed"]
    assert problems([*LINES[1:], SEAL]) == ["entry 0 removed"]
    assert problems([*LINES[:3], *LINES[4:37], SEAL]) == ["entry 3 removed", "tail missing: 40 entries were sealed, 36 found, entries 37 to 39 removed"]
    assert problems([SEAL]) == ["tail missing: 40 entries were sealed, 0 found, entries 0 to 39 removed"]


def test_a_cut_tail_and_a_missing_seal() -> None:
    assert problems(LINES[:37]) == ["no seal: the tail is missing, or the run has not ended"]
    assert problems([]) == ["no seal: the tail is missing, or the run has not ended"]
    report = verify.verify(b"\n".join([*LINES, SEAL])[:-5], [PUBLIC])[0]
    assert [problem.partition(" (")[0] for problem in report.problems] == ["no seal: the tail is missing, or the run has not ended", "the last line is torn"]


def test_moved_entries() -> None:
    lines = [*LINES, SEAL]
    lines[3] = LINES[3][:-1] + b',"event":"nothing"}'  # a key twice: other readers would take the first
    assert problems(lines) == ["entry 3 altered"]
    lines = [*LINES, SEAL]
    lines[21], lines[23] = lines[23], lines[21]
    assert problems(lines) == ["entry 23 stands where entry 21 belongs", "entry 21 stands where entry 23 belongs"]
    assert problems([*LINES[:5], *LINES[6:30], LINES[5], *LINES[30:], SEAL]) == ["entry 5 stands where entry 29 belongs"]


def test_what_was_brought_in() -> None:
    theirs = chained(["theirs"] * 9, OLDER)
    assert problems([*LINES, canonical(theirs[4]), SEAL]) == ["an entry of another run was brought in: '" + OLDER + "', its number 4"]
    lines = [*LINES, SEAL]
    lines[4] = canonical(theirs[4])
    assert problems(lines) == ["entry 4 removed", "an entry of another run was brought in: '" + OLDER + "', its number 4"]
    assert problems([*LINES, LINES[7], SEAL]) == ["entry 7 stands there once more"]
    assert problems([*LINES[:9], b"what is this", *LINES[9:], SEAL]) == ["line 10 is no entry: it was brought in"]
    more = chained(["one", "two"])
    assert problems([*LINES, canonical({**more[1], "seq": 40, "prev": ENTRIES[39]["hash"]}), SEAL])[0] == "an entry was brought in, its number 40"


def test_a_chain_built_anew_is_found_by_its_seal_and_without_the_key_there_is_no_other_seal() -> None:
    forged = [*ENTRIES[:12], *chained([f"forged {n}" for n in range(40)])[12:]]
    for number in range(12, 40):
        forged[number]["prev"] = forged[number - 1]["hash"]
        forged[number]["hash"] = entry_hash(forged[number])
    assert problems([*body(forged), SEAL]) == ["entries 12 to 39 altered, their chain was built anew from entry 12 on"]
    found = problems([*body(forged), sealed(forged, OTHER)])
    assert found == [found[0]] and found[0].startswith("sealed with another key: by audit@")
    unsigned = check([*body(forged), sealed(forged, None)])[0]
    assert unsigned.whole and not unsigned.vouched and "not signed" in unsigned.open[0]
    borrowed = json.loads(SEAL)["signature"]
    assert problems([*body(forged), seal.line_of(seal.text_of(forged, "shop"), borrowed)[:-1]]) == [
        "the seal was altered: its signature by " + publics.described(borrowed) + " does not fit what it says"]


def test_a_key_under_the_name_of_another_is_not_that_one() -> None:
    text = seal.text_of(ENTRIES, "shop")
    forged = {**publics.sign(OTHER, "audit", text), "key": json.loads(SEAL)["signature"]["key"]}
    assert problems([*LINES, seal.line_of(text, forged)[:-1]])[0].startswith("the seal was altered")


def test_a_whole_journal_in_the_place_of_another() -> None:
    old = chained(["old"] * 5, OLDER)
    lines = [*body(old), sealed(old)]
    assert check(lines)[0].vouched
    assert problems(lines, run=RUN) == [f"this is not the journal of run {RUN}: it is that of {OLDER}"]
    assert problems([*body(old), SEAL])[:1] == ["tail missing: 40 entries were sealed, 0 found, entries 0 to 39 removed"]


def test_without_a_key_nothing_is_vouched_for() -> None:
    report = check([*LINES, SEAL], keys=[])[0]
    assert report.whole and not report.vouched and "was not checked" in report.open[0]


def test_a_file_of_many_journals() -> None:
    old = chained(["old"] * 5, OLDER)
    reports = check([*body(old), sealed(old, OTHER), *LINES[:9], *LINES[10:], SEAL, *LINES[:3]], keys=[PUBLIC, OTHER_PUBLIC])
    assert [report.run for report in reports] == [OLDER, RUN, RUN]
    assert reports[0].vouched and reports[1].problems == ["entry 9 removed"] and reports[2].problems == [f"3 lines were added after the seal of run {RUN}"]


def test_a_ledger_has_no_seal_and_its_chain_is_checked_all_the_same() -> None:
    ledger = body(chained([f"number {n}" for n in range(9)], begin=1))
    report = check(ledger)[0]
    assert report.whole and not report.vouched and "a ledger" in report.open[0]
    assert problems([*ledger[:3], *ledger[4:]]) == ["entry 4 removed"]
    assert problems(ledger[2:]) == ["entries 1 to 2 removed"] or problems(ledger[2:]) == ["entry 2 removed"]


@pytest.mark.parametrize("damage", [
    b'{"seal":1,"signature":null}', b'{"seal":"{}","signature":null}', b'{"seal":', SEAL.replace(b'"signature":', b'"signature": '), SEAL[:-1],
    SEAL.replace(b'\\"entries\\":40', b'\\"entries\\":39'),
])
def test_a_seal_that_does_not_decode(damage: bytes) -> None:
    assert problems([*LINES, damage]) == ["the seal does not decode: it was altered"]
    broken = problems([*LINES[:9], *LINES[10:], damage])
    assert broken == ["the seal does not decode: it was altered", "entry 9 removed"]


# -- any journal, any single alteration, by name -----------------------------------------------------------------------------------------

Tampering = Callable[[list[bytes], int, int], "list[bytes]"]


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(max_size=12), min_size=2, max_size=25), data=st.data())
def test_every_single_act_is_named(texts: list[str], data: st.DataObject) -> None:
    entries = chained(texts)
    lines, end = body(entries), sealed(entries)
    first = data.draw(st.integers(0, len(lines) - 1))
    second = data.draw(st.integers(0, len(lines) - 1).filter(lambda number: number != first))
    act = data.draw(st.sampled_from(["alter", "rehash", "remove", "swap", "cut", "repeat", "flip"]))
    if act == "alter":
        lines[first] = changed(entries[first], data={"text": texts[first] + "!"})
        wanted = [f"entry {first} altered"]
    elif act == "rehash":
        lines[first] = anew(entries[first], data={"text": texts[first] + "!"})
        wanted = [f"entry {first} altered and its hash made anew"]
    elif act == "remove":
        del lines[first]
        last = f"tail missing: {len(texts)} entries were sealed, {len(texts) - 1} found, entry {first} removed"
        wanted = [last if first == len(texts) - 1 else f"entry {first} removed"]
    elif act == "swap":
        lines[first], lines[second] = lines[second], lines[first]
        told = wanted = problems([*lines, end])
        assert {f"entry {first} stands where entry {second} belongs", f"entry {second} stands where entry {first} belongs"} == set(told)
    elif act == "cut":
        del lines[first:]
        gone = f"entry {first}" if first == len(texts) - 1 else f"entries {first} to {len(texts) - 1}"
        wanted = [f"tail missing: {len(texts)} entries were sealed, {first} found, {gone} removed"]
    elif act == "repeat":
        lines.insert(second, lines[first])
        wanted = [f"entry {first} stands there once more"]
    else:
        spot = data.draw(st.integers(0, len(lines[first]) - 1))
        flipped = bytearray(lines[first])
        flipped[spot] ^= 1 << data.draw(st.integers(0, 6))
        lines[first] = bytes(flipped)
        told = problems([*lines, end])
        if b"\n" not in lines[first]:  # a bit that makes two lines of one is found as well, but as two
            assert f"entry {first} altered" in told[0] or told[0] == f"entry {first} removed", told
        wanted = told
        assert told
    assert problems([*lines, end]) == wanted
    forged = check([*lines, end], keys=[OTHER_PUBLIC])[0]
    assert not forged.vouched and forged.problems[0].startswith("sealed with another key")


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([*LINES[:4], SEAL, b"[]", b"{}", b'{"seq":1e9}', b"1" * 5000])), max_size=8))
def test_nothing_that_can_stand_in_a_file_ends_in_an_exception(lines: list[bytes]) -> None:
    for report in verify.verify(b"\n".join(lines), [PUBLIC]):
        assert report.problems or report.vouched or report.open


def test_what_the_guide_says_it_says() -> None:
    root = Path(__file__).parents[3]
    source = "".join((root / "plugins" / "module_utils" / "audit" / f"{name}.py").read_text() for name in ("chain", "seal", "verify"))
    table = (root / "docs" / "audit.md").read_text().split("| it says | what happened |")[1].split("\n\n")[0]
    phrases = [phrase for row in table.splitlines()[2:] for phrase in re.findall(r"`([^`]+)`", row.split(" | ")[0]) if " " in phrase]
    assert len(phrases) > 12
    for phrase in phrases:
        for part in re.split(r"\b[NM]\b|\d+|…|entries|entry", phrase):
            assert part.strip(" ,:") in source, phrase
