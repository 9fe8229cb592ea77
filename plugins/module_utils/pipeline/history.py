# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The ledger's copy in the repository: published at the end of a run's work on a service, read when the host is gone.

``history.json`` in the service's state directory: {"host": id, "repositories": {repository id: {"through": sequence number, "head": hash}}}.
It only saves work: when it is lost the whole ledger is published again under a new host id, and readers show each entry once.
"""

from __future__ import annotations

import platform
import re
import secrets
from typing import TYPE_CHECKING, Any

from .. import state
from ..errors import DamageError, LifeboatError, StorageError
from ..ledger import Entry, Ledger, canonical
from ..redact import hidden_values
from ..repository import ledgers

if TYPE_CHECKING:
    from ..keys.provider import KeyProvider
    from ..repository.backend import Backend
    from ..repository.repository import ServiceStore
    from ..spec import Spec


def publish(spec: Spec, ledger: Ledger) -> list[dict[str, str]]:
    """Copy what the ledger has gained into the repository, under the service's lease; warnings, never an error.

    Without repository or keys, or when the disk is full, the entries stay where they are, and the next run catches up.
    """
    try:
        entries = ledger.entries()
        if entries:
            _publish(spec, spec.store(), entries)
    except (LifeboatError, OSError) as error:
        why = error if isinstance(error, LifeboatError) else StorageError(
            f"the operating system refused ({error.strerror or error})", str(error.filename or ""))
        return [{
            "code": why.code, "what": f"the ledger was not copied to the repository ({why.what})", "where": why.where or f"service {spec.service}",
            "remedy": (f"{why.remedy}; " if why.remedy else "") + "the next run on this host catches up",
        }]
    return []


def _publish(spec: Spec, store: ServiceStore, entries: list[Entry]) -> None:
    known = state.read_json(spec.path("history.json")) or {}
    marks = known.get("repositories") if isinstance(known.get("repositories"), dict) else {}
    host, mark = known.get("host"), dict((marks or {}).get(store.repository.id) or {"through": 0, "head": ""})
    if not isinstance(host, str) or not _continues(entries, mark):
        # a new ledger, or one that was put in another's place: its numbers count for themselves
        node = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()).strip("-")[:40] or "host"
        host, marks, mark = f"{node}-{secrets.token_hex(4)}", {}, {"through": 0, "head": ""}
    if known.get("host") != host:
        _remember(spec, host, marks, store.repository.id, mark)
    mark = _found(store, spec.service, host, entries, mark)
    hidden = hidden_values({"keys": spec.keys, "entry": spec.entry, "repository": spec.repository})
    for part in _parts([ledgers.publishable(entry, hidden) for entry in entries if int(entry["seq"]) > int(mark["through"])]):
        ledgers.store(store.backend, store.provider, store.repository.id, spec.service, host, part, begins=not mark["through"])
        mark = {"through": int(part[-1]["seq"]), "head": part[-1]["hash"]}
        _remember(spec, host, marks, store.repository.id, mark)


def _remember(spec: Spec, host: str, marks: dict[str, Any] | None, repository: str, mark: dict[str, Any]) -> None:
    state.write_json(spec.path("history.json"), {"host": host, "repositories": {**(marks or {}), repository: mark}}, "history")


def _continues(entries: list[Entry], mark: dict[str, Any]) -> bool:
    """Whether the ledger is the one that was published up to the mark."""
    if int(mark["through"]) > int(entries[-1]["seq"]):
        return False
    return all(entry["hash"] == mark["head"] for entry in entries if entry["seq"] == mark["through"])


def _found(store: ServiceStore, service: str, host: str, entries: list[Entry], mark: dict[str, Any]) -> dict[str, Any]:
    """The mark, moved on by objects that a killed call had written and not yet remembered."""
    hashes = {int(entry["seq"]): entry["hash"] for entry in entries}
    for first, last, name in ledgers.names(store.backend, service, host).get(host, []):
        if first == int(mark["through"]) + 1 and last in hashes:
            try:
                if ledgers.read(store.backend, store.provider, store.repository.id, name)["head"] == hashes[last]:
                    mark = {"through": last, "head": hashes[last]}
            except DamageError:
                continue  # verify names it; what it held is published again beside it
    return mark


def _parts(entries: list[Entry]) -> list[list[Entry]]:
    parts: list[list[Entry]] = []
    size = ledgers.SEGMENT_BYTES
    for entry in entries:
        if size >= ledgers.SEGMENT_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += len(canonical(entry))
    return parts


def mark_of(spec: Spec, repository: str) -> tuple[str, int] | None:
    """(host id, sequence number) up to which this host has published into a repository; None when it has not."""
    known = state.read_json(spec.path("history.json")) or {}
    mark = (known.get("repositories") or {}).get(repository)
    return (str(known.get("host")), int(mark["through"])) if mark else None


def services(backend: Backend) -> list[str]:
    """The services of which a repository holds ledgers."""
    return sorted({name.split("/")[1] for name, _size in backend.list("services/") if name.split("/")[2:3] == ["ledgers"]})


def read(
    backend: Backend | None, provider: KeyProvider | None, repository: str | None, service: str, run: str = "", local: list[Entry] | None = None,
) -> dict[str, Any]:
    """The history of a service: {"service", "runs": oldest first, "entries": those of ``run``, "warnings", "signed": whether signatures were checked}.

    A run is {"run", "verb", "host", "began", "ended", "verdict", "message", "by", "resumes", "entries", "last": time of its last entry, "measured":
    data of that ledger entry (measured.py) or None}. ``local``: the ledger of this host, for what is not published yet; ``run`` may be
    ``last``. ``backend`` None: only that.
    """
    if run == "last":
        everything = read(backend, provider, repository, service, "", local)
        return read(backend, provider, repository, service, everything["runs"][-1]["run"], local) if everything["runs"] else everything
    problems: list[DamageError] = []
    seen: set[str] = set()
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    kept: list[Entry] = []

    def take(entry: Entry, host: str) -> None:
        if entry["hash"] in seen:
            return
        seen.add(entry["hash"])
        one = runs.setdefault((host, entry["run"]), {
            "run": entry["run"], "verb": entry["verb"], "host": host, "began": entry["time"], "ended": None, "verdict": None, "message": "", "by": None,
            "resumes": None, "entries": 0, "last": entry["time"], "measured": None,
        })
        one["entries"] += 1
        one["last"] = entry["time"]
        data = entry["data"]
        if entry["event"] == "run.begin":
            one.update(by=f"{data.get('user') or '?'}@{data.get('controller') or '?'}", resumes=data.get("resumes"))
        elif entry["event"] == "measured":
            one["measured"] = data
        elif entry["event"] == "run.end":
            one.update(ended=entry["time"], verdict=data.get("verdict"), message=str(data.get("message") or ""))
        elif entry["event"] == "run.interrupted":
            former = runs.get((host, str(data.get("run"))))
            if former is not None and former["verdict"] is None:
                former["verdict"] = "interrupted"
        if run and entry["run"] == run:
            kept.append(entry)

    for data in ledgers.segments(backend, provider, repository, service, problems) if backend else ():
        for entry in data["entries"]:
            take(entry, str(data["host"]))
    here = next((host for (host, _run) in reversed(runs) if local and local[0]["hash"] in seen), "this host")
    for entry in local or []:
        take(entry, here)
    ordered = sorted(runs.values(), key=lambda one: str(one["began"]))
    return {"service": service, "runs": ordered, "entries": kept, "warnings": [problem.as_dict() for problem in problems], "signed": provider is not None}


def of_host(spec: Spec, run: str = "") -> dict[str, Any]:
    """The history from repository and own ledger together, as read(); one that cannot be read is a warning, for the other may still tell."""
    local, problems = [], []
    try:
        local = Ledger.for_spec(spec).entries()
    except LifeboatError as error:
        problems.append(error.as_dict())
    try:
        store = spec.store()
        told = read(store.backend, store.provider, store.repository.id, spec.service, run, local)
    except LifeboatError as error:
        problems.append(error.as_dict())
        told = read(None, None, None, spec.service, run, local)
        told["signed"] = True  # nothing was read that has a signature
    return {**told, "warnings": [*problems, *told["warnings"]]}


def attempts(entries: list[Entry]) -> list[dict[str, Any]]:
    """The newest runs of a host's own ledger that bring data back or settle it, oldest first: [{"run", "verb", "began", "ended", "verdict"}].

    ``ended``: of a run that was lost, the time of its last entry.
    """
    runs = read(None, None, None, "", "", entries)["runs"]
    return [
        {"run": one["run"], "verb": one["verb"], "began": one["began"], "ended": one["ended"] or one["last"], "verdict": one["verdict"]}
        for one in runs if one["verb"] in ("restore", "drill", "rollback", "commit")
    ][-20:]
