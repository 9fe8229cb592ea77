# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is compared. Each one carries a tree into its own place and back out; every step is a process that is timed whole.

A step's time runs from the start of the process to the end of a `sync` of the file system, so nobody wins by leaving
work in the page cache. Memory is the peak resident size that the kernel reports for the process and its children.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

TIMEOUT = 3600


@dataclass
class Measured:
    """seconds: until exit and sync. cpu: user + system seconds. peak: bytes. detail: what the contender told itself."""

    seconds: float
    cpu: float
    peak: int
    detail: dict[str, Any] = field(default_factory=dict)


def sync(path: Path) -> None:
    """Flush the file system that holds ``path``."""
    subprocess.run(["sync", "-f", str(path)], check=True, timeout=TIMEOUT)


def measure(argv: list[str], place: Path, env: dict[str, str] | None = None) -> tuple[Measured, str]:
    """Run one process, then sync; returns what it cost and its output. Raises SystemExit when it fails."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        try:
            _pid, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        sync(place)
        seconds = time.monotonic() - begun
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            raise SystemExit(f"bench: {' '.join(argv[:3])} ended with {process.returncode}\n{errors.read().decode(errors='replace')[-3000:]}")
        text = output.read().decode(errors="replace")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024), text


def tree_bytes(path: Path) -> int:
    return sum(found.lstat().st_size for found in path.rglob("*") if found.is_file())


class Contender(ABC):
    """One engine with a place of its own (``home``), made anew for every round."""

    name: ClassVar[str]

    def __init__(self, home: Path, workers: int) -> None:
        self.home = home
        self.workers = workers

    def version(self) -> str:
        return ""

    def init(self) -> None:
        """An empty home with an empty repository; not timed."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)

    @abstractmethod
    def backup(self, tree: Path, number: int) -> Measured:
        """Back the tree up; ``number`` 1 is the first, 2 the unchanged second."""

    @abstractmethod
    def restore(self, tree: Path) -> tuple[Measured, Path]:
        """Restore the newest into an empty place; returns where it is."""

    def stored(self) -> int:
        """Bytes in the repository."""
        return tree_bytes(self.home / "repository")


class Copy(Contender):
    """cp -a: what the file system can do. It has no second backup but copying everything again."""

    name = "cp -a"

    def backup(self, tree: Path, number: int) -> Measured:
        (self.home / "repository").mkdir(exist_ok=True)
        target = self.home / "repository" / f"copy-{number}"
        return measure(["cp", "-a", str(tree), str(target)], self.home)[0]

    def restore(self, tree: Path) -> tuple[Measured, Path]:
        target = self.home / "restored"
        return measure(["cp", "-a", str(self.home / "repository" / "copy-2"), str(target)], self.home)[0], target


class Restic(Contender):
    """restic with its defaults: repository format 2, --compression auto, as many threads as the others."""

    name = "restic"

    def _argv(self, *words: str) -> list[str]:
        return ["restic", "-q", "-r", str(self.home / "repository"), "--cache-dir", str(self.home / "cache"), "--compression", "auto", *words]

    def _env(self) -> dict[str, str]:
        return {**os.environ, "RESTIC_PASSWORD": "benchmark", "GOMAXPROCS": str(self.workers)}

    def version(self) -> str:
        return subprocess.run(["restic", "version"], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.split(" compiled")[0].strip()

    def init(self) -> None:
        super().init()
        subprocess.run(self._argv("init", "--repository-version", "2"), check=True, env=self._env(), timeout=TIMEOUT)

    def backup(self, tree: Path, number: int) -> Measured:
        return measure(self._argv("backup", str(tree)), self.home, self._env())[0]

    def restore(self, tree: Path) -> tuple[Measured, Path]:
        target = self.home / "restored"
        done = measure(self._argv("restore", "latest", "--target", str(target)), self.home, self._env())[0]
        return done, target / str(tree.resolve()).lstrip("/")


class Lifeboat(Contender):
    """The engine through the operations that modules and the host command call, in a process of its own each time."""

    name = "Lifeboat"
    #: Where a profile of each step goes, or None.
    profiles: Path | None = None

    def _run(self, operation: str, path: Path, run: str) -> Measured:
        job = {
            "home": str(self.home), "repository": str(self.home / "repository"), "path": str(path), "run": run,
            "profile": str(self.profiles / f"{path.parent.name if operation == 'restore' else path.name}-{run}.json") if self.profiles else None,
        }
        done, text = measure([sys.executable, str(Path(__file__).with_name("engine.py")), operation, json.dumps(job)], self.home)
        done.detail = json.loads(text.strip().splitlines()[-1])
        return done

    def init(self) -> None:
        super().init()
        self._run("init", self.home / "nowhere", "init")

    def backup(self, tree: Path, number: int) -> Measured:
        return self._run("capture", tree, f"2026010{number}T000000Z-backup-{number:06x}")

    def restore(self, tree: Path) -> tuple[Measured, Path]:
        target = self.home / "restored" / tree.name
        target.parent.mkdir()
        return self._run("restore", target, "20260109T000000Z-restore-000009"), target


def own_peak() -> int:
    """Peak resident bytes of the benchmark itself: a started process begins with it, so smaller peaks cannot be seen."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
