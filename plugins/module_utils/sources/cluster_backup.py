# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A backup in the server's eyes: begun, kept alive and ended in one session through the low-level backup API.

The server forgets the backup when the session ends, so a capture that is killed leaves nothing behind. A temporary slot of the
same session keeps the log from the backup's start until the capture has copied it.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from typing import Any

from ..errors import LifeboatError, SourceError
from ..libraries import need
from .cluster_lsn import parse_position, position_text, segment_name
from .postgresql_client import Client, version_of

#: Parameters that a server which replays this snapshot must not have smaller, and those that tell what it can do.
PARAMETERS = (
    "max_connections", "max_worker_processes", "max_wal_senders", "max_replication_slots", "max_prepared_transactions",
    "max_locks_per_transaction", "wal_level", "shared_preload_libraries", "huge_pages", "wal_segment_size", "port", "unix_socket_directories",
    "config_file", "hba_file", "ident_file", "data_directory",
)
#: Seconds between two signs of life on a session that has nothing to do.
_ALIVE = 15.0
#: Seconds one statement may take; the longest waits for a checkpoint.
_STATEMENT = 3600


def segments_between(timeline: int, start: int, stop: int, size: int) -> list[str]:
    """The names of the segments that hold the log from ``start`` up to ``stop``, which is its first byte not needed."""
    return [segment_name(timeline, number, size) for number in range(start // size, max(start, stop - 1) // size + 1)]


@dataclass
class Control:
    """What pg_control says: identifier, version of the file's layout, catalog version; content: the whole file."""

    system_identifier: str
    version: int
    catalog: int
    content: bytes


def read_control(data: str) -> Control:
    """global/pg_control of a data directory, read until it is no torn read. Raises SourceError."""
    path = f"{data}/global/pg_control"
    for attempt in range(20):
        try:
            with open(path, "rb") as handle:
                content = handle.read(1 << 16)
        except OSError as error:
            raise SourceError(f"cannot read the cluster's control file ({error.strerror})", path,
                              "correct data_directory, or run as the server's user or as root") from error
        if len(content) >= 512 and _control_sum(content):
            identifier, version, catalog = struct.unpack_from("=QII", content)
            return Control(str(identifier), version, catalog, content)
        time.sleep(0.01 * attempt)
    raise SourceError("the cluster's control file is damaged", path, "the server cannot start from it: restore the cluster")


def _control_sum(content: bytes) -> bool:
    """The file holds its own CRC-32C right behind its last field, which stands elsewhere in each version."""
    register = 0xFFFFFFFF
    for at in range(512 - 4):
        if at >= 128 and at % 4 == 0 and struct.unpack_from("=I", content, at)[0] == register ^ 0xFFFFFFFF:
            return True
        register = _CRC[(register ^ content[at]) & 0xFF] ^ (register >> 8)
    return False


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _bit in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


@dataclass
class About:
    """The server at the beginning of a backup. timeline: of its last checkpoint; port, started (Unix seconds): of the postmaster."""

    version: int
    system_identifier: str
    timeline: int
    standby: bool
    checksums: bool
    block_size: int
    relation_segment: int
    wal_segment: int
    wal_level: str
    port: int
    started: float
    superuser: bool
    replication: bool
    may_start: bool
    slots_free: int
    parameters: dict[str, str]
    tablespaces: list[dict[str, Any]]
    bytes: int


def client_of(config: dict[str, Any], where: str) -> Client:
    """The way to the cluster of a source's catalog entry."""
    return Client({**config, "database": "postgres"}, where)


class Backup:
    """One session. connect() -> about() -> start() -> alive()... -> stop() -> close()."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._connection: Any = None
        self._seen = 0.0
        self.version = 0
        self._slot = ""

    def connect(self) -> None:
        """Open the session. Raises SourceError; ServerDown when nothing answers."""
        try:
            self._connection = self._client.connect("postgres")
        except SourceError as error:
            if "does not exist" not in str(error):
                raise
            self._connection = self._client.connect("template1")
        self.version = version_of(self._connection)
        self._rows(f"SET statement_timeout = '{_STATEMENT}s'")
        if self.version >= 140000:
            self._rows("SET idle_session_timeout = 0")

    def close(self) -> None:
        """End the session; a backup that was not stopped is forgotten by the server."""
        if self._connection is not None:
            try:
                self._connection.close()
            except need("psycopg2").Error:
                pass  # it is gone already
            self._connection = None

    def _rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        self._seen = time.monotonic()
        try:
            return self._client.rows(self._connection, statement, parameters)
        except SourceError as error:
            if self._connection.closed:
                raise SourceError(f"the server ended the session ({error.what})", error.where,
                                  "see the server's log (it stopped, or max_slot_wal_keep_size is too small), then run the same command again") from None
            raise

    def alive(self) -> None:
        """A sign of life now and then, so that neither side nor a firewall between them gives the session up; cheap to call often."""
        if time.monotonic() - self._seen > _ALIVE:
            self._rows("SELECT 1")

    def about(self, sizes: bool = False) -> About:
        """Ask the server about itself; how large everything is (otherwise 0) takes it a while, since it looks at every file."""
        start = "pg_backup_start(text, boolean)" if self.version >= 150000 else "pg_start_backup(text, boolean, boolean)"
        (row,) = self._rows(
            """
            SELECT (SELECT system_identifier::text FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()), pg_is_in_recovery(),
              current_setting('data_checksums') = 'on', current_setting('block_size')::int,
              (SELECT setting::bigint FROM pg_settings WHERE name = 'segment_size') * current_setting('block_size')::int,
              (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'), current_setting('wal_level'), current_setting('port')::int,
              extract(epoch FROM pg_postmaster_start_time())::float8,
              rolsuper, rolreplication, has_function_privilege(%s, 'EXECUTE'),
              current_setting('max_replication_slots')::int - (SELECT count(*)::int FROM pg_replication_slots)
            FROM pg_roles WHERE rolname = current_user""", (start,))
        values = dict(self._rows("SELECT name, coalesce(setting, '') FROM pg_settings WHERE name = ANY (%s)", (list(PARAMETERS),)))
        spaces = [
            {"oid": int(oid), "name": name, "path": path, "bytes": int(size or 0)}
            for oid, name, path, size in self._rows(
                """SELECT oid, spcname, pg_tablespace_location(oid), CASE WHEN %s AND has_tablespace_privilege(oid, 'CREATE') THEN pg_tablespace_size(oid) END
                   FROM pg_tablespace ORDER BY oid""", (sizes,))
        ]
        size = sum(int(str(space["bytes"])) for space in spaces)
        return About(*(self.version, *row, values, [space for space in spaces if space["name"] not in ("pg_default", "pg_global")], size))

    def now(self) -> str:
        """The server's clock, ISO UTC."""
        return str(self._rows("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")[0][0])

    def start(self, label: str, slot: str) -> int:
        """Keep the log from here, force a checkpoint and begin the backup; the position at which its log begins."""
        self._slot = slot
        try:
            self._rows("SELECT pg_create_physical_replication_slot(%s, true, true)", (slot,))
        except SourceError as error:
            raise SourceError(f"the server made no temporary replication slot ({error.what})", error.where,
                              "raise max_replication_slots (restart needed) and let the user have REPLICATION") from error
        statement = "SELECT pg_backup_start(%s, true)::text" if self.version >= 150000 else "SELECT pg_start_backup(%s, true, false)::text"
        return parse_position(str(self._rows(statement, (label,))[0][0]))

    def stop(self) -> tuple[int, str, str]:
        """End the backup: (first position behind the log it needs, content of backup_label, content of tablespace_map or "")."""
        statement = "pg_backup_stop(false)" if self.version >= 150000 else "pg_stop_backup(false, false)"
        position, label, spaces = self._rows(f"SELECT lsn::text, labelfile, spcmapfile FROM {statement}")[0]
        return parse_position(str(position)), str(label), str(spaces or "").strip("\n") + "\n" if str(spaces or "").strip() else ""

    def flushed(self) -> int:
        """The position up to which the server's log is in its files."""
        position = self._rows("SELECT (CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
                              " ELSE pg_current_wal_flush_lsn() END)::text")[0][0]
        return parse_position(str(position)) if position else 0

    def let_go(self, position: int) -> None:
        """The log before a position is copied: the server may remove it."""
        self._rows("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", (self._slot, position_text(position)))

    def standby_timeline(self) -> int:
        """The timeline up to which a standby has replayed."""
        return int(self._rows("SELECT min_recovery_end_timeline FROM pg_control_recovery()")[0][0])

    def relation(self, path: str, filenode: int) -> str:
        """The name of the relation behind a path like base/5/16384, or "" when the server does not tell."""
        parts = path.split("/")
        try:
            if parts[0] == "global":
                rows = self._rows("SELECT pg_filenode_relation(1664, %s)::regclass::text", (filenode,))
                return str(rows[0][0] or "")
            database, space = (int(parts[1]), 0) if parts[0] == "base" else (int(parts[3]), int(parts[1]))
            names = self._rows("SELECT datname FROM pg_database WHERE oid = %s AND datallowconn", (database,))
            if not names:
                return ""
            connection = self._client.connect(str(names[0][0]))
            try:
                rows = self._client.rows(connection, "SELECT pg_filenode_relation(%s, %s)::regclass::text", (space, filenode))
            finally:
                connection.close()
            return f"{names[0][0]}.{rows[0][0]}" if rows[0][0] else ""
        except LifeboatError:
            return ""  # the path and the block number name the place all the same


def postmaster(data: str) -> tuple[int, float, int]:
    """(pid, start in Unix seconds, port) of the server that runs on a data directory; (0, 0, 0) when none does."""
    try:
        with open(os.path.join(data, "postmaster.pid"), encoding="utf-8", errors="replace") as handle:
            lines = handle.read().split("\n")
        return abs(int(lines[0])), float(lines[2]), int(lines[3])
    except (FileNotFoundError, ValueError, IndexError):
        return 0, 0.0, 0
    except OSError as error:
        raise SourceError(f"cannot read the data directory ({error.strerror})", data, "run as the server's user or as root") from error
