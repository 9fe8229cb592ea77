# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Named fault points: places where the tests kill the process to prove that nothing is lost.

A point costs one set look-up when no plan is set. The plan is the environment variable
LIFEBOAT_FAULT, ``name[:nth][:action]``; the action is ``kill`` (default, SIGKILL to this process)
or ``error`` (OSError EIO) or ``full`` (OSError ENOSPC), both with the words of a real one. Only names in POINTS exist;
a call with another name is a bug and raises.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

_CREATE = ("write", "fsync", "link", "unlink", "dirsync")
_REPLACE = ("write", "fsync", "rename", "dirsync")

#: What the durable layer does for each subject; a kill before and after each operation is worth proving.
SUBJECTS = {
    # capture: objects of the repository, and what the host remembers (high-water mark, public keys)
    "repository": _CREATE,
    "key": (*_CREATE, "rename"),
    "pack": _CREATE,
    "tree": _CREATE,
    "index": _CREATE,
    "manifest": _CREATE,
    "mark": _REPLACE,
    # what a repair puts in the place of a damaged object
    "repair": _REPLACE,
    # log: records of epochs, pieces and history files, the proven position, what is removed from the spool
    "epoch": _CREATE,
    "log": _CREATE,
    "logmark": _REPLACE,
    "spool": ("unlink",),
    # restore: the staged copy, the swap, the origin marker
    "stage": ("write", "fsync", "dirsync", "unlink"),
    "swap": ("rename", "dirsync"),
    "origin": (*_REPLACE, "unlink"),
    # commit
    "displaced": ("unlink", "dirsync"),
    # all verbs
    "ledger": ("write", "fsync", "dirsync"),
    "lease": (*_REPLACE, "unlink"),
    # the ledger's copy in the repository, and how far the host knows it to be there
    "history": (*_CREATE, "rename"),
}

#: Points that stand between steps of a state machine and are not file operations.
STEPS = (
    "capture.begin",
    "cluster.capture.started",
    "cluster.capture.read",
    "cluster.capture.stopped",
    "capture.source.done",
    "capture.end",
    "log.stored",
    "log.proven",
    "restore.stage.begin",
    "restore.stage.provisioned",
    "restore.stage.filled",
    "restore.stage.verified",
    "restore.cutover.intent",
    "restore.cutover.displaced",
    "restore.cutover.swapped",
    "restore.cutover.done",
    "migrate.intent",
    "migrate.done",
    "restore.verdict",
    "commit.intent",
    "commit.source.done",
    "commit.done",
    "rollback.intent",
    "rollback.displaced",
    "rollback.swapped",
    "rollback.done",
    "rotate.intent",
    "rotate.version",
    "rotate.stored",
    "rotate.retired",
    "shred.intent",
    "shred.marked",
    "shred.destroyed",
    "extract.begin",
    "extract.staged",
    "extract.loaded",
    "extract.verified",
    "extract.published",
    "extract.done",
)


def points() -> list[str]:
    """Every fault point, sorted: ``<subject>.<operation>.<before|after>`` and the steps."""
    names = [f"{subject}.{operation}.{when}" for subject in SUBJECTS for operation in SUBJECTS[subject] for when in ("before", "after")]
    return sorted(names + list(STEPS))


_KNOWN = frozenset(points())
_lock = threading.Lock()
_hits: dict[str, int] = {}
_plan = os.environ.get("LIFEBOAT_FAULT", "")
_trace = os.environ.get("LIFEBOAT_FAULT_TRACE", "")


def configure(plan: str = "", trace: str = "") -> None:
    """Set the plan and the trace file of this process (the environment sets them at import)."""
    global _plan, _trace
    _plan, _trace = plan, trace
    _hits.clear()


def point(name: str) -> None:
    """Pass a fault point; act when the plan names it and its count is reached."""
    if name not in _KNOWN:
        raise AssertionError(f"unknown fault point {name}")
    if _trace:
        with open(_trace, "a", encoding="utf-8") as handle:
            handle.write(name + "\n")
    if _plan:
        _act(name)


def _act(name: str) -> None:
    wanted, _sep, rest = _plan.partition(":")
    if wanted != name:
        return
    nth, _sep, action = rest.partition(":")
    with _lock:
        _hits[name] = _hits.get(name, 0) + 1
        if _hits[name] != int(nth or 1):
            return
    if action == "error":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.SIGKILL)
