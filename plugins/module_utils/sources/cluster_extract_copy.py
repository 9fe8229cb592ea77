# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""From the private server into the live one: pg_dump streamed into psql, under a name that nobody else uses, renamed when verified.

A schema is loaded in one transaction. A database is closed to ordinary users until it has its name, and carries the mark of
its extraction. Nothing else of the live cluster is written.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator

from ..errors import SourceError
from . import postgresql_catalog as catalog
from .postgresql_client import Client, columns, quote, tool_version, version_of
from .postgresql_pipe import DumpStream, feed, psql_text
from .postgresql_stage import LOADING, knows_restrict
from .postgresql_swap import drop_database

_MARK = catalog.setting_name(catalog.MARK + "stage")
_PIECE = 1 << 20
#: What the last step is safe with, whatever the cluster's default and however its standbys do.
_SURE = {"synchronous_commit": "local"}


class Live:
    """The live side of one record."""

    def __init__(self, client: Client, record: dict[str, Any]) -> None:
        self.client = client
        self.whole = record["kind"] == "database"
        self.database, self.name, self.working = str(record["database"]), str(record["name"]), str(record["working"])
        self.mark = str(record["stage_id"])

    @property
    def target(self) -> str:
        """The database that is loaded."""
        return self.working if self.whole else self.database

    def exists(self, name: str) -> bool:
        """Something has this name."""
        connection = self.client.connect(self.client.maintenance() if self.whole else self.database)
        try:
            relation = "pg_database WHERE datname" if self.whole else "pg_namespace WHERE nspname"
            return bool(self.client.rows(connection, f"SELECT 1 FROM {relation} = %s", (name,)))
        finally:
            connection.close()

    def published(self) -> bool:
        """What has the new name carries the mark of this extraction."""
        connection = self.client.connect(self.client.maintenance() if self.whole else self.database)
        try:
            if self.whole:
                found = catalog.databases(self.client, connection, [self.name]).get(self.name)
                return found is not None and found["stage"] == self.mark
            rows = self.client.rows(connection, "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (self.name,))
            return bool(rows) and str(rows[0][0]) == comment(self.mark)
        finally:
            connection.close()

    def create(self, properties: dict[str, Any], roles: set[str]) -> list[str]:
        """The empty database with its properties; what could not be taken over. Nothing to do for a schema, which the dump creates."""
        left_out: list[str] = []
        connection = self.client.connect(self.client.maintenance())
        try:
            wanted = dict(properties, template=False)
            if wanted["owner"] not in roles:
                wanted["owner"] = self.client.user
            wanted["grants"] = wanted["grants"] and [grant for grant in wanted["grants"] if not grant[0] or grant[0] in roles]
            settings, wanted["settings"] = wanted["settings"], []
            self.client.rows(connection, catalog.create_sql(self.working, wanted, version_of(connection)))
            self.client.rows(connection, f"ALTER DATABASE {quote(self.working)} SET {_MARK} = {catalog.literal(self.mark)}")
            for statement in catalog.property_sql(self.working, wanted):
                self.client.rows(connection, statement)
            for role, key, value in settings:
                subject = f"ROLE {quote(role)} IN DATABASE {quote(self.working)}" if role else f"DATABASE {quote(self.working)}"
                try:
                    if role and role not in roles:
                        raise SourceError(f"role {role} is missing")
                    self.client.rows(connection, f"ALTER {subject} SET {catalog.setting_name(key)} = {catalog.setting_value(key, value)}")
                except SourceError as error:
                    left_out.append(f"setting {key} of the database: {error.what}")
        finally:
            connection.close()
        return left_out

    def load(self, pieces: Iterator[bytes], timeout: float, seen: Callable[[int], None]) -> None:
        """Feed a dump to psql; for a schema all of it in one transaction."""
        connection = self.client.connect(self.target)
        try:
            program = self.client.tool("psql", version_of(connection))
        finally:
            connection.close()
        argv = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "--no-password", *([] if self.whole else ["--single-transaction"]), "-f", "-"]
        settings = {**LOADING, "lock_timeout": "30s"}
        feed(argv, self.client.environment(self.target, settings), f"{self.client.place}, {self.target}", timeout,
             psql_text(pieces, knows_restrict(tool_version(program))), seen)

    def analyze(self) -> None:
        """Statistics for the planner, of what is new only."""
        connection = self.client.connect(self.target)
        try:
            names = [] if self.whole else columns(self.client.rows(connection, """
                SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind IN ('r', 'p')""",
                                                                   (self.working,)))
            for statement in [f"ANALYZE {quote(self.working)}.{quote(name)}" for name in names] or ["ANALYZE"] * self.whole:
                self.client.rows(connection, statement)
        finally:
            connection.close()

    def publish(self, limit: int) -> None:
        """Give it its new name, in one transaction that is on the disk when this returns. Raises SourceError when the name was taken meanwhile."""
        connection = self.client.connect(self.client.maintenance() if self.whole else self.database, _SURE)
        try:
            if self.whole:
                self.client.rows(connection, f"BEGIN; ALTER DATABASE {quote(self.working)} RENAME TO {quote(self.name)};"
                                             f" ALTER DATABASE {quote(self.name)} CONNECTION LIMIT {int(limit)}; COMMIT")
            else:
                self.client.rows(connection, f"ALTER SCHEMA {quote(self.working)} RENAME TO {quote(self.name)}")
        finally:
            connection.close()

    def drop(self) -> None:
        """Remove what was loaded and never published. Its name is ours alone."""
        connection = self.client.connect(self.client.maintenance() if self.whole else self.database)
        try:
            if self.whole:
                drop_database(self.client, connection, self.working)
            else:
                self.client.rows(connection, f"DROP SCHEMA IF EXISTS {quote(self.working)} CASCADE")
        finally:
            connection.close()


def comment(mark: str) -> str:
    """The comment by which an extracted schema is known."""
    return f"extracted by lifeboat, {mark}"


def dump(client: Client, database: str, schema: str | None, tablespaces: bool, timeout: float, seen: Callable[[bytes], None]) -> Iterator[bytes]:
    """The text of a database or one schema, in pieces. Raises SourceError before the end of an incomplete one, so that its reader never sees an end."""
    connection = client.connect(database)
    try:
        program = client.tool("pg_dump", version_of(connection))
    finally:
        connection.close()
    argv = [program, "--no-password", "--no-publications", "--no-subscriptions", "--no-security-labels"]
    argv += [] if tablespaces else ["--no-tablespaces"]
    argv += [] if schema is None else ["--schema=" + quote(schema)]
    stream = DumpStream(argv, client.environment(database), client.where, timeout, seen)
    try:
        while True:
            piece = stream.read(_PIECE)
            if not piece:
                break
            yield bytes(piece)
        stream.finish()
    finally:
        stream.close()


def settle_roles(client: Client, connection: Any, schema: str | None, known: set[str]) -> tuple[list[str], list[str]]:
    """On the private copy: take away what belongs to, or is granted to, roles that the live cluster has not; (roles, what that means)."""
    rows = client.rows(connection, """
        WITH s AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
        SELECT r.rolname, count(*) FILTER (WHERE d.deptype = 'o'), count(*) FILTER (WHERE d.deptype <> 'o')
        FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid AND b.datname = current_database() JOIN pg_roles r ON r.oid = d.refobjid
        WHERE d.refclassid = 'pg_authid'::regclass AND (%(schema)s IS NULL
            OR (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT c.oid FROM pg_class c, s WHERE c.relnamespace = s.oid))
            OR (d.classid = 'pg_type'::regclass AND d.objid IN (SELECT t.oid FROM pg_type t, s WHERE t.typnamespace = s.oid))
            OR (d.classid = 'pg_collation'::regclass AND d.objid IN (SELECT l.oid FROM pg_collation l, s WHERE l.collnamespace = s.oid)))
        GROUP BY 1 ORDER BY 1""", {"schema": schema})
    missing, said = [], []
    for role, owned, granted in rows:
        if role in known:
            continue
        missing.append(role)
        if owned:
            said.append(f"ownership by role {role}: the role is missing, {client.user} owns its {owned} objects")
        if granted:
            said.append(f"privileges of role {role}: the role is missing")
        client.rows(connection, f"REASSIGN OWNED BY {quote(role)} TO {quote(client.user)}")
        client.rows(connection, f"DROP OWNED BY {quote(role)}")
    return missing, said
