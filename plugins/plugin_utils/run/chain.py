# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The attempts at one incident that came before a run, and how long they waited for people between them.

An attempt is {"run" (null for a refusal), "began", "ended" (ISO times), "verdict"}: a run that did not bring back what it was asked for, or a plan
that was refused. Between the end of one and the begin of the next nobody but people was at work. A success, a rollback or a commit ends
an incident, and so does a day without an attempt; lifeboat_incident_started says otherwise.
"""

from __future__ import annotations

import os
import time
from typing import Any, Iterable, Mapping

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import files, words

#: Seconds without an attempt after which the next one is another incident.
PATIENCE = 86400.0
#: Verbs whose success ends an incident of that verb.
_ENDS = {"restore": ("restore", "rollback", "commit"), "drill": ("drill",), "rollback": ("rollback", "commit"), "commit": ("commit",)}
#: Newest runs of a folder that are looked at.
_RUNS = 50
_REFUSED = ".refused.json"

Attempt = dict[str, Any]


def of_host(answer: Any, verb: str) -> list[Attempt]:
    """The attempts of a verb that a host's ledger holds (``attempts`` of service_state), since the last one that ended an incident."""
    listed = answer.get("attempts") if isinstance(answer, Mapping) else None
    found: list[Attempt] = []
    for one in listed if isinstance(listed, list) else []:
        if not isinstance(one, Mapping) or one.get("verb") not in _ENDS.get(verb, ()):
            continue
        if one.get("verdict") in words.SUCCESS.get(str(one["verb"]), ()) or one.get("verdict") == "degraded":
            found = []
        elif one["verb"] == verb:
            found.append({key: one.get(key) for key in ("run", "began", "ended", "verdict")})
    return found


def of_folder(root: str, ecosystem: str, verb: str, picked: Iterable[str]) -> list[Attempt]:
    """The same from this controller's run directories, for attempts that came to no host."""
    wanted, found = set(picked), []
    try:
        names = sorted((name for name in os.listdir(root) if words.RUN_ID.match(name)), reverse=True)[:_RUNS]
    except OSError:
        return []
    read = [(name, files.read_json(os.path.join(root, name, "run.json"))) for name in names if name.split("-")[1] in _ENDS.get(verb, ())]
    ended = [(name, document, document.get("run") or {}) for name, document in read if isinstance(document, dict)]
    # names tell the second only
    for name, document, run in sorted(ended, key=lambda one: (str(one[2].get("started") or ""), one[0]), reverse=True):
        if document.get("ecosystem") != ecosystem or not wanted & set(document.get("services") or {}):
            continue
        if document.get("outcome") in ("success", "degraded"):
            break
        if name.split("-")[1] == verb:
            before = (document.get("human") or {}).get("attempts") or []
            found.append({"run": name, "began": run.get("started"), "ended": run.get("finished"), "verdict": document.get("outcome")})
            found += [one for one in before if isinstance(one, dict) and {"run", "began", "ended", "verdict"} <= set(one)]
    return found[::-1]


def refuse(root: str, ecosystem: str, verb: str, picked: Iterable[str]) -> None:
    """Remember when a plan was refused: from then on it waits for people. A folder that cannot be written forgets it."""
    known = _refusals(root)
    key = f"{ecosystem}/{verb}"
    before = known.get(key) if isinstance(known.get(key), dict) else None
    since = (before or {}).get("since")
    if words.from_iso(since) is None or time.time() - (words.from_iso(since) or 0.0) > PATIENCE:
        since = words.iso(time.time())
    known[key] = {"since": since, "picked": sorted(set(picked) | set((before or {}).get("picked") or []))}
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        files.replace_json(os.path.join(root, _REFUSED), known, durable=False)
    except (OSError, StorageError):
        return


def refused(root: str, ecosystem: str, verb: str, picked: Iterable[str]) -> list[Attempt]:
    """The refusal before a run of these services, and no trace of it any more."""
    known, key = _refusals(root), f"{ecosystem}/{verb}"
    found = known.get(key)
    if not isinstance(found, dict) or not set(picked) & set(found.get("picked") or []):
        return []
    del known[key]
    files.replace_json(os.path.join(root, _REFUSED), known, durable=False)
    return [{"run": None, "began": found.get("since"), "ended": found.get("since"), "verdict": "refused"}]


def _refusals(root: str) -> dict[str, Any]:
    found = files.read_json(os.path.join(root, _REFUSED))
    return found if isinstance(found, dict) else {}


def joined(attempts: Iterable[Attempt], began: float) -> list[Attempt]:
    """The attempts at the incident that a run from ``began`` (Unix seconds) goes on with: each once, oldest first, none after a day's gap."""
    merged: dict[str, tuple[float, float, Attempt]] = {}
    for one in attempts:
        first, last = words.from_iso(one.get("began")), words.from_iso(one.get("ended"))
        if first is None or first > began:
            continue
        last = min(began, max(first, last if last is not None else first))
        name = str(one["run"] or f"refused {first}")
        kept = merged.get(name)
        if kept is not None:
            first, last, one = min(first, kept[0]), max(last, kept[1]), kept[2]
        merged[name] = (first, last, one)
    found: list[Attempt] = []
    edge = began
    for first, last, one in sorted(merged.values(), key=lambda item: (item[0], item[1]), reverse=True):
        if edge - last > PATIENCE:
            break
        edge = min(edge, first)
        found.append({**one, "began": words.iso(first), "ended": words.iso(last)})
    return found[::-1]


def waits(attempts: list[Attempt], began: float) -> list[dict[str, Any]]:
    """Where the attempts waited for people: [{"after": run or "a refusal", "seconds"}]; work that overlaps is no wait."""
    found = []
    edge, latest = 0.0, ""
    for position, one in enumerate(attempts):
        last = words.from_iso(one["ended"]) or began
        if last >= edge:
            edge, latest = last, str(one["run"] or "a refusal")
        following = words.from_iso(attempts[position + 1]["began"]) if position + 1 < len(attempts) else began
        if following is not None and following > edge:
            found.append({"after": latest, "seconds": round(following - edge, 3)})
    return found
