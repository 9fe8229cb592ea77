# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifeboat, restic and cp -a over the same trees in one go.

Every round does, for every data set: first backup, unchanged second backup, restore; each step by all contenders one
after the other, in an order that rotates from round to round. Ratios are taken within a round and their median is told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import contenders
import data
import report

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
#: What more files than these leave behind is deleted when all is over: for minutes after a mass deletion ext4 looks at each inode that
#: was freed before it makes a new file, and whoever is next pays for it.
FEW = 100
#: Copies of a tree that one round leaves: two of cp, three restored ones, two repositories that are never larger.
COPIES = 7


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench BENCH_ARGS=...", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--postgresql", type=int, default=1024, metavar="MIB", help="size of the PostgreSQL data directory (default 1024)")
    parser.add_argument("--files", type=int, default=50_000, metavar="N", help="number of small files (default 50000)")
    parser.add_argument("--incompressible", type=int, default=512, metavar="MIB", help="size of the random data (default 512)")
    parser.add_argument("--only", action="append", choices=list(data.MAKERS), help="this data set only; may be repeated")
    parser.add_argument("--cache", choices=("warm", "dropped"), default="warm", help="state of the page cache before each step (dropped needs root)")
    parser.add_argument("--profile", action="store_true", help="one extra round of Lifeboat under the sampling profiler, not counted")
    parser.add_argument("--home", type=Path, default=ROOT / "tests" / "benchmarks" / "output", help="where trees, repositories and results go")
    parser.add_argument("--json", type=Path, help="where the raw result goes (default: HOME/bench.json)")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--strict", action="store_true", help="exit 1 when something required is missed")
    return parser.parse_args(argv)


def settle(cache: str, tree: Path) -> None:
    """The state before a step: nothing dirty, and the page cache as promised."""
    os.sync()
    if cache == "dropped":
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
        return
    for folder, _names, files in os.walk(tree):
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                with open(path, "rb", buffering=0) as handle:
                    while handle.read(MIB):
                        pass


def fingerprint(tree: Path) -> str:
    """Names, kinds, modes, owners, times and contents of a tree."""
    whole = hashlib.sha256()
    for folder, names, files in os.walk(tree):
        names.sort()
        for name in sorted([*names, *files]):
            path = Path(folder) / name
            seen = path.lstat()
            whole.update(f"{path.relative_to(tree)}\0{seen.st_mode}\0{seen.st_uid}\0{seen.st_gid}\0{seen.st_mtime_ns}\0".encode(errors="surrogateescape"))
            if stat.S_ISREG(seen.st_mode):
                with path.open("rb") as handle:
                    whole.update(hashlib.file_digest(handle, "sha256").digest())
    return whole.hexdigest()


def run_round(number: int, tree: Path, racers: list[contenders.Contender], cache: str, wanted: str | None) -> tuple[dict[str, Any], dict[str, int]]:
    """All steps of one data set; returns (phase -> contender -> numbers, contender -> bytes stored after the first backup)."""
    order = racers[number % len(racers):] + racers[:number % len(racers)]
    steps: dict[str, Any] = {}
    stored: dict[str, int] = {}
    for racer in racers:
        racer.home = racer.home.parent.parent / f"round-{number + 1}" / racer.home.name
        racer.init()
    for phase in report.PHASES:
        steps[phase] = {}
        for racer in order:
            settle(cache, tree if phase != "restore" else racer.home / "repository")
            if phase == "restore":
                done, place = racer.restore(tree)
                if wanted is not None and fingerprint(place) != wanted:
                    raise SystemExit(f"bench: {racer.name} did not restore what was backed up: {tree} and {place} differ")
            else:
                done = racer.backup(tree, 1 if phase == "first backup" else 2)
            if phase == "first backup":
                stored[racer.name] = racer.stored()
            steps[phase][racer.name] = {
                "seconds": round(done.seconds, 4), "cpu": round(done.cpu, 3), "peak": done.peak, "detail": done.detail,
            }
        steps[phase] = {racer.name: steps[phase][racer.name] for racer in racers}
    return steps, stored


def profile(tree: Path, racer: contenders.Lifeboat, cache: str, folder: Path) -> dict[str, Any]:
    """One round of Lifeboat alone under the sampler."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    racer.home = racer.home.parent.parent / "profiled" / racer.home.name
    racer.init()
    racer.profiles = folder
    settle(cache, tree)
    racer.backup(tree, 1)
    racer.restore(tree)
    racer.profiles = None
    kinds = {"backup": "first backup", "restore": "restore"}
    found = {}
    for path in sorted(folder.glob("*.json")):
        kind = next(title for word, title in kinds.items() if f"-{word}-" in path.name)
        found[f"{tree.name.rsplit('-', 1)[0]}, {kind}"] = json.loads(path.read_text(encoding="utf-8"))
    return found


def about(options: argparse.Namespace, racers: list[contenders.Contender], workers: int) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / ".dev"))
    from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.compression import DEFAULT

    version = next(line.split(":")[1].strip() for line in (ROOT / "galaxy.yml").read_text(encoding="utf-8").splitlines() if line.startswith("version:"))
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if str(options.home.resolve()).startswith(mount[1].rstrip("/") + "/")]
    return {
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} × {model}, {memory} MiB memory, Linux {platform.release()}",
        "rounds": options.rounds, "cache": options.cache, "workers": workers, "level": DEFAULT, "lifeboat": version,
        "restic": next((racer.version() for racer in racers if racer.name == "restic"), ""), "python": platform.python_version(),
        "file_system": max(inside, key=lambda mount: len(mount[1]))[2] if inside else "unknown", "load": f"{os.getloadavg()[0]:.1f}",
        "own_peak": contenders.own_peak(),
    }


def main(argv: list[str]) -> int:
    options = arguments(argv)
    if options.rounds < 1:
        raise SystemExit("bench: --rounds must be at least 1")
    # the many files last: what deleting them does to the file system then hurts nobody
    sizes = {"postgresql": options.postgresql * MIB, "incompressible": options.incompressible * MIB, "small-files": options.files}
    names = [name for name in sizes if name in (options.only or sizes)]
    sys.path.insert(0, str(ROOT / ".dev"))
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.capture import default_workers

    workers = default_workers()
    work = options.home / "work"
    shutil.rmtree(work, ignore_errors=True)
    first = work / "data" / "round-1"
    lifeboat = contenders.Lifeboat(first / "lifeboat", workers)
    racers: list[contenders.Contender] = [lifeboat, contenders.Restic(first / "restic", workers), contenders.Copy(first / "cp", workers)]
    result: dict[str, Any] = {"about": about(options, racers, workers), "contenders": [racer.name for racer in racers], "data": {}, "profiles": {}}
    begun = time.monotonic()
    for name in names:
        places = work / name
        for racer in racers:
            racer.home = places / "round-1" / racer.home.name
        tree, facts = data.provide(options.home / "trees", name, sizes[name])
        wanted = fingerprint(tree)
        print(f"bench: {name}: {facts['files']} files, {facts['bytes'] / MIB:.0f} MiB", flush=True)
        kept = facts["files"] > FEW and shutil.disk_usage(options.home).free > facts["bytes"] * COPIES * (options.rounds + 2)
        if facts["files"] > FEW and not kept:
            print("bench: too little space to keep what a round leaves; deleting it slows down who makes files next", flush=True)
        mine: dict[str, Any] = {**facts, "rounds": {phase: [] for phase in report.PHASES}, "stored": {}}
        for number in range(options.rounds):
            # contents are compared once: that every contender really restored what it was given
            steps, mine["stored"] = run_round(number, tree, racers, options.cache, wanted if number == 0 else None)
            for phase in report.PHASES:
                mine["rounds"][phase].append(steps[phase])
            told = "  ".join(f"{phase}: " + " ".join(f"{steps[phase][racer.name]['seconds']:.2f}" for racer in racers) for phase in report.PHASES)
            print(f"bench: round {number + 1}  {told}", flush=True)
            if not kept:
                shutil.rmtree(places / f"round-{number + 1}")
        if options.profile:
            result["profiles"].update(profile(tree, lifeboat, options.cache, options.home / "profiles" / name))
        result["data"][name] = mine
    shutil.rmtree(work)
    target = options.json or options.home / "bench.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n" + report.table(result) + "\n\n" + report.stored_table(result) + "\n\n" + report.restore_parts(result))
    print("\n".join(report.judge(result)))
    print(f"\nbench: {time.monotonic() - begun:.0f} s; raw numbers in {target}")
    if not options.no_docs:
        report.update(ROOT / "docs" / "benchmarks.md", report.page(result))
        print("bench: docs/benchmarks.md updated")
    missed = any(line.startswith("SHORT") for line in report.judge(result))
    return int(options.strict and missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
