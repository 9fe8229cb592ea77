# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The sealed journals of runs, as they lie in a repository."""

from __future__ import annotations

from ..audit import seal, verify
from ..errors import DamageError
from ..keys.provider import KeyProvider
from .backend import Backend

#: The largest journal that is read, in bytes.
LIMIT = 64 << 20


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
