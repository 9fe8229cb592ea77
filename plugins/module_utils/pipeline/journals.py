# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The sealed journal of a run: signed here with the service's key, and published into its repository next to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..audit import chain, seal, verify
from ..errors import ConfigError, ConflictError, DamageError
from ..ledger import Entry, Ledger
from ..repository import layout
from ..repository.backend import Backend

if TYPE_CHECKING:
    from ..keys.provider import KeyProvider
    from ..spec import Spec

#: The largest journal that is published or read, in bytes.
LIMIT = 64 << 20


def publish(spec: Spec, run_id: str, text: str) -> dict[str, Any]:
    """Sign a run's journal unless it is signed already, and store it: {"changed", "object", "signature", "warnings"}.

    A host signs only what it can stand for: a whole journal of that run, whose last word about this service's ledger is what the
    ledger says itself. Repeating it with the same journal is fine. DamageError, ConfigError, KeyAccessError, StorageError.
    """
    data = text.encode()
    where = f"journal of run {run_id}"
    reports = verify.verify(data, [], where, run_id)
    problems = [problem for report in reports for problem in report.problems]
    if problems or len(reports) != 1 or not reports[0].sealed:
        raise DamageError(f"the journal was altered ({problems[0] if problems else 'it is not one sealed journal'})", where,
                          "nothing was signed; keep the run directory as evidence")
    body, raw = data[:-1].rpartition(b"\n")[::2]
    found = seal.read(raw, where)
    entries = [chain.line_of(number, line).entry or {} for number, line in enumerate(body.split(b"\n"), 1)]
    _agree(spec, run_id, entries[-1])
    store = spec.store()
    signature = found.signature
    if signature is None:
        signature = store.provider.sign(found.text.encode())
        store.provider.verify(found.text.encode(), signature)
    name = layout.journal(spec.service, run_id)
    whole = body + b"\n" + seal.line_of(found.text, signature)
    try:
        store.backend.create(name, whole, "history")
        changed = True
    except ConflictError:
        there = read(store.backend, store.provider, name)
        if there.data["head"] != found.data["head"]:
            raise
        signature, changed = there.signature, False
    return {"changed": changed, "object": name, "signature": signature, "warnings": []}


def _agree(spec: Spec, run_id: str, last: Entry) -> None:
    """Does the end of the journal say of this service's ledger what the ledger says?"""
    told = ((last.get("data") or {}).get("services") or {}).get(spec.service) if last.get("event") == "sealed" else None
    if not isinstance(told, dict):
        raise ConfigError("the journal has no end that speaks of this service", f"service {spec.service}, run {run_id}", "finish the run that it took part in")
    claimed = told.get("ledger") or {}
    if not claimed.get("head"):
        return  # the controller got nothing of it
    own = {entry["hash"]: entry for entry in Ledger.for_spec(spec).entries(run_id)}
    if claimed["head"] not in own or own[claimed["head"]]["seq"] != claimed.get("seq"):
        raise DamageError("the journal names another ledger than the one of this host", f"service {spec.service}, run {run_id}",
                          "nothing was signed; compare services/<service>.jsonl of the run directory with: lifeboat history")


def read(backend: Backend, provider: KeyProvider, name: str) -> seal.Seal:
    """The seal of a published journal, which is whole and in its place; its signature is checked when it is of this service's key. DamageError."""
    def damaged(what: str) -> DamageError:
        return DamageError(f"journal {what}", name, "snapshots are not affected; the run directory and the second place hold the same journal")

    try:
        data = backend.read(name, LIMIT)
    except FileNotFoundError as error:
        raise damaged("is missing") from error
    reports = verify.verify(data, [], name)
    problems = [problem for report in reports for problem in report.problems]
    if problems or len(reports) != 1:
        raise damaged(f"was altered ({problems[0] if problems else 'it is not one'})")
    if not name.endswith(f"/{reports[0].run}.jsonl"):
        raise damaged(f"is that of run {reports[0].run} (moved or replayed)")
    found = seal.read(data[:-1].rpartition(b"\n")[2], name)
    signature = found.signature
    if signature is None:
        raise damaged("is not signed")
    if not str(signature.get("key", "")).startswith(f"{seal.CONTROLLER}@"):
        try:
            provider.verify(found.text.encode(), signature)
        except DamageError as error:
            raise damaged(f"has a signature that does not match ({error.what})") from error
    return found
