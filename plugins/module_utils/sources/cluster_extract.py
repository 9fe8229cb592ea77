# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One database or a few tables out of a snapshot of a cluster, moved into the live cluster under a new name.

The cluster is staged and checked as in a restore, and served privately; the part that is wanted is streamed from there into the
live server, held against the private copy item by item, and only then given its name. The staged copy is removed in any case.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from .. import faults, room
from ..errors import CheckError, ConfigError, LifeboatError, SourceError, StorageError
from . import cluster_extract_content as content
from . import cluster_extract_names as names
from . import cluster_places as places
from . import postgresql_catalog as catalog
from .cluster_content import Content, compare
from .cluster_extract_copy import Live, comment, dump, settle_roles
from .cluster_extract_tables import Isolation
from .cluster_private import STALLED, PrivateCluster, end_leftover, find_programs, private_settings
from .cluster_restore_preflight import Preflight, footprint, plan
from .contract import Context, Extraction, Finding, Reader, Source, Wanted
from .postgresql_client import Client, columns, quote, version_of
from .server import Server

#: What is loaded may take more room than it took at the target, by this factor: its log comes on top.
_GROWTH = 1.2
#: Triggers of events in the copied database have no business here.
_QUIET = {"session_replication_role": "replica"}


class ClusterExtraction(Extraction):
    """See the module's text. The record is that of a stage, and more names."""

    def __init__(self, source: Source, context: Context) -> None:
        self._source = source
        # a private directory of its own: what a restore remembers there is none of our business
        self._context = dataclasses.replace(context, config={**context.config, "in_place": False}, work_dir=os.path.join(context.work_dir, "extract"))
        self._where = f"{context.service}.{context.source}"
        self._client = Client({**context.config, "database": "template1"}, self._where)

    def plan(self, manifest: dict[str, Any], wanted: Wanted, stage_id: str) -> dict[str, Any]:
        kind = "schema" if wanted.tables else "database"
        picked = names.tables(wanted.tables)
        database = names.check("database", wanted.database)
        return {
            **plan(self._context, manifest, stage_id), "database": database, "tables": [list(table) for table in picked], "kind": kind,
            "name": names.new_name(kind, wanted.name or names.joined(database, wanted.suffix)), "working": f"lifeboat_{stage_id}",
        }

    def preflight(self, manifest: dict[str, Any], record: dict[str, Any]) -> list[Finding]:
        return _Look(self._context, self._client, manifest, record).run()

    def present(self, record: dict[str, Any]) -> str:
        if not Live(self._client, record).exists(str(record["name"])):
            return ""
        if record["kind"] == "database":
            return f"DROP DATABASE {quote(record['name'])}"
        return f"DROP SCHEMA {quote(record['name'])} CASCADE, in database {names.shown(record['database'])}"

    def published(self, record: dict[str, Any]) -> bool:
        return Live(self._client, record).published()

    def digest(self, record: dict[str, Any]) -> str:
        name = str(record["name"])
        database, schema = (name, None) if record["kind"] == "database" else (str(record["database"]), name)
        return self._value(self._measure(self._client, database, schema))

    def clean(self, record: dict[str, Any]) -> None:
        self._source.discard(self._context, record)
        shutil.rmtree(self._context.work_dir, ignore_errors=True)
        Live(self._client, record).drop()

    def extract(self, reader: Reader, record: dict[str, Any], note: Callable[..., None]) -> dict[str, Any]:
        self._context.progress.say("staging the cluster privately")
        os.makedirs(self._context.work_dir, 0o700, exist_ok=True)
        self._source.stage(self._context, reader, record)
        checked = self._source.verify_staged(self._context, reader, record)
        if not checked.equal:
            raise CheckError(f"the staged cluster is not what was captured ({'; '.join(checked.differences[:3])})", self._where,
                             "the live cluster is as it was; verify the snapshot and choose another point")
        note("staged", reached=record.get("reached"))
        faults.point("extract.staged")
        return self._moved(record, note)

    # -- with the private server

    def _moved(self, record: dict[str, Any], note: Callable[..., None]) -> dict[str, Any]:
        staged, owner = str(record["staged"]), places.Owner(*record["owner"])
        programs = find_programs(self._context.config.get("bin_dir"), int(record["major"]), self._where)
        user = str(self._context.config.get("user") or "postgres")
        end_leftover(staged, self._where)
        settings = private_settings(programs, staged, owner, self._where)
        with PrivateCluster(programs, staged, str(record["private"]), owner, user, settings, self._where) as private:
            private.wait_answer()
            return self._move(private.client, record, note)

    def _move(self, private: Client, record: dict[str, Any], note: Callable[..., None]) -> dict[str, Any]:
        live, database = Live(self._client, record), str(record["database"])
        roles = self._live_roles()
        schema = None if live.whole else live.working
        properties = self._open(private, database)
        connection = private.connect(database, _QUIET)
        try:
            left_out = self._end_prepared(private, connection)
            isolation = None if live.whole else self._isolate(private, connection, record)
            left_out += isolation.left_out if isolation else self._left_out(private, connection)
            missing, said = settle_roles(private, connection, schema, roles)
            left_out += said
            left_out = [names.shown(text) for text in left_out]
            self._check_extensions(private, connection, record, isolation)
            tablespaces = self._tablespaces(private, connection, schema, left_out)
            size = self._check_space(private, connection, record, schema)
        finally:
            connection.close()
        progress = self._context.progress
        progress.say(f"moving {database} into {live.working}")
        progress.expect(size)
        with ThreadPoolExecutor(1, thread_name_prefix="measure") as beside:
            expected = beside.submit(self._measure, private, database, schema)
            if live.whole:
                left_out += live.create(properties, roles)
            live.load(dump(private, database, schema, tablespaces, STALLED, lambda piece: None), STALLED, progress.add)
            wanted = expected.result()
        note("loaded")
        faults.point("extract.loaded")
        progress.say("comparing what was moved")
        found = self._measure(self._client, live.target, schema)
        if not live.whole:
            left_out.append(f"privileges on schema {live.name}: it is open to its owner {self._client.user} only; those of its tables were kept")
        result = {**self._compared(wanted, found, record, isolation), "left_out": left_out, "roles_missing": missing, "bytes": size,
                  "reached": record.get("reached")}
        live.analyze()
        note("verified", **result)
        faults.point("extract.verified")
        live.publish(int(properties["limit"]))
        faults.point("extract.published")
        return result

    def _live_roles(self) -> set[str]:
        connection = self._client.connect(self._client.maintenance())
        try:
            return set(columns(self._client.rows(connection, "SELECT rolname FROM pg_roles")))
        finally:
            connection.close()

    def _open(self, private: Client, database: str) -> dict[str, Any]:
        """The properties of the database at the target; it takes connections from here on."""
        connection = private.connect(private.database)
        try:
            known = columns(private.rows(connection, "SELECT datname FROM pg_database WHERE datname !~ '^template[01]$' ORDER BY 1"))
            if database not in known:
                raise ConfigError(f"there was no database {database!r} at the target", self._where,
                                  names.shown(f"nothing was changed; there were {', '.join(known)}"))
            private.rows(connection, f"ALTER DATABASE {quote(database)} ALLOW_CONNECTIONS true")
            return catalog.properties(private, connection, database)
        finally:
            connection.close()

    @staticmethod
    def _end_prepared(private: Client, connection: Any) -> list[str]:
        """Transactions that were prepared and not committed at the target hold locks; what they wrote is not part of the copy."""
        found = columns(private.rows(connection, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1"))
        for gid in found:
            private.rows(connection, f"ROLLBACK PREPARED {catalog.literal(gid)}")
        return [f"prepared transaction {gid}: it was not committed at the target" for gid in found]

    def _isolate(self, private: Client, connection: Any, record: dict[str, Any]) -> Isolation:
        picked = [(str(schema), str(name)) for schema, name in record["tables"]]
        isolation = Isolation(private, connection, str(record["database"]), picked, str(record["working"]))
        isolation.run()
        private.rows(connection, f"COMMENT ON SCHEMA {quote(str(record['working']))} IS {catalog.literal(comment(str(record['stage_id'])))}")
        return isolation

    def _left_out(self, private: Client, connection: Any) -> list[str]:
        """What the copy of a whole database does not have."""
        found = []
        for kind, query, why in (
            ("publication", "SELECT pubname FROM pg_publication ORDER BY 1", "the copy publishes nothing"),
            ("subscription", "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database() ORDER BY 1",
             "two subscribers on one slot would take each other's changes"),
            ("security labels", "SELECT count(*) || ' of them' FROM pg_seclabel HAVING count(*) > 0", "they need their provider"),
            ("rows of unlogged table", "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u' ORDER BY 1",
             "no physical snapshot holds them"),
            ("rows of foreign table", "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'f' ORDER BY 1", "they lie on another server"),
        ):
            found += [f"{kind} {name}: {why}" for name in columns(private.rows(connection, query))]
        return found

    def _check_extensions(self, private: Client, connection: Any, record: dict[str, Any], isolation: Isolation | None) -> None:
        """A whole database brings its extensions, as far as their files are there; tables use those that the live database has."""
        client = self._client
        inside = client.connect(client.maintenance() if isolation is None else str(record["database"]))
        try:
            if isolation is None:
                wanted = columns(private.rows(connection, "SELECT extname FROM pg_extension"))
                have = set(columns(client.rows(inside, "SELECT name FROM pg_available_extensions")))
                lacking = sorted(set(wanted) - have)
                if lacking:
                    raise SourceError(f"extensions are not available on the live server: {', '.join(lacking)}", client.place,
                                      "install the packages that hold them; nothing was changed")
                return
            homes = dict(client.rows(inside, "SELECT e.extname, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"))
            for name, home in sorted(isolation.extensions.items()):
                if homes.get(name) != home:
                    raise SourceError(
                        f"the tables need extension {name} in schema {home}" + (f", it is in {homes[name]}" if name in homes else ""),
                        f"{client.place}, database {record['database']}", f"CREATE EXTENSION {quote(name)} SCHEMA {quote(home)} there; nothing was changed")
        finally:
            inside.close()

    def _tablespaces(self, private: Client, connection: Any, schema: str | None, left_out: list[str]) -> bool:
        """Whether all tablespaces that are used exist in the live cluster; without one of them the copy lies in the default one."""
        wanted = columns(private.rows(connection, """
            SELECT DISTINCT t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE t.spcname <> 'pg_global' AND (%(schema)s IS NULL OR n.nspname = %(schema)s) ORDER BY 1""", {"schema": schema}))
        inside = self._client.connect(self._client.maintenance())
        try:
            missing = sorted(set(wanted) - set(columns(self._client.rows(inside, "SELECT spcname FROM pg_tablespace"))))
        finally:
            inside.close()
        if missing:
            left_out.append(f"places in tablespaces {', '.join(wanted)}: {', '.join(missing)} is missing, all lies in the default one")
        return not missing

    def _check_space(self, private: Client, connection: Any, record: dict[str, Any], schema: str | None) -> int:
        """Bytes that are moved; StorageError when the live cluster has no room for them."""
        query = "SELECT pg_database_size(current_database())" if schema is None else """
            SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'S')"""
        size = int(private.rows(connection, query, {"schema": schema})[0][0])
        if self._client.local and os.path.isdir(str(record["live"])):
            status = os.statvfs(str(record["live"]))
            free, need = status.f_bavail * status.f_frsize, int(size * _GROWTH)
            if free < need:
                raise StorageError(f"the extracted {'database' if schema is None else 'tables'} need about {need >> 20} MiB and {free >> 20} MiB are free",
                                   str(record["live"]), "free space or enlarge the file system; the live cluster is as it was", "no_space")
        return size

    # -- content

    def _measure(self, client: Client, database: str, schema: str | None) -> Content:
        return content.measure(client, database, schema, self._context.digest_key, self._context.workers, lambda count: None)

    def _value(self, found: Content) -> str:
        return content.digest(found, self._context.digest_key)

    def _compared(self, wanted: Content, found: Content, record: dict[str, Any], isolation: Isolation | None) -> dict[str, Any]:
        """The counts, when both sides are equal; CheckError when they are not."""
        comparison = compare(wanted, found)
        items = {name for name in wanted if name.startswith("table ")}
        same = {name for name in items if found.get(name) == wanted[name]}
        if isolation is None:
            tables = [{"table": names.shown(name[6:]), "rows": wanted[name][0]} for name in sorted(items)]
            extracted = len(same)
        else:
            rows_of = {name[6:]: int(wanted[name][0]) for name in items}
            connection = self._client.connect(str(record["database"]))
            try:
                there = set(columns(self._client.rows(connection, """
                    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = %s AND c.relkind IN ('r', 'p')""", (str(record["working"]),))))
            finally:
                connection.close()
            tables, extracted = [], 0
            for (label, parts), (_schema, name) in zip(isolation.moved, record["tables"]):
                mine = [part for part in parts if part in rows_of]
                tables.append({"table": label, "rows": sum(rows_of[part] for part in mine)})
                extracted += name in there and all(f"table {part}" in same for part in mine)
        if not comparison.equal or extracted != len(tables):
            raise CheckError(
                f"what was moved is not what the snapshot holds: {extracted} of {len(tables)} tables are equal ({'; '.join(comparison.differences[:3])})",
                self._client.place, "it was removed again; run the same command again, and look into the server's log when it comes back",
            )
        return {
            "digest": self._value(wanted), "tables": tables, "rows": sum(int(wanted[name][0]) for name in items), "extracted": extracted, "of": len(tables),
            "sequences": sum(name.startswith("sequence ") for name in wanted), "large_objects": int(wanted.get("large objects", [0])[0]),
        }


class _Look(Preflight):
    """As before a restore, but nothing is stopped or swapped, and the live server must run."""

    def __init__(self, context: Context, client: Client, manifest: dict[str, Any], record: dict[str, Any]) -> None:
        super().__init__(context, client, Server({}, client.where, f"postgresql:{client.port}"), manifest)
        self._wanted = record
        self._footprint = footprint(context, manifest)

    def run(self) -> list[Finding]:
        for check in (self._programs, self._beside, self._rights, self._spaces, self._log_directory, self._space, self._target, self._running):
            try:
                check()
            except LifeboatError as error:
                self._all.append(Finding("error", error))
        return self._all

    def _space(self) -> None:
        found = [measured for need in self._footprint.needs if (measured := room.measured(dataclasses.replace(need, hint=""))) is not None]
        self._all += [Finding("error", error, "space") for total in room.added_up(found).values() for error in room.lacking(total)]

    def _beside(self) -> None:
        parent = os.path.dirname(self._live)
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
            self._error("permission", "no place to stage the cluster privately", parent,
                        "run as root or as an owner of that directory, or correct data_directory")

    def _running(self) -> None:
        client, captured = self._client, int(self._record["major"])
        connection = client.connect(client.maintenance())
        try:
            version = version_of(connection) // 10000
            if version < captured:
                self._error("version", f"the live server is PostgreSQL {version}, the snapshot of {captured}", client.place,
                            "extract into that version or a newer one")
            if client.rows(connection, "SHOW is_superuser")[0][0] != "on":
                self._error("store", f"user {client.user!r} is no superuser", client.place, "set user to a superuser of the cluster")
            if client.rows(connection, "SELECT pg_is_in_recovery()")[0][0]:
                self._error("store", "the live server is a standby: it takes no writes", client.place, "extract on the primary")
            client.tool("psql", version * 10000)
            database = str(self._wanted["database"])
            found = catalog.databases(client, connection, [database]).get(database)
        finally:
            connection.close()
        if found is None and self._wanted["kind"] == "schema":
            self._error("store", f"there is no live database {database!r} for the tables", client.place, "extract the whole database, or create it first")
        elif self._wanted["kind"] == "schema":
            self._published(database)
        elif found is not None:
            self._room(database, int(found["bytes"]))

    def _published(self, database: str) -> None:
        """New tables would be sent to subscribers that do not have them, and stop them."""
        connection = self._client.connect(database)
        try:
            found = columns(self._client.rows(connection, "SELECT pubname FROM pg_publication WHERE puballtables ORDER BY 1"))
        finally:
            connection.close()
        if found:
            self._error("store", f"the live database publishes all its tables ({', '.join(found)}), new ones too", f"{self._client.place}, database {database}",
                        "extract the whole database: its copy publishes nothing")

    def _room(self, database: str, size: int) -> None:
        """What is there now tells about how much will come; what comes is measured before it is moved."""
        if self._wanted["kind"] == "database" and self._client.local and os.path.isdir(self._live):
            status = os.statvfs(self._live)
            staged = int(self._facts.get("bytes", 0)) if os.stat(self._live).st_dev == os.stat(os.path.dirname(self._live)).st_dev else 0
            free, need = status.f_bavail * status.f_frsize, staged + int(size * _GROWTH)
            if free < need:
                self._all.append(Finding("error", StorageError(
                    f"staging the cluster and a second copy of database {database} need about {need >> 20} MiB and {free >> 20} MiB are free", self._live,
                    "free space or enlarge the file system", "no_space",
                )))
