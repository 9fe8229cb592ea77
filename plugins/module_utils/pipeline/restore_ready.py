# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Between cutover and start: the service's migrations bring its restored data to the version that its program wants, and that is looked at.

Both belong to the call that swaps the data in, so they cost no call of their own, and the service is not started over data of another version.
"""

from __future__ import annotations

import time
from typing import Any

from .. import checks, faults, policy
from ..checks import schema
from ..checks.command import run_argv
from ..errors import CheckError, LifeboatError, SourceError
from .restore_job import Job
from .restore_state import Restore


def make_ready(job: Job, restore: Restore) -> dict[str, Any]:
    """{"migrated": whether the migration ran now, "schema": results, "readied": seconds}; nothing where the service declares neither.

    A migration that the ledger knows to be done is not run again. Raises SourceError and CheckError, whose result says "readied" too.
    """
    argv = [str(word) for word in (job.spec.entry.get("runtime") or {}).get("migrate") or []]
    if not argv and not job.spec.entry.get("schema"):
        return {}
    begin = time.monotonic()
    try:
        migrated = bool(argv) and restore.migrated != "done"
        if migrated:
            _migrate(job, restore, argv)
        found = schema.ask(job.spec)
        wrong = [result for result in found if not result["ok"]]
        if wrong:
            raise CheckError(f"schema check failed, {wrong[0]['name']}: {wrong[0]['detail']}", job.spec.service, schema.REMEDY)
    except LifeboatError as error:
        error.result.update(readied=round(time.monotonic() - begin, 3))
        raise
    return {"migrated": migrated, "schema": found, "readied": round(time.monotonic() - begin, 3)}


def _migrate(job: Job, restore: Restore, argv: list[str]) -> None:
    limit = policy.of(job.spec.entry, "migrate").timeout or 7 * 86400.0
    job.log("migrate.intent", restore.id, again=restore.migrated == "intent")
    faults.point("migrate.intent")
    job.progress.say("migrating")
    begin = time.monotonic()
    try:
        status, output, errors = run_argv(argv, limit)
    except CheckError as error:
        raise SourceError(f"the migration {error.what}", f"{job.spec.service}: {argv[0]}", _AGAIN) from None
    if status != 0:
        lines = (errors.strip() or output.strip()).splitlines()
        last = f" ({checks.expect.shown(lines[-1])})" if lines else ""
        raise SourceError(f"the migration ended with exit status {status}{last}", f"{job.spec.service}: {argv[0]}", _AGAIN)
    job.log("migrate.done", restore.id, seconds=round(time.monotonic() - begin, 3))
    faults.point("migrate.done")
    restore.migrated = "done"


_AGAIN = "the service was not started; run it by hand to see why, then run the same command again"
