# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Connections to a Redis server: raw replies, errors in one line."""

from __future__ import annotations

import re
import socket
from typing import Any, Iterable

from ..errors import ConfigError, SourceError
from ..libraries import need
from .server import wait_until

#: Oldest server: absolute expiry times and one AOF directory came with it.
OLDEST = (7, 0)


class ServerDown(SourceError):
    """Nothing answers at the address, or the server is still loading."""


class Link:
    """One connection; replies as the protocol gives them (bytes, int, list, None). Use from one thread."""

    def __init__(self, connection: Any, place: str) -> None:
        self._connection = connection
        self.place = place

    def call(self, *words: str | bytes | int) -> Any:
        """Run one command. Raises SourceError, ServerDown."""
        return self.many([words])[0]

    def many(self, commands: Iterable[tuple[str | bytes | int, ...]]) -> list[Any]:
        """Run commands in one round trip; the replies in their order. The first error is raised."""
        redis = need("redis")
        wanted = list(commands)
        replies: list[Any] = []
        failure: Exception | None = None
        try:
            self._connection.send_packed_command([_packed(wanted)])
            for command in wanted:
                try:
                    replies.append(self._connection.read_response())
                except redis.exceptions.BusyLoadingError:
                    failure = failure or ServerDown("the server is still loading its data", self.place, "wait until it has loaded")
                except redis.exceptions.ResponseError as error:
                    failure = failure or SourceError(
                        f"the server refused {str(command[0])[:40]} ({str(error)[:200]})", self.place, "see the server's log and the user's permissions",
                    )
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
            raise ServerDown(f"the connection was lost ({type(error).__name__})", self.place, "see the server's log") from None
        if failure is not None:
            raise failure
        return replies

    def info(self) -> dict[str, str]:
        """INFO as a flat mapping."""
        text = self.call("INFO", "everything").decode("utf-8", "replace")
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))

    def config(self, *names: str) -> dict[str, str]:
        """CONFIG GET of these names; what the server does not know is missing."""
        found: dict[str, str] = {}
        for reply in self.many([("CONFIG", "GET", name) for name in names]):
            for key, value in zip(reply[::2], reply[1::2]):
                found[key.decode()] = value.decode("utf-8", "surrogateescape")
        return found

    def close(self) -> None:
        self._connection.disconnect()


def _packed(commands: list[tuple[str | bytes | int, ...]]) -> bytes:
    """Commands as the protocol wants them (the library's own packing takes ten times as long)."""
    made = []
    for command in commands:
        made.append(b"*%d\r\n" % len(command))
        for word in command:
            data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
            made.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(made)


class Client:
    """How one catalog entry reaches its server. Holds no connection."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.where = where
        self.address = str(config.get("address") or "127.0.0.1")
        self.port = int(config.get("port") or 6379)
        self.socket = str(config.get("socket") or "")
        self.timeout = float(config.get("timeout") or 3600)
        self._user = config.get("user")
        self._password_file = config.get("password_file")

    @property
    def place(self) -> str:
        """The server's address for messages."""
        return f"{self.where} at {self.socket or f'{self.address}:{self.port}'}"

    def open(self) -> Link:
        """A connection. Raises ServerDown when nothing answers, SourceError when the login is refused."""
        redis = need("redis")
        options: dict[str, Any] = {
            "socket_timeout": self.timeout, "socket_connect_timeout": 10, "protocol": 2, "password": self._password(), "username": self._user or None,
        }
        if self.socket:
            connection = redis.connection.UnixDomainSocketConnection(path=self.socket, **options)
        else:
            connection = redis.connection.Connection(host=self.address, port=self.port, **options)
        try:
            connection.connect()
            link = Link(connection, self.place)
            link.call("PING")
        except (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError) as error:
            raise self._refused(str(error)) from None
        except redis.exceptions.BusyLoadingError:
            raise ServerDown("the server is still loading its data", self.place, "wait until it has loaded") from None
        except redis.exceptions.ResponseError as error:
            raise self._refused(str(error)) from None
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
            raise ServerDown("the server does not answer", self.place, "start it, or correct address, port and socket") from None
        except SourceError as error:
            if "NOAUTH" in error.what or "NOPERM" in error.what or "Authentication" in error.what:
                raise self._refused("a password is needed") from None
            raise
        return link

    def _refused(self, text: str) -> SourceError:
        return SourceError(f"the server refused the login ({re.sub(r'[^ -~]', ' ', text)[:200]})", self.place, "correct user and password_file")

    def _password(self) -> str | None:
        if not self._password_file:
            return None
        try:
            with open(self._password_file, encoding="utf-8") as handle:
                return handle.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"the password file cannot be read ({reason})", str(self._password_file), "create it or correct password_file") from error

    def reachable(self) -> bool:
        """The server answers and has loaded; SourceError when it refuses the login."""
        try:
            self.open().close()
        except ServerDown:
            return False
        return True

    def listening(self) -> bool:
        """Something accepts connections at the address."""
        try:
            if self.socket:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(5)
                    probe.connect(self.socket)
            else:
                socket.create_connection((self.address, self.port), 5).close()
        except OSError:
            return False
        return True

    def wait_answer(self, timeout: float) -> None:
        """Wait until the server answers and has loaded its data."""
        wait_until(self.reachable, timeout, SourceError(
            f"the server did not answer within {timeout:.0f} s of its start", self.place, "look into the server's log",
        ))


def version(info: dict[str, str]) -> tuple[int, int]:
    """(7, 0) out of INFO."""
    parts = re.findall(r"\d+", info.get("redis_version", "0.0"))
    return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
