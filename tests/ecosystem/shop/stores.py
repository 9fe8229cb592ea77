# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shop's stores: three PostgreSQL clusters and a Redis. Start, stop, state, and an empty server made anew."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from . import processes
from .layout import CLUSTERS, HOST, SUPERUSER, Home, ShopError

START_SECONDS = 60.0
STOP_SECONDS = 60.0

_POSTGRESQL_CONF = """\
# The site's own settings; what is set with ALTER SYSTEM lives in postgresql.auto.conf.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = 60
shared_buffers = 64MB
dynamic_shared_memory_type = mmap
password_encryption = 'scram-sha-256'
max_wal_size = 2GB
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
"""

_PG_HBA_CONF = "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"

_REDIS_CONF = """\
bind {host}
port {port}
dir "{data}"
dbfilename dump.rdb
appendonly no
save 3600 1 300 100 60 10000
requirepass {password}
databases 16
daemonize no
"""


def running(home: Home, store: str) -> bool:
    """Whether a store's process lives and accepts work."""
    process = processes.find(home, store)
    return process is not None and _ready(home, store, process)


def start(home: Home, store: str) -> bool:
    """Start a store and wait until it accepts work; False if it did already."""
    with processes.locked(home, store):
        return _start(home, store)


def _start(home: Home, store: str) -> bool:
    process = processes.find(home, store)
    if process is None:
        data = home.data(store)
        marker = data / "PG_VERSION" if store in CLUSTERS else data
        if not marker.exists():
            raise ShopError(f"{store} has no data directory: {data}; make an empty server with `ctl.py provision {store}`")
        if processes.listening(home.port(store)):
            raise ShopError(f"the port of {store} is in use: {HOST}:{home.port(store)}; stop what listens there")
        if store in CLUSTERS:
            _forget_unreaped(data)
        process = processes.spawn(home, store, _argv(home, store), drop=True)
        started = True
    else:
        started = False
    processes.await_ready(home, store, process, lambda: _ready(home, store, process), START_SECONDS)
    return started


def _forget_unreaped(data: Path) -> None:
    """Remove the lock file of a server that was killed and whose remains nobody clears away: PostgreSQL would take it for alive."""
    lock = data / "postmaster.pid"
    with contextlib.suppress(OSError, ValueError, IndexError):
        if processes.unreaped(int(lock.read_text(encoding="utf-8").split()[0])):
            lock.unlink()


def stop(home: Home, store: str, keep: bool = True) -> bool:
    """Stop a store and wait for its end; False if it was not running. keep: cleanly, with all it holds written."""
    with processes.locked(home, store):
        process = processes.find(home, store)
        if process is None:
            processes.forget(home, store)
            return False
        # Fast shutdown for PostgreSQL, shutdown with save for Redis; immediate shutdown where nothing is to be kept.
        polite = signal.SIGTERM if store not in CLUSTERS else signal.SIGINT if keep else signal.SIGQUIT
        if not processes.end(process, polite, STOP_SECONDS) and not processes.end(process, signal.SIGKILL, 10):
            raise ShopError(f"{store} does not end: pid {process.pid}; see {home.log(store)}")
        processes.forget(home, store)
        return True


def provision(home: Home, store: str) -> None:
    """Make an empty server where the data directory is gone, with the same port, access rules and settings, and start it."""
    with processes.locked(home, store):
        data = home.data(store)
        if data.exists() or data.is_symlink():
            raise ShopError(f"{store} has a data directory already: {data}; start it with `ctl.py start {store}`, or move it away first")
        process = processes.find(home, store)
        if process is not None:
            # Its data directory is gone, so nothing can be saved any more.
            processes.end(process, signal.SIGKILL, 10)
        if store in CLUSTERS:
            _initdb(home, store)
        else:
            data.mkdir(mode=0o700)
            home.account.own(data)
            _write_redis_conf(home)
        _start(home, store)


def _initdb(home: Home, store: str) -> None:
    """initdb beside the final place and rename: a half-made directory is never taken for a server."""
    final = home.data(store)
    building = final.with_name(final.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    result = subprocess.run(
        [
            home.program("initdb"), "--pgdata", str(building), "--username", SUPERUSER, "--pwfile", str(home.path / "conf" / "postgres.verifier"),
            "--auth-host", "scram-sha-256", "--auth-local", "reject", "--encoding", "UTF8", "--locale", "C.UTF-8",
            "--data-checksums", "--no-instructions", "--no-sync",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", env=home.environment(),
        timeout=120, check=False, text=True, errors="replace", **home.account.popen(),
    )
    if result.returncode != 0:
        lines = [line for line in result.stdout.splitlines() if line.strip()]
        raise ShopError(f"initdb failed: {building}: {lines[-1] if lines else 'no output'}")
    with open(building / "postgresql.conf", "a", encoding="utf-8") as file:
        file.write(_POSTGRESQL_CONF.format(host=HOST, port=home.port(store)))
    (building / "pg_hba.conf").write_text(_PG_HBA_CONF, encoding="ascii")
    os.rename(building, final)


def _write_redis_conf(home: Home) -> None:
    path = home.path / "conf" / "redis.conf"
    text = _REDIS_CONF.format(host=HOST, port=home.port("redis"), data=home.data("redis"), password=home.credentials["redis"])
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    home.account.own(path)


def _argv(home: Home, store: str) -> list[str]:
    if store in CLUSTERS:
        return [home.program("postgres"), "-D", str(home.data(store))]
    return [str(home["redis_server"]), str(home.path / "conf" / "redis.conf")]


def _ready(home: Home, store: str, process: processes.Process) -> bool:
    if store in CLUSTERS:
        # The eighth line of postmaster.pid is the server's own word on its state.
        with contextlib.suppress(OSError, IndexError, ValueError):
            lines = (home.data(store) / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return int(lines[0]) == process.pid and lines[7].strip() == "ready"
        return False
    # Spoken by hand: importing a client takes longer than the question.
    with contextlib.suppress(OSError):
        with socket.create_connection((HOST, home.port("redis")), timeout=2) as peer:
            peer.sendall(f"AUTH {home.credentials['redis']}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                part = peer.recv(512)
                if not part:
                    break
                answer += part
            return answer.endswith(b"+PONG\r\n")
    return False


def redis_client(home: Home, database: int = 0, timeout: float = 30) -> Any:
    """A client of the shop's Redis with its password."""
    import redis

    return redis.Redis(
        host=HOST, port=home.port("redis"), db=database, password=str(home.credentials["redis"]), socket_timeout=timeout, socket_connect_timeout=timeout
    )


def connect(home: Home, database: str, role: str = SUPERUSER) -> Any:
    """A psycopg2 connection; database as in Home.dsn()."""
    import psycopg2

    return psycopg2.connect(**home.dsn(database, role))


def remove(path: Path) -> None:
    """Delete a directory tree or file if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
