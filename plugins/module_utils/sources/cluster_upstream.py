# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The primary as a standby sees it: over the replication protocol, by the very way on which the standby will stream."""

from __future__ import annotations

import select
import time
from typing import Any, Mapping

from ..errors import LifeboatError, SourceError
from ..libraries import need
from .cluster_lsn import Piece, parse_position, position_text, way

#: Seconds in which a primary has sent something of a log that it has.
_FIRST_BYTE = 60.0


class Upstream:
    """One replication connection. parameters: libpq's, no password. Raises SourceError from everything."""

    def __init__(self, parameters: Mapping[str, str], where: str) -> None:
        self.place = f"{where}, primary at {parameters.get('hostaddr') or parameters.get('host')}:{parameters.get('port')}"
        self._parameters = {"connect_timeout": "10", **parameters}

    def _connect(self) -> Any:
        psycopg2 = need("psycopg2")
        from psycopg2.extras import PhysicalReplicationConnection

        try:
            return psycopg2.connect(connection_factory=PhysicalReplicationConnection, **self._parameters)
        except psycopg2.OperationalError as error:
            line = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise SourceError(f"the standby cannot reach its primary ({line[:250]})", self.place,
                              "correct conninfo and its passfile, and let the user replicate from this host (pg_hba.conf, REPLICATION)") from None

    def _ask(self, command: str) -> tuple[Any, ...]:
        psycopg2 = need("psycopg2")
        connection = self._connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(command)
                return tuple(cursor.fetchone() or ())
        except psycopg2.Error as error:
            raise _Refused(getattr(error, "pgcode", "") or "", str(error).strip().split("\n", maxsplit=1)[0], self.place) from None
        finally:
            connection.close()

    def identify(self) -> dict[str, Any]:
        """{"system_identifier", "timeline", "position": flushed up to}."""
        system, timeline, position, _database = self._ask("IDENTIFY_SYSTEM")
        return {"system_identifier": str(system), "timeline": int(timeline), "position": str(position)}

    def history(self, timeline: int) -> bytes:
        """The history file of a timeline; b"" for the first one, which has none."""
        if timeline == 1:
            return b""
        content = self._ask(f"TIMELINE_HISTORY {timeline:d}")[1]
        return content.encode() if isinstance(content, str) else bytes(content)

    def way(self, timeline: int, history: bytes) -> list[Piece]:
        """The pieces of log that led to where it is."""
        try:
            return way(timeline, {timeline: history})
        except ValueError as error:
            raise SourceError(f"the history of timeline {timeline} cannot be read ({error})", self.place, "see the primary's pg_wal") from None

    def setting(self, name: str) -> str:
        """One of its settings."""
        return str(self._ask(f"SHOW {name}")[0])

    def make_slot(self, slot: str) -> bool:
        """Have it keep its log from now on for this slot. False when it has the slot already."""
        try:
            self._ask(f'CREATE_REPLICATION_SLOT "{slot}" PHYSICAL RESERVE_WAL')
        except _Refused as error:
            if error.state == "42710":
                return False
            raise
        return True

    def still_has(self, position: int, timeline: int) -> str:
        """Why it cannot send its log from a position on; "" when it does."""
        psycopg2 = need("psycopg2")
        connection = self._connect()
        try:
            with connection.cursor() as cursor:
                cursor.start_replication(start_lsn=position_text(position), timeline=timeline)
                deadline = time.monotonic() + _FIRST_BYTE
                while time.monotonic() < deadline:
                    message = cursor.read_message()
                    if message is not None:
                        return ""
                    select.select([connection], [], [], 1.0)
            return f"it sent nothing from {position_text(position)} on within {_FIRST_BYTE:.0f} s"
        except psycopg2.Error as error:
            return str(error).strip().split("\n", maxsplit=1)[0][:250]
        finally:
            connection.close()

    def behind(self, position: int) -> bool:
        """It has more log than up to a position."""
        return parse_position(str(self.identify()["position"])) > position


class _Refused(SourceError):
    """The primary refused a command of the replication protocol. state: its SQLSTATE."""

    def __init__(self, state: str, text: str, where: str) -> None:
        LifeboatError.__init__(self, f"the primary refused a command of the replication protocol ({text[:250]})", where, "see the primary's log")
        self.state = state
