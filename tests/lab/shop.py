# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away shop for tests: real processes, stopped and deleted at the end whatever happens."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from typing import Any

CTL = pathlib.Path(__file__).resolve().parents[1] / "ecosystem" / "ctl.py"
CATALOG = pathlib.Path(__file__).resolve().parents[2] / "inventories" / "demo" / "shop.catalog.yml"
#: Seconds after which a command counts as hung.
LIMIT = 600


class Shop:
    """One shop in a new directory that its stores' user can reach. Use it as a context manager."""

    def __init__(self) -> None:
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="lifeboat-shop-", dir="/var/tmp"))
        self.base.chmod(0o711)
        self.home = self.base / "shop"

    def __enter__(self) -> Shop:
        try:
            self.do("setup")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        # A new process must be able to finish this even if the test was interrupted in the middle of a command.
        self.run("down", "--purge")
        subprocess.run(["rm", "-rf", str(self.base)], timeout=LIMIT, check=False)

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ctl.py and return how it went."""
        home = [] if command == "compare" else ["--home", str(self.home)]
        return subprocess.run(
            [sys.executable, str(CTL), command, *arguments, *home],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False,
        )

    def do(self, command: str, *arguments: str) -> str:
        """As run(), but it must succeed; returns what it printed."""
        result = self.run(command, *arguments)
        assert result.returncode == 0, f"ctl.py {command} {' '.join(arguments)}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout

    def fingerprint(self, name: str) -> pathlib.Path:
        """Take a fingerprint; returns its file."""
        path = self.base / f"{name}.json"
        self.do("fingerprint", "--output", str(path))
        return path

    @property
    def variables(self) -> dict[str, Any]:
        """What variables.yml says."""
        lines = (self.home / "variables.yml").read_text(encoding="utf-8").splitlines()
        return {name: json.loads(value) for name, value in (line.split(": ", 1) for line in lines)}

    def pids(self) -> dict[str, int]:
        """Process id of every service and store that has one."""
        return {path.stem: json.loads(path.read_text(encoding="ascii"))["pid"] for path in sorted((self.home / "run").glob("*.pid"))}

    def get(self, service: str, path: str) -> tuple[int, Any]:
        """Ask a service over HTTP: status and JSON."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.variables[f'{service}_port']}{path}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def left_running(self) -> list[str]:
        """Command lines of living processes that belong to this shop."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                except OSError:
                    continue
                if str(self.home) in line:
                    found.append(line)
        return found
