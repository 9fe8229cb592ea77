# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Connections to a PostgreSQL server and its client tools: found, run without a shell, errors in one line."""

from __future__ import annotations

import functools
import glob
import os
import re
import shutil
import socket
import subprocess
from typing import Any, Iterable, Sequence

from ..errors import ConfigError, SourceError, VersionError
from ..libraries import need
from .server import loopback, wait_until

#: Oldest server this collection works with (DROP DATABASE ... FORCE, snapshot export on standbys, hash functions).
OLDEST = 130000
#: Seconds a lock may be waited for while reading; longer means that a schema change is going on.
LOCK_TIMEOUT = 30

#: Settings of every session, so that neither role nor database settings change what is read or written.
SESSION = {
    "search_path": "pg_catalog",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "row_security": "off",
    "client_min_messages": "warning",
    "lock_timeout": f"{LOCK_TIMEOUT}s",
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "xmlbinary": "base64",
    "lc_monetary": "C",
}


#: Options of both PostgreSQL types: how a connection over the network is secured. Names and meanings are libpq's; its words that
#: fall back to plain text or verify by chance (allow, prefer) are no choices.
TLS_OPTIONS: dict[str, dict[str, Any]] = {
    "sslmode": {
        "type": "str", "choices": ["verify-full", "verify-ca", "require", "disable"],
        "help": "verify-full (TLS, certificate and host name are verified) unless the server is on this host; verify-ca leaves out the host name, "
                "require verifies nothing, disable is plain text.",
    },
    "sslrootcert": {"type": "path", "help": "File with the CAs that the server's certificate is verified with; default: ~/.postgresql/root.crt."},
    "sslcert": {"type": "path", "help": "File with the client's certificate; default: ~/.postgresql/postgresql.crt where it exists."},
    "sslkey": {"type": "path", "help": "File with its key, for its owner only; default: ~/.postgresql/postgresql.key."},
}
#: What libpq calls a parameter, and the environment otherwise.
_VARIABLES = {"dbname": "PGDATABASE", "application_name": "PGAPPNAME"}


class ServerDown(SourceError):
    """Nothing answers at the address, or the server is still starting or already stopping."""

    transient = True


def quote(name: str) -> str:
    """An SQL identifier, always quoted."""
    return '"' + name.replace('"', '""') + '"'


class Client:
    """How one catalog entry reaches its server. Holds no connection."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.where = where
        self.database = str(config["database"])
        self.socket = str(config.get("socket") or "")
        self.address = self.socket or str(config.get("address") or "127.0.0.1")
        self.port = int(config.get("port") or 5432)
        self.user = str(config.get("user") or "postgres")
        self.local = self.address.startswith("/") or loopback(self.address)
        self._password_file = config.get("password_file")
        self._tls = {name: str(config[name]) for name in TLS_OPTIONS if config.get(name)}
        self._bin_dir = config.get("bin_dir")

    @property
    def place(self) -> str:
        """The server's address for messages."""
        return f"{self.where} at {self.address}:{self.port}"

    def password(self) -> str | None:
        """The first line of password_file; None when the entry names none (libpq then looks into ~/.pgpass)."""
        if not self._password_file:
            return None
        try:
            with open(self._password_file, encoding="utf-8") as handle:
                return handle.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"the password file cannot be read ({reason})", str(self._password_file), "create it or correct password_file") from error

    def way(self, database: str) -> dict[str, str]:
        """libpq's parameters of every connection but the password. Nothing but ``prefer`` on this very host falls back to plain text."""
        mode = self._tls.get("sslmode") or ("prefer" if self.local and not self._tls else "verify-full")
        way = {"host": self.address, "port": str(self.port), "user": self.user, "dbname": database, "connect_timeout": "10", "application_name": "lifeboat"}
        # Kerberos' own encryption would take the place of TLS, and verify another thing
        return {**way, **self._tls, "sslmode": mode, **({} if mode == "prefer" else {"gssencmode": "disable"})}

    def connect(self, database: str, settings: dict[str, str] | None = None, password: str | None = None) -> Any:
        """An autocommit psycopg2 connection with the settings of SESSION; ``password`` instead of the file's. Raises ServerDown or SourceError."""
        psycopg2 = need("psycopg2")
        options = _options({**SESSION, **(settings or {})})
        try:
            secret = self.password() if password is None else password
            connection = psycopg2.connect(**self.way(database), password=secret, options=options, client_encoding="UTF8")
        except psycopg2.OperationalError as error:
            raise self._connect_error(str(error), database) from None
        except UnicodeDecodeError:
            raise SourceError(f"the server refused user {self.user!r}", self.place, "correct user and password_file") from None
        connection.autocommit = True
        return connection

    def listening(self) -> bool:
        """Something accepts connections at the address."""
        try:
            if self.address.startswith("/"):
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(5)
                    probe.connect(f"{self.address}/.s.PGSQL.{self.port}")
            else:
                socket.create_connection((self.address, self.port), 5).close()
        except OSError:
            return False
        return True

    def reachable(self) -> bool:
        """The server takes our connections; SourceError when it refuses them for another reason than being down."""
        try:
            self.connect(self.maintenance()).close()
        except ServerDown:
            return False
        return True

    def wait_answer(self, timeout: float) -> None:
        """Wait until the server takes connections."""
        wait_until(self.reachable, timeout, SourceError(
            f"the server did not answer within {timeout:.0f} s of its start", self.place, "look into the server's log",
        ))

    def maintenance(self) -> str:
        """The database from which others are created and renamed."""
        return "template1" if self.database == "postgres" else "postgres"

    def rows(self, connection: Any, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, if any. Raises SourceError."""
        psycopg2 = need("psycopg2")
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return list(cursor.fetchall()) if cursor.description else []
        except psycopg2.Error as error:
            raise self.error(error) from None

    def error(self, error: Any) -> SourceError:
        """A psycopg2 error in one line, without the details that may quote rows."""
        message = getattr(error.diag, "message_primary", None) or str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__
        remedy = {
            "55P03": "a schema change or an exclusive lock is in the way: run again when it is done",
            "42501": f"connect as a superuser: {self.user!r} lacks the permission",
            "53100": "free space on the server's disk",
        }.get(getattr(error, "pgcode", None) or "", "see the server's log")
        return SourceError(f"the server refused a statement ({message[:300]})", self.place, remedy)

    def _connect_error(self, text: str, database: str) -> SourceError:
        line = text.strip().split("\n")[-1].strip()
        if "starting up" in text or "shutting down" in text or "not yet accepting" in text:
            return ServerDown("the server is starting or stopping", self.place, "wait until it takes connections")
        if not self.listening():
            return ServerDown("the server does not answer", self.place, "start it, or correct address, port and socket")
        untrusted = self.tls_error(text)
        if untrusted is not None:
            return untrusted
        line = re.sub(r"^.*?(FATAL|ERROR):\s*", "", line)
        if "password" in line or "authentication" in line or "pg_hba.conf" in line:
            return SourceError(f"the server refused the login of user {self.user!r} ({line[:200]})", self.place, "correct user, password_file or pg_hba.conf")
        return SourceError(f"cannot connect to database {database!r} ({line[:200]})", self.place, "see the server's log")

    def tls_error(self, text: str) -> SourceError | None:
        """The error for what libpq said when TLS is what failed; None when it is not."""
        for words, remedy in _TLS_REMEDIES:
            for line in text.splitlines():
                if words in line:
                    told = re.sub(r"^.*(FATAL|ERROR|failed):\s*", "", line.strip())
                    return SourceError(f"TLS does not secure the connection ({told[:200]})", self.place, remedy)
        return None

    # -- client tools

    def environment(self, database: str, settings: dict[str, str] | None = None, encoding: str = "") -> dict[str, str]:
        """The environment of a client tool: the whole way to the server, so that argv holds none of it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG") and not key.startswith("LC_")}
        environment.update({_VARIABLES.get(name, f"PG{name.upper()}"): value for name, value in self.way(database).items()})
        environment.update(LC_ALL="C", PGOPTIONS=_options(settings or {}))
        if encoding:
            environment["PGCLIENTENCODING"] = encoding
        password = self.password()
        if password is not None:
            environment["PGPASSWORD"] = password
        return environment

    def tool(self, name: str, server: int) -> str:
        """The path of a client program that fits a server version number like 150004. Raises VersionError."""
        major = server // 10000
        found: list[tuple[int, str]] = []
        for directory in self._bin_dirs():
            program = os.path.join(directory, name)
            version = tool_version(program)
            if version:
                found.append((version // 10000, program))
        fitting = sorted((number, order) for order, (number, _program) in enumerate(found) if number >= major)
        if fitting:
            return found[fitting[0][1]][1]
        have = f"found only version {max(number for number, _program in found)}" if found else "found none"
        raise VersionError(
            f"no {name} of PostgreSQL {major} or newer ({have})", self.where,
            f"install the PostgreSQL {major} client programs or set bin_dir",
        )

    def _bin_dirs(self) -> Iterable[str]:
        if self._bin_dir:
            return [str(self._bin_dir)]
        known = sorted(glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin") + glob.glob("/usr/local/pgsql*/bin"))
        return known + [part for part in os.environ.get("PATH", "").split(":") if part]


_COMPARE = "see the server's log, and compare sslmode, sslrootcert, sslcert and sslkey with its settings"
#: What libpq and a server say of TLS, and what helps; the first that fits.
_TLS_REMEDIES = (
    ("does not support SSL", "switch TLS on at the server (ssl = on); sslmode: disable gives up on it, for a network that nobody else is on"),
    ("does not match host name", "correct address, or give the server a certificate for it"),
    ("root certificate file", "set sslrootcert to the file with the CA of the server's certificate"),
    ("certificate verify failed", "correct sslrootcert, or find out who answers there: the certificate is not of a CA in it"),
    ("private key file", "correct sslkey: its file must be there, fit sslcert and be readable by its owner only"),
    ("certificate file", "correct sslcert"),
    ("client certificate", "set sslcert and sslkey to a certificate that the server's ssl_ca_file knows"),
    ("certificate required", "set sslcert and sslkey to a certificate that the server's ssl_ca_file knows"),
    ("certificate authentication failed", "set sslcert and sslkey to a certificate of this user"),
    ("SSL error", _COMPARE),
    ("SSL SYSCALL", _COMPARE),
    ("SSL negotiation", _COMPARE),
    ("SSL exchange", _COMPARE),
)


def _options(settings: dict[str, str]) -> str:
    """libpq's options: blanks and backslashes inside a value are escaped."""
    return " ".join(f"-c {key}=" + re.sub(r"([ \\])", r"\\\1", value) for key, value in settings.items())


@functools.lru_cache(maxsize=64)
def tool_version(program: str) -> int:
    """The version number (150004) of a client program; 0 when there is no such program."""
    if shutil.which(program) is None:
        return 0
    try:
        done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(rb"\(PostgreSQL\) (\d+)(?:\.(\d+))?", done.stdout)
    return int(found.group(1)) * 10000 + int(found.group(2) or 0) if found else 0


@functools.lru_cache(maxsize=64)
def knows_option(program: str, option: str) -> bool:
    """The program lists this option in its help."""
    done = subprocess.run([program, "--help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    return option.encode() in done.stdout


def version_of(connection: Any) -> int:
    """The server's version number, like 150004."""
    return int(connection.server_version)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The first column."""
    return [row[0] for row in rows]
