# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One consistent capture of a database: the dump and its digest out of one exported snapshot."""

from __future__ import annotations

import contextlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator

from ..errors import SourceError
from ..libraries import need
from . import postgresql_catalog as catalog
from . import postgresql_roles as roles
from .contract import Captured, Context, Entry, Writer
from .postgresql_client import LOCK_TIMEOUT, Client, tool_version, version_of
from .postgresql_digest import measure
from .postgresql_pipe import DumpStream
from .postgresql_schema import SchemaHash

#: How often a capture begins anew because tables came or went while it locked them.
_ATTEMPTS = 5
#: The sections of a dump, in the order in which they are loaded.
SECTIONS = ("pre-data", "data", "post-data")


class Capture:
    """One capture of one database: Capture(...).run(writer)."""

    def __init__(self, context: Context, client: Client, timeout: float) -> None:
        self.context = context
        self.client = client
        self.timeout = timeout
        self._streams: set[DumpStream] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, writer: Writer) -> Captured:
        """Write the tree of one consistent state. Raises SourceError."""
        client, context = self.client, self.context
        connection, tables = self._snapshot()
        try:
            snapshot = str(client.rows(connection, "SELECT pg_export_snapshot()")[0][0])
            found, sealed = self._outside(context.config.get("cluster") == "own")
            facts = {
                **{key: found[key] for key in ("encoding", "collate", "ctype", "provider", "locale", "limit", "bytes")},
                **catalog.summary(client, connection), "database": client.database, "version": version_of(connection),
            }
            if client.local:
                facts["data_directory"] = str(client.rows(connection, "SHOW data_directory")[0][0])
            program = client.tool("pg_dump", facts["version"])
            facts["tool"] = tool_version(program)
            # The text of a dump and the rows of the digest pass by: what is expected is a guess good enough for a bar.
            context.progress.expect(2 * sum(table.bytes for table in tables))
            schema = SchemaHash(context.digest_key)
            with ThreadPoolExecutor(1, thread_name_prefix="dump") as threads:
                dump = threads.submit(self._dump, program, snapshot, writer, schema)
                try:
                    content = measure(client, connection, client.database, context.digest_key, max(1, context.workers - 1), snapshot,
                                      self._read, self.timeout, tables)
                except BaseException:
                    self._stop()
                    raise
                sections = dump.result()
            content.objects = schema.objects
        finally:
            connection.close()
        writer.entry({"type": "database", "name": client.database, "properties": found})
        for name, data in sealed:
            extents, size = writer.put_stream(io.BytesIO(data), name)
            writer.entry({"type": name, "extents": extents, "size": size})
        for entry in sections:
            writer.entry(entry)
        for entry in content.entries():
            writer.entry(entry)
        facts.update(tables=len(content.tables), rows=content.rows, sequences=len(content.sequences), large_objects=content.large_objects["count"])
        return Captured(content.digest(context.digest_key), "content", facts)

    def _outside(self, own: bool) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        """What belongs to the cluster: the database's properties; roles and settings, to be sealed."""
        client = self.client
        connection = client.connect(client.maintenance())
        try:
            sealed = [("roles", roles.encode(roles.needed(client, connection, client.database)))]
            if own:
                sealed.append(("settings", roles.encode({"settings": roles.cluster_settings(client, connection)})))
            return catalog.properties(client, connection, client.database), sealed
        finally:
            connection.close()

    def _snapshot(self) -> tuple[Any, list[catalog.Table]]:
        """A read-only transaction whose snapshot was taken after all tables were locked against DDL and TRUNCATE."""
        client = self.client
        lister = client.connect(client.database)
        try:
            for _attempt in range(_ATTEMPTS):
                before = catalog.tables(client, lister)
                connection = client.connect(client.database)
                try:
                    connection.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
                    plain = [table for table in before if table.kind == "r"]
                    for start in range(0, len(plain), 500):
                        names = ", ".join(f"ONLY {table.sql}" for table in plain[start:start + 500])
                        client.rows(connection, f"LOCK TABLE {names} IN ACCESS SHARE MODE")
                    inside = catalog.tables(client, connection)
                    if {table.oid for table in inside} == {table.oid for table in before}:
                        return connection, inside
                except SourceError as error:
                    connection.close()
                    if not isinstance(error.__context__, need("psycopg2").errors.UndefinedTable):
                        raise
                    continue
                except BaseException:
                    connection.close()
                    raise
                connection.close()
        finally:
            lister.close()
        raise SourceError("tables kept being created and dropped while they were to be locked", client.place, "capture when no schema change is running")

    def _read(self, size: int) -> None:
        self.context.progress.add(size)

    def _dump(self, program: str, snapshot: str, writer: Writer, schema: SchemaHash) -> list[Entry]:
        entries: list[Entry] = []
        for section in SECTIONS:
            argv = [
                program, f"--snapshot={snapshot}", f"--section={section}", "--blobs", "--quote-all-identifiers", "--no-password",
                f"--lock-wait-timeout={LOCK_TIMEOUT}s",
            ]
            environment = self.client.environment(self.client.database, {"statement_timeout": "0", "lc_monetary": "C"})

            def seen(piece: bytes, hashed: bool = section != "data") -> None:
                if hashed:
                    schema.update(piece)
                self._read(len(piece))

            with self._opened(DumpStream(argv, environment, self.client.place, self.timeout, seen)) as stream:
                reader = io.BufferedReader(stream, 1 << 20)  # kept: it closes the stream when it is dropped
                extents, size = writer.put_stream(reader, section)
                stream.finish()
            if section != "data" and not schema.end_section():
                raise SourceError("pg_dump delivered a text without its end", self.client.place, "run the same command again")
            entries.append({"type": "section", "name": section, "extents": extents, "size": size})
        return entries

    @contextlib.contextmanager
    def _opened(self, stream: DumpStream) -> Iterator[DumpStream]:
        with self._lock:
            self._streams.add(stream)
            stopped = self._stopped
        try:
            if stopped:
                raise SourceError("the capture was given up", self.client.place, "see the first error")
            yield stream
        finally:
            stream.close()

    def _stop(self) -> None:
        """Kill the dump: the digest failed, so nothing of this capture counts."""
        with self._lock:
            self._stopped = True
            for stream in self._streams:
                stream.kill()


def schema_of(client: Client, database: str, key: bytes, server: int, timeout: float) -> dict[str, tuple[str, str]]:
    """The schema hashes of a database as it is now."""
    program = client.tool("pg_dump", server)
    schema = SchemaHash(key)
    for section in ("pre-data", "post-data"):
        argv = [program, f"--section={section}", "--blobs", "--quote-all-identifiers", "--no-password", f"--lock-wait-timeout={LOCK_TIMEOUT}s"]
        with DumpStream(argv, client.environment(database, {"statement_timeout": "0", "lc_monetary": "C"}), client.place, timeout, schema.update) as stream:
            buffer = bytearray(1 << 20)
            while stream.readinto(buffer):
                pass
            stream.finish()
            schema.end_section()
    return schema.objects
