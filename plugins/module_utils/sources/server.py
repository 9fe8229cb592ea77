# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Start, stop, ask and provision the server behind a source, one caller per server and host at a time.

The catalog's ``server: {start, stop, status}`` and ``provision`` hold argv lists or ``{unit: name}``. Two services
that share one cluster also share its lock, so that it is started once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import stat
import subprocess
import tempfile
import time
from typing import Any, Callable, Iterator

from .. import limits
from ..errors import ConfigError, ConflictError, SourceError

#: Seconds one command may take.
COMMAND_TIMEOUT = 300.0
#: Seconds to wait until a started server answers, or a stopped one is gone.
ANSWER_TIMEOUT = 300.0


def lock_dir() -> str:
    """A directory of this host and user only, for locks between processes; created here."""
    user = os.geteuid()
    if user == 0 and os.path.isdir("/run"):
        path = "/run/lifeboat"
    else:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        path = f"{runtime}/lifeboat" if runtime and os.path.isdir(runtime) and os.stat(runtime).st_uid == user else f"{tempfile.gettempdir()}/lifeboat-{user}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022:
        raise ConflictError("the lock directory belongs to somebody else or is writable by others", path, "remove it and run the same command again")
    return path


@contextlib.contextmanager
def host_lock(identity: str, timeout: float = 2 * ANSWER_TIMEOUT) -> Iterator[None]:
    """Hold the lock of one server on this host. Released by the kernel when the process dies."""
    path = os.path.join(lock_dir(), f"server-{hashlib.sha256(identity.encode()).hexdigest()[:20]}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        wait_until(lambda: _try_lock(descriptor), timeout, ConflictError(
            f"another process has been working on this server for {timeout:.0f} s", f"{identity}, lock {path}", "wait for it, then run the same command again",
        ))
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_until(condition: Callable[[], bool], timeout: float, error: Exception) -> None:
    """Poll until the condition holds, ever more slowly; raises ``error`` after ``timeout`` seconds, LimitError when the step's time is over."""
    deadline = time.monotonic() + timeout
    pause = 0.01
    while not condition():
        if time.monotonic() > deadline:
            raise error
        limits.check()
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


def loopback(address: str) -> bool:
    """The address is one of this very host that no network carries."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class Server:
    """The commands of one source's server. identity: what the host-wide lock is named after."""

    def __init__(self, config: dict[str, Any], where: str, identity: str) -> None:
        commands = config.get("server") or {}
        self.where = where
        self.identity = identity
        self._start = self._argv(commands.get("start"), "start")
        self._stop = self._argv(commands.get("stop"), "stop")
        self._status = self._argv(commands.get("status"), "status")
        self._provision = self._argv(config.get("provision"), "provision")

    @property
    def can_start(self) -> bool:
        """server.start is given."""
        return self._start is not None

    @property
    def can_stop(self) -> bool:
        """server.stop is given."""
        return self._stop is not None

    @property
    def can_provision(self) -> bool:
        """provision is given."""
        return self._provision is not None

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """The host-wide lock of this server."""
        return host_lock(self.identity)

    def start(self) -> None:
        """Run server.start; the caller waits until the server answers."""
        self._run(self._start, "start")

    def stop(self) -> None:
        """Run server.stop."""
        self._run(self._stop, "stop")

    def provision(self) -> None:
        """Run provision, which recreates an empty server."""
        self._run(self._provision, "provision")

    def running(self) -> bool | None:
        """What server.status says (exit 0 = running); None when there is no such command."""
        if self._status is None:
            return None
        return self._execute(self._status, "status")[0] == 0

    def _argv(self, command: Any, verb: str) -> list[str] | None:
        if command is None:
            return None
        if isinstance(command, dict) and set(command) == {"unit"} and verb != "provision":
            unit = str(command["unit"])
            return ["systemctl", "is-active", "--quiet", unit] if verb == "status" else ["systemctl", verb, unit]
        if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
            return command
        raise ConfigError(f"{verb!r} must be a list of words or {{unit: name}}", self.where, "see the source's server and provision in the catalog")

    def _run(self, argv: list[str] | None, verb: str) -> None:
        if argv is None:
            key = "provision" if verb == "provision" else f"server.{verb}"
            raise ConfigError(f"the server must be changed by {verb!r}, but the catalog gives no command", self.where, f"set {key} on this source")
        status, output = self._execute(argv, verb)
        if status != 0:
            lines = [line.strip() for line in output.splitlines() if line.strip()]
            error = SourceError(
                f"the {verb} command failed with exit code {status}" + (f" ({lines[-1][:200]})" if lines else ""),
                f"{self.where}: {argv[0]}", "run it by hand to see why, then run the same command again",
            )
            raise error.passing() if verb == "start" else error

    def _execute(self, argv: list[str], verb: str) -> tuple[int, str]:
        # Output goes to a file: a daemon started by the command would keep a pipe open for ever. The session is
        # its own, so that Ctrl-C on our side does not take the started server down with it.
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd="/")
            except OSError as error:
                raise SourceError(f"the {verb} command cannot be run ({error.strerror})", f"{self.where}: {argv[0]}", "correct the catalog") from error
            try:
                status = process.wait(limits.at_most(COMMAND_TIMEOUT))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                limits.check()
                raise SourceError(
                    f"the {verb} command did not end within {COMMAND_TIMEOUT:.0f} s", f"{self.where}: {argv[0]}", "it must return by itself",
                ) from None
            output.seek(0)
            return status, output.read(65536).decode("utf-8", "replace")
