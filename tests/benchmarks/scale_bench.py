# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fifty services come back: in the order of their requirements, in waves and one after the other, beside a lower bound; and what each costs to orchestrate.

usage: make bench-scale SCALE_ARGS="..." or scale_bench.py [--services N] [--path SECONDS] [--only PART] [--no-docs]

All services are stopped and all their data is destroyed before each restore. The recovery time runs from the start of ansible-playbook to the last
service's verdict. Everything runs on this machine, with as many forks as services. With the defaults it takes about twelve minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import report
import scale_report

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / ".dev"))

MIB = 1 << 20
PARTS = ("graph", "waves", "sequence", "orchestration")
#: Services of the run one after the other, from which the time of all is computed.
SEQUENCE = 12
#: A playbook that took longer hangs.
LIMIT = 3600
#: linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-scale SCALE_ARGS=...", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--size", type=int, default=512, metavar="MIB", help="data of all of them (default 512)")
    parser.add_argument("--path", type=float, default=200.0, metavar="SECONDS", help="critical path of declared start times (default 200)")
    parser.add_argument("--counts", default="10,50", metavar="N,N", help="services for the cost of orchestration (default 10,50)")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part only; may be repeated")
    parser.add_argument("--home", type=Path, default=ROOT / "tests" / "benchmarks" / "output" / "scale", help="where results go; parts not measured are kept")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/benchmarks.md as it is")
    return parser.parse_args(argv)


def own_process(script: str, *words: str) -> Any:
    """What one of our scripts prints as JSON."""
    done = subprocess.run([sys.executable, str(HERE / script), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {script} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def read_speed(folder: Path) -> float:
    """Bytes per second of reading every file below a folder with plain reads, the second time."""
    names = [path for path in folder.rglob("*") if path.is_file()]
    for _round in range(2):
        begin, total = time.monotonic(), 0
        for path in names:
            with path.open("rb", buffering=0) as handle:
                while data := handle.read(MIB):
                    total += len(data)
        seconds = time.monotonic() - begin
    return total / seconds


def cpu() -> float:
    """CPU seconds of all ended children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def adopt() -> None:
    """What loses its parent becomes ours: the processes that wait for calls on this host, which are the playbook's cost too."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("bench: this kernel does not give orphans to anybody")


def end_waiting() -> float:
    """End the processes that wait for calls; the CPU seconds of them and of all that they forked."""
    spent = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _end, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        if name.endswith("(lifeboat-waits") and int(rest.split()[1]) == os.getpid():
            pid = int(stat.parent.name)
            os.kill(pid, signal.SIGTERM)
            used = os.wait4(pid, 0)[2]
            spent += used.ru_utime + used.ru_stime
    return spent


def restore(fleet: Any, shape: str, forks: int, probe: Path | None = None) -> dict[str, Any]:
    """One restore by the playbook: {"rto", "first", "seconds", "cpu", "waiting", "verdicts", "deprecations", "forks", "tasks"}.

    cpu: all of it. waiting: of that, what the processes that wait for calls and their forks used.
    """
    fleet.destroy()
    os.sync()  # what was written before is not written while this is measured
    # the plan is looked at first, as an operator does; what a host keeps of the modules is there then
    looked = fleet.play("restore", "--check", "--forks", str(forks), catalog=fleet.catalogs[shape])
    if looked.code:
        raise SystemExit(f"bench: the plan ({shape}) ended with {looked.code}:\n{looked.text[-4000:]}")
    end_waiting()
    env: dict[str, str] = {}
    if probe is not None:
        probe.unlink(missing_ok=True)
        env.update(PYTHONPATH=str(HERE / "scale_probe"), LIFEBOAT_PROBE=str(probe))
    before, wall, begin = cpu(), time.time(), time.monotonic()
    outcome = fleet.play("restore", "--forks", str(forks), catalog=fleet.catalogs[shape], env=env)
    seconds = time.monotonic() - begin
    waiting = end_waiting()
    if outcome.code or outcome.directory is None:
        raise SystemExit(f"bench: the restore ({shape}) ended with {outcome.code}:\n{outcome.text[-4000:]}")
    marks = [json.loads(line) for line in (outcome.directory / "timings.jsonl").read_text().splitlines()]
    ends = [mark["time"] - wall for mark in marks if mark["event"] == "verdict"]
    told = {
        "rto": max(ends), "first": min(ends), "seconds": seconds, "cpu": cpu() - before, "waiting": waiting, "verdicts": outcome.document["counts"]["by"],
        "deprecations": len(re.findall("deprecat", outcome.text, re.IGNORECASE)), "forks": forks,
    }
    if probe is not None:
        told["tasks"] = [json.loads(line) for line in probe.read_text().splitlines()]
    return told


def settled(fleet: Any, shape: str = "graph") -> None:
    """A point of every service, in the repository that all shapes share."""
    own_process("scale_engine.py", "capture", str(fleet.catalogs[shape]))
    os.sync()


def timed_parts(options: argparse.Namespace, parts: list[str], result: dict[str, Any]) -> None:
    """The graph, waves and sequence over one fleet, and the bound."""
    import scale_ecosystem

    services = scale_ecosystem.grow(options.services, options.size * MIB, options.path)
    with scale_ecosystem.Fleet(services) as fleet:
        settled(fleet)
        fleet.destroy()
        alone = own_process("scale_engine.py", "restore", str(fleet.catalogs["graph"]), str(fleet.home / "alone"))
        speed = read_speed(fleet.repository)
        result["bound"] = own_process(
            "lower_bound.py", str(fleet.catalogs["graph"]), str(fleet.declared), "--speed", str(speed), "--cpu-seconds", str(alone["cpu_seconds"]))
        result["bound"].update(
            speed=speed, alone=alone, services=len(services), bytes=sum(one.size for one in services.values()),
            starts=sum(one.seconds for one in services.values()), levels=scale_ecosystem.depth(services), islands=scale_ecosystem.islands(services))
        for shape in ("graph", "waves"):
            if shape in parts:
                result[shape] = restore(fleet, shape, len(services))
                print(f"{shape}: {result[shape]['rto']:.1f} s", flush=True)


def sequence(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """A few services, one after the other with one fork and without any start time: what one costs there."""
    import scale_ecosystem

    services = scale_ecosystem.grow(SEQUENCE, options.size * MIB * SEQUENCE // options.services, 0.0)
    with scale_ecosystem.Fleet(services) as fleet:
        settled(fleet)
        result["sequence"] = {**restore(fleet, "sequence", 1), "services": len(services)}


def orchestration(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Services that start at once with next to no data: all that is left is orchestration."""
    import scale_ecosystem

    result["orchestration"] = {}
    for count in (int(word) for word in options.counts.split(",")):
        services = scale_ecosystem.grow(count, count * 4096, 0.0)
        with scale_ecosystem.Fleet(services) as fleet:
            settled(fleet)
            told = restore(fleet, "graph", count, probe=fleet.home / "probe.jsonl")
        result["orchestration"][str(count)] = scale_report.cost(told, count)
        print(f"orchestration of {count}: {told['cpu'] / count:.2f} CPU seconds per service", flush=True)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    from ansible_collections.lifeboat.recovery.tests.lab import harbour

    adopt()
    harbour.LIMIT = LIMIT
    parts = options.only or list(PARTS)
    options.home.mkdir(parents=True, exist_ok=True)
    file = options.home / "scale.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() and options.only else {}
    result["about"] = {
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(), "ansible": _ansible(),
    }
    if {"graph", "waves"} & set(parts):
        timed_parts(options, parts, result)
    if "sequence" in parts:
        sequence(options, result)
    if "orchestration" in parts:
        orchestration(options, result)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = scale_report.page(result)
    print(text)
    if not options.no_docs:
        report.update(ROOT / "docs" / "benchmarks.md", text, "measured scale")
    return 0


def _ansible() -> str:
    found = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent)) or "ansible-playbook"
    return subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout.split("]")[0].split("core ")[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
