# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A private Redis server that loads one dump: no port, a socket in a private directory, no life beyond ours."""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import subprocess
import sys
from typing import Any

from ..errors import SourceError, VersionError
from ..libraries import need
from .redis_client import Link
from .server import wait_until

#: Runs the server and ends it when our end of the pipe closes, so even a kill -9 of ours leaves nothing running.
_KEEPER = """
import select, subprocess, sys
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
while server.poll() is None:
    if select.select([0], [], [], 0.2)[0] and not sys.stdin.buffer.raw.read(1):
        server.kill()
        server.wait()
sys.exit(server.returncode if server.returncode >= 0 else 1)
"""


def find_program(option: str | None, running: str | None, where: str) -> str:
    """The redis-server to use: the option, what the live server runs, or the PATH. Raises VersionError."""
    for candidate in (option, running, "redis-server", "valkey-server"):
        found = shutil.which(candidate) if candidate else None
        if found:
            return found
        if option:
            break
    raise VersionError("no redis-server program found: it loads and checks dumps", where, "install the Redis server package or set program")


@functools.lru_cache(maxsize=16)
def program_version(program: str) -> tuple[int, int]:
    """(7, 0) of a redis-server program; (0, 0) when it does not say."""
    try:
        done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.search(rb"v=(\d+)\.(\d+)", done.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


class PrivateServer:
    """Context manager: a server over the files of ``directory``, loaded and idle; gives a Link.

    directory: private, prepared by the caller; holds the dump, or the append-only files when ``append`` is given
    ({"filename": ..., "dirname": ...}). names: the same for files that are to be built there. Nothing is written there except the socket and the log.
    """

    def __init__(
        self, program: str, directory: str, databases: int, append: dict[str, str] | None, timeout: float, where: str,
        names: dict[str, str] | None = None, dump: str = "dump.rdb",
    ) -> None:
        self._directory = directory
        self._timeout = timeout
        self._where = where
        self._argv = [
            program, "--port", "0", "--unixsocket", "redis.sock", "--unixsocketperm", "700", "--save", "", "--dbfilename", dump,
            "--databases", str(databases), "--daemonize", "no", "--loglevel", "warning", "--maxmemory", "0", "--activerehashing", "no",
            "--auto-aof-rewrite-percentage", "0", "--appendonly", "yes" if append else "no",
        ]
        names = names or append
        if names:
            self._argv += ["--appendfilename", names["filename"], "--appenddirname", names["dirname"]]
        self._keeper: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None

    def __enter__(self) -> Link:
        with open(os.path.join(self._directory, "log"), "wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KEEPER, *self._argv], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                cwd=self._directory, start_new_session=True, env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            )
        try:
            wait_until(self._loaded, self._timeout, SourceError(
                f"a private server did not load the dump within {self._timeout:.0f} s", self._where, "raise the source's timeout if it is only large",
            ))
            if self._link is None:
                raise AssertionError("self._link")
            return self._link
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_details: Any) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._keeper is not None:
            if self._keeper.stdin is None:
                raise AssertionError("self._keeper.stdin")
            self._keeper.stdin.close()
            try:
                self._keeper.wait(60)
            except subprocess.TimeoutExpired:
                self._keeper.kill()
                self._keeper.wait()
            self._keeper = None

    def _loaded(self) -> bool:
        if self._keeper is None:
            raise AssertionError("self._keeper")
        if self._keeper.poll() is not None:
            raise SourceError(f"a private server refused to load the dump{self._last_words()}", self._where, "the dump is damaged or of a newer Redis")
        redis = need("redis")
        if self._link is None:
            # The path of a socket is short by law: reach it through the directory's descriptor.
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                connection = redis.connection.UnixDomainSocketConnection(
                    path=f"/proc/self/fd/{directory}/redis.sock", socket_timeout=self._timeout, protocol=2,
                )
                connection.connect()
            except (redis.exceptions.RedisError, OSError):
                return False
            finally:
                os.close(directory)
            self._link = Link(connection, self._where)
        try:
            return self._link.info().get("loading") == "0"
        except SourceError:
            self._link.close()
            self._link = None
            return False

    def _last_words(self) -> str:
        try:
            with open(os.path.join(self._directory, "log"), "rb") as log:
                lines = [line.decode("utf-8", "replace").strip() for line in log.read()[-4096:].splitlines() if line.strip()]
        except OSError:
            return ""
        telling = [line for line in lines if "#" in line] or lines
        return f" ({re.sub(r'^.*? # ', '', telling[-1])[:200]})" if telling else ""


def scratch(parent: str, mode: int = 0o700) -> str:
    """A new private directory."""
    path = os.path.join(parent, f"private-{secrets.token_hex(6)}")
    os.mkdir(path, mode)
    return path
