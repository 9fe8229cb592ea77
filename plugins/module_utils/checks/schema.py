# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Is the data of the version that the service's program wants? {query: SQL with one value, expect: value, source: name, database: name}."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import CheckError, LifeboatError
from . import expect, sql

if TYPE_CHECKING:
    from ..spec import Spec

REMEDY = (
    "run the migrations that lead there (runtime.migrate runs them in a restore), restore a point that holds that version, "
    "or correct schema.expect in the catalog; then run the same command again"
)
#: Seconds the question may take.
_TIMEOUT = 10.0


def ask(spec: Spec) -> list[dict[str, Any]]:
    """One result {"kind": "schema", "name", "ok", "detail", "seconds"} for each version that the service declares."""
    return [perform(spec, wanted) for wanted in spec.entry.get("schema") or []]


def perform(spec: Spec, wanted: dict[str, Any]) -> dict[str, Any]:
    """One of them. A version that cannot be read is a wrong one."""
    begin = time.monotonic()
    name, ok = f"schema version of {wanted.get('source') or 'the database'}", True
    try:
        found = sql.probe(spec, {**wanted, "sql": wanted["query"]}, _TIMEOUT)
        if not expect.equal(found, wanted["expect"]):
            raise CheckError(f"the version is {expect.shown(found)}, the service wants {expect.shown(wanted['expect'])}")
        detail = expect.shown(found)
    except LifeboatError as error:
        detail, ok = str(error), False
    told = {} if ok else {"remedy": REMEDY}
    return {"kind": "schema", "name": name, "ok": ok, "detail": detail, "seconds": round(time.monotonic() - begin, 3), **told}
