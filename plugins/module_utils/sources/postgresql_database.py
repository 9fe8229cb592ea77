# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One database of a PostgreSQL cluster, which may be shared: dumped logically, restored beside, renamed in."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar

from ..errors import SourceError
from . import postgresql_catalog as catalog
from . import postgresql_digest as digest
from . import postgresql_preflight as preflight
from .contract import Captured, Comparison, Context, Finding, Footprint, Reader, Source, TreeReader, Writer
from .postgresql_capture import Capture, schema_of
from .postgresql_client import TLS_OPTIONS, Client, ServerDown, version_of
from .postgresql_stage import Stage
from .postgresql_swap import Swap, side_name
from .server import ANSWER_TIMEOUT, Server


class PostgresqlDatabase(Source):
    """See the module's text. Tested with PostgreSQL 15, written for 13 to 18."""

    type: ClassVar[str] = "postgresql_database"
    options: ClassVar[dict[str, dict[str, Any]]] = {
        "database": {"type": "str", "required": True, "help": "Name of the database."},
        "address": {"type": "str", "default": "127.0.0.1", "help": "Address of the server as seen from the source's host."},
        "port": {"type": "int", "default": 5432, "help": "Port of the server, also part of the socket's name."},
        "socket": {"type": "path", "help": "Directory of the server's socket; used instead of address."},
        "user": {"type": "str", "default": "postgres", "help": "A superuser of the server."},
        "password_file": {"type": "path", "help": "File whose first line is the password; without it ~/.pgpass and peer logins work."},
        **TLS_OPTIONS,
        "bin_dir": {"type": "path", "help": "Directory of psql and pg_dump; default: those that fit the server's version."},
        "cluster": {
            "type": "str", "default": "shared", "choices": ["shared", "own"],
            "help": "own: the cluster serves this database only, so settings made by ALTER SYSTEM are captured and those missing are set again.",
        },
        "data_directory": {
            "type": "path", "help": "The server's data directory on the source's host: tells a lost server from a stopped one; default: as it was at capture.",
        },
        "timeout": {"type": "int", "default": 3600, "help": "Seconds without progress after which pg_dump or psql is given up."},
    }

    def preflight_capture(self, context: Context) -> list[Finding]:
        return preflight.capture(_client(context))

    def capture(self, context: Context, writer: Writer) -> Captured:
        return Capture(context, _client(context), _timeout(context)).run(writer)

    def preflight_restore(self, context: Context, manifest: dict[str, Any]) -> list[Finding]:
        client = _client(context)
        return preflight.restore(client, _server(context, client), _data_directory(context, manifest), manifest, context.clock)

    def footprint(self, context: Context, manifest: dict[str, Any]) -> Footprint:
        client = _client(context)
        live = f"{'socket ' if client.socket else ''}{client.address}:{client.port}, database {client.database}"
        return Footprint(live, network=not client.local, needs=preflight.needs(client, _data_directory(context, manifest), manifest))

    def plan_stage(self, context: Context, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
        client = _client(context)
        live = None
        try:
            connection = client.connect(client.maintenance())
        except ServerDown:
            pass  # prepare() brings it up
        else:
            try:
                live = catalog.databases(client, connection, [client.database]).get(client.database)
            finally:
                connection.close()
        return {
            "stage_id": stage_id, "server": f"{client.address}:{client.port}", "database": client.database, "limit": manifest["facts"]["limit"],
            "staged": side_name(client.database, "lb", stage_id), "displaced": side_name(client.database, "was", stage_id),
            "set_aside": side_name(client.database, "undone", stage_id), "live": live, "data_directory": _data_directory(context, manifest),
        }

    def prepare(self, context: Context, record: dict[str, Any]) -> bool:
        client = _client(context)
        if client.reachable():
            return False
        server = _server(context, client)
        with server.lock():
            if client.reachable():
                return False  # another service of the same cluster was faster
            if preflight.bring_up_plan(client, server, record.get("data_directory")) == "start":
                server.start()
            elif context.config.get("data_directory") or not _started(server):
                if server.running():
                    server.stop()  # a server whose data directory was deleted under it
                server.provision()
                if not client.reachable() and server.can_start and not server.running():
                    server.start()
            client.wait_answer(ANSWER_TIMEOUT)
        return True

    def stage(self, context: Context, reader: Reader, record: dict[str, Any]) -> None:
        warnings = Stage(context, _client(context), record, _timeout(context)).run(reader)
        if warnings:
            record["warnings"] = warnings
            with open(os.open(_notes(context, record), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
                json.dump(warnings, handle)

    def verify_staged(self, context: Context, reader: Reader, record: dict[str, Any]) -> Comparison:
        expected = digest.from_entries(reader.entries())
        client = _client(context)
        found = _measure(context, client, str(record["staged"]))
        if found is None:
            return Comparison(False, [f"the staged database {record['staged']} does not exist"])
        found.properties["limit"] = expected.properties["limit"]  # closed until cutover, which sets the captured one
        return digest.compare(expected, found)

    def verify_live(self, context: Context, reader: TreeReader, manifest: dict[str, Any]) -> Comparison:
        client = _client(context)
        try:
            found = _measure(context, client, client.database)
        except ServerDown as error:
            return Comparison(False, [f"{error.what} ({error.where})"])
        if found is None:
            return Comparison(False, [f"database {client.database} does not exist"])
        return digest.compare(digest.from_entries(reader.entries()), found)

    def cutover(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        facts = Swap(_client(context), record).cutover()
        try:
            with open(_notes(context, record), encoding="utf-8") as handle:
                facts["warnings"] = json.load(handle)
        except (FileNotFoundError, ValueError):
            pass  # nothing differed
        return facts

    def rollback(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        return Swap(_client(context), record).rollback()

    def commit(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        return Swap(_client(context), record).commit()

    def discard(self, context: Context, record: dict[str, Any]) -> None:
        client = _client(context)
        if client.reachable():
            Swap(client, record).discard()


def _client(context: Context) -> Client:
    return Client(context.config, f"{context.service}.{context.source}")


def _server(context: Context, client: Client) -> Server:
    return Server(context.config, f"{context.service}.{context.source}", f"postgresql:{client.port}")


def _started(server: Server) -> bool:
    """A directory that is only known from the capture may be elsewhere now: the server itself is asked first."""
    try:
        if server.can_start:
            server.start()
            return True
    except SourceError:
        pass  # it has nothing to start from
    return False


def _timeout(context: Context) -> float:
    return float(context.config.get("timeout") or 3600)


def _data_directory(context: Context, manifest: dict[str, Any]) -> str | None:
    directory = context.config.get("data_directory") or manifest["facts"].get("data_directory")
    return None if directory is None else str(directory)


def _notes(context: Context, record: dict[str, Any]) -> str:
    os.makedirs(context.work_dir, 0o700, exist_ok=True)
    return os.path.join(context.work_dir, f"notes-{record['stage_id']}.json")


def _measure(context: Context, client: Client, database: str) -> digest.Content | None:
    """The content of a database as it is now; None when it does not exist."""
    outside = client.connect(client.maintenance())
    try:
        found = catalog.databases(client, outside, [database]).get(database)
    finally:
        outside.close()
    if found is None:
        return None
    if not found["connections"]:
        raise SourceError(f"database {database!r} takes no connections", client.place, "finish or roll back the swap that closed it")
    connection = client.connect(database)
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
        snapshot = str(client.rows(connection, "SELECT pg_export_snapshot()")[0][0])
        tables = catalog.tables(client, connection)
        context.progress.expect(sum(table.bytes for table in tables))
        content = digest.measure(
            client, connection, database, context.digest_key, context.workers, snapshot, context.progress.add, _timeout(context), tables,
        )
        server = version_of(connection)
    finally:
        connection.close()
    content.objects = schema_of(client, database, context.digest_key, server, _timeout(context))
    return content
