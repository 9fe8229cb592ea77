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
from ..layout import CLUSTERS, HOST, SUPERUSER, Home

_TITLE = re.compile(rb"-- (?:Data for )?Name: (?P<name>.*); Type: (?P<type>[A-Z ]+); Schema: (?P<schema>[^;]*)(?:; Owner: .*)?$")
_COPY = re.compile(rb"COPY (?P<table>.+) \(.*\) FROM stdin;$")
_PASSWORD = re.compile(rb"(PASSWORD ')([^']*)(')")
_MODULUS = 1 << 256


def cluster(home: Home, name: str) -> dict[str, Any]:
    """One cluster: {"roles", "settings", "databases": {name: {"objects", "tables", "views"}}}; {"absent": why} when it is down."""
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
    title, digest = "", hashlib.sha256()
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
            title, digest = _close(objects, title, digest), hashlib.sha256()
            title = f"{found['type'].decode()} {found['schema'].decode()}.{found['name'].decode('utf-8', 'backslashreplace')}"
        elif _means_something(line):
            digest.update(line + b"\n")
            copied = _COPY.match(line)
            if copied:
                rows = tables.setdefault(copied["table"].decode("utf-8", "backslashreplace"), [0, 0])
    _close(objects, title, digest)
    return {
        "objects": objects,
        "tables": {table: {"rows": count, "digest": f"{total:064x}"} for table, (count, total) in tables.items()},
        "views": _views(home, database),
    }


def _close(objects: dict[str, Any], title: str, digest: Any) -> str:
    """Note the section that ends. A title may come again (one per grant column, say), so texts of the same title are a list."""
    if title:
        objects.setdefault(title, []).append(digest.hexdigest())
    return ""


def _views(home: Home, database: str) -> dict[str, Any]:
    """Rows of materialized views, which a dump does not hold."""
    result = {}
    with contextlib.closing(stores.connect(home, database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute("SELECT format('%I.%I', schemaname, matviewname) FROM pg_matviews WHERE ispopulated ORDER BY 1")
        for (view,) in cursor.fetchall():
            cursor.execute(f"SELECT count(*), coalesce(sum(('x' || left(md5(v::text), 15))::bit(60)::bigint), 0)::text FROM {view} v")
            count, total = cursor.fetchone()
            result[view] = {"rows": count, "digest": total}
    return result


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
            raise stores.ShopError(f"{argv[0]} failed: {argv[-1]}: {' '.join(words)[:300]}")
