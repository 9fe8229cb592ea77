# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One operation of the engine in a process of its own, as the ``lifeboat`` command runs it, for the benchmark to time.

usage: engine.py init|capture|restore JSON

JSON: {"home": directory for keys and state, "repository": directory, "path": the tree, "run": run id, "profile": path or null}.
Prints one JSON line: {"seconds": {phase: seconds}, "bytes_stored", "chunks_new"}.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".dev"))

ENGINE = "ansible_collections.lifeboat.recovery.plugins.module_utils"
SERVICE = "bench"


def operate(operation: str, job: dict[str, Any]) -> dict[str, Any]:
    """Do it; import only what the operation needs, as the product does."""
    from importlib import import_module

    spec = import_module(f"{ENGINE}.spec").Spec.from_dict({
        "service": SERVICE,
        "entry": {"sources": {"data": {"type": "files", "path": job["path"]}}},
        "repository": {"name": "bench", "url": f"file://{job['repository']}"},
        "keys": {"provider": "file", "path": f"{job['home']}/keys", "private_path": f"{job['home']}/private"},
        "state_dir": f"{job['home']}/state",
        "catalog": {"digest": "0" * 64, "ecosystem": "bench", "document": None},
    })
    run = {
        "id": job["run"], "verb": "restore" if operation == "restore" else "backup", "controller": socket.gethostname(), "pid": os.getpid(),
        "user": getpass.getuser(), "started": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "resumes": None,
    }
    if operation == "init":
        import_module(f"{ENGINE}.repository.repository").Repository.create(spec.repository)
        spec.provider().ensure()
        return {}
    begun = time.monotonic()
    if operation == "capture":
        done = import_module(f"{ENGINE}.pipeline.capture").capture_service(spec, run)
        (snapshot,) = done["snapshots"]
        return {
            "seconds": {"capture": time.monotonic() - begun}, "bytes_stored": snapshot["bytes_stored"], "chunks_new": snapshot["chunks_new"],
        }
    restore = import_module(f"{ENGINE}.pipeline.restore")
    restore.stage(spec, "latest", run)
    staged = time.monotonic()
    told = restore.go_live(spec, "latest", run)
    live = time.monotonic()
    restore.mark_verified(spec, run, "restored")
    assert told["changed"], told
    return {"seconds": {"stage": staged - begun, "go_live": live - staged, **read_back(spec, run["id"])}}


def read_back(spec: Any, run_id: str) -> dict[str, float]:
    """Seconds between "filled" and "verified" in the ledger: the staged copy read back and compared while it is flushed."""
    from importlib import import_module

    times: dict[str, float] = {}
    for entry in import_module(f"{ENGINE}.ledger").Ledger.for_spec(spec).entries():
        if entry["run"] == run_id:
            times[entry["event"]] = datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).timestamp()
    return {"read_back": times["stage.verified"] - times["stage.filled"]}


def main(argv: list[str]) -> int:
    operation, job = argv[1], json.loads(argv[2])
    if job.get("profile"):
        from sampler import Sampler

        with Sampler(Path(job["profile"])):
            result = operate(operation, job)
    else:
        result = operate(operation, job)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
