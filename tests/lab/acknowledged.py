# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that remember what the server acknowledged to them, and at which position: what a restore owes them."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres

#: Two rows per transaction, so that half of one would be seen.
TABLES = "CREATE TABLE acknowledged (client int, number int, half int, filler text, PRIMARY KEY (client, number, half))"


class Client(threading.Thread):
    """One connection that commits, rolls back now and then, and notes every acknowledged commit with the position read after it.

    committed: number -> position at which it was certainly in the log. rolled_back: numbers that must never be seen. last: the
    newest number that was begun; whether that one was committed nobody knows when the server died.
    """

    def __init__(self, server: Postgres, number: int, first: int = 1) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.number, self.last = number, first - 1
        self.committed: dict[int, int] = {}
        self.rolled_back: set[int] = set()
        self.ended_by = ""
        self._server = server
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            connection = self._server.connect()
            connection.autocommit = False
            with connection.cursor() as cursor:
                while not self._stop_asked.is_set():
                    self._one(connection, cursor)
            connection.close()
        except psycopg2.Error as error:
            self.ended_by = str(error)

    def _one(self, connection: Any, cursor: Any) -> None:
        number = self.last = self.last + 1
        for half in (1, 2):
            cursor.execute("INSERT INTO acknowledged VALUES (%s, %s, %s, repeat('x', %s))", (self.number, number, half, number * 37 % 400))
        if number % 9 == 0:
            connection.rollback()
            self.rolled_back.add(number)
            return
        connection.commit()
        cursor.execute("SELECT pg_current_wal_insert_lsn()::text")
        self.committed[number] = wal.parse(cursor.fetchone()[0])
        connection.rollback()

    def ask_to_stop(self) -> None:
        self._stop_asked.set()

    def stop(self) -> None:
        self.ask_to_stop()
        self.join(60)
        assert not self.is_alive()


class Clients:
    """Several of them, over several lives of a server."""

    def __init__(self) -> None:
        self.running: list[Client] = []
        self._all: list[Client] = []

    def start(self, server: Postgres, count: int) -> None:
        first = {client.number: client.last + 1 for client in self._all}
        self.running = [Client(server, number, first.get(number, 1)) for number in range(count)]
        self._all += self.running
        for client in self.running:
            client.start()

    def stop(self) -> None:
        for client in self.running:
            client.stop()
        self.running = []

    def acknowledged(self) -> int:
        return sum(len(client.committed) for client in self._all)

    def wait(self, more: int) -> None:
        """Until so many more commits were acknowledged."""
        wanted = self.acknowledged() + more
        processes.wait_for(lambda: self.acknowledged() >= wanted, f"{more} commits ({[client.ended_by for client in self.running]})", 120)

    def check(self, server: Postgres, proven: int) -> int:
        """What was acknowledged up to ``proven`` is there, each client's commits in order without a hole, nothing in half; rows seen.

        Forgets what came after the newest commit that is there: it is lost, and that was announced.
        """
        found: dict[int, dict[int, int]] = {}
        for client, number, halves in server.sql("SELECT client, number, count(*) FROM acknowledged GROUP BY client, number"):
            found.setdefault(client, {})[number] = halves
        for one in {client.number for client in self._all}:
            lives = [client for client in self._all if client.number == one]
            committed = {number: position for client in lives for number, position in client.committed.items()}
            rolled_back = {number for client in lives for number in client.rolled_back}
            unknown = {client.last for client in lives} - set(committed) - rolled_back
            seen = found.get(one, {})
            assert set(seen.values()) <= {2}, f"client {one}: half of a transaction"
            lost = sorted(number for number, position in committed.items() if position <= proven and number not in seen)
            assert not lost, f"client {one}: acknowledged, proven up to {wal.text(proven)}, and lost: {[(n, wal.text(committed[n])) for n in lost[:5]]}"
            assert not set(seen) & rolled_back, f"client {one}: rolled back and there"
            assert set(seen) <= set(committed) | unknown, f"client {one}: never committed and there"
            newest = max(seen, default=0)
            holes = [number for number in committed if number < newest and number not in seen]
            assert not holes, f"client {one}: {holes[:5]} missing, {newest} there"
            for client in lives:
                client.committed = {number: position for number, position in client.committed.items() if number in seen}
                if client.last in seen:
                    client.committed.setdefault(client.last, 0)
        return sum(len(seen) for seen in found.values())
