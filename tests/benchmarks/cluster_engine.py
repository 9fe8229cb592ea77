# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One operation on a cluster in a process of its own, as the ``lifeboat`` command runs it, for the benchmark to time.

usage: cluster_engine.py init|capture|restore JSON

JSON: {"spec": the engine's spec, "run": run id, "mode": full|auto, "target": what to restore, "profile": path or null}.
Prints one JSON line of monotonic times, so that the caller can put them beside its own: a restore tells when the files were there and
flushed ("files", with processor time so far), when the recovered server answered ("recovering", "recovered") and how long the checks took.
"""

from __future__ import annotations

import functools
import getpass
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".dev"))

ENGINE = "ansible_collections.lifeboat.recovery.plugins.module_utils"


def cpu() -> float:
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def watch(times: dict[str, Any], place: str) -> Callable[[], None]:
    """Note when the parts of a restore begin and end; nothing else changes. The files count as there when a flush beside the recovery has
    ended; the function returned waits for it."""
    flushes: list[threading.Thread] = []

    def flush_files(end: str) -> None:
        subprocess.run(["sync", "-f", place], check=True, timeout=3600)
        times[end] = time.monotonic()

    def around(owner: Any, name: str, begin: str, end: str, flush: bool = False) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*arguments: Any, **named: Any) -> Any:
            times.setdefault(begin, time.monotonic())
            result = inner(*arguments, **named)
            times[end] = time.monotonic()
            times[f"{end}_cpu"] = cpu()
            if flush:
                flushes.append(threading.Thread(target=flush_files, args=(end,)))
                flushes[-1].start()
            return result

        setattr(owner, name, outer)

    around(import_module(f"{ENGINE}.sources.cluster_restore").Rebuild, "run", "rebuilding", "files", flush=True)
    recovery = import_module(f"{ENGINE}.sources.cluster_recovery").Recovery
    around(recovery, "run", "recovering", "stopped")
    around(recovery, "_wait", "replaying", "recovered")
    source = import_module(f"{ENGINE}.sources.postgresql").Postgresql
    around(import_module(f"{ENGINE}.sources.cluster_checks").Inspection, "run", "checking", "checked")
    around(source, "verify_staged", "verifying", "verified")

    def wait() -> None:
        for thread in flushes:
            thread.join()

    return wait


def operate(operation: str, job: dict[str, Any]) -> dict[str, Any]:
    spec = import_module(f"{ENGINE}.spec").Spec.from_dict(job["spec"])
    run = {
        "id": job["run"], "verb": "restore" if operation == "restore" else "backup", "controller": socket.gethostname(), "pid": os.getpid(),
        "user": getpass.getuser(), "started": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "resumes": None,
    }
    if operation == "init":
        import_module(f"{ENGINE}.repository.repository").Repository.create(spec.repository)
        spec.provider().ensure()
        return {}
    if operation == "capture":
        done = import_module(f"{ENGINE}.pipeline.capture").capture_service(spec, run, job.get("mode", "auto"))
        (snapshot,) = done["snapshots"]
        return {"mode": snapshot["mode"], "bytes_stored": snapshot["bytes_stored"]}
    restore = import_module(f"{ENGINE}.pipeline.restore")
    times: dict[str, Any] = {"begun": time.monotonic()}
    wait = watch(times, str(Path(spec.entry["sources"]["db"]["data_directory"]).parent))
    told = restore.go_live(spec, job.get("target", "latest"), run)
    restore.mark_verified(spec, run, "restored")
    assert told["changed"], told
    facts = told["sources"]["db"]["facts"]
    times["live"] = time.monotonic()
    wait()
    times.update({name: facts.get(name) for name in ("bytes_reused", "bytes_fetched", "reached")})
    return times


def main(argv: list[str]) -> int:
    operation, job = argv[1], json.loads(argv[2])
    if job.get("profile"):
        from sampler import Sampler

        with Sampler(Path(job["profile"])):
            result = operate(operation, job)
    else:
        result = operate(operation, job)
    print(json.dumps(result, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
