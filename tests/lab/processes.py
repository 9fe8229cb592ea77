# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all private servers of the tests need: free ports, an unprivileged user when root, an end by pid."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any, Callable

#: Servers like PostgreSQL refuse root; as an ordinary user they run as that user.
UNPRIVILEGED = "nobody"


def account() -> tuple[int, int] | None:
    """(uid, gid) that servers run as, or None: as ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED)
    return entry.pw_uid, entry.pw_gid


def run_as() -> dict[str, Any]:
    """Keyword arguments for subprocess that drop root."""
    who = account()
    if who is None:
        return {}
    return {"user": who[0], "group": who[1], "extra_groups": []}


def user_name() -> str:
    """The name of the user that servers run as."""
    who = account()
    return pwd.getpwuid(os.geteuid() if who is None else who[0]).pw_name


#: Ports that this process has given away.
_given: set[int] = set()


def free_port() -> int:
    """A loopback port nobody listens on now. Several tests run at once, and a server may begin to listen minutes later: it is none that
    the kernel gives to clients, and drawn from thousands, so that nobody else has it by then."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as handle:
        top = int(handle.read().split()[0])
    for port in random.SystemRandom().sample(range(min(15000, top - 5000), top), 200):
        if port in _given:
            continue  # of fifty that are drawn and not yet listened on, two are the same in one of fourteen cases
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise RuntimeError("no free port on loopback")


def private_dir(prefix: str, parent: str | None = None) -> str:
    """A new directory that belongs to the user of the servers and can be reached by it."""
    path = tempfile.mkdtemp(prefix=f"lifeboat-{prefix}-", dir=parent)
    who = account()
    if who is not None:
        os.chown(path, *who)
    return path


def kept(path: str) -> str:
    """The one line of a file; "" where there is none."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read().strip()
    except FileNotFoundError:
        return ""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Poll until the condition holds; TimeoutError names what was awaited. A question that takes long is asked less often."""
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if condition():
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(min(2.0, max(0.02, 2 * (time.monotonic() - begun))))


def alive(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            return handle.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    """True when not even a zombie is left: a server that finds the pid in a lock file asks no closer."""
    return not os.path.exists(f"/proc/{pid}")


def end(pid: int, how: int = signal.SIGTERM, seconds: float = 60.0) -> None:
    """Signal a process and wait until it is gone; kill it after the time limit."""
    try:
        os.kill(pid, how)
        wait_for(lambda: not alive(pid), f"the end of process {pid}", seconds)
    except ProcessLookupError:
        return
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), f"the end of process {pid}", 60)


def checked(argv: list[str], **options: Any) -> None:
    """Run a command as the servers' user; the error shows its output (through a file: a daemon would keep a pipe open)."""
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=600, check=False, **{**run_as(), "cwd": "/", **options})
        if done.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{argv[0]} failed ({done.returncode}): {output.read().decode(errors='replace')[-2000:]}")


def remove(path: str) -> None:
    """Delete a lab directory."""
    shutil.rmtree(path, ignore_errors=True)
