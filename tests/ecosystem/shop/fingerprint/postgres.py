# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of PostgreSQL: pg_dumpall's view of roles and settings, pg_dump's of every database, rows counted and digested per table.

The order of rows in a table means nothing and may change, so a table's digest is the sum of its rows' digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
from typing import Any, Iterator

from .. import stores
from ..layout import CLUSTERS, HOST, SUPERUSER, Home, ShopError

_TITLE = re.compile(rb"-- (?:Data for )?Name: (?P<name>.*); Type: (?P<type>[A-Z ]+); Schema: (?P<schema>[^;]*)(?:; Owner: .*)?$")
_COPY = re.compile(rb"COPY (?P<table>.+) \(.*\) FROM stdin;$")
_PASSWORD = re.compile(rb"(PASSWORD ')([^']*)(')")
_MODULUS = 1 << 256
#: Bytes of a definition that is kept as text.
_READABLE = 3000


def cluster(home: Home, name: str) -> dict[str, Any]:
    """One cluster: {"roles", "settings", "databases": {name: {"objects", "tables"}}}; {"absent": why} when it is down.

    Rows of materialized views are not in it: a dump does not hold them, they are computed anew.
    """
    if not stores.running(home, name):
        return {"absent": "the cluster is not running"}
    return {
        "roles": _roles(home, name),
        "settings": _settings(home, name),
        "databases": {database: _database(home, name, database) for database in CLUSTERS[name]},
    }


def _roles(home: Home, name: str) -> list[str]:
    """Roles, memberships and their settings; password verifiers as a digest."""
    lines = _output(home, [home.program("pg_dumpall"), "--globals-only", *_address(home, name)])
    hidden = (_PASSWORD.sub(lambda found: found[1] + hashlib.sha256(found[2]).hexdigest()[:32].encode() + found[3], line) for line in lines)
    return sorted(line.decode("utf-8", "backslashreplace") for line in hidden if _means_something(line))


def _settings(home: Home, name: str) -> dict[str, str]:
    """What ALTER SYSTEM set."""
    with contextlib.closing(stores.connect(home, f"postgres:{name}")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%/postgresql.auto.conf'")
        return dict(cursor.fetchall())


def _database(home: Home, cluster_name: str, database: str) -> dict[str, Any]:
    with contextlib.closing(stores.connect(home, f"postgres:{cluster_name}")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", [database])
        if not cursor.rowcount:
            return {"absent": "there is no such database"}
    objects: dict[str, Any] = {}
    tables: dict[str, list[int]] = {}
    section = _Section("")
    rows: list[int] | None = None
    for line in _output(home, [home.program("pg_dump"), "--create", "--quote-all-identifiers", *_address(home, cluster_name), database]):
        if rows is not None:
            if line == b"\\.":
                rows = None
            else:
                rows[0] += 1
                rows[1] = (rows[1] + int.from_bytes(hashlib.sha256(line).digest(), "big")) % _MODULUS
            continue
        found = _TITLE.match(line)
        if found:
            section.close(objects)
            section = _Section(f"{found['type'].decode()} {found['schema'].decode()}.{found['name'].decode('utf-8', 'backslashreplace')}")
        elif _means_something(line):
            section.add(line)
            copied = _COPY.match(line)
            if copied:
                rows = tables.setdefault(copied["table"].decode("utf-8", "backslashreplace"), [0, 0])
    section.close(objects)
    return {
        "objects": objects,
        "tables": {table: {"rows": count, "digest": f"{total:064x}"} for table, (count, total) in tables.items()},
    }


class _Section:
    """One object of a dump: its text when it is short enough to be read in a difference, else its digest."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._digest = hashlib.sha256()
        self._lines: list[bytes] = []
        self._size = 0

    def add(self, line: bytes) -> None:
        self._digest.update(line + b"\n")
        self._size += len(line)
        if self._size <= _READABLE:
            self._lines.append(line)

    def close(self, objects: dict[str, Any]) -> None:
        """Note it. A title may come again, for overloaded functions say, so each has a list."""
        if self._title:
            if self._title.startswith("DATABASE PROPERTIES "):
                self._lines.sort()  # settings come in the order in which they were made, which means nothing
            text = b"\n".join(self._lines).decode("utf-8", "backslashreplace")
            objects.setdefault(self._title, []).append(text if self._size <= _READABLE else self._digest.hexdigest())


def _means_something(line: bytes) -> bool:
    """Not a comment, not empty, not the random word that newer dumps fence themselves with."""
    return bool(line) and not line.startswith((b"--", b"\\restrict ", b"\\unrestrict "))


def _address(home: Home, cluster_name: str) -> list[str]:
    return ["--host", HOST, "--port", str(home.port(cluster_name)), "--username", SUPERUSER, "--no-password"]


def _output(home: Home, argv: list[str]) -> Iterator[bytes]:
    """The lines of a tool's output as they come; raises with the tool's last words when it fails."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", env=home.environment(), bufsize=1 << 20
    ) as tool:
        assert tool.stdout is not None and tool.stderr is not None
        for line in tool.stdout:
            yield line.rstrip(b"\n")
        words = tool.stderr.read().decode("utf-8", "replace").split("\n")
        if tool.wait(60):
            raise ShopError(f"{argv[0]} failed: {argv[-1]}: {' '.join(words)[:300]}")
