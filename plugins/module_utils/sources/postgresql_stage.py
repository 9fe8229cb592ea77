# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Build the staged database beside the live one: create, load, set sequences, analyze, make it last, mark it whole."""

from __future__ import annotations

from typing import Any

from ..errors import DamageError, SourceError
from . import postgresql_catalog as catalog
from . import postgresql_roles as roles
from .contract import Context, Entry, Reader
from .postgresql_capture import SECTIONS
from .postgresql_client import Client, quote, tool_version, version_of
from .postgresql_pipe import feed, psql_text
from .postgresql_swap import drop_database

#: Largest sealed JSON (roles, settings) a restore reads into memory.
_JSON_LIMIT = 64 << 20
#: Where psql learnt \restrict, by major version.
_GUARDED = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
#: Settings while loading: nothing the database itself sets may change what its own dump means.
LOADING = {
    "synchronous_commit": "off", "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off", "default_transaction_isolation": "read committed", "session_replication_role": "origin",
    "lc_monetary": "C", "client_min_messages": "error", "maintenance_work_mem": "128MB",
}


def knows_restrict(version: int) -> bool:
    """psql of this version number has the guard against commands smuggled into a dump."""
    major, minor = divmod(version, 10000)
    return major >= 18 or minor >= _GUARDED.get(major, 1 << 30)


class Stage:
    """Stage(...).run(reader): may be repeated after a kill at any place."""

    def __init__(self, context: Context, client: Client, record: dict[str, Any], timeout: float) -> None:
        self.context = context
        self.client = client
        self.record = record
        self.timeout = timeout
        self.staged = str(record["staged"])

    def run(self, reader: Reader) -> list[str]:
        """Returns what was found different on the server and left as it is. Raises SourceError, DamageError."""
        client, record = self.client, self.record
        connection = client.connect(client.maintenance())
        try:
            found = catalog.databases(client, connection, [client.database, self.staged, str(record["displaced"]), str(record["set_aside"])])
            if any(str(item["stage"]).partition("/")[0] == record["stage_id"] for item in found.values()):
                return []  # built before, perhaps swapped in already
            drop_database(client, connection, self.staged)
            warnings = self._build(connection, reader)
            # CHECKPOINT waits until everything is on the disk; the mark is the word that the copy is whole.
            client.rows(connection, "CHECKPOINT")
            client.rows(connection, f"ALTER DATABASE {quote(self.staged)} SET {catalog.setting_name(catalog.MARK + 'stage')} = "
                                    f"{catalog.literal(str(record['stage_id']))}")
            return warnings
        finally:
            connection.close()

    def _build(self, connection: Any, reader: Reader) -> list[str]:
        warnings: list[str] = []
        created = False
        loaded: list[str] = []
        wanted: list[tuple[tuple[str, str], tuple[int, bool]]] = []
        for entry in reader.entries():
            kind = entry["type"]
            if kind == "database":
                properties = entry["properties"]
            elif kind == "roles":
                warnings += roles.apply(self.client, self._json(reader, entry))
            elif kind == "settings":
                warnings += self._settings(self._json(reader, entry)["settings"])
            elif kind == "section":
                if not created:
                    self._create(connection, properties)
                    created = True
                self._load(reader, entry, version_of(connection))
                loaded.append(entry["name"])
            elif kind == "sequence":
                wanted.append(((entry["schema"], entry["name"]), (int(entry["last_value"]), bool(entry["is_called"]))))
        if tuple(loaded) != SECTIONS:
            raise DamageError(f"the snapshot holds the sections {loaded} and not {list(SECTIONS)}", self.context.source, "choose another point")
        with self.context.progress.meter.during("replay"):
            self._finish(wanted)
        return warnings

    def _create(self, connection: Any, properties: dict[str, Any]) -> None:
        client = self.client
        self.context.progress.say(f"creating {self.staged}")
        create = catalog.create_sql(self.staged, properties, version_of(connection))
        try:
            client.rows(connection, create)
        except SourceError:
            # the server may have carried out what a killed call had asked for after we looked
            if self.staged not in catalog.databases(client, connection, [self.staged]):
                raise
            drop_database(client, connection, self.staged)
            client.rows(connection, create)
        for statement in catalog.property_sql(self.staged, properties):
            client.rows(connection, statement)

    def _load(self, reader: Reader, entry: Entry, server: int) -> None:
        client, progress = self.client, self.context.progress
        progress.say(f"loading {entry['name']} into {self.staged}")
        progress.expect(int(entry["size"]))
        program = client.tool("psql", server)
        argv = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "--no-password"]
        pieces = psql_text(reader.stream(list(entry["extents"])), knows_restrict(tool_version(program)))

        def seen(size: int) -> None:
            progress.meter.add(written=size)
            progress.add(size)

        with progress.meter.during("write"):
            feed(argv, client.environment(self.staged, LOADING), f"{client.place}, database {self.staged}", self.timeout, progress.meter.waiting(pieces), seen)

    def _finish(self, sequences: list[tuple[tuple[str, str], tuple[int, bool]]]) -> None:
        client = self.client
        inside = client.connect(self.staged)
        try:
            # Sequences do not obey snapshots: the dump may hold later values than the digest.
            for start in range(0, len(sequences), 200):
                for name, (last, called) in sequences[start:start + 200]:
                    qualified = ".".join(quote(part) for part in name)
                    client.rows(inside, "SELECT pg_catalog.setval(%s::pg_catalog.regclass, %s, %s)", (qualified, last, called))
            self.context.progress.say(f"analyzing {self.staged}")
            client.rows(inside, "ANALYZE")
        finally:
            inside.close()

    def _settings(self, wanted: list[list[str]]) -> list[str]:
        differences, waiting = roles.apply_cluster_settings(self.client, wanted)
        if waiting:
            differences.append(f"cluster settings that wait for a restart of the server: {', '.join(waiting)}")
        return differences

    def _json(self, reader: Reader, entry: Entry) -> dict[str, Any]:
        if int(entry["size"]) > _JSON_LIMIT:
            raise DamageError(f"the {entry['type']} are larger than {_JSON_LIMIT >> 20} MiB", self.context.source, "choose another point")
        data = b"".join(reader.stream(list(entry["extents"])))
        try:
            return roles.decode(data)
        except ValueError as error:
            raise DamageError(f"the {entry['type']} cannot be decoded", self.context.source, "choose another point") from error
