# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Swap databases by renaming them, both renames in one transaction.

What has happened is read from the server and never remembered: which of the four names exist, and which database
carries the mark of this stage (a setting ``lifeboat.stage`` of the database, which follows it through renames). The
live database must be as it was captured, so the swap hands the mark over to the displaced one in the same transaction.
"""

from __future__ import annotations

import hashlib
from typing import Any

from .. import faults
from ..errors import ConflictError, SourceError
from ..libraries import need
from . import postgresql_catalog as catalog
from .postgresql_client import Client, columns, quote
from .server import wait_until

_MARK = catalog.setting_name(catalog.MARK + "stage")
#: Bytes of a database name.
_NAME_LIMIT = 63
#: Seconds to wait for sessions to end once they were told to.
_SESSIONS_END = 60.0


def side_name(database: str, mark: str, stage_id: str) -> str:
    """``<database>__<mark>_<stage id>`` within 63 bytes; a name that must be cut gets a hash, so that it stays unique."""
    ending = f"__{mark}_{stage_id}"
    whole = (database + ending).encode()
    if len(whole) <= _NAME_LIMIT:
        return whole.decode()
    digest = hashlib.sha256(whole).hexdigest()[:12]
    ending = f"__{mark}_{digest}"
    room = _NAME_LIMIT - len(ending)
    return database.encode()[:room].decode("utf-8", "ignore") + ending


def drop_database(client: Client, connection: Any, name: str) -> None:
    """Drop a database of ours if it is there, ending its sessions."""
    if name not in catalog.databases(client, connection, [name]):
        return
    client.rows(connection, f"ALTER DATABASE {quote(name)} IS_TEMPLATE false")
    if client.rows(connection, "SELECT 1 FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = %s", (name,)):
        _drop_subscriptions(client, connection, name)
    client.rows(connection, f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")


def _drop_subscriptions(client: Client, connection: Any, name: str) -> None:
    """A database with subscriptions cannot be dropped; the slots at the publisher are not ours and stay."""
    client.rows(connection, f"ALTER DATABASE {quote(name)} ALLOW_CONNECTIONS true")
    inside = client.connect(name)
    try:
        for subscription in columns(client.rows(inside, "SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid "
                                                        "WHERE d.datname = current_database()")):
            client.rows(inside, f"ALTER SUBSCRIPTION {quote(subscription)} DISABLE")
            client.rows(inside, f"ALTER SUBSCRIPTION {quote(subscription)} SET (slot_name = NONE)")
            client.rows(inside, f"DROP SUBSCRIPTION {quote(subscription)}")
    finally:
        inside.close()


def end_sessions(client: Client, connection: Any, names: list[str]) -> None:
    """End every other session of these databases and wait until they are gone. Raises SourceError."""
    prepared = client.rows(connection, "SELECT count(*) FROM pg_prepared_xacts WHERE database = ANY(%s::name[])", (names,))[0][0]
    if prepared:
        raise SourceError(
            f"{prepared} prepared transactions hold the database", f"{client.place}, {', '.join(names)}",
            "commit or roll them back (see pg_prepared_xacts), then run the same command again",
        )

    def ended() -> bool:
        rows = client.rows(connection, """
            SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = ANY(%s::name[]) AND pid <> pg_backend_pid()""", (names,))
        return bool(rows[0][0] == 0)

    wait_until(ended, _SESSIONS_END, SourceError(
        f"sessions did not end within {_SESSIONS_END:.0f} s", f"{client.place}, {', '.join(names)}", "stop the clients, then run the same command again",
    ))


class Swap:
    """Cutover, rollback, commit and discard of one stage record. Every method may be repeated after a kill."""

    def __init__(self, client: Client, record: dict[str, Any]) -> None:
        self.client = client
        self.record = record
        self.stage = str(record["stage_id"])
        self.live, self.staged = str(record["database"]), str(record["staged"])
        self.displaced, self.aside = str(record["displaced"]), str(record["set_aside"])
        #: Whether the displaced database took connections before: rollback gives it back as it was.
        self.allowed = bool((record.get("live") or {}).get("connections", True))

    def cutover(self) -> dict[str, Any]:
        """The staged database becomes the live one; {"displaced": bool, "bytes_displaced": int}."""
        connection = self._connect()
        try:
            found = self._found(connection)
            if not self._swapped(found):
                if not self._mine(found, self.staged):
                    raise ConflictError("the staged database is not there or was not finished", f"{self.client.place}: {self.staged}", "stage again")
                if self.displaced in found:
                    raise ConflictError("the name for the displaced database is taken", f"{self.client.place}: {self.displaced}", "see who made it, drop it")
                self._swap_in(connection, self.live in found, int(found[self.staged]["oid"]))
            found = self._found(connection)
            if self.displaced in found:
                self.client.rows(connection, f"ALTER DATABASE {quote(self.displaced)} ALLOW_CONNECTIONS false")
            return {"displaced": self.displaced in found, "bytes_displaced": found.get(self.displaced, {}).get("bytes", 0), "oid": found[self.live]["oid"]}
        finally:
            connection.close()

    def _swap_in(self, connection: Any, displaces: bool, oid: int) -> None:
        limit = int(self.record.get("limit", -1))
        statements = [f"ALTER DATABASE {quote(self.staged)} RENAME TO {quote(self.live)}", f"ALTER DATABASE {quote(self.live)} CONNECTION LIMIT {limit}"]
        if displaces:
            statements.append(self._mark(self.displaced, oid))
        if displaces or not self.record.get("live"):
            statements.append(f"ALTER DATABASE {quote(self.live)} RESET {_MARK}")
        if displaces:
            self.client.rows(connection, f"ALTER DATABASE {quote(self.live)} ALLOW_CONNECTIONS false")
        try:
            end_sessions(self.client, connection, [self.live, self.staged] if displaces else [self.staged])
            first = [f"ALTER DATABASE {quote(self.live)} RENAME TO {quote(self.displaced)}"] if displaces else []
            self._transaction(connection, first, "restore.cutover.displaced", statements)
        except (SourceError, OSError):
            if displaces and self.allowed and self.live in self._found(connection) and not self._swapped(self._found(connection)):
                self.client.rows(connection, f"ALTER DATABASE {quote(self.live)} ALLOW_CONNECTIONS true")
            raise
        faults.point("restore.cutover.swapped")

    def rollback(self) -> dict[str, Any]:
        """The displaced database is live again, the restored one kept aside; {"displaced": bool, "set_aside": name | None}."""
        connection = self._connect()
        try:
            found = self._found(connection)
            if not self._mine(found, self.aside):
                self._swap_back(connection, found)
            found = self._found(connection)
            return {
                "displaced": self.live in found, "set_aside": self.aside if self.aside in found else None,
                "bytes_set_aside": found.get(self.aside, {}).get("bytes", 0),
            }
        finally:
            connection.close()

    def _swap_back(self, connection: Any, found: dict[str, dict[str, Any]]) -> None:
        allow = f"ALTER DATABASE {quote(self.live)} ALLOW_CONNECTIONS {'true' if self.allowed else 'false'}"
        first, second, busy = [], [], []
        if self._swapped(found):
            self.client.rows(connection, f"ALTER DATABASE {quote(self.live)} ALLOW_CONNECTIONS false")
            first, busy = [f"ALTER DATABASE {quote(self.live)} RENAME TO {quote(self.aside)}", self._mark(self.aside)], [self.live]
        elif self._mine(found, self.staged):  # the swap was intended and never happened
            first, busy = [f"ALTER DATABASE {quote(self.staged)} RENAME TO {quote(self.aside)}"], [self.staged]
            if self.live in found:
                second = [allow]
        elif self.live in found and self.displaced in found:
            raise ConflictError(
                "the live database is not the one that was restored", f"{self.client.place}: {self.live}",
                f"somebody replaced it since; rename it away, or rename {self.displaced} by hand",
            )
        if self.displaced in found:
            second = [f"ALTER DATABASE {quote(self.displaced)} RENAME TO {quote(self.live)}", f"ALTER DATABASE {quote(self.live)} RESET {_MARK}", allow]
            busy.append(self.displaced)
        if busy:
            end_sessions(self.client, connection, busy)
        self._transaction(connection, first, "rollback.displaced", second)
        faults.point("rollback.swapped")

    def commit(self) -> dict[str, Any]:
        """Drop what was displaced or set aside; {"freed": bytes}."""
        connection = self._connect()
        try:
            found = self._found(connection)
            if self.displaced in found and self.live not in found:
                raise ConflictError(
                    "there is no live database: the displaced one is the only copy here", f"{self.client.place}: {self.displaced}", "roll back instead",
                )
            freed = sum(int(found[name]["bytes"]) for name in (self.displaced, self.aside) if name in found)
            for name in (self.displaced, self.aside):
                drop_database(self.client, connection, name)
            if self._mine(found, self.live):
                self.client.rows(connection, f"ALTER DATABASE {quote(self.live)} RESET {_MARK}")
            return {"freed": freed}
        finally:
            connection.close()

    def discard(self) -> None:
        """Drop the staged copy; a live database that was closed for a swap is opened again."""
        connection = self._connect()
        try:
            found = self._found(connection)
            drop_database(self.client, connection, self.staged)
            live = found.get(self.live)
            if live is not None and not self._swapped(found) and self.allowed and not live["connections"] and self.displaced not in found:
                self.client.rows(connection, f"ALTER DATABASE {quote(self.live)} ALLOW_CONNECTIONS true")
        finally:
            connection.close()

    def _connect(self) -> Any:
        return self.client.connect(self.client.maintenance(), {"synchronous_commit": "local", "lock_timeout": "60s"})

    def _found(self, connection: Any) -> dict[str, dict[str, Any]]:
        return catalog.databases(self.client, connection, [self.live, self.staged, self.displaced, self.aside])

    def _mine(self, found: dict[str, dict[str, Any]], name: str) -> bool:
        return name in found and str(found[name]["stage"]).partition("/")[0] == self.stage

    def _swapped(self, found: dict[str, dict[str, Any]]) -> bool:
        """The restored database is the live one. Without a displaced one to carry the mark there was no live one before."""
        if self._mine(found, self.live):
            return True
        if self.live not in found or self.staged in found or self.aside in found:
            return False
        if self._mine(found, self.displaced):
            return str(found[self.displaced]["stage"]).partition("/")[2] == str(found[self.live]["oid"])
        return not self.record.get("live")

    def _mark(self, name: str, successor: int = 0) -> str:
        """Mark a database as part of this stage; a displaced one names the oid of the one that took its place."""
        value = f"{self.stage}/{successor}" if successor else self.stage
        return f"ALTER DATABASE {quote(name)} SET {_MARK} = {catalog.literal(value)}"

    def _transaction(self, connection: Any, first: list[str], between: str, second: list[str]) -> None:
        psycopg2 = need("psycopg2")
        connection.autocommit = False
        try:
            for statement in first:
                self.client.rows(connection, statement)
            faults.point(between)
            for statement in second:
                self.client.rows(connection, statement)
            connection.commit()
        except psycopg2.Error as error:
            raise self.client.error(error) from None
        finally:
            if not connection.closed:
                connection.rollback()
                connection.autocommit = True
