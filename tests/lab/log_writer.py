# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that notes what it was told is committed, and the comparison of its notes with the repository."""

from __future__ import annotations

import os
import pathlib
import threading

import psycopg2

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal

from .log_lab import LogLab, WalPostgres


class Writer:
    """A client that notes the transactions whose commit it was told of: (transaction id, a position behind its commit)."""

    def __init__(self, cluster: WalPostgres) -> None:
        self._cluster = cluster
        self._end = threading.Event()
        self.told: list[tuple[int, int]] = []
        cluster.sql("CREATE TABLE IF NOT EXISTS notes (n serial, filler text)")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = None
        while not self._end.is_set():
            try:
                connection = connection or self._cluster.connect()
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO notes (filler) VALUES (repeat(md5(random()::text), 20)) RETURNING pg_current_xact_id()::text::bigint")
                    ((xid,),) = cursor.fetchall()
                    cursor.execute("SELECT pg_current_wal_flush_lsn()::text")
                    ((position,),) = cursor.fetchall()
                self.told.append((int(xid), wal.parse(position)))
            except psycopg2.Error:
                connection = None
                self._end.wait(0.05)

    def stop(self) -> list[tuple[int, int]]:
        self._end.set()
        self._thread.join(30)
        return self.told


def assert_all_there(lab: LogLab, tmp: pathlib.Path, system: str, told: list[tuple[int, int]], timeline: int = 1) -> int:
    """Every commit that was told at or below the proven position is in the repository's log; how many those are.

    Segments are shipped side by side: one that was killed may leave a later one there, which is proven only when the earlier one is.
    """
    proven_timeline, proven = lab.proven()
    assert proven_timeline == timeline
    covered = [one for one in lab.log(system).coverage() if one.timeline == timeline]
    assert covered[0].end >= proven and all(one.start > proven for one in covered[1:]), (covered, proven)
    into = lab.segments(tmp / f"segments-{timeline}-{len(os.listdir(tmp))}", system, timeline, covered[0].start, covered[0].end)
    found = lab.commits(into, timeline, covered[0].start, covered[0].end)
    below = [xid for xid, position in told if position <= proven]
    missing = [xid for xid in below if xid not in found]
    assert not missing, f"{len(missing)} of {len(below)} commits are proven and not there"
    return len(below)
