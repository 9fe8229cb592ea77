# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What the shipper asks of the server: who it is, how far its log is, and the state of the slot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..errors import SourceError
from ..libraries import need
from ..sources.postgresql_client import Client
from . import wal

#: Seconds a question may take.
_PATIENCE = "10s"


@dataclass
class Identity:
    """system: identifier in decimal. position: how far the log is flushed (a standby: received). segment_size: bytes. version: 150004."""

    system: str
    timeline: int
    position: int
    segment_size: int
    version: int


@dataclass
class Sample:
    """One look at the server. asked: monotonic seconds before the question. written: what our receiver reported, None if it is not there.

    slot: {"exists", "active", "wal_status", "restart", "safe_bytes"}; sync: our receiver counts as a synchronous standby.
    """

    asked: float
    time_ns: int
    timeline: int | None
    position: int
    standby: bool
    slot: dict[str, Any]
    written: int | None
    sync: bool


class LogServer:
    """Not thread-safe: one per thread."""

    def __init__(self, client: Client, slot: str) -> None:
        self.client = client
        self.slot = slot
        self._connection: Any = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        try:
            if self._connection is None:
                self._connection = self.client.connect(self.client.database, {"statement_timeout": _PATIENCE})
            return self.client.rows(self._connection, statement, parameters)
        except SourceError:
            self.close()
            raise

    def _replication(self, command: str) -> list[tuple[Any, ...]]:
        """One command over a replication connection: it needs no more than the receiver itself does."""
        psycopg2 = need("psycopg2")
        extras = need("psycopg2.extras")
        try:
            way = {**self.client.way(self.client.database), "application_name": self.slot}
            connection = psycopg2.connect(**way, password=self.client.password(), connection_factory=extras.PhysicalReplicationConnection)
        except psycopg2.Error as error:
            line = str(error).strip().rsplit("\n", maxsplit=1)[-1][:200]
            raise self.client.tls_error(str(error)) or SourceError(
                f"the server takes no replication connection ({line})", self.client.place,
                "allow it in pg_hba.conf (database: replication) and give the user the REPLICATION attribute") from None
        try:
            with connection.cursor() as cursor:
                cursor.execute(command)
                return list(cursor.fetchall()) if cursor.description else []
        except psycopg2.Error as error:
            raise self.client.error(error) from None
        finally:
            connection.close()

    def identify(self) -> Identity:
        """Who the server is; the question goes the way the receiver will take."""
        system, timeline, position, _database = self._replication("IDENTIFY_SYSTEM")[0]
        ((size,),) = self._rows("SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'")
        return Identity(str(system), int(timeline), wal.parse(str(position)), int(size), int(self._connection.server_version))

    def history(self, timeline: int) -> bytes:
        """The content of a timeline's history file."""
        ((_name, content),) = self._replication(f"TIMELINE_HISTORY {int(timeline)}")
        return bytes(content) if not isinstance(content, str) else content.encode()

    def sample(self) -> Sample:
        """How far log, slot and receiver are."""
        asked, now = time.monotonic(), time.time_ns()
        rows = self._rows(
            "SELECT CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
            " ELSE pg_current_wal_flush_lsn() END::text, pg_is_in_recovery(),"
            " CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_flush_lsn()) END,"
            " s.slot_name IS NOT NULL, s.active, s.wal_status, s.restart_lsn::text, s.safe_wal_size, r.write_lsn::text, r.sync_state"
            " FROM (SELECT) AS one LEFT JOIN pg_replication_slots AS s ON s.slot_name = %s AND s.slot_type = 'physical'"
            " LEFT JOIN pg_stat_replication AS r ON r.pid = s.active_pid", (self.slot,))
        position, standby, name, exists, active, status, restart, safe, written, sync = rows[0]
        slot = {"name": self.slot, "exists": bool(exists), "active": bool(active), "wal_status": status, "restart": restart, "safe_bytes": safe}
        return Sample(asked, now, int(name[:8], 16) if name else None, wal.parse(position), bool(standby), slot,
                      wal.parse(written) if written else None, sync in ("sync", "quorum"))

    def session(self) -> int:
        """The process of the server that answers this connection."""
        ((pid,),) = self._rows("SELECT pg_backend_pid()")
        return int(pid)

    def advance_slot(self, position: int) -> None:
        """Let the server forget what lies before a position; nobody may receive through the slot meanwhile."""
        self._rows("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", (self.slot, wal.text(position)))

    def make_slot(self) -> None:
        """Make the slot so that it keeps the log from now on."""
        self._rows("SELECT pg_create_physical_replication_slot(%s, true)", (self.slot,))

    def drop_slot(self) -> None:
        self._rows("SELECT pg_drop_replication_slot(%s)", (self.slot,))

    def has_segment(self, start: int, size: int) -> bool | None:
        """The server still has the segment that begins at a position, on any timeline; None when it does not let us look."""
        number = wal.segment_name(0, start, size)[8:]
        try:
            rows = self._rows("SELECT count(*) FILTER (WHERE substr(name, 9) = %s) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'", (number,))
        except SourceError:
            return None
        return bool(rows[0][0])
