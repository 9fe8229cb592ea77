# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real private Redis server on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from typing import Any

if __package__:
    from . import processes
else:
    # run as the start command of an inventory: the script's own directory is searched then, which mypy, reading the package, does not know
    import processes  # type: ignore[import-not-found,no-redef]

PASSWORD = "lab-redis-password"


class RedisServer:
    """One server with its configuration and data in a private directory."""

    def __init__(self, home: str | None = None, port: int | None = None, appendonly: bool = False, password: str = "") -> None:
        self.home = home or processes.private_dir("redis")
        self.port = port or processes.free_port()
        self.data = os.path.join(self.home, "data")
        self.password_file = os.path.join(self.home, "password")
        self.password = password or processes.kept(self.password_file) or PASSWORD
        self.conf = os.path.join(self.home, "redis.conf")
        self.appendonly = appendonly

    def init(self) -> RedisServer:
        """Configuration and an empty data directory."""
        os.makedirs(self.data, 0o700, exist_ok=True)
        with open(self.password_file, "w", encoding="utf-8") as handle:
            handle.write(self.password + "\n")
        with open(self.conf, "w", encoding="utf-8") as handle:
            handle.write(
                f'bind 127.0.0.1\nport {self.port}\ndir "{self.data}"\nsave 3600 1\nrequirepass {self.password}\ndaemonize no\n'
                f'appendonly {"yes" if self.appendonly else "no"}\npidfile "{self.home}/pid"\nlogfile "{self.home}/log"\n'
            )
        who = processes.account()
        for path in (self.data, self.password_file, self.conf):
            if who is not None:
                os.chown(path, *who)
        return self

    def start(self) -> RedisServer:
        """Start and wait until it answers."""
        processes.checked([shutil.which("redis-server") or "redis-server", self.conf, "--daemonize", "yes"])
        processes.wait_for(self._answers, "redis")
        return self

    def _answers(self) -> bool:
        """Asked without redis-cli, which would have the password in its environment: tests look for secrets there."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=60) as peer, peer.makefile("rb") as said:
                peer.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return said.readline() == b"+OK\r\n" and said.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def pid(self) -> int | None:
        """The server's pid while it lives."""
        try:
            with open(f"{self.home}/pid", encoding="utf-8") as handle:
                pid = int(handle.read())
        except (FileNotFoundError, ValueError):
            return None
        return pid if processes.alive(pid) else None

    def stop(self) -> None:
        """Clean end with a save."""
        pid = self.pid()
        if pid is not None:
            processes.end(pid)

    def crash(self) -> None:
        """kill -9"""
        pid = self.pid()
        if pid is not None:
            processes.end(pid, signal.SIGKILL)

    def client(self, database: int = 0) -> Any:
        """A redis-py client with raw bytes."""
        import redis

        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, db=database, socket_timeout=30, protocol=2)

    def argv(self, verb: str) -> list[str]:
        """The command an inventory would hold: start, stop, status, provision."""
        return [sys.executable, os.path.abspath(__file__), verb, self.home, str(self.port)]

    def wipe(self) -> None:
        """Lose the whole data directory."""
        self.crash()
        shutil.rmtree(self.data)

    def destroy(self) -> None:
        """Stop and delete everything."""
        self.crash()
        processes.remove(self.home)


def main(verb: str, home: str, port: str) -> int:
    """The commands of an inventory."""
    server = RedisServer(home, int(port))
    if verb == "status":
        return 0 if server.pid() is not None else 3
    if verb == "stop":
        server.stop()
    elif verb == "start":
        if server.pid() is None:
            server.start()
    elif verb == "provision":
        os.makedirs(server.data, 0o700, exist_ok=True)
        who = processes.account()
        if who is not None:
            os.chown(server.data, *who)
        server.start()
    else:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
