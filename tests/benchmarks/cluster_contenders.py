# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifeboat's ``postgresql`` source and pgBackRest, each with a repository of its own.

pgBackRest runs as the server's user, as it wants to be; Lifeboat as whoever runs the benchmark, as modules on a host run as root.

A step's time runs from the start of its first process to the end of `sync -f`; a step that ends with a server that answers is not synced
again. Processor time is that of the step's processes and their children, the PostgreSQL servers' not. Memory is the largest process.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import cluster_server
from cluster_server import Origin, Server, drop, own_directory, own_file

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 3600
SOURCE = "db"
#: Slot of the shipper, made before the log that it ships.
SLOT = "lifeboat_bench_db"


class Step:
    """What a step cost: seconds, cpu (seconds), peak (bytes), told (what the process printed), begun (monotonic)."""

    def __init__(self, begun: float, seconds: float, cpu: float | None, peak: int | None, told: dict[str, Any] | None = None) -> None:
        self.begun, self.seconds, self.cpu, self.peak, self.told = begun, seconds, cpu, peak, told or {}

    def row(self, **more: Any) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 4), "cpu": None if self.cpu is None else round(self.cpu, 3), "peak": self.peak, **more}


def flush(place: Path) -> float:
    """sync -f; how long it took."""
    begun = time.monotonic()
    subprocess.run(["sync", "-f", str(place)], check=True, timeout=TIMEOUT)
    return time.monotonic() - begun


def measure(argv: list[str], place: Path, env: dict[str, str], user: dict[str, Any] | None = None) -> Step:
    """One process (user: keyword arguments for subprocess), then a flush. What a process prints of {"begun", "done"} is when its work really was."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd="/", **(user or {}))
        try:
            _pid, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        ended = time.monotonic()
        flushing = flush(place)
        output.seek(0)
        errors.seek(0)
        text = output.read().decode(errors="replace")
        if process.returncode != 0:
            said = (text + errors.read().decode(errors="replace"))[-3000:]
            raise SystemExit(f"bench: {' '.join(argv[:4])} ended with {process.returncode}\n{said}")
    lines = text.strip().splitlines()
    told = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    seconds = told.get("done", ended) - told.get("begun", begun) + flushing
    return Step(begun, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, told)


def tree_bytes(path: Path) -> int:
    return sum(found.lstat().st_size for found in path.rglob("*") if found.is_file())


class Contender(ABC):
    """home: what one round of it keeps."""

    name: ClassVar[str]

    def __init__(self, home: Path, origin: Origin) -> None:
        self.home = home
        self.origin = origin
        #: What a restored server must hold, by Server.content().
        self.wanted: tuple[Any, ...] = ()
        own_directory(home)

    @property
    def env(self) -> dict[str, str]:
        return cluster_server.environment(self.home)

    @property
    def repository(self) -> Path:
        return self.home / "repository"

    @abstractmethod
    def init(self) -> None:
        """An empty repository, not timed."""

    @abstractmethod
    def backup(self, number: int, full: bool) -> Step:
        """Back the running cluster up."""

    @abstractmethod
    def restore(self, server: Server, delta: bool = False) -> dict[str, dict[str, Any]]:
        """Restore the newest backup itself to where ``server`` is; rows "files" and "answers"."""

    @abstractmethod
    def push(self, begin: int, end: int) -> Step:
        """Bring the finished segments between two positions into the repository."""

    @abstractmethod
    def replay(self, server: Server) -> Step:
        """Restore newest backup and log; the time of fetching and replaying only, until the server answers."""

    def answer(self, server: Server, begun: float) -> float:
        """Start a restored server, unless the restore itself did; seconds from ``begun`` until it takes writes. Then look at it, and stop it."""
        if not server.pid():
            server.start()
        server.wait_writable()
        seconds = time.monotonic() - begun
        found = server.content()
        if found != self.wanted:
            raise SystemExit(f"bench: {self.name} did not restore what was there: {found} instead of {self.wanted}")
        server.stop()
        return seconds

    def stored(self) -> int:
        return tree_bytes(self.repository)


class PgBackRest(Contender):
    """Set up for speed, as its users' guide tells: workers, bundles, block incrementals, zstd, asynchronous archive; and encrypted."""

    name = "pgBackRest"
    #: The level is the one at which Lifeboat compresses clusters.
    settings = """repo1-bundle=y
repo1-block=y
beta=y
compress-type=zst
compress-level=1
process-max={workers}
archive-async=y
archive-get-queue-max=1GiB
"""

    def __init__(self, home: Path, origin: Origin, workers: int) -> None:
        super().__init__(home, origin)
        self._workers = workers
        self.config = home / "pgbackrest.conf"

    @staticmethod
    def version() -> str:
        return subprocess.run(["pgbackrest", "version"], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.strip()

    def _run(self, *words: str) -> Step:
        return measure(["pgbackrest", f"--config={self.config}", "--stanza=main", *words], self.home, self.env, drop())

    def init(self) -> None:
        for name in ("repository", "lock", "spool", "log"):
            own_directory(self.home / name)
        own_file(self.config, f"""[global]
repo1-path={self.repository}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass={secrets.token_urlsafe(32)}
repo1-retention-full=9
{self.settings.format(workers=self._workers)}start-fast=y
spool-path={self.home / 'spool'}
lock-path={self.home / 'lock'}
log-path={self.home / 'log'}
log-level-file=off
log-level-console=warn

[main]
pg1-path={self.origin.data}
pg1-port={self.origin.port}
pg1-socket-path={self.origin.socket}
pg1-user={cluster_server.USER}
""")
        self._run("stanza-create")

    def backup(self, number: int, full: bool) -> Step:
        self.origin.archive_to(self.config)
        try:
            return self._run("backup", f"--type={'full' if full else 'incr'}")
        finally:
            self.origin.archive_to(None)

    def _restore(self, server: Server, *words: str) -> Step:
        if not server.data.exists():
            own_directory(server.data).chmod(0o700)
        return self._run("restore", f"--pg1-path={server.data}", *words)

    def restore(self, server: Server, delta: bool = False) -> dict[str, dict[str, Any]]:
        step = self._restore(server, "--type=immediate", "--target-action=promote", *(["--delta"] if delta else []))
        seconds = self.answer(server, step.begun)
        return {"files": step.row(), "answers": {**step.row(), "seconds": round(seconds, 4)}}

    def push(self, begin: int, end: int) -> Step:
        # a data directory to push from, beside the server's own: what waits in that one its own archiver would take
        top = own_directory(self.home / "push")
        for name in ("global/pg_control", "PG_VERSION"):
            own_directory((top / name).parent)
            subprocess.run(["cp", "-a", str(self.origin.data / name), str(top / name)], check=True, timeout=60)
        place = own_directory(top / "pg_wal")
        status = own_directory(place / "archive_status")
        for name in self.origin.segments(begin, end):
            os.link(self.origin.data / "pg_wal" / name, place / name)
            own_file(status / f"{name}.ready", "")
        return measure([sys.executable, str(Path(__file__).with_name("cluster_archiver.py")), str(self.config), str(top)], self.home, self.env)

    def replay(self, server: Server) -> Step:
        self._restore(server)
        begun = time.monotonic()
        seconds = self.answer(server, begun)
        return Step(begun, seconds, None, None)


class PgBackRestAsInstalled(PgBackRest):
    """With its own defaults: one process, gzip, a file in the repository for each file of the cluster. Encrypted too, and it need not wait
    for the server's next checkpoint, since that would measure the server.
    """

    name = "pgBackRest as installed"
    settings = ""


class Lifeboat(Contender):
    """The engine through the operations that modules and the host command call; the shipper as the process that a unit runs."""

    name = "Lifeboat"

    def __init__(self, home: Path, origin: Origin, profiles: Path | None = None) -> None:
        super().__init__(home, origin)
        self._profiles = profiles
        self._runs = 0

    def _spec(self, server: Server, state: Path, **options: Any) -> dict[str, Any]:
        return {
            "service": "bench",
            "entry": {"sources": {SOURCE: {
                "type": "postgresql", "data_directory": str(server.data), "address": "127.0.0.1", "port": server.port, "user": cluster_server.USER,
                "slot": SLOT, "log": {}, "server": {word: server.command(word) for word in ("start", "stop", "status")}, **options,
            }}},
            "repository": {"name": "bench", "url": f"file://{self.repository}"},
            "keys": {"provider": "file", "path": str(self.home / "keys"), "private_path": str(self.home / "private")},
            "state_dir": str(state),
            "catalog": {"digest": "0" * 64, "ecosystem": "bench", "document": None},
        }

    def _run(self, operation: str, spec: dict[str, Any], **job: Any) -> Step:
        self._runs += 1
        verb = "restore" if operation == "restore" else "backup"
        job = {"spec": spec, "run": f"20260101T{self._runs:06d}Z-{verb}-{self._runs:06x}", "profile": None, **job}
        if self._profiles and operation != "init":
            job["profile"] = str(self._profiles / f"{self._runs:02d}-{operation}.json")
        return measure([sys.executable, str(Path(__file__).with_name("cluster_engine.py")), operation, json.dumps(job)], self.home, self.env)

    def init(self) -> None:
        self._run("init", self._spec(self.origin, self.home / "state"))

    def backup(self, number: int, full: bool) -> Step:
        step = self._run("capture", self._spec(self.origin, self.home / "state"), mode="full" if full else "auto")
        assert step.told["mode"] == ("full" if full else "incremental"), step.told
        return step

    def _restore(self, server: Server, **options: Any) -> Step:
        # a host that knows nothing yet
        return self._run("restore", self._spec(server, server.home / "state", **options), target="latest")

    def restore(self, server: Server, delta: bool = False, in_place: bool = False) -> dict[str, dict[str, Any]]:
        step = self._restore(server, **({"in_place": True} if in_place else {}))
        seconds = self.answer(server, step.begun)
        told = step.told
        parts = {
            "files": told["files"] - step.begun, "recovery": told["stopped"] - told["recovering"],
            "checks": told["checked"] - told["checking"] + told["verified"] - told["verifying"],
            "whole": seconds, "bytes_reused": told["bytes_reused"], "bytes_fetched": told["bytes_fetched"],
        }
        files = {"seconds": round(told["files"] - step.begun, 4), "cpu": round(told["files_cpu"], 3), "peak": step.peak}
        return {"files": files, "answers": {**step.row(), "seconds": round(seconds, 4), "parts": parts}}

    def ship(self) -> subprocess.Popen[bytes]:
        """The shipper in the foreground, as a unit runs it."""
        library = own_directory(self.home / "lib")
        if not (library / "lifeboat").exists():
            (library / "lifeboat").symlink_to(ROOT / "plugins" / "module_utils")
        own_directory(self.home / "etc")
        own_file(own_directory(self.home / "etc" / "services") / "bench.json", json.dumps(self._spec(self.origin, self.home / "state")))
        with (self.home / "shipper.log").open("w") as log:
            return subprocess.Popen([sys.executable, "-m", "lifeboat.cli", "--config", str(self.home / "etc"), "log", "run", "bench", SOURCE],
                                    env={**self.env, "PYTHONPATH": str(library)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def said(self) -> str:
        return (self.home / "shipper.log").read_text()[-2000:]

    def push(self, begin: int, end: int) -> Step:
        """The shipper from its start, with the log waiting for it on the server, until the last segment is proven."""
        begun = time.monotonic()
        process = self.ship()
        try:
            while self.proven() < end:
                if process.poll() is not None or time.monotonic() - begun > TIMEOUT:
                    raise SystemExit(f"bench: the shipper did not get to the end\n{self.said()}")
                time.sleep(0.01)
            seconds = time.monotonic() - begun + flush(self.home)
            process.send_signal(signal.SIGTERM)
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        return Step(begun, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def proven(self) -> int:
        """The position that the shipper calls proven; 0 as long as it does not."""
        try:
            document = json.loads((self.home / "state" / "services" / "bench" / "log" / SOURCE / "proven.json").read_text())
        except FileNotFoundError:
            return 0
        return int(document[f"file://{self.repository}"]["position"])

    def replay(self, server: Server) -> Step:
        step = self._restore(server)
        self.answer(server, step.begun)
        return Step(step.begun, step.told["recovered"] - step.told["recovering"], None, step.peak, step.told)
