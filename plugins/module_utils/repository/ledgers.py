# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Copies of the hosts' ledgers: append-only, write-once, signed segments (docs/repository-format.md, "Ledger").

They are readable without any key, so that the history of a lost host can be read before anything else is there. What a
comparison of contents found is therefore left out of them, and so is every value that stands under the name of a secret in
the service's own configuration.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, Iterator

from ..errors import ConflictError, DamageError
from ..keys.provider import KeyProvider
from ..ledger import ENTRY_BYTES, ZERO, Entry, canonical, entry_hash
from . import layout, signed
from .backend import Backend

#: Entries of one object, in bytes of JSON; one entry more may follow, and JSON in JSON is quoted.
SEGMENT_BYTES = 4 << 20
#: The largest object a reader accepts.
LIMIT = 4 * (SEGMENT_BYTES + ENTRY_BYTES)

_NAME = re.compile(r"(\d{12})-(\d{12})\.json\Z")
_REMEDY = "snapshots are not affected; the host's own ledger and the controller's run directory hold the same entries"


def publishable(entry: Entry, secrets: Iterable[str] = ()) -> Entry:
    """The entry as it may lie in the repository; ``withheld`` says that something was taken out, so that its hash cannot be computed again."""
    data = json.loads(canonical(entry["data"]))
    for one in (data.get("writes") or {}).values() if isinstance(data.get("writes"), dict) else ():
        if isinstance(one, dict) and one.get("differences"):
            one["differences"] = []  # names of files and keys: content, which the repository holds sealed only
    data = _masked(data, [secret for secret in secrets if len(secret) >= 4])
    return dict(entry) if data == entry["data"] else {**entry, "data": data, "withheld": True}


def _masked(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {_masked(key, secrets): _masked(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "********")
    return value


def store(backend: Backend, provider: KeyProvider, repository_id: str, service: str, host: str, entries: list[Entry], begins: bool) -> str:
    """Write consecutive entries of one host's ledger as one object; its name. Repeating it with the same entries is fine.

    begins: this is the first object of that host's ledger; a reader knows then that nothing before it is missing.
    """
    document = {
        "format": layout.FORMAT, "kind": "ledger", "repository": repository_id, "service": service, "host": host, "begins": begins,
        "first": entries[0]["seq"], "last": entries[-1]["seq"], "previous": entries[0]["prev"], "head": entries[-1]["hash"], "entries": entries,
    }
    text = canonical(document).decode()
    name = layout.ledger(service, host, int(entries[0]["seq"]), int(entries[-1]["seq"]))
    body = json.dumps({"ledger": text, "signature": provider.sign(text.encode())}, sort_keys=True, separators=(",", ":")).encode()
    try:
        backend.create(name, body, "history")
    except ConflictError:
        if read(backend, provider, repository_id, name)["head"] != entries[-1]["hash"]:
            raise
    return name


def read(backend: Backend, provider: KeyProvider | None, repository_id: str | None, name: str) -> dict[str, Any]:
    """One object, its chain checked; its signature too unless ``provider`` is None. DamageError names it."""
    def damaged(what: str) -> DamageError:
        return DamageError(f"copy of a ledger {what}", name, _REMEDY)

    try:
        raw = backend.read(name, LIMIT)
    except FileNotFoundError as error:
        raise damaged("is missing") from error
    data, _text = signed.load(raw, "ledger", provider, damaged)
    try:
        place = layout.ledger(str(data["service"]), str(data["host"]), int(data["first"]), int(data["last"]))
        if data["format"] != layout.FORMAT or data["kind"] != "ledger":
            raise damaged(f"has format {data['format']!r}, this version reads {layout.FORMAT}")
        if place != name or repository_id not in (None, data["repository"]):
            raise damaged("belongs to another place (moved or replayed)")
        _check_chain(data)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(f"is damaged ({error})") from error
    return data


def _check_chain(data: dict[str, Any]) -> None:
    number, previous = int(data["first"]), str(data["previous"])
    for entry in data["entries"]:
        if int(entry["seq"]) != number or entry["prev"] != previous:
            raise ValueError(f"entry {number} is missing or out of place")
        if not entry.get("withheld") and entry["hash"] != entry_hash(entry):
            raise ValueError(f"entry {number} was altered")
        for key in ("time", "run", "verb", "phase", "event"):
            if not isinstance(entry[key], str):
                raise ValueError(f"entry {number} lacks a valid {key}")
        if not isinstance(entry["data"], dict):
            raise ValueError(f"entry {number} lacks valid data")
        number, previous = number + 1, str(entry["hash"])
    if number != int(data["last"]) + 1 or previous != data["head"]:
        raise ValueError("its end is missing")


def names(backend: Backend, service: str, host: str = "") -> dict[str, list[tuple[int, int, str]]]:
    """host -> its objects as (first, last, name), in order."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    prefix = layout.ledgers(service)
    for name, _size in backend.list(layout.ledgers(service, host)):
        owner, _slash, last = name[len(prefix):].partition("/")
        match = _NAME.match(last)
        if match:
            found.setdefault(owner, []).append((int(match[1]), int(match[2]), name))
    return {owner: sorted(items) for owner, items in sorted(found.items())}


def segments(
    backend: Backend, provider: KeyProvider | None, repository_id: str | None, service: str, problems: list[DamageError],
    known: tuple[str, int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Every readable object of a service, host by host, in order; what is wrong is added to ``problems``, each naming its object.

    known: (host, sequence number) up to which this very host has published: a missing tail is noticed by it.
    """
    listed = names(backend, service)
    for host, objects in listed.items():
        through, head = 0, ZERO
        for first, last, name in objects:
            begun = through > 0
            try:
                data = read(backend, provider, repository_id, name)
            except DamageError as error:
                problems.append(error)
                through, head = max(through, last), ""
                continue
            gap = first > through + 1 and (begun or not data["begins"])
            if gap:
                problems.append(_missing(service, host, through + 1, first - 1))
            elif head and begun and first == through + 1 and data["previous"] != head:
                problems.append(DamageError("copy of a ledger does not follow its predecessor", name, _REMEDY))
            if last > through:
                through, head = last, str(data["head"])
            yield data
        if known is not None and known[0] == host and known[1] > through:
            problems.append(_missing(service, host, through + 1, known[1]))
    if known is not None and known[0] not in listed and known[1]:
        problems.append(_missing(service, known[0], 1, known[1]))


def _missing(service: str, host: str, first: int, last: int) -> DamageError:
    return DamageError(f"copy of a ledger is missing: entries {first} to {last} of host {host}", layout.ledgers(service, host), _REMEDY)
