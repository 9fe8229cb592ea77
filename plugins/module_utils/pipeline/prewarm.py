# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Read staged copies into the page cache while the service waits for its requirements; the cache survives the renames of a cutover.

A process of its own does it, so that nothing waits for it and nothing fails with it: bounded in time and memory, at the lowest priority. What it
came to it leaves in a file, which the cutover takes into the ledger.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any

from .. import state
from ..checks import expect
from ..errors import LifeboatError
from .restore_job import Job
from .restore_state import Restore

#: Seconds of reading, where the service does not say.
TIMEOUT = 30.0
#: What is planned at most: files and ranges, and the seconds that may be spent on planning.
_RANGES = 50000
_PLANNING = 1.0
#: Seconds that starting the reader may take.
_BEGIN = 10.0
#: Bytes, where the system does not say what memory is available.
_MEMORY = 256 << 20

#: Advises the kernel piece by piece; it reads in the background. Needs nothing but Python, because our own files may be gone by then.
_READER = """
import json, os, sys, time
if os.fork():
    os._exit(0)  # nobody is left who would have to wait for the reader
begin, done, files, ended = time.monotonic(), 0, 0, "read"
with open(sys.argv[1], "rb") as handle:
    plan = json.load(handle)
os.unlink(sys.argv[1])
os.nice(19)
for path, ranges in plan["files"]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        continue
    files += 1
    try:
        for at, length in ranges:
            while length > 0 and ended == "read":
                if time.monotonic() - begin > plan["seconds"]:
                    ended = "time was over"
                elif done >= plan["bytes"]:
                    ended = "memory was full"
                else:
                    piece = min(length, 2 << 20)
                    os.posix_fadvise(descriptor, at, piece, os.POSIX_FADV_WILLNEED)
                    at, length, done = at + piece, length - piece, done + piece
    except OSError:
        pass
    finally:
        os.close(descriptor)
    if ended != "read":
        break
found = {"bytes": done, "files": files, "ended": ended, "seconds": round(time.monotonic() - begin, 3)}
with open(sys.argv[2] + ".tmp", "w") as handle:
    json.dump(found, handle)
os.replace(sys.argv[2] + ".tmp", sys.argv[2])
"""


def begin(job: Job, restore: Restore, manifests: dict[str, dict[str, Any]]) -> None:
    """Start reading what this restore has staged, where the service asks for it. Never an error: the restore is as good without it."""
    declared = job.spec.entry.get("prewarm") or {}
    if not declared or not declared.get("cache", True) or not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(LifeboatError, OSError, subprocess.SubprocessError):
        seconds = expect.seconds(declared.get("timeout")) or TIMEOUT
        staged = [source for source in restore.sources.values() if source.stage == "verified" and not source.cutover]
        for source in staged:
            _start(job, source.name, source.record, manifests[source.name], seconds, available() // 2 // len(staged))


def _start(job: Job, name: str, record: dict[str, Any], manifest: dict[str, Any], seconds: float, memory: int) -> None:
    kind, context = job.source(name)
    files: list[tuple[str, list[tuple[int, int]]]] = []
    count, total, end = 0, 0, time.monotonic() + _PLANNING
    for path, ranges in kind.warm_ranges(context, record, manifest):
        with contextlib.suppress(OSError):
            wanted = ranges or [(0, os.lstat(path).st_size)]
            files.append((path, wanted))
            count, total = count + len(wanted), total + sum(length for _at, length in wanted)
        if count >= _RANGES or total >= memory or time.monotonic() > end:
            break
    if not files:
        return
    job.spec.prepare_work_dir(name)
    plan, result = _paths(job, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(result)
    with open(os.open(plan, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as handle:
        json.dump({"files": files, "seconds": seconds, "bytes": memory}, handle)
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _READER, plan, result], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        cwd="/", start_new_session=True, env={"LC_ALL": "C"}, timeout=_BEGIN, check=False,
    )


def noted(job: Job, restore: Restore) -> dict[str, Any]:
    """Source -> {"bytes", "files", "ended", "seconds"} of what was read; kept in the ledger. One that still reads is not waited for."""
    found = {}
    for name in restore.sources if job.spec.entry.get("prewarm") else ():
        result = _paths(job, name)[1]
        with contextlib.suppress(LifeboatError, OSError):
            told = state.read_json(result)
            if isinstance(told, dict):
                os.unlink(result)
                job.log("prewarm.read", restore.id, name, **{key: told.get(key) for key in ("bytes", "files", "ended", "seconds")})
                found[name] = told
    return found


def available() -> int:
    """Bytes of memory that can be used without taking them from anybody."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as handle:
        for line in handle:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return _MEMORY


def _paths(job: Job, name: str) -> tuple[str, str]:
    folder = job.spec.work_dir(name)
    return os.path.join(folder, "prewarm-plan.json"), os.path.join(folder, "prewarm.json")
