# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that outlive the command that started them: detached, found again by pid and start time, ended by pid."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from .layout import HOST, Home, ShopError


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same pid. started: clock ticks since boot."""

    pid: int
    started: int

    def alive(self) -> bool:
        return started_at(self.pid) == self.started


def started_at(pid: int) -> int | None:
    """When a process started, in ticks since boot; None if there is none, or only its unreaped remains."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program name may hold anything, so count from its closing parenthesis.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def unreaped(pid: int) -> bool:
    """Whether a process has ended and its parent has not taken note yet: to a lock file it still looks alive."""
    return os.path.exists(f"/proc/{pid}") and started_at(pid) is None


def descendants(pid: int) -> list[Process]:
    """All living children of a process, theirs included. PostgreSQL's backends lead sessions of their own, so a group is not enough."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[Process] = []
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child)
            ticks = started_at(child)
            if ticks is not None:
                found.append(Process(child, ticks))
    return found


@contextlib.contextmanager
def locked(home: Home, name: str, seconds: float = 90) -> Iterator[None]:
    """One command at a time per service or store."""
    path = home.path / "run" / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        def taken() -> bool:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not wait_for(taken, seconds):
            raise ShopError(f"another command works on it: {name}; wait for it to end")
        yield
    finally:
        os.close(descriptor)


def find(home: Home, name: str) -> Process | None:
    """The running process of a service or store, or None."""
    try:
        record = json.loads(_pid_file(home, name).read_text(encoding="ascii"))
        process = Process(int(record["pid"]), int(record["started"]))
    except (OSError, ValueError, KeyError):
        return None
    return process if process.alive() else None


def spawn(home: Home, name: str, argv: list[str], *, drop: bool, environment: dict[str, str] | None = None) -> Process:
    """Start a detached process whose output goes to its log. drop: as the shop's user from the start (else it drops by itself)."""
    who = home.account
    with open(home.log(name), "ab") as log:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd="/", close_fds=True, start_new_session=True,
            env=environment if environment is not None else home.environment(), **(who.popen() if drop else {}),
        )
    # The child is not waited for, so its /proc entry stays even when it dies at once.
    with open(f"/proc/{child.pid}/stat", "rb") as file:
        process = Process(child.pid, int(file.read().rpartition(b")")[2].split()[19]))
    child.returncode = 0  # It is meant to live on: keep Popen from warning about it.
    path = _pid_file(home, name)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps({"pid": process.pid, "started": process.started}), encoding="ascii")
    os.replace(temporary, path)
    return process


def await_ready(home: Home, name: str, process: Process, ready: Callable[[], bool], seconds: float) -> None:
    """Wait until a process just started serves; ends it and raises with the last line of its log when it does not."""
    died = False

    def settled() -> bool:
        nonlocal died
        died = not process.alive()
        return died or ready()

    if wait_for(settled, seconds) and not died:
        return
    if not died:
        end(process, signal.SIGKILL, 10)
    reason = "ended at once" if died else f"not ready after {seconds:.0f} s"
    raise ShopError(f"{name} did not start ({reason}): {last_line(home.log(name))}; see {home.log(name)}")


def end(process: Process, how: signal.Signals, seconds: float) -> bool:
    """Send a signal and wait for the process and its children to be gone; True if they are."""
    family = [process, *descendants(process.pid)]
    if not process.alive():
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, how)
    if how == signal.SIGKILL:
        for child in family[1:]:
            if child.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, how)
    if not wait_for(lambda: not any(member.alive() for member in family), seconds):
        return False
    if how == signal.SIGKILL:
        # Whoever inherited it usually takes note at once, but a container's first process may be slow, or never do it.
        wait_for(lambda: not unreaped(process.pid), 1)
    return True


def forget(home: Home, name: str) -> None:
    _pid_file(home, name).unlink(missing_ok=True)


def listening(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with contextlib.suppress(OSError):
        with socket.create_connection((HOST, port), timeout=1):
            return True
    return False


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again until the condition holds; False after ``seconds``."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return True


def last_line(path: Path) -> str:
    """The last line of a log, for an error message."""
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        if lines:
            return lines[-1].strip()[:300]
    return "no output"


def _pid_file(home: Home, name: str) -> Path:
    return home.path / "run" / f"{name}.pid"
