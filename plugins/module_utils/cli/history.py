# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat history``: what was done to services, from the ledgers' copies in the repository and from this host's own ledger.

With ``--repository`` nothing of this host is asked: it works on a new host, without keys too (then no signature is checked, and it says so).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from ..keys.registry import provider_for
from ..pipeline import history as records
from ..repository.registry import backend_for
from ..repository.repository import Repository
from ..spec import check_name
from . import text
from .shared import answer, chosen


def told(options: argparse.Namespace, run: str = "") -> tuple[dict[str, dict[str, Any]], bool]:
    """(service -> its history, whether a copy is damaged or missing); warnings are printed."""
    if options.repository:
        found = _from_repository(options, run)
    else:
        found = {spec.service: records.of_host(spec, run) for spec in chosen(options)}
    if not all(one["signed"] for one in found.values()):
        sys.stderr.write("lifeboat: warning: signatures were not checked: no public key at hand (--keys DIR names one)\n")
    for name, one in found.items():
        for warning in one["warnings"]:
            sys.stderr.write(f"lifeboat: warning: {name}: {warning['what']}: {warning['where']}; {warning['remedy']}\n")
    return found, any(one["warnings"] for one in found.values())


def history(options: argparse.Namespace) -> int:
    """Runs, or with ``--run`` the entries of one; 3 when a copy is damaged or missing."""
    found, damaged = told(options, options.run)
    rows = []
    for name, one in found.items():
        if options.run:
            rows += [[name, entry["seq"], entry["time"], entry["run"], entry["phase"], entry["event"], _detail(entry)] for entry in one["entries"]]
        else:
            rows += [
                [name, run["run"], run["verb"], run["began"], run["ended"], run["verdict"] or "unfinished", run["by"], run["host"], run["message"][:120]]
                for run in one["runs"]
            ]
    head = ["SERVICE", "SEQ", "TIME", "RUN", "PHASE", "EVENT", "WHAT"] if options.run else [
        "SERVICE", "RUN", "VERB", "BEGAN", "ENDED", "VERDICT", "BY", "HOST", "MESSAGE"]
    answer(options, found, text.table(head, rows))
    return 3 if damaged else 0


def _detail(entry: dict[str, Any]) -> str:
    data = entry["data"]
    words = [f"{key}={data[key] if isinstance(data[key], str) else json.dumps(data[key], sort_keys=True)}" for key in sorted(data)]
    return " ".join(words)[:160]


def _from_repository(options: argparse.Namespace, run: str) -> dict[str, Any]:
    url = options.repository if "://" in options.repository else f"file://{os.path.abspath(options.repository)}"
    repository = Repository.open({"url": url})
    backend = backend_for({"url": url})
    keys = {"provider": "file", "path": os.path.abspath(options.keys)} if options.keys else None
    names = [check_name("service", options.service)] if options.service else records.services(backend)
    return {
        name: records.read(backend, provider_for(keys, name) if keys else None, repository.id, name, run) for name in names
    }
