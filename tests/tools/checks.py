# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run checks and count what passed.

usage: checks.py [--live] NAME...

Several names run two at a time, the slow ones first, each with its output in tests/output/logs/NAME.log;
what failed is shown again at the end. One name with --live talks to the terminal. The last line is
"N passed, N failed", also written to tests/output/summary.txt; a skipped test counts as failed, because
nothing here may pass unseen.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import places

LOGS = places.OUTPUT / "logs"
REPORTS = places.OUTPUT / "pytest"
ENGINE = "ansible_collections.lifeboat.recovery.plugins"


@dataclass
class Check:
    """One target of `make`: commands run one after the other until one fails.

    weight: expected seconds, only to start the slow ones first. limit: seconds after which it is stopped and failed.
    pytest: the last command is pytest, which counts its own tests. counted: a pattern of lines that each stand for one check,
    broken: a pattern whose first group is the number of those that failed. fresh: a folder that is emptied before.
    """

    name: str
    commands: list[list[str]]
    weight: int = 10
    limit: int = 900
    env: dict[str, str] = field(default_factory=dict)
    pytest: bool = False
    counted: str = ""
    broken: str = ""
    fresh: Path | None = None


@dataclass
class Outcome:
    name: str
    passed: int
    failed: int
    seconds: float
    note: str = ""


def pytest_check(name: str, weight: int, limit: int, *arguments: str) -> Check:
    report = REPORTS / f"{name}.xml"
    command = [
        "python", "-m", "pytest", "-q", "-ra", "--durations=5", f"--junit-xml={report}", f"--basetemp={places.OUTPUT / 'tmp' / name}", *arguments,
    ]
    return Check(name, [command], weight, limit, pytest=True)


def all_checks() -> dict[str, Check]:
    home = places.ansible_test_environment()
    checks = [
        Check("ruff", [["ruff", "check", "--output-format", "concise", "."]]),
        Check("types", [["mypy", "-p", f"{ENGINE}.module_utils", "-p", f"{ENGINE}.plugin_utils"]], 20, 1800),
        Check(
            "lint", [["ansible-lint", "--offline", "--nocolor", "--profile", "production"]], 60, 1800,
            # the checkout's ansible.cfg refuses to go on without an inventory; a syntax check has none
            env={"HOME": home["HOME"], "ANSIBLE_INVENTORY_UNPARSED_FAILED": "false", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false"},
        ),
        Check(
            "sanity", [["ansible-test", "sanity", "--python", "default", "--color", "no"]], 220, 2700, home,
            counted=r'Running sanity test "', broken=r"The (\d+) sanity test\(s\) listed below",
        ),
        Check("changelog", [["antsibull-changelog", "lint"]], 3),
        Check("build", [["python", "tests/tools/package.py"]], 10),
        pytest_check("unit", 170, 2400, "tests/unit"),
        # a playbook waits for its workers, and each file has an ecosystem of its own: two files at once
        pytest_check("integration", 450, 5400, "-n", "2", "--dist", "loadfile", "tests/integration", "--ignore=tests/integration/sources",
                     "--ignore=tests/integration/repositories"),
        pytest_check("stores", 230, 3600, "-n", "2", "--dist", "worksteal", "tests/integration/sources", "tests/integration/repositories",
                     "-m", "not clusters and not soak"),
        # these wait for servers most of the time: two files at once
        pytest_check("clusters", 400, 3600, "-n", "2", "--dist", "loadfile", "tests/clusters", "tests/integration/sources", "-m", "clusters and not soak"),
        pytest_check("drills", 110, 2400, "tests/drills"),
        # needs root, which hosts with namespaces and mounts of their own take
        pytest_check("fleet", 180, 3000, "tests/fleet"),
        pytest_check("soak", 3600, 4 * 3600, "tests", "-m", "soak"),
        Check(
            "molecule", [["molecule", "test", "--all"]], 60, 1800,
            {"NO_COLOR": "1", "PY_COLORS": "0", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_HOME": str(places.OUTPUT / "molecule"),
             "XDG_CACHE_HOME": str(places.OUTPUT / "cache")},
            # it remembers there what was prepared, and would not prepare it again
            fresh=places.OUTPUT / "molecule",
            counted=r"^INFO +\[\S+ > (converge|idempotence|verify)\] Executed: Successful",
        ),
    ]
    return {check.name: check for check in checks}


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a check and what it started: its own session, so no other process is hit."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue


def run_command(argv: list[str], check: Check, log: Path, live: bool, deadline: float) -> tuple[int, str]:
    """Run one command, copy its output to the log and, when live, to the terminal; returns (exit code, note)."""
    env = {**places.environment(), **check.env}
    program = shutil.which(argv[0], path=env["PATH"])
    if program is None:
        return 127, f"{argv[0]} not found; run: make setup"
    with log.open("ab", buffering=0) as handle:
        handle.write(f"$ {' '.join(argv)}\n".encode())
        process = subprocess.Popen(
            [program, *argv[1:]], cwd=places.ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            stop_group(process)

        watchdog = threading.Timer(max(1.0, deadline - time.monotonic()), stop)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                handle.write(line)
                if live:
                    sys.stdout.buffer.write(line)
                    sys.stdout.buffer.flush()
            code = process.wait()
        except BaseException:
            stop_group(process)
            raise
        finally:
            watchdog.cancel()
            if process.stdout is not None:
                process.stdout.close()
    return (124, f"stopped after {check.limit} s") if timed_out.is_set() else (code, "")


def count_pytest(report: Path) -> tuple[int, int, str]:
    """(passed, failed, note) from pytest's own report; a missing report is a failure, a skip too."""
    if not report.exists():
        return 0, 1, "pytest wrote no report"
    total = bad = skipped = 0
    for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        bad += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    notes = []
    if total == 0:
        notes.append("no test was found")
    if skipped:
        notes.append(f"{skipped} skipped")
    return total - bad - skipped, bad + skipped + (total == 0), ", ".join(notes)


def run_check(check: Check, live: bool) -> Outcome:
    log = LOGS / f"{check.name}.log"
    log.write_bytes(b"")
    report = REPORTS / f"{check.name}.xml"
    report.unlink(missing_ok=True)
    if check.fresh is not None:
        shutil.rmtree(check.fresh, ignore_errors=True)
    begun = time.monotonic()
    deadline = begun + check.limit
    code, note, done = 0, "", 0
    for command in check.commands:
        code, note = run_command(command, check, log, live, deadline)
        if code != 0:
            break
        done += 1
    if check.pytest:
        passed, failed, told = count_pytest(report)
        note = note or told
        if code != 0 and failed == 0:
            failed, note = 1, note or f"pytest ended with {code}"
    elif check.counted:
        text = log.read_text(encoding="utf-8", errors="replace")
        seen = len(re.findall(check.counted, text, re.MULTILINE))
        bad = re.search(check.broken, text) if check.broken else None
        failed = max(int(code != 0 or seen == 0), int(bad[1]) if bad else 0)
        passed = max(0, seen - failed)
        note = note or ("nothing was checked" if seen == 0 else "")
    else:
        passed, failed = done, int(code != 0)
    return Outcome(check.name, passed, failed, time.monotonic() - begun, note)


def say(outcome: Outcome) -> None:
    state = "ok" if not outcome.failed else "FAILED"
    note = f"  ({outcome.note})" if outcome.note else ""
    print(f"{outcome.name:<12} {state:<7} {outcome.passed:>5} passed {outcome.failed:>4} failed {outcome.seconds:>7.1f} s{note}", flush=True)


def main(argv: list[str]) -> int:
    live = "--live" in argv
    names = [name for name in argv if name != "--live"]
    known = all_checks()
    unknown = [name for name in names if name not in known]
    if not names or unknown:
        print(f"unknown: {' '.join(unknown)}; known: {' '.join(known)}" if unknown else __doc__, file=sys.stderr)
        return 64
    for folder in (LOGS, REPORTS, places.OUTPUT / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    chosen = sorted((known[name] for name in names), key=lambda check: -check.weight)
    outcomes: list[Outcome] = []
    # Two at a time: the machine that this is measured for has two cores, and most checks wait for processes.
    workers = 1 if live else 2
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run_check, check, live) for check in chosen]):
            outcomes.append(future.result())
            if not live:
                say(outcomes[-1])
    if not live:
        for outcome in outcomes:
            if outcome.failed:
                log = LOGS / f"{outcome.name}.log"
                tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
                print(f"\n--- {outcome.name}: end of {log.relative_to(places.ROOT)}\n" + "\n".join(tail))
        print(f"\nall checks in {time.monotonic() - begun:.0f} s", flush=True)
    summary = f"{sum(outcome.passed for outcome in outcomes)} passed, {sum(outcome.failed for outcome in outcomes)} failed"
    (places.OUTPUT / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    print(summary, flush=True)
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
