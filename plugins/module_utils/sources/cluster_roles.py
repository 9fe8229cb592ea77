# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What one server of a replicated cluster is right now, asked on its own host; and whether it really follows its primary."""

from __future__ import annotations

import time
from typing import Any, Callable

from ..errors import SourceError
from .cluster_backup import read_control
from .cluster_lsn import parse_position
from .cluster_places import holds_cluster, postmaster
from .postgresql_client import Client, ServerDown

#: Seconds without any progress after which a standby is given up.
STALLED = 300.0
_ABOUT = """
SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system()),
  CASE WHEN pg_is_in_recovery() THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)::text,
  (SELECT status FROM pg_stat_wal_receiver), (SELECT slot_name FROM pg_stat_wal_receiver),
  CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END
"""
_SENDERS = """
SELECT s.slot_name, r.state, r.replay_lsn::text, r.application_name, s.wal_status
FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_type = 'physical' AND NOT s.temporary ORDER BY 1
"""


def ask(config: dict[str, Any], where: str) -> dict[str, Any]:
    """{"role": primary|standby|down, "system_identifier", "timeline", "position", "receiving": state of its stream or None, "slot", "standbys": [...]}.

    standbys: of a server that others stream from by a slot, {"slot", "state" (None: nobody streams), "replay", "name", "log": of the slot}.
    Raises SourceError when something answers that cannot be asked.
    """
    client = Client({**config, "database": "postgres"}, where)
    try:
        connection = client.connect("postgres")
    except ServerDown:
        if client.listening():
            raise
        return _down(str(config["data_directory"]))
    try:
        ((standby, system, timeline, position, receiving, slot, paused),) = client.rows(connection, _ABOUT)
        senders = client.rows(connection, _SENDERS)
    finally:
        connection.close()
    return {
        "role": "standby" if standby else "primary", "system_identifier": system, "timeline": int(timeline or 0), "position": position,
        "receiving": receiving, "slot": slot, "paused": paused,
        "standbys": [{"slot": name, "state": state, "replay": replay, "name": application, "log": log} for name, state, replay, application, log in senders],
    }


def _down(data: str) -> dict[str, Any]:
    try:
        system = read_control(data).system_identifier if holds_cluster(data) else None
    except SourceError:
        system = None
    return {"role": "down", "system_identifier": system, "timeline": None, "position": None, "receiving": None, "slot": None, "paused": False, "standbys": [],
            "starting": postmaster(data) is not None}


def follows(found: dict[str, Any], primary: dict[str, Any]) -> str:
    """Why a server (as ask) is no streaming standby of a primary {"system_identifier", "timeline"}; "" when it is one."""
    if found["role"] != "standby":
        return f"it is {'down' if found['role'] == 'down' else 'a primary of its own'}"
    if found["system_identifier"] != primary["system_identifier"]:
        return f"it is of another cluster ({found['system_identifier']}, the primary is {primary['system_identifier']})"
    if found["receiving"] != "streaming":
        return f"it does not stream (its receiver is {found['receiving'] or 'not running'})"
    if found["paused"]:
        return "its replay is paused"
    if found["timeline"] != primary["timeline"]:
        return f"it is on timeline {found['timeline']}, the primary on {primary['timeline']}"
    return ""


def prove(config: dict[str, Any], where: str, primary: Callable[[], dict[str, Any]], slot: str = "", stalled: float = STALLED) -> dict[str, Any]:
    """Wait until a standby streams and has replayed what the primary has now; {"timeline", "position", "replayed", "slot", "system_identifier"}.

    primary: what it is now, {"system_identifier", "timeline", "position"}. slot: by which it must stream, "" for any. It waits as long as
    anything moves. Raises SourceError.
    """
    goal = primary()
    seen, since, pause = "", time.monotonic(), 0.02
    while True:
        try:
            found = ask(config, where)
        except ServerDown:
            found = _down(str(config["data_directory"]))
        lacks = follows(found, goal)
        if not lacks and slot and found["slot"] != slot:
            lacks = f"it streams by slot {found['slot']} and not by {slot}"
        if not lacks and parse_position(str(found["position"] or "0/0")) >= parse_position(str(goal["position"])):
            return {"timeline": found["timeline"], "position": goal["position"], "replayed": found["position"], "slot": found["slot"],
                    "system_identifier": found["system_identifier"]}
        if found["paused"]:
            raise SourceError(f"the standby has paused its replay at {found['position']}", where, "its server's log says why: often max_connections, "
                              "max_wal_senders, max_worker_processes, max_prepared_transactions or max_locks_per_transaction is smaller than on the primary")
        moved = f"{found['position']} {lacks}"
        if moved != seen:
            seen, since = moved, time.monotonic()
        elif time.monotonic() - since > stalled:
            behind = lacks or f"it has replayed up to {found['position']}, and the primary was at {goal['position']}"
            raise SourceError(f"the standby does not follow its primary: {behind}", where, "see the standby's server log, then run the same command again")
        if lacks and found["timeline"] not in (None, goal["timeline"]):
            goal = {**primary(), "position": goal["position"]}  # the primary may have changed its timeline meanwhile
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)
