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

from ..errors import LifeboatError
from ..keys.registry import provider_for
from ..ledger import Ledger
from ..pipeline import history as records
from ..repository.registry import backend_for
from ..repository.repository import Repository
from ..spec import Spec, check_name
from . import text
from .shared import answer, chosen


def history(options: argparse.Namespace) -> int:
    """Runs, or with ``--run`` the entries of one; 3 when a copy is damaged or missing."""
    if options.repository:
        told = _from_repository(options)
    else:
        told = {spec.service: _of_host(spec, options.run) for spec in chosen(options)}
    rows = []
    for name, one in told.items():
        if options.run:
            rows += [[name, entry["seq"], entry["time"], entry["run"], entry["phase"], entry["event"], _detail(entry)] for entry in one["entries"]]
        else:
            rows += [
                [name, run["run"], run["verb"], run["began"], run["ended"], run["verdict"] or "unfinished", run["by"], run["host"], run["message"][:120]]
                for run in one["runs"]
            ]
    head = ["SERVICE", "SEQ", "TIME", "RUN", "PHASE", "EVENT", "WHAT"] if options.run else [
        "SERVICE", "RUN", "VERB", "BEGAN", "ENDED", "VERDICT", "BY", "HOST", "MESSAGE"]
    answer(options, told, text.table(head, rows))
    if not all(one["signed"] for one in told.values()):
        sys.stderr.write("lifeboat: warning: signatures were not checked: no public key at hand (--keys DIR names one)\n")
    for name, one in told.items():
        for warning in one["warnings"]:
            sys.stderr.write(f"lifeboat: warning: {name}: {warning['what']}: {warning['where']}; {warning['remedy']}\n")
    return 3 if any(one["warnings"] for one in told.values()) else 0


def _detail(entry: dict[str, Any]) -> str:
    data = entry["data"]
    words = [f"{key}={data[key] if isinstance(data[key], str) else json.dumps(data[key], sort_keys=True)}" for key in sorted(data)]
    return " ".join(words)[:160]


def _of_host(spec: Spec, run: str) -> dict[str, Any]:
    """Repository and own ledger together; one that cannot be read is a warning, for the other may still tell."""
    local, problems = [], []
    try:
        local = Ledger.for_spec(spec).entries()
    except LifeboatError as error:
        problems.append(error.as_dict())
    try:
        store = spec.store()
        told = records.read(store.backend, store.provider, store.repository.id, spec.service, run, local)
    except LifeboatError as error:
        problems.append(error.as_dict())
        told = records.read(None, None, None, spec.service, run, local)
        told["signed"] = True  # nothing was read that has a signature
    return {**told, "warnings": [*problems, *told["warnings"]]}


def _from_repository(options: argparse.Namespace) -> dict[str, Any]:
    url = options.repository if "://" in options.repository else f"file://{os.path.abspath(options.repository)}"
    repository = Repository.open({"url": url})
    backend = backend_for({"url": url})
    keys = {"provider": "file", "path": os.path.abspath(options.keys)} if options.keys else None
    names = [check_name("service", options.service)] if options.service else records.services(backend)
    return {
        name: records.read(backend, provider_for(keys, name) if keys else None, repository.id, name, options.run) for name in names
    }
