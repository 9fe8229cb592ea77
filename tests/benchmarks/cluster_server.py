# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster that is backed up, and the servers that run on what was restored: private, on a free loopback port, ended by pid.

usage: cluster_server.py start|stop|status HOME PORT (the commands of a catalog; the data directory is HOME/data)
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import data

MIB = 1 << 20
TIMEOUT = 3600
USER = "postgres"
#: Wide enough for replay and load; everything that would come by itself in the middle of a measurement is off.
SETTINGS = """
listen_addresses = '127.0.0.1'
shared_buffers = 256MB
max_wal_size = 8GB
min_wal_size = 80MB
checkpoint_timeout = 1h
autovacuum = off
wal_level = replica
max_wal_senders = 6
max_replication_slots = 6
archive_mode = on
archive_command = '{archive} "%p"'
log_min_messages = warning
"""
#: What the server does with a finished segment is told by a file: hand it to pgBackRest, or nothing.
ARCHIVE = """#!/bin/sh
[ -s {mode} ] || exit 0
exec pgbackrest --config="$(cat {mode})" --stanza=main archive-push "$1"
"""


def drop() -> dict[str, Any]:
    """Keyword arguments for subprocess that leave root: PostgreSQL refuses it."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def own_directory(path: Path) -> Path:
    """A directory that belongs to the server's user."""
    path.mkdir(parents=True, exist_ok=True)
    who = drop()
    if who:
        os.chown(path, who["user"], who["group"])
    return path


def own_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    who = drop()
    if who:
        os.chown(path, who["user"], who["group"])
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


#: (table, key, what an update does)
CHANGES = (("pgbench_accounts", "aid", "abalance = abalance + 1"), ("events", "id", "body = body || jsonb_build_object('seen', md5(id::text))"))
HISTORY = """INSERT INTO pgbench_history (tid, bid, aid, delta, mtime, filler)
    SELECT n, n, n, n, now(), left(md5(n::text), 22) FROM generate_series(1, 2000) n"""
#: All servers that may have been started on restored files, to be stopped when something fails.
RESTORED: list[Server] = []


class Server:
    """One data directory, HOME/data, and the server on it."""

    def __init__(self, home: Path, port: int = 0) -> None:
        self.home = home
        self.data = home / "data"
        self.port = port or free_port()
        #: Sockets need a short path.
        self.socket = Path(tempfile.gettempdir())

    def run(self, program: str, *arguments: str) -> str:
        """A program of PostgreSQL as the server's user; raises SystemExit with what it said. Output through a file: a server would keep a pipe open."""
        output = self.home / f"{program}.out"
        with output.open("w") as handle:
            done = subprocess.run([data.postgresql_program(program), *arguments], check=False, env=environment(self.home), stdin=subprocess.DEVNULL,
                                  stdout=handle, stderr=handle, cwd="/", timeout=TIMEOUT, **drop())
        text = output.read_text(errors="replace")
        if done.returncode != 0:
            raise SystemExit(f"bench: {program} {' '.join(arguments[:3])} ended with {done.returncode}\n{text[-2000:]}\n{self.said()}")
        return text

    def said(self) -> str:
        with contextlib.suppress(OSError):
            return (self.home / "log").read_text(errors="replace")[-2000:]
        return ""

    def command(self, word: str) -> list[str]:
        """As a catalog holds it."""
        return [sys.executable, os.path.abspath(__file__), word, str(self.home), str(self.port)]

    def start(self) -> None:
        """Start, and return when it takes connections; archiving only where the data came from."""
        options = f"-p {self.port} -c unix_socket_directories={self.socket}"
        if (self.data.parent / "restored").exists():
            options += " -c archive_mode=off"
        self.run("pg_ctl", "-D", str(self.data), "-w", "-t", str(TIMEOUT), "-l", str(self.home / "log"), "-o", options, "start")

    def stop(self) -> None:
        if self.pid():
            self.run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "-t", "600", "stop")

    def pid(self) -> int:
        """0 when none runs."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n")[0])
            os.kill(pid, 0)
        except PermissionError:
            return pid
        except (OSError, ValueError):
            return 0
        return pid

    def connect(self) -> Any:
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, dbname="postgres", user=USER, connect_timeout=30)
        connection.autocommit = True
        return connection

    def sql(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def content(self) -> tuple[Any, ...]:
        """Tells two states of the cluster apart."""
        return self.sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT count(*) FROM pgbench_history),"
                        " (SELECT count(*) FILTER (WHERE body ? 'seen') FROM events), pg_is_in_recovery()")[0]

    def wait_writable(self) -> None:
        """Until recovery has ended and the server takes writes."""
        deadline = time.monotonic() + TIMEOUT
        while self.sql("SELECT pg_is_in_recovery()")[0][0]:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: recovery did not end\n{self.said()}")
            time.sleep(0.02)


class Origin(Server):
    """The cluster that is backed up: pgbench tables and wide rows, page checksums on."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.mode = home / "archive-to"
        self.chance = random.Random(data.SEED)

    def create(self, size: int) -> None:
        """initdb and about ``size`` bytes: half pgbench, half wide rows with indexes."""
        own_directory(self.home)
        archive = own_file(self.home / "pgbackrest-or-nobody", ARCHIVE.format(mode=self.mode), 0o700)
        own_file(self.mode, "")
        self.run("initdb", "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as handle:
            handle.write(SETTINGS.format(archive=archive))
        self.start()
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        self.run("pgbench", *place, "-i", "-q", "-I", "dtGvp", "-s", str(max(1, size // 2 // (15 * MIB))), "postgres")
        script = own_file(self.home / "events.sql", data.EVENTS % {"rows": max(1000, size // 2 // 600)})
        self.run("psql", *place, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(script), "postgres")
        self.run("vacuumdb", *place, "-q", "-z", "-a", "--freeze")
        self.sql("CHECKPOINT")

    def archive_to(self, config: Path | None) -> None:
        """Who gets finished segments: pgBackRest with this configuration, or nobody."""
        self.mode.write_text(str(config) if config else "")

    def change(self, percent: float, scattered: bool) -> None:
        """So many percent of the rows of both large tables: in 16 runs of neighbours, or each somewhere."""
        self.sql("SELECT setseed(%s)", (self.chance.random(),))
        for table, key, change in CHANGES:
            rows = self.sql(f"SELECT max({key}) FROM {table}")[0][0]
            wanted = max(1, int(rows * percent / 100))
            if scattered:
                keys = self.chance.sample(range(1, rows + 1), wanted)
                self.sql(f"UPDATE {table} SET {change} WHERE {key} = ANY (%s)", (keys,))
                continue
            each = max(1, wanted // 16)
            for _run in range(16):
                first = self.chance.randrange(1, max(2, rows - each))
                self.sql(f"UPDATE {table} SET {change} WHERE {key} BETWEEN %s AND %s", (first, first + each - 1))

    def make_log(self, size: int) -> None:
        """About ``size`` bytes of log: scattered updates, inserts and the full pages that come with them."""
        connection = self.connect()
        begin = self.position()
        with connection.cursor() as cursor:
            cursor.execute("SELECT max(aid) FROM pgbench_accounts")
            accounts = cursor.fetchone()[0]
            while self.position() - begin < size:
                keys = [self.chance.randint(1, accounts) for _key in range(400)]
                cursor.execute("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = ANY (%s)", (keys,))
                cursor.execute(HISTORY)
        connection.close()

    def position(self) -> int:
        high, low = self.sql("SELECT pg_current_wal_flush_lsn()::text")[0][0].split("/")
        return (int(high, 16) << 32) + int(low, 16)

    def next_segment(self) -> int:
        """Finish the current segment; the position at which the next one begins."""
        self.sql("SELECT pg_switch_wal()")
        self.sql("SELECT txid_current()")  # something behind the switch, so that the finished segment is written out whole
        return self.position() // (16 * MIB) * 16 * MIB

    def segments(self, begin: int, end: int) -> list[str]:
        return [f"{1:08X}{number >> 8:08X}{number & 0xFF:08X}" for number in range(begin // (16 * MIB), end // (16 * MIB))]

    def warm_log(self, begin: int, end: int) -> None:
        """Bring segments into the page cache; the rest of the folder is the running server's."""
        for name in self.segments(begin, end):
            (self.data / "pg_wal" / name).read_bytes()

    def copy(self, home: Path) -> Server:
        """The data directory as it is, as the cluster on which a damage is repaired; the log left out. The server must be idle."""
        own_directory(home)
        subprocess.run(["cp", "-a", str(self.data), str(home / "data")], check=True, timeout=TIMEOUT)
        for path in [home / "data" / "postmaster.pid", *(home / "data" / "pg_wal").glob("[0-9A-F]*")]:
            path.unlink()
        shutil.rmtree(home / "data" / "pg_replslot")
        own_directory(home / "data" / "pg_replslot").chmod(0o700)
        return restored(home)


def restored(home: Path) -> Server:
    """Where something is restored to."""
    own_file(own_directory(home) / "restored", "")
    RESTORED.append(Server(home))
    return RESTORED[-1]


def main(word: str, home: str, port: str) -> int:
    server = Server(Path(home), int(port))
    if word == "status":
        return 0 if server.pid() else 3
    if word == "start" and not server.pid():
        server.start()
    if word == "stop":
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
