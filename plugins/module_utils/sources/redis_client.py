# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Connections to a Redis server: raw replies, errors in one line."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any, Iterable

from ..errors import ConfigError, SourceError
from ..libraries import need
from .server import loopback, wait_until

#: Oldest server: absolute expiry times and one AOF directory came with it.
OLDEST = (7, 0)


#: How a connection over the network is secured; names and meanings are those of the repositories' and Vault's options.
TLS_OPTIONS: dict[str, dict[str, Any]] = {
    "tls": {"type": "bool", "help": "TLS with certificate and host name verified; default: true unless the server is on this host and no file is given."},
    "ca_file": {"type": "path", "help": "File with the CAs that the server's certificate is verified with; default: the system's."},
    "cert_file": {"type": "path", "help": "File with the client's certificate, where the server asks for one."},
    "key_file": {"type": "path", "help": "File with its key."},
}
#: Seconds to connect and to agree on TLS.
_CONNECT = 10
_NO_TLS = "let it listen with TLS there (tls-port); tls: false gives up on it, for a network that nobody else is on"


class ServerDown(SourceError):
    """Nothing answers at the address, or the server is still loading."""

    transient = True


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
        self._ca_file, self._cert_file, self._key_file = (config.get(name) for name in ("ca_file", "cert_file", "key_file"))
        files = self._ca_file or self._cert_file or self._key_file
        if config.get("tls") is False and files:
            raise ConfigError("tls is false, but files for it are given", where, "remove them, or tls: false")
        self.tls = not self.socket and (bool(config["tls"]) if config.get("tls") is not None else bool(files) or not loopback(self.address))

    @property
    def place(self) -> str:
        """The server's address for messages."""
        return f"{self.where} at {self.socket or f'{self.address}:{self.port}'}"

    def open(self) -> Link:
        """A connection. Raises ServerDown when nothing answers, SourceError when the login is refused."""
        redis = need("redis")
        options: dict[str, Any] = {
            "socket_timeout": self.timeout, "socket_connect_timeout": _CONNECT, "protocol": 2, "password": self._password(), "username": self._user or None,
        }
        if self.socket:
            connection = redis.connection.UnixDomainSocketConnection(path=self.socket, **options)
        elif self.tls:
            connection = self._secured(redis.connection.Connection)(host=self.address, port=self.port, **options)
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
            raise ServerDown("the server does not answer", self.place, "start it, or correct address, port, socket and tls") from None
        except SourceError as error:
            if "NOAUTH" in error.what or "NOPERM" in error.what or "Authentication" in error.what:
                raise self._refused("a password is needed") from None
            raise
        return link

    def _secured(self, plain_kind: Any) -> Any:
        """A kind of connection over TLS whose context trusts our authorities alone (the library's own adds the system's), and whose
        errors say what failed. PING: with TLS 1.3 a server refuses a client's certificate only after the handshake.
        """
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
            if self._cert_file or self._key_file:
                context.load_cert_chain(self._cert_file or "", self._key_file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"a file for TLS cannot be used ({_reason(error)})", self.place, "correct ca_file, cert_file and key_file") from None

        def connect(connection: Any) -> Any:
            plain = plain_kind._connect(connection)
            patience = plain.gettimeout()
            plain.settimeout(_CONNECT)
            try:
                secured = context.wrap_socket(plain, server_hostname=self.address)
            except OSError as error:
                plain.close()
                wrong = isinstance(error, ssl.SSLCertVerificationError)
                raise self._untrusted(error, "correct ca_file and address, or find out who answers there" if wrong else _NO_TLS) from None
            try:
                secured.sendall(b"PING\r\n")
                while (byte := secured.recv(1)) != b"\n":
                    if not byte:
                        raise ConnectionResetError("the server closed the connection")
            except OSError as error:
                secured.close()
                raise self._untrusted(error, "give cert_file and key_file: the server takes a client's certificate of a CA that it knows only") from None
            secured.settimeout(patience)
            return secured

        return type("Secured", (plain_kind,), {"_connect": connect})

    def _untrusted(self, error: OSError, remedy: str) -> SourceError:
        return SourceError(f"TLS does not secure the connection ({_reason(error)[:200]})", self.place, remedy)

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


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def version(info: dict[str, str]) -> tuple[int, int]:
    """(7, 0) out of INFO."""
    parts = re.findall(r"\d+", info.get("redis_version", "0.0"))
    return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
