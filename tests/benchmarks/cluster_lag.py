# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a commit waits until its position is proven in the repository, while pgbench loads the server and the shipper runs in the foreground.

A client of its own commits beside pgbench and notes when it was told so and the position of the log then; the proven position is read
where the shipper keeps it, every few milliseconds, and counts only from then on.
"""

from __future__ import annotations

import resource
import signal
import statistics
import subprocess
import threading
import time
from typing import Any

import data
from cluster_contenders import SLOT, Lifeboat
from cluster_server import MIB, USER, Origin, drop, environment

CLIENTS = 8
#: Required of the 99th percentile, in seconds.
REQUIRED = 5.0
_LOOK = 0.005
_PATIENCE = 60.0


class Probe(threading.Thread):
    """One commit after the other: (when the client was told, position behind it)."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(daemon=True)
        self.told: list[tuple[float, int]] = []
        self.ended = threading.Event()
        self._connection = origin.connect()

    def run(self) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS probe (n serial, filler text)")
            while not self.ended.wait(0.01):
                cursor.execute("INSERT INTO probe (filler) VALUES (md5(random()::text))")
                when = time.monotonic()
                cursor.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
                self.told.append((when, int(cursor.fetchone()[0])))
            cursor.execute("DROP TABLE probe")
        self._connection.close()


def measure(lifeboat: Lifeboat, origin: Origin, seconds: int) -> dict[str, Any]:
    """{"p50", "p99", "max" (seconds), "commits" of the probe, "tps" of pgbench, "cpu" (seconds of the shipper), "pieces", "stored", "log" (bytes)}."""
    lifeboat.init()
    origin.sql("SELECT pg_create_physical_replication_slot(%s, true)", (SLOT,))
    before = origin.position()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    shipper = lifeboat.ship()
    seen: list[tuple[float, int]] = []
    probe = Probe(origin)
    try:
        _follow(lifeboat, seen, lambda: not seen or seen[-1][1] < before)
        argv = [data.postgresql_program("pgbench"), "-h", "127.0.0.1", "-p", str(origin.port), "-U", USER, "-n", "-c", str(CLIENTS), "-j", "2",
                "-T", str(seconds), "postgres"]
        bench = subprocess.Popen(argv, env=environment(origin.home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
                                 text=True, **drop())
        probe.start()
        _follow(lifeboat, seen, lambda: bench.poll() is None)
        said = bench.communicate(timeout=60)[0]
        probe.ended.set()
        probe.join(30)
        _follow(lifeboat, seen, lambda: seen[-1][1] < probe.told[-1][1])
    finally:
        probe.ended.set()
        shipper.send_signal(signal.SIGTERM)
        shipper.wait(120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lags = sorted(lag for lag in _lags(probe.told, seen))
    pieces = [path for path in lifeboat.repository.rglob("*.log") if path.is_file()]
    origin.sql("SELECT pg_drop_replication_slot(%s)", (SLOT,))
    words = [line for line in said.splitlines() if line.startswith("tps")]
    return {
        "p50": statistics.median(lags), "p99": lags[min(len(lags) - 1, int(len(lags) * 0.99))], "max": lags[-1], "commits": len(lags), "seconds": seconds,
        "tps": float(words[-1].split("=")[1].split()[0]), "clients": CLIENTS, "pieces": len(pieces), "stored": sum(path.stat().st_size for path in pieces),
        "log": probe.told[-1][1] - before, "cpu": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
    }


def _follow(lifeboat: Lifeboat, seen: list[tuple[float, int]], more: Any) -> None:
    """Note each new proven position as long as there is more to come; SystemExit when it stands still for long."""
    moved = time.monotonic()
    while more():
        position = lifeboat.proven()
        if not seen or position > seen[-1][1]:
            seen.append((time.monotonic(), position))
            moved = time.monotonic()
        if time.monotonic() - moved > _PATIENCE:
            raise SystemExit(f"bench: nothing was proven for {_PATIENCE:.0f} s\n{lifeboat.said()}")
        time.sleep(_LOOK)


def _lags(told: list[tuple[float, int]], seen: list[tuple[float, int]]) -> list[float]:
    """Of each commit: from when the client was told until the first look at which its position was proven."""
    found, at = [], 0
    for when, position in told:
        while seen[at][1] < position:
            at += 1
        found.append(max(0.0, seen[at][0] - when))
    return found


def line(told: dict[str, Any]) -> str:
    """For the page."""
    return (
        f"Log lag, from the moment a client was told of its commit to the moment that position was proven in the repository (read back), with pgbench at "
        f"{told['clients']} clients for {told['seconds']} s ({told['tps']:.0f} transactions/s, {told['log'] / MIB:.0f} MiB of log): "
        f"p50 {told['p50']:.2f} s, p99 {told['p99']:.2f} s, most {told['max']:.2f} s, over {told['commits']} commits of a client beside it; "
        f"{told['pieces']} objects of {told['stored'] / MIB:.1f} MiB."
    )


def judge(told: dict[str, Any]) -> str:
    return f"{'ok   ' if told['p99'] <= REQUIRED else 'SHORT'} log lag: p99 {told['p99']:.2f} s, required at most {REQUIRED:.0f} s"
