# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a service's host and modules told about it, put in the terms of run.json: sources, proof, bytes, what was touched."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import journal, words

#: Subjects under which module answers are kept, newest meaning last.
SUBJECTS = (
    "preflight", "judged", "staged", "live", "rolled_back", "committed", "snapshot", "verify", "checks", "protect", "recorded", "extract", "copy", "keys",
)

#: Ledger events that mean: from here on live data of the service was, or may have been, changed.
_CHANGING = ("cutover.intent", "rollback.intent", "rollback.source.intent", "commit.intent", "commit.source.intent")
_CHANGED = ("cutover.done", "restore.live", "rollback.done", "commit.done")


def chain_state(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the collected ledger entries are themselves: {entries, seq, head, whole, problem}; ``seq`` is the number of the last.

    Only a part of a host's ledger is collected, so a gap between runs is no fault; an altered entry or two entries that
    follow each other by number but not by digest are.
    """
    ordered = sorted((e for e in entries if isinstance(e.get("seq"), int)), key=lambda e: int(e["seq"]))
    problem = None
    for index, entry in enumerate(ordered):
        try:
            right = entry.get("hash") == journal.digest(entry)
        except ValueError:
            right = False
        if not right:
            problem = f"entry {entry.get('seq')} was altered"
            break
        before = ordered[index - 1] if index else None
        if before is not None and entry["seq"] == before["seq"] + 1 and entry.get("prev") != before.get("hash"):
            problem = f"entry {entry['seq']} does not follow entry {before['seq']}"
            break
    return {
        "entries": len(ordered), "seq": ordered[-1]["seq"] if ordered else None, "head": str(ordered[-1].get("hash", "")) if ordered else "",
        "whole": problem is None, "problem": problem,
    }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def by_source(value: Any) -> dict[str, dict[str, Any]]:
    """A module's ``sources`` or ``snapshots`` as name -> facts, whether it is a mapping or a list."""
    if isinstance(value, dict):
        return {str(k): (v if isinstance(v, dict) else {"snapshot": v}) for k, v in value.items()}
    found: dict[str, dict[str, Any]] = {}
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            found[str(item.get("source", item.get("name", "")))] = item
    return found


def digest_text(value: Any) -> str:
    """A digest as one text: the value itself, or ``algorithm:value`` of a mapping; empty when there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for key in ("value", "hex", "digest", "content", "root"):
            if isinstance(value.get(key), str):
                kind = value.get("algorithm") or value.get("kind")
                return f"{kind}:{value[key]}" if isinstance(kind, str) else str(value[key])
    return ""


def sources(kept: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per source: {snapshot, type, state, captured, found, equal, proof, bytes, reached}; only what is known.

    ``captured`` is the digest in the snapshot, ``found`` that of the restored content; ``equal`` whether they are the same;
    ``reached`` where recovery of a log ended: {timeline, from_timeline, position, last_commit, reason}.
    """
    found: dict[str, dict[str, Any]] = {}

    def put(name: str, **facts: Any) -> None:
        if name:
            found.setdefault(name, {}).update({key: value for key, value in facts.items() if value not in (None, "")})

    for entry in entries:
        data = _mapping(entry.get("data"))
        name = str(data.get("source", ""))
        event = str(entry.get("event", ""))
        if event == "stage.intent":
            put(name, snapshot=data.get("snapshot"), captured=digest_text(data.get("digest")), state="staging")
        elif event == "stage.verified":
            digest = digest_text(data.get("digest")) or found.get(name, {}).get("captured")
            put(name, found=digest, equal=True if digest else None, proof=data.get("proof"), state="staged",
                bytes=data.get("bytes"), items=data.get("items"), reached=_mapping(data.get("facts")).get("reached"))
        elif event == "stage.current":
            put(name, snapshot=data.get("snapshot"), captured=digest_text(data.get("digest")), state="current", proof=data.get("proof"))
        elif event == "cutover.done":
            put(name, state="live")
        elif event == "rollback.source.done":
            put(name, state="rolled back")
        elif event == "commit.source.done":
            put(name, state="committed")
    for subject in SUBJECTS:
        answer = _mapping(kept.get(subject))
        for name, item in {**by_source(answer.get("snapshots")), **by_source(answer.get("sources"))}.items():
            captured = digest_text(item.get("digest") or item.get("captured") or item.get("expected"))
            restored = digest_text(item.get("restored") or item.get("actual") or item.get("found") or item.get("digest_restored"))
            equal = item.get("equal", item.get("match"))
            put(
                name, snapshot=item.get("snapshot") or item.get("id"), type=item.get("type"), state=item.get("state"), captured=captured,
                found=restored, proof=item.get("proof"), equal=equal if isinstance(equal, bool) else (captured == restored if captured and restored else None),
            )
            for key, names in (("bytes", ("bytes", "bytes_source")), ("bytes_stored", ("bytes_stored",)), ("duration", ("duration", "seconds"))):
                for one in names:
                    if isinstance(item.get(one), (int, float)):
                        put(name, **{key: item[one]})
    return found


def checks(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Health, status and invariant results: [{kind, name, ok, detail, seconds}], the last answer per check."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for subject in ("checks", "live", "verify"):
        answer = _mapping(kept.get(subject))
        for item in _list(answer.get("results")) or _list(answer.get("checks")):
            if isinstance(item, dict):
                kind, name = words.one_line(item.get("kind", "check"), 40), words.one_line(item.get("name", ""), 160)
                found[kind, name] = {
                    "kind": kind, "name": name, "ok": bool(item.get("ok")), "detail": words.one_line(item.get("detail") or "", 300),
                    "seconds": item.get("seconds") if isinstance(item.get("seconds"), (int, float)) else None,
                }
    return list(found.values())


def findings(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings of every subject: [{level, kind, cause, what, where, remedy, code, source}], each once."""
    found: list[dict[str, Any]] = []
    for subject in SUBJECTS:
        for item in _list(_mapping(kept.get(subject)).get("findings")):
            if not isinstance(item, dict):
                item = {"what": item}
            error = _mapping(item.get("error")) or item
            one = {
                "level": words.one_line(item.get("level") or "error", 20), "kind": words.one_line(item.get("kind") or "", 20),
                "cause": words.one_line(item.get("cause") or "", 200),
                "what": words.one_line(error.get("what") or error.get("message") or ""), "where": words.one_line(error.get("where") or ""),
                "remedy": words.one_line(error.get("remedy") or ""), "code": words.one_line(error.get("code") or "", 40),
                "source": words.one_line(item.get("source") or "", 80),
            }
            if one not in found:
                found.append(one)
    return found


def first_error(kept: dict[str, Any]) -> Optional[dict[str, Any]]:
    """The first error that preflight found, as it was answered; None when there was none."""
    for finding in _list(_mapping(kept.get("preflight")).get("findings")):
        if isinstance(finding, dict) and finding.get("level") == "error":
            return finding
    return None


def touched(state: dict[str, Any], kept: dict[str, Any], entries: list[dict[str, Any]], began: set[str], run: str) -> str:
    """How far the run went into what is live, in one word; the ledger of this run decides, then the answers, then the phases begun.

    untouched: nothing live was changed. stopped: the service was stopped, its data is as it was. restarted: and it runs again. switching: the change was
    begun and its end was not recorded. switched: live data was replaced (or put back, or the displaced data given up).
    back: the same run replaced it and put it back.
    """
    mine = [str(entry.get("event", "")) for entry in entries if entry.get("run") == run]
    if "rollback.done" in mine and "restore.live" in mine:
        return "back"
    for subject in ("live", "rolled_back", "committed"):
        answer = _mapping(kept.get(subject))
        if answer.get("changed") and not answer.get("failed"):
            return "switched"
    if any(event in _CHANGED for event in mine):
        return "switched"
    if any(event in _CHANGING for event in mine):
        return "switching"
    live = _mapping(kept.get("live"))
    if "cutover" in began and not live and "cutover" not in (state.get("done") or []):
        return "switching"  # its host went away meanwhile: what the ledger there says now nobody knows here
    if "cutover" in began and not mine and (not live or live.get("failed")):
        # no ledger tells: a cutover by other means than ours, or a host that answered nothing
        return "switched" if "cutover" in (state.get("done") or []) and not live else "switching"
    if "stop" in began or "start" in began:
        return "restarted" if "start" in (state.get("done") or []) else "stopped"
    return "untouched"
