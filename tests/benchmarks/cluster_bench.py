# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifeboat's `postgresql` source and pgBackRest on one running cluster, in one go.

Every round: full backup; restore to empty; incremental backups after 1 % of the rows changed, as runs of neighbours and scattered;
restore over a cluster with nothing and with 1 % changed; finished log segments pushed; a restore that fetches and replays them. Each step
is done by both, one after the other, in an order that turns around from round to round. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

import cluster_lag
import cluster_report
import data
import report
from bench import settle
from cluster_contenders import SLOT, Contender, Lifeboat, PgBackRest, PgBackRestAsInstalled, measure
from cluster_server import MIB, RESTORED, Origin, own_directory, restored

ROOT = Path(__file__).resolve().parents[2]
#: Copies of the cluster that a round leaves until the end.
COPIES = 12


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-cluster CLUSTER_ARGS=...", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="size of the cluster: half pgbench, half wide rows (default 1024)")
    parser.add_argument("--wal", type=int, default=512, metavar="MIB", help="log that is pushed and replayed, at most 2048 (default 512)")
    parser.add_argument("--lag", type=int, default=30, metavar="SECONDS", help="how long pgbench runs for the lag of the log, 0 for not at all (default 30)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="pgBackRest's process-max (default: one per core, as Lifeboat's)")
    parser.add_argument("--profile", action="store_true", help="run Lifeboat under the sampling profiler: the times then mean nothing, docs are not touched")
    parser.add_argument("--home", type=Path, default=ROOT / "tests" / "benchmarks" / "output" / "cluster", help="where everything goes")
    parser.add_argument("--note", default="", help="what else the machine was doing, for the page")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    return parser.parse_args(argv)


class Round:
    """One round: rows[step][contender] = {"seconds", "cpu", "peak", "bytes"?, ...}."""

    def __init__(self, number: int, home: Path, origin: Origin, options: argparse.Namespace) -> None:
        self.number = number
        self.home = own_directory(home)
        self.origin = origin
        self.options = options
        self.lifeboat = Lifeboat(home / "lifeboat", origin, options.home / "profiles" if options.profile else None)
        self.pgbackrest = PgBackRest(home / "pgbackrest", origin, options.workers)
        both: list[Contender] = [self.lifeboat, self.pgbackrest]
        self.order = both if number % 2 == 0 else both[::-1]
        #: For the rows of the full backup and its restore.
        self.all = [*self.order, PgBackRestAsInstalled(home / "installed", origin, 1)]
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}

    def note(self, step: str, who: str, row: dict[str, Any], size: int) -> None:
        self.rows.setdefault(step, {})[who] = {**row, "bytes": size}
        print(f"bench: round {self.number + 1}: {step}: {who} {row['seconds']:.2f} s", flush=True)

    def run(self) -> dict[str, dict[str, dict[str, Any]]]:
        for one in self.all:
            one.init()
        self.backup("full backup", 1)
        self.restore("restore to empty", lambda one: restored(self.home / f"empty-{type(one).__name__}"))
        self.copy("restore to empty: files there")
        for number, (word, scattered) in enumerate((("runs", False), ("scattered", True)), 2):
            self.origin.change(1, scattered)
            if scattered:
                self.origin.sql("SELECT pg_create_physical_replication_slot(%s, true)", (SLOT,))
            self.backup(f"incremental, 1 % changed ({word})", number)
        self.delta("delta restore, nothing changed")
        self.origin.change(1, False)
        self.delta("delta restore, 1 % changed")
        self.log()
        return self.rows

    def backup(self, step: str, number: int) -> None:
        wanted = self.origin.content()  # before: looking at changed rows for the first time marks their pages
        for one in self.all if number == 1 else self.order:
            self.origin.sql("CHECKPOINT")
            settle("warm", self.origin.data)
            before = one.stored()
            done = one.backup(number, number == 1)
            one.wanted = wanted
            self.note(step, one.name, done.row(stored=one.stored() - before), self.size())

    def size(self) -> int:
        return int(self.origin.sql("SELECT sum(pg_tablespace_size(oid)) FROM pg_tablespace")[0][0])

    def restore(self, step: str, place: Callable[[Contender], Any], in_place: bool = False) -> None:
        delta = not step.endswith("empty")
        for one in self.order if delta else self.all:
            if in_place and one is not self.lifeboat:
                continue
            server = place(one)
            settle("warm", one.repository)
            if delta:
                settle("warm", server.data)
            rows = self.lifeboat.restore(server, delta, True) if in_place else one.restore(server, delta)
            for part, row in rows.items():
                title = f"{step}: {'files there' if part == 'files' else 'server answers'}"
                self.note(title, "Lifeboat in place" if in_place else one.name, row, self.size())
            shutil.rmtree(server.home)

    def copy(self, step: str) -> None:
        """What only writing the files costs."""
        target = own_directory(self.home / "copied")
        self.origin.sql("CHECKPOINT")
        settle("warm", self.origin.data)
        done = measure(["cp", "-a", "--reflink=never", str(self.origin.data), str(target)], target, dict(os.environ))
        self.note(step, cluster_report.COPY, done.row(), self.size())
        shutil.rmtree(target)

    def delta(self, step: str) -> None:
        self.origin.content()
        self.origin.sql("CHECKPOINT")
        word = step.split()[-2]
        self.restore(step, lambda one: self.origin.copy(self.home / f"{word}-{type(one).__name__}"))
        self.restore(step, lambda one: self.origin.copy(self.home / f"{word}-in-place"), in_place=True)

    def log(self) -> None:
        origin = self.origin
        origin.make_log(self.options.wal * MIB)
        end = origin.next_segment()
        restart = str(origin.sql("SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (SLOT,))[0][0]).split("/")
        begin = ((int(restart[0], 16) << 32) + int(restart[1], 16)) // (16 * MIB) * 16 * MIB
        for one in self.order:
            origin.warm_log(begin, end)
            os.sync()
            self.note("log push", one.name, one.push(begin, end).row(), end - begin)
        for one in self.order:
            one.wanted = origin.content()
            server = restored(self.home / f"replay-{type(one).__name__}")
            settle("warm", one.repository)
            self.note("log replay", one.name, one.replay(server).row(), end - begin)
            shutil.rmtree(server.home)
        origin.sql("SELECT pg_drop_replication_slot(%s)", (SLOT,))
        origin.sql("CHECKPOINT")


def about(options: argparse.Namespace, origin: Origin) -> dict[str, Any]:
    version = next(line.split(":")[1].strip() for line in (ROOT / "galaxy.yml").read_text(encoding="utf-8").splitlines() if line.startswith("version:"))
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if str(options.home.resolve()).startswith(mount[1].rstrip("/") + "/")]
    return {
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "rounds": options.rounds, "size": options.size, "wal": options.wal,
        "machine": f"{os.cpu_count()} × {model}, {memory} MiB memory, Linux {platform.release()}", "workers": options.workers,
        "lifeboat": version, "pgbackrest": PgBackRest.version(), "python": platform.python_version(),
        "postgresql": str(origin.sql("SHOW server_version")[0][0]), "file_system": max(inside, key=lambda mount: len(mount[1]))[2] if inside else "unknown",
        "load": [f"{os.getloadavg()[0]:.1f}"], "note": options.note,
    }


def write(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main(argv: list[str]) -> int:
    options = arguments(argv)
    if options.rounds < 1 or not 16 <= options.wal <= 2048:
        raise SystemExit("bench: --rounds must be at least 1, --wal 16 to 2048")
    options.home = options.home.resolve()
    work = options.home / "work"
    shutil.rmtree(work, ignore_errors=True)
    own_directory(options.home)
    own_directory(work)
    if options.profile:
        own_directory(options.home / "profiles")
    # as installed: the server's user could not write compiled files here
    compileall.compile_dir(str(ROOT / "plugins" / "module_utils"), quiet=1)
    origin = Origin(work / "origin")
    begun = time.monotonic()
    rounds: list[dict[str, Any]] = []
    with data.open_path(work):
        try:
            origin.create(options.size * MIB)
            told = about(options, origin)
            told["compression"] = json.loads(subprocess.run(
                [sys.executable, str(Path(__file__).with_name("cluster_compression.py")), str(origin.data)],
                check=True, stdout=subprocess.PIPE, timeout=3600).stdout)
            for number in range(options.rounds):
                home = work / f"round-{number + 1}"
                rounds.append(Round(number, home, origin, options).run())
                told["load"].append(f"{os.getloadavg()[0]:.1f}")
                write(options.home / "cluster.json", {"about": told, "rounds": rounds})
                if shutil.disk_usage(work).free < COPIES * options.size * MIB:
                    shutil.rmtree(home)
            if options.lag:
                told["lag"] = cluster_lag.measure(Lifeboat(work / "lag", origin), origin, options.lag)
        except KeyboardInterrupt:
            if not rounds:
                raise
            print(f"bench: interrupted; {len(rounds)} rounds count", flush=True)
        finally:
            for server in [*RESTORED, origin]:
                with contextlib.suppress(SystemExit):
                    server.stop()
    shutil.rmtree(work)
    result: dict[str, Any] = {"about": told, "rounds": rounds}
    result["about"]["rounds"] = len(rounds)
    write(options.home / "cluster.json", result)
    print("\n" + cluster_report.page(result))
    print(f"\nbench: {time.monotonic() - begun:.0f} s; raw numbers in {options.home / 'cluster.json'}")
    if not options.no_docs and not options.profile:
        report.update(ROOT / "docs" / "benchmarks.md", cluster_report.page(result), "measured cluster")
        print("bench: docs/benchmarks.md updated")
    missed = any(line.startswith("SHORT") for line in cluster_report.judge(result))
    return int(options.strict and missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
