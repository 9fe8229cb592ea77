# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A staged cluster's own server: no network, a socket in a private directory, no archiving, no life beyond ours.

It is configured by us alone: what the cluster's own configuration files say (preloaded libraries, archive commands,
subscriptions, jobs) must not act while the copy is only a copy.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from .. import durable
from ..errors import LifeboatError, SourceError, VersionError
from .cluster_places import Owner, postmaster, present, run_program
from .postgresql_client import Client, ServerDown, tool_version
from .server import wait_until

#: Starts the server and ends it when our end of the pipe closes, so that even a kill -9 of ours leaves nothing running.
#: One byte: a fast shutdown, which leaves the cluster clean.
_KEEPER = """
import json, os, select, signal, subprocess, sys, time
who = json.loads(sys.argv[1])
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, cwd="/", **who)
try:
    ended = [os.pidfd_open(server.pid)]
except (AttributeError, OSError):
    ended = []
deadline = None
while server.poll() is None:
    if deadline is None:
        if 0 in select.select([0, *ended], [], [], 0.1)[0]:
            if sys.stdin.buffer.raw.read(1):
                server.send_signal(signal.SIGINT)
            else:
                server.send_signal(signal.SIGQUIT)
                deadline = time.monotonic() + 10
    else:
        select.select(ended, [], [], 0.05)
        if time.monotonic() > deadline:
            server.kill()
sys.exit(server.returncode if server.returncode >= 0 else 1)
"""
#: Seconds without any sign of progress after which a private server is given up.
STALLED = 3600.0
#: Seconds for a server that has nothing to replay.
ANSWER = 600.0
_STOP = 1800.0
#: Longest path of a socket's directory: the whole name must fit in 107 bytes.
_SOCKET_PATH = 85
_FATAL = re.compile(r"\b(FATAL|PANIC):\s+(.*)")


def find_programs(bin_dir: str | None, major: int, where: str) -> str:
    """The directory of the server's programs of one major version. Raises VersionError."""
    if bin_dir:
        candidates = [str(bin_dir)]
    else:
        candidates = [f"/usr/lib/postgresql/{major}/bin", f"/usr/pgsql-{major}/bin", *sorted(glob.glob("/usr/local/pgsql*/bin"))]
        candidates += [part for part in os.environ.get("PATH", "").split(":") if part]
    found = []
    for candidate in candidates:
        version = tool_version(os.path.join(candidate, "postgres"))
        if version // 10000 == major:
            return candidate
        if version:
            found.append(version // 10000)
    have = f"found only version {', '.join(map(str, sorted(set(found))))}" if found else "found none"
    raise VersionError(f"no server programs of PostgreSQL {major} ({have})", where, f"install the PostgreSQL {major} server package, or set bin_dir")


def control_data(programs: str, directory: str, owner: Owner, where: str) -> dict[str, str]:
    """What pg_controldata says of a data directory."""
    output = run_program([f"{programs}/pg_controldata", "-D", directory], owner, 60, "reading pg_control", where)
    found = {}
    for line in output.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


class PrivateCluster:
    """Context manager: the server of a staged cluster. settings: added to its configuration; user: a superuser of the cluster."""

    def __init__(self, programs: str, directory: str, private: str, owner: Owner, user: str, settings: dict[str, str], where: str) -> None:
        self.programs, self.directory, self.private = programs, directory, private
        self.owner, self.where = owner, where
        self._user = user
        self._settings = settings
        self._keeper: subprocess.Popen[bytes] | None = None
        self._socket = private
        self.log = os.path.join(private, "log")
        self.client: Client

    def __enter__(self) -> PrivateCluster:
        end_leftover(self.directory, self.where)
        self._prepare()
        who = self.owner.run_as()
        argv = [f"{self.programs}/postgres", "-D", self.directory, "-c", f"config_file={self.private}/postgresql.conf"]
        import json

        with open(self.log, "wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KEEPER, json.dumps(who), *argv], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                cwd="/", start_new_session=True, env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC", "HOME": self.private},
            )
        return self

    def _prepare(self) -> None:
        durable.make_dirs(self.private, 0o700, "stage")
        self.owner.give(self.private)
        if len(self.private) > _SOCKET_PATH:
            self._socket = tempfile.mkdtemp(prefix="lifeboat-")
            self.owner.give(self._socket)
        configuration = {
            "listen_addresses": "", "unix_socket_directories": self._socket, "unix_socket_permissions": "0700", "port": "5432",
            "hba_file": f"{self.private}/pg_hba.conf", "ident_file": f"{self.private}/pg_ident.conf", "external_pid_file": "",
            "archive_mode": "off", "hot_standby": "off", "wal_level": "replica", "fsync": "off", "autovacuum": "off", "ssl": "off",
            "max_logical_replication_workers": "0", "max_connections": "20", "superuser_reserved_connections": "3", "max_prepared_transactions": "200",
            "shared_buffers": _buffers(), "max_wal_size": "1GB", "checkpoint_completion_target": "0.1", "jit": "off",
            "logging_collector": "off", "log_destination": "stderr", "log_line_prefix": "%m [%p] ", "lc_messages": "C",
            "log_timezone": "UTC", "timezone": "UTC", "log_min_messages": "warning", "log_checkpoints": "off", **self._settings,
        }
        text = "".join(f"{name} = '{escaped(value)}'\n" for name, value in configuration.items())
        for name, content in (("postgresql.conf", text), ("pg_hba.conf", "local all all trust\n"), ("pg_ident.conf", "")):
            path = os.path.join(self.private, name)
            if present(path):
                os.unlink(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                handle.write(content)
                self.owner.give(handle.fileno())
        # settings made by ALTER SYSTEM are read from the data directory whatever config_file says
        keep_settings_away(self.directory, self.private)
        self.client = Client({"database": "template1", "socket": self._socket, "port": 5432, "user": self._user, "bin_dir": self.programs}, self.where)

    def wait_answer(self, timeout: float = ANSWER) -> None:
        """Wait until it takes connections; SourceError with the server's own words when it ends instead."""
        wait_until(self.answers, timeout, SourceError(f"the staged cluster's server did not answer within {timeout:.0f} s", self.log, "see its log"))

    def answers(self) -> bool:
        """It takes connections. Raises SourceError when it has ended."""
        if self.ended() is not None:
            raise self.refusal()
        if not self._ready():
            return False
        try:
            return self.client.reachable()
        except ServerDown:
            return False
        except SourceError as error:
            raise SourceError(f"the staged cluster does not let {self._user!r} in ({error.what})", self.where,
                              "set user to a superuser of the cluster") from error

    def _ready(self) -> bool:
        """The server says so in its pid file; asking it over the socket would fill its log with refusals while it recovers."""
        try:
            with open(os.path.join(self.directory, "postmaster.pid"), encoding="utf-8") as handle:
                return handle.read().split("\n")[7:8] == ["ready   "]
        except OSError:
            return False

    def ended(self) -> int | None:
        """The exit code of the server, None while it runs."""
        if self._keeper is None:
            raise AssertionError("not started")
        return self._keeper.poll()

    def refusal(self) -> SourceError:
        """Why it ended, in its own words."""
        words = self.fatal()
        return SourceError(f"the staged cluster's server ended{f' ({words[:300]})' if words else ''}", self.where, f"see {self.log}")

    def fatal(self) -> str:
        """The first fatal message of its log."""
        for line in self.lines():
            found = _FATAL.search(line)
            if found and "starting up" not in found.group(2):
                return found.group(2)
        return ""

    def lines(self) -> list[str]:
        """Its log."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as handle:
                return handle.read(16 << 20).splitlines()
        except OSError:
            return []

    def stop(self) -> None:
        """A clean stop: everything is in its files, nothing is left to replay."""
        if self._keeper is None or self._keeper.stdin is None:
            raise AssertionError("not started")
        if self._keeper.poll() is None:
            try:
                self._keeper.stdin.write(b"f")
                self._keeper.stdin.flush()
                self._keeper.wait(_STOP)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                pass
        code = self._keeper.poll()
        self.close()
        if code != 0:
            raise self.refusal()

    def close(self) -> None:
        """End it at once if it still runs; its settings file goes back to its place."""
        if self._keeper is None:
            return
        if self._keeper.stdin is not None:
            try:
                self._keeper.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._keeper.wait(60)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        keep_settings_back(self.directory, self.private)
        if self._socket != self.private:
            shutil.rmtree(self._socket, ignore_errors=True)

    def __exit__(self, *_details: Any) -> None:
        self.close()


def _buffers() -> str:
    """For replay: enough that hot pages are written once, and never more than an eighth of the memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return f"{max(32, min(256, memory // 8))}MB"


def keep_settings_away(directory: str, private: str) -> None:
    """Take postgresql.auto.conf out of the staged cluster while its private server runs."""
    if present(os.path.join(directory, "postgresql.auto.conf")):
        durable.rename_durably(os.path.join(directory, "postgresql.auto.conf"), os.path.join(private, "postgresql.auto.conf"), "swap")


def keep_settings_back(directory: str, private: str) -> None:
    """Put it back; a call after a kill finds it where it was left."""
    if present(os.path.join(private, "postgresql.auto.conf")):
        durable.rename_durably(os.path.join(private, "postgresql.auto.conf"), os.path.join(directory, "postgresql.auto.conf"), "swap")


def end_leftover(directory: str, where: str) -> None:
    """Wait for, then end, a private server that an earlier call left on a staged cluster."""
    deadline = time.monotonic() + 20
    while True:
        pid = postmaster(directory)
        if pid is None:
            return
        if time.monotonic() > deadline:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                raise SourceError("an earlier server of the staged cluster cannot be ended", f"{where}, pid {pid}", "end it by hand, then run again") from error
            deadline = time.monotonic() + 20
        time.sleep(0.1)


#: What a hot standby must have at least as large as its primary: setting -> its name in pg_control.
_FOLLOWED = {
    "max_worker_processes": "max_worker_processes setting", "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting", "max_locks_per_transaction": "max_locks_per_xact setting",
}


def private_settings(programs: str, directory: str, owner: Owner, where: str, followed: bool = False) -> dict[str, str]:
    """Settings that a server must share with the cluster's history, read from its pg_control.

    followed: the cluster has standbys. What this server has at the end of recovery goes into the log, and a standby that has less would stop there.
    """
    control = control_data(programs, directory, owner, where)
    settings = {}
    if control.get("track_commit_timestamp setting") == "on":
        settings["track_commit_timestamp"] = "on"  # else its data would be thrown away at the end of recovery
    if control.get("wal_log_hints setting") == "on":
        settings["wal_log_hints"] = "on"
    if control.get("wal_level setting") == "logical":
        settings["wal_level"] = "logical"
    prepared = control.get("max_prepared_xacts setting", "0")
    settings["max_prepared_transactions"] = str(max(200, int(prepared) if prepared.isdigit() else 0))
    if followed:
        settings.update({name: control[said] for name, said in _FOLLOWED.items() if control.get(said, "").isdigit()})
        settings["max_connections"] = str(min(20, int(control.get("max_connections setting") or 20)))
    return settings


def escaped(value: str) -> str:
    """A value for single quotes in a configuration file of the server."""
    return value.replace("\\", "\\\\").replace("'", "''")


def explain(error: LifeboatError, private: PrivateCluster) -> str:
    """An error with the last words of the server's log."""
    words = private.fatal()
    return f"{error.what}{f' ({words[:200]})' if words else ''}"
