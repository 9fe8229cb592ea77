# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Warm-up requests: GETs that a service is sent once it is up, before its health counts. {http: url, expect_status: 200, timeout: 10, required: false}."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..errors import LifeboatError
from . import expect, http

if TYPE_CHECKING:
    from ..spec import Spec

#: Seconds one request may take, and all of them, where the service does not say.
TIMEOUT = 10.0
ALL = 30.0
_WIDTH = 4


def perform(spec: Spec) -> tuple[list[dict[str, Any]], list[str]]:
    """(one result of kind prewarm for each request, warnings). Only a request that is required can fail; none begins when the time is over."""
    declared = spec.entry["prewarm"]
    end = time.monotonic() + (expect.seconds(declared.get("timeout")) or ALL)
    with ThreadPoolExecutor(_WIDTH, thread_name_prefix="warm") as threads:
        made = list(threads.map(lambda request: _one(spec, request, end), declared["http"]))
    return [result for result, _warning in made], [warning for _result, warning in made if warning]


def _one(spec: Spec, request: dict[str, Any], end: float) -> tuple[dict[str, Any], str]:
    begin = time.monotonic()
    name, warning, ok = f"http {expect.without_secrets(str(request['http']))}"[:120], "", True
    left = end - begin
    if left <= 0:
        detail, failed = "not made: the time for warming up was over", True
    else:
        try:
            detail, failed = f"answered {http.probe(spec, request, min(left, expect.seconds(request.get('timeout')) or TIMEOUT))}", False
        except LifeboatError as error:
            detail, failed = str(error), True
    if failed and request.get("required"):
        ok = False
    elif failed:
        warning = f"{spec.service} was not warmed up: {detail}"
    return {"kind": "prewarm", "name": name, "ok": ok, "detail": detail, "seconds": round(time.monotonic() - begin, 3)}, warning
