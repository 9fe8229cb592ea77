# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One lease per service: who works on it now, since when, in which phase.

A run holds the lease from its first call on the host until its verdict, over several calls. While a call runs it also
holds an flock, which the kernel drops with the process. A lease is alive when
 (a) a process holds the flock now, or
 (b) it was taken from a controller on this machine, and that controller process lives, or
 (c) it was taken from another controller and renewed less than RENEWED_SECONDS ago, unless ``gone`` of the run that asks names it: that is
     what the controller which asks has seen of processes of its own machine, which a host elsewhere cannot see.
Otherwise it is taken over, and the ledger says that the run before was interrupted.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import platform
import threading
import time
from typing import TYPE_CHECKING, Any, Iterator

from . import durable, state
from .errors import ConflictError, LifeboatError
from .ledger import Ledger, now

if TYPE_CHECKING:
    from .spec import Spec

#: A lease of another controller counts as alive this long after its last renewal.
RENEWED_SECONDS = 120.0
#: How long to wait for a call of a dead controller that still works on this host.
ORPHAN_SECONDS = 120.0

_held: dict[str, tuple[int, str, int]] = {}  # lock path -> (descriptor, run id, depth): this process's own locks
_held_mutex = threading.Lock()


def boot_id() -> str:
    """Which boot of which kernel this is; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def process_started(pid: int) -> str:
    """The start time of a process in clock ticks since boot, as text; "" when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            fields = handle.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def identity(pid: int | None = None) -> dict[str, Any]:
    """The part of ``run`` that says who: {"controller", "boot", "pid", "pid_started", "user"}."""
    import getpass

    number = os.getpid() if pid is None else pid
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.geteuid())
    return {"controller": platform.node(), "boot": boot_id(), "pid": number, "pid_started": process_started(number), "user": user}


def new_run(verb: str) -> dict[str, Any]:
    """A run of this very process: {"id", "verb", "controller", "boot", "pid", "pid_started", "user", "started", "resumes"}."""
    import secrets

    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return {"id": f"{stamp}-{verb}-{secrets.token_hex(3)}", "verb": verb, **identity(), "started": now(), "resumes": None}


def describe(lease: dict[str, Any]) -> str:
    """Who, since when, which phase, in words."""
    return (
        f"run {lease.get('run')} ({lease.get('verb') or 'run'}) of {lease.get('user')}@{lease.get('controller')} pid {lease.get('pid')}"
        f" since {lease.get('since')}, phase {lease.get('phase')}"
    )


def read(spec: Spec) -> dict[str, Any] | None:
    """The lease with "alive": bool and "why": str; None when nobody has one. Changes nothing."""
    lease = state.read_json(spec.path("lease.json"))
    if lease is None:
        return None
    if _flock_taken(spec.path("lease.lock")):
        alive, why = True, "a process on this host works for it"
    else:
        alive, why = _controller_alive(lease)
    return {**lease, "alive": alive, "why": why}


def _flock_taken(path: str) -> bool:
    if path in _held:
        return True
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_here(who: dict[str, Any]) -> bool:
    """Is the controller of a lease or run a process of this machine?

    Another boot is taken for another machine: host names are not unique, and a rebooted controller loses its
    lease by not renewing it.
    """
    return bool(who.get("controller") == platform.node() and who.get("boot") in ("", None, boot_id()))


def _controller_alive(lease: dict[str, Any]) -> tuple[bool, str]:
    if _is_here(lease):
        started = process_started(int(lease.get("pid") or 0))
        if started and lease.get("pid_started") in ("", None, started):
            return True, "its controller process lives"
        return False, "its controller process is gone"
    age = _age(str(lease.get("renewed", "")))
    if age < RENEWED_SECONDS:
        return True, f"renewed {age:.0f} s ago from another controller"
    return False, f"not renewed for {age:.0f} s"


def gone(lease: dict[str, Any], pid: int = 0) -> bool:
    """Asked on a controller: was it taken from this machine, by a process that is gone or (``pid``) is the asking one, which began another run since?"""
    return _is_here(lease) and (not _controller_alive(lease)[0] or bool(pid) and lease.get("pid") == pid)


def _vouched(lease: dict[str, Any], run: dict[str, Any]) -> bool:
    """Does the controller of ``run`` know that the one of the lease is gone? What lives on this very machine nobody vouches for."""
    return lease.get("run") in (run.get("gone") or ()) and not _is_here(lease)


def _age(stamp: str) -> float:
    try:
        then = datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return float("inf")
    return abs((datetime.datetime.now(datetime.timezone.utc) - then).total_seconds())


@contextlib.contextmanager
def hold(spec: Spec, ledger: Ledger, run: dict[str, Any], phase: str, orphan_seconds: float = ORPHAN_SECONDS) -> Iterator[None]:
    """Hold the service for one call of a run; the lease itself stays until release(). May be nested in a process.

    Begins the run in the ledger when it is new here, and records a dead one before it as interrupted.
    Raises ConflictError telling who has it.
    """
    path = spec.path("lease.lock")
    with _held_mutex:
        mine = _held.get(path)
        if mine is not None:
            if mine[1] != str(run["id"]):
                raise ConflictError("The service is in use by this very process", f"{spec.service}, run {mine[1]}", "wait for it to end")
            _held[path] = (mine[0], mine[1], mine[2] + 1)
    if mine is None:
        state.ensure_private(spec.service_dir)
        descriptor = _lock(spec, path, run, orphan_seconds)
        with _held_mutex:
            _held[path] = (descriptor, str(run["id"]), 1)
    try:
        if mine is None:
            _take(spec, ledger, run, phase)
        yield
    finally:
        with _held_mutex:
            descriptor, owner, depth = _held[path]
            if depth > 1:
                _held[path] = (descriptor, owner, depth - 1)
            else:
                del _held[path]
                os.close(descriptor)


def release(spec: Spec, ledger: Ledger, run: dict[str, Any], verdict: str, data: dict[str, Any] | None = None) -> None:
    """End the run on this service: the ledger keeps the verdict, the lease is free. Repeating it changes nothing."""
    begun, ended = run_state(ledger, str(run["id"]))
    if begun and not ended:
        ledger.append(run, "verdict", "run.end", {**(data or {}), "verdict": verdict})
    lease = state.read_json(spec.path("lease.json"))
    if lease is not None and lease.get("run") == run["id"]:
        durable.unlink(spec.path("lease.json"), "lease")


def run_state(ledger: Ledger, run_id: str) -> tuple[bool, bool]:
    """(begun, ended) of a run in this ledger; interrupted counts as ended."""
    begun = ended = False
    for entry in ledger.entries():
        if entry["event"] == "run.begin" and entry["run"] == run_id:
            begun, ended = True, False
        elif (entry["event"] == "run.end" and entry["run"] == run_id) or (entry["event"] == "run.interrupted" and entry["data"].get("run") == run_id):
            ended = True
    return begun, ended


def unfinished(ledger: Ledger) -> dict[str, Any] | None:
    """The begin entry of the newest run if it has neither ended nor been recorded as interrupted."""
    begin = None
    for entry in ledger.entries():
        if entry["event"] == "run.begin":
            begin = entry
        elif begin is not None and (
            (entry["event"] == "run.end" and entry["run"] == begin["run"])
            or (entry["event"] == "run.interrupted" and entry["data"].get("run") == begin["run"])
        ):
            begin = None
    return begin


def _lock(spec: Spec, path: str, run: dict[str, Any], orphan_seconds: float) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + orphan_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            lease = _lease_of_holder(spec)
            # its own run's call, or one whose controller is dead: it will end by itself. A living operator's: refuse at once
            orphan = lease.get("run") == run["id"] or not _controller_alive(lease)[0] or _vouched(lease, run)
            if orphan and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            os.close(descriptor)
            remedy = (
                f"a call of it still works on this host after {orphan_seconds:.0f} s; wait for it and run the same command again"
                if orphan else "wait for it to end, or ask its operator; the status playbook shows it"
            )
            raise ConflictError(f"Service {spec.service} is in use", describe(lease), remedy) from None
        except OSError:
            os.close(descriptor)
            raise


def _lease_of_holder(spec: Spec) -> dict[str, Any]:
    try:
        return state.read_json(spec.path("lease.json")) or {}
    except LifeboatError:
        return {}  # being written by a broken hand: the flock alone decides then


def _sweep(directory: str) -> None:
    """Remove what a killed call left half-written: its files were never renamed to their names."""
    for name in os.listdir(directory):
        if name.startswith((".tmp-", "progress.json.")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))


def _take(spec: Spec, ledger: Ledger, run: dict[str, Any], phase: str) -> None:
    """Under the flock: refuse a living other run, seal a dead one, begin ours, write the lease."""
    _sweep(spec.service_dir)
    lease = state.read_json(spec.path("lease.json"))
    if lease is not None and lease.get("run") != run["id"]:
        alive, why = _controller_alive(lease)
        if alive and not _vouched(lease, run):
            raise ConflictError(
                f"Service {spec.service} is in use", f"{describe(lease)} ({why})", "wait for it to end, or ask its operator; the status playbook shows it"
            )
    begun, ended = run_state(ledger, str(run["id"]))
    if not begun or ended:
        before = unfinished(ledger)
        resumes = run.get("resumes")
        if before is not None and before["run"] != run["id"]:
            ledger.append(run, phase, "run.interrupted", {"run": before["run"], "verb": before["verb"]})
            resumes = resumes or (before["run"] if before["verb"] == run.get("verb") else None)
        ledger.rotate()
        who = {key: run.get(key) for key in ("controller", "pid", "user", "started", "who") if key != "who" or run.get(key)}
        ledger.append(run, phase, "run.begin", {**who, "resumes": resumes, "catalog": spec.catalog.get("digest")})
    same = lease is not None and lease.get("run") == run["id"]
    pid = int(run.get("pid") or 0)
    state.write_json(spec.path("lease.json"), {
        "service": spec.service, "run": run["id"], "verb": run.get("verb", ""), "phase": phase, "user": run.get("user", ""),
        "controller": run.get("controller", ""), "boot": run.get("boot") or (boot_id() if _is_here(run) else ""), "pid": pid,
        "pid_started": run.get("pid_started") or (process_started(pid) if _is_here(run) else ""),
        "since": lease["since"] if same and lease is not None else now(), "renewed": now(),
    }, "lease")
