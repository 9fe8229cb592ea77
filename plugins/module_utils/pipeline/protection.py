# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Is a service protected? One more check behind its health and invariants: would the next capture work?"""

from __future__ import annotations

import time
from typing import Any

from ..spec import Spec
from . import operations


def add_check(spec: Spec, told: dict[str, Any]) -> dict[str, Any]:
    """The result of the checks with one of kind ``protect`` behind them; not asked when one of the others failed. Changes nothing."""
    if not told["ok"]:
        return told
    begin = time.monotonic()
    found = operations.preflight_capture(spec)
    errors = [finding for finding in found["findings"] if finding["level"] == "error"]
    detail = "; ".join(f"{finding['what']}: {finding['where']}; {finding['remedy']}" for finding in errors)
    seconds = round(time.monotonic() - begin, 3)
    row = {"kind": "protect", "name": "the next capture works", "ok": not errors, "detail": detail, "seconds": seconds}
    return {**told, "protected": seconds, "ok": not errors, "results": [*told["results"], row]}
