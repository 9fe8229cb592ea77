# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real cluster, a repository, and the shipper of its log as the process it is on a host."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_reader import SourceLog
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec

from . import processes
from .postgres import SUPERUSER, Postgres

ENGINE = pathlib.Path(__file__).resolve().parents[2] / "plugins" / "module_utils"
SEGMENT = 1 << 20


class WalPostgres(Postgres):
    """A cluster with small segments, so that many of them pass in a short test."""

    def init(self) -> WalPostgres:
        super().init()
        processes.checked([f"{self.bin}/pg_resetwal", "-D", self.data, f"--wal-segsize={SEGMENT >> 20}"])
        self.configure("max_wal_senders = 5", "max_replication_slots = 5", "min_wal_size = 4MB", "max_wal_size = 16MB", "wal_keep_size = 0",
                       "synchronous_commit = on", "shared_buffers = 16MB", "log_min_messages = warning")
        return self

    def configure(self, *lines: str) -> None:
        with open(f"{self.data}/postgresql.conf", "a", encoding="utf-8") as handle:
            handle.write("\n".join(lines) + "\n")

    def position(self) -> int:
        return wal.parse(str(self.sql("SELECT pg_current_wal_flush_lsn()::text")[0][0]))

    def system(self) -> str:
        return str(self.sql("SELECT system_identifier::text FROM pg_control_system()")[0][0])

    def pgbench(self, seconds: int, clients: int = 4) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [f"{self.bin}/pgbench", "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-n", "-c", str(clients), "-T", str(seconds), "postgres"],
            env={**os.environ, "PGPASSFILE": self.passfile()}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )

    def passfile(self) -> str:
        path = f"{self.home}/pgpass"
        with open(path, "w", encoding="utf-8") as handle:
            handle.write("*:*:*:*:lab-password\n")
        os.chmod(path, 0o600)
        return path

    def bench_tables(self) -> None:
        processes.checked([f"{self.bin}/pgbench", "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-i", "-q", "postgres"],
                          env={**os.environ, "PGPASSWORD": "lab-password"})

    def standby(self, home: str | None = None) -> WalPostgres:
        """A streaming standby of this cluster, not started."""
        other = WalPostgres(home, programs=self.bin)
        processes.checked([f"{self.bin}/pg_basebackup", "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-D", other.data, "-R", "-c", "fast"],
                          env={**os.environ, "PGPASSWORD": "lab-password"})
        other.configure(f"port = {other.port}", f"unix_socket_directories = '{other.home}'")
        return other


class LogLab:
    """One service ``orders`` with the cluster as source ``db``."""

    def __init__(self, home: pathlib.Path, cluster: WalPostgres, **log: Any) -> None:
        self.home = home
        self.cluster = cluster
        self.repository = home / "repository"
        self.document: dict[str, Any] = {
            "service": "orders",
            "entry": {"sources": {"db": {
                "type": "postgresql", "data_directory": cluster.data, "address": "127.0.0.1", "port": cluster.port, "user": SUPERUSER,
                "password_file": cluster.password_file, "bin_dir": cluster.bin, "log": {"interval": 0.2, **log},
            }}},
            "repository": {"name": "local", "url": f"file://{self.repository}"},
            "keys": {"provider": "file", "path": str(home / "keys" / "host")},
            "state_dir": str(home / "state"),
            "catalog": {"digest": "0" * 64, "ecosystem": "lab"},
        }
        self.private = {**self.document["keys"], "private_path": str(home / "keys" / "private")}
        self.spec.provider().ensure()
        Repository.create(self.spec.repository)
        (home / "lib").mkdir()
        (home / "lib" / "lifeboat").symlink_to(ENGINE)
        (home / "etc" / "services").mkdir(parents=True)
        self.save()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def spec(self) -> Spec:
        """With the right to restore; the shipper's own has not."""
        return Spec.from_dict({**self.document, "keys": self.private})

    def save(self) -> None:
        (self.home / "etc" / "services" / "orders.json").write_text(json.dumps(self.document))

    def _command(self, *words: str) -> dict[str, Any]:
        return {
            "args": [sys.executable, "-m", "lifeboat.cli", "--config", str(self.home / "etc"), *words], "cwd": "/", "stdin": subprocess.DEVNULL,
            "env": {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.home / "lib"), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.home)},
        }

    def start(self, *words: str, fault: str = "", preexec: Callable[[], None] | None = None) -> LogLab:
        command = self._command("log", "run", "orders", *words)
        command["env"].update({"LIFEBOAT_FAULT": fault} if fault else {})
        with open(self.home / "shipper.log", "ab") as log:
            self.process = subprocess.Popen(**command, stdout=log, stderr=log, preexec_fn=preexec)
        return self

    def stop(self, how: int = signal.SIGTERM, seconds: float = 300) -> int:
        """The shipper's exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        status = self.process.wait(seconds)
        self.process = None
        return status

    def kill(self) -> None:
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def run(self, *words: str, status: int | None = 0) -> str:
        done = subprocess.run(**self._command(*words), capture_output=True, text=True, timeout=600, check=False)
        assert status is None or done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout if done.returncode in (0, 3) else done.stderr

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("log", "status", "orders", "--json", status=None))["orders.db"])

    def said(self) -> str:
        return (self.home / "shipper.log").read_text()

    def proven(self) -> tuple[int, int]:
        """(timeline, position) as the host remembers it: cheap, for waiting."""
        try:
            document = json.loads((self.home / "state" / "services" / "orders" / "log" / "db" / "proven.json").read_text())
        except FileNotFoundError:
            return 0, 0
        mark = document[self.document["repository"]["url"]]
        return int(mark["timeline"]), int(mark["position"])

    def alarms(self) -> set[str]:
        return {alarm["name"] for alarm in self.status()["alarms"]}

    def wait_proven(self, position: int, timeline: int = 1, seconds: float = 300) -> None:
        try:
            processes.wait_for(lambda: self.proven() >= (timeline, position), f"{wal.text(position)} to be proven", seconds)
        except TimeoutError:
            told = json.dumps(self.status(), indent=1)
            raise AssertionError(f"{self.proven()} after {seconds} s, wanted {wal.text(position)}: {told}\n{self.said()}") from None

    def wait_ok(self, seconds: float = 300) -> None:
        try:
            processes.wait_for(lambda: bool(self.status()["ok"]), "the alarms to end", seconds)
        except TimeoutError:
            told = json.dumps(self.status(), indent=1)
            raise AssertionError(f"still alarmed after {seconds} s: {told}\n{self.said()}") from None

    def log(self, system: str | None = None) -> SourceLog:
        return SourceLog(self.spec.store(), "db", system or self.cluster.system())

    def segments(self, into: pathlib.Path, system: str, timeline: int, start: int, end: int) -> pathlib.Path:
        """The log of a timeline as files, as a restore would write them; the last one padded with zeros."""
        into.mkdir(exist_ok=True)
        log = self.log(system)
        for position in range(start // SEGMENT * SEGMENT, end, SEGMENT):
            data = log.read(timeline, position, min(position + SEGMENT, end))
            (into / wal.segment_name(timeline, position, SEGMENT)).write_bytes(data.ljust(SEGMENT, b"\0"))
        return into

    def commits(self, into: pathlib.Path, timeline: int, start: int, end: int) -> dict[int, int]:
        """xid -> position of its commit record, as pg_waldump reads the segments."""
        argv = [f"{self.cluster.bin}/pg_waldump", "-p", str(into), "-t", str(timeline), "-s", wal.text(start), "-e", wal.text(end), "-r", "Transaction"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        found = re.findall(r"tx:\s+(\d+), lsn: ([0-9A-F]+/[0-9A-F]+).*desc: COMMIT", done.stdout)
        return {int(xid): wal.parse(position) for xid, position in found}
