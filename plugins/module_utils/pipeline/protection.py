# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Is a service protected? More checks behind its health and invariants: would the next capture work, and is its log shipped?"""

from __future__ import annotations

import time
from typing import Any

from ..errors import StorageError
from ..log import config as log_config
from ..log import status as log_status
from ..spec import Spec
from . import operations


def add_check(spec: Spec, told: dict[str, Any]) -> dict[str, Any]:
    """The result of the checks with those of kind ``protect`` behind them; not asked when one of the others failed. Changes nothing.

    A log that is not shipped, and a lost repository that has copies, fail nothing, since the data is there and well, but the answer says so:
    "unshipped" and "warnings".
    """
    if not told["ok"]:
        return told
    begin = time.monotonic()
    found = operations.preflight_capture(spec)
    errors = [finding for finding in found["findings"] if finding["level"] == "error"]
    unprotected = []
    if spec.repository.get("copies"):
        # it came back from a copy: that the next capture has nowhere to go must be mended, and holds up nobody who waits for the service
        lost = [finding for finding in errors if finding["code"] == StorageError.code and "source" not in finding]
        unprotected = [f"the service is not protected: {_said(finding)}" for finding in lost]
        errors = [finding for finding in errors if finding not in lost]
    detail = "; ".join(_said(finding) for finding in errors)
    seconds = round(time.monotonic() - begin, 3)
    rows = [] if unprotected and not errors else [{"kind": "protect", "name": "the next capture works", "ok": not errors, "detail": detail, "seconds": seconds}]
    unshipped = []
    for source in log_config.names(spec) if not errors and not unprotected else []:
        since = time.monotonic()
        why = log_status.unshipped(spec, source)
        if why:
            unshipped.append(why)
        else:
            rows.append({"kind": "protect", "name": f"the log of {source} is shipped", "ok": True, "detail": "", "seconds": round(time.monotonic() - since, 3)})
    return {**told, "protected": round(time.monotonic() - begin, 3), "ok": not errors, "results": [*told["results"], *rows],
            "unshipped": unshipped, "warnings": [*(told.get("warnings") or []), *unprotected, *unshipped]}


def _said(finding: dict[str, Any]) -> str:
    return f"{finding['what']}: {finding['where']}; {finding['remedy']}"
