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
from ..repository.journals import read

if TYPE_CHECKING:
    from ..spec import Spec


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
