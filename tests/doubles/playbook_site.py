# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-playbook over fake services, with its own configuration and home, and reads what the run left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.tests.lab import quick

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "integration" / "run_view"

#: Twelve services on five levels: {service: requirements}; "~name" is a soft one.
GRAPH: dict[str, list[str]] = {
    "s1": [], "s2": [], "s3": [], "s4": ["s1"], "s5": ["s2"], "s6": ["s1", "s3"], "s7": ["s5"], "s8": ["s5", "~s6"],
    "s9": ["s4"], "s10": ["s7"], "s11": ["s8"], "s12": ["s10", "s11"],
}

#: Twenty services, each on two earlier ones.
TWENTY: dict[str, list[str]] = {f"s{number}": sorted({f"s{number // 2}", f"s{number // 3}"} - {"s0"}) for number in range(1, 21)}


def plan_of(graph: dict[str, list[str]]) -> dict[str, Any]:
    """A plan as the planner writes it, as far as gates and reports read it. The graph is given in order."""
    return {
        "order": list(graph), "islands": [list(graph)], "target": "latest", "warnings": [],
        "services": {
            name: {
                "waits_for": [{"service": one.lstrip("~"), "kind": "soft" if one.startswith("~") else "hard"} for one in needs],
                "requires": [], "sources": [], "bytes": 0, "rto": 300, "resolution": {"point": "p1", "time": "2030-01-01T00:00:00Z"},
            } for name, needs in graph.items()
        },
    }


@dataclass
class Outcome:
    code: int
    out: str
    directory: Optional[Path] = None
    document: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def verdicts(self) -> dict[str, str]:
        return {name: item["verdict"] for name, item in self.document["services"].items()}


class Site:
    """A folder with an inventory, a configuration and a place for runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        #: What ansible-playbook prints, as far as it has come.
        self.screen = folder / "screen.txt"
        self.view = True

    def environment(self) -> dict[str, str]:
        config = self.folder / "ansible.cfg"
        config.write_text(
            "[defaults]\ninternal_poll_interval = 0.05\nretry_files_enabled = false\nlocalhost_warning = false\n"
            "display_ok_hosts = false\ndisplay_skipped_hosts = false\n"
            f"local_tmp = {self.folder / 'tmp'}\nremote_tmp = {self.folder / 'tmp'}\n"
            + ("callbacks_enabled = lifeboat.recovery.run_view\n" if self.view else "")
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "LIFEBOAT_"))}
        return {
            **kept, "ANSIBLE_CONFIG": str(config), "HOME": str(self.folder), "ANSIBLE_HOME": str(self.folder / ".ansible"), "NO_COLOR": "1",
            **quick.variables(ROOT / ".dev"),
        }

    def inventory(self, graph: dict[str, list[str]], remote: tuple[str, ...] = ()) -> Path:
        # the order of the inventory is not the order of the run
        lines = ["[services]"]
        for name in sorted(graph, reverse=True):
            how = "ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1" if name in remote else "ansible_connection=local"
            lines.append(f"{name} ansible_python_interpreter={sys.executable} {how}")
        path = self.folder / "hosts.ini"
        path.write_text("\n".join(lines) + "\n")
        return path

    def command(self, playbook: str, inventory: Path, forks: int, variables: dict[str, Any], *more: str) -> list[str]:
        extra = self.folder / "extra.json"
        extra.write_text(json.dumps({"fake_root": str(self.runs), **variables}))
        return [
            str(Path(sys.executable).parent / "ansible-playbook"), str(HERE / playbook), "-i", str(inventory), "--forks", str(forks),
            "-e", f"@{extra}", *more,
        ]

    def play(
        self, playbook: str = "run.yml", graph: Optional[dict[str, list[str]]] = None, forks: int = 12, remote: tuple[str, ...] = (),
        more: tuple[str, ...] = (), **variables: Any,
    ) -> Outcome:
        graph = GRAPH if graph is None else graph
        command = self.command(playbook, self.inventory(graph, remote), forks, {"fake_plan": plan_of(graph), "fake_remote": list(remote), **variables}, *more)
        with open(self.screen, "w", encoding="utf-8") as screen:
            done = subprocess.run(
                command, env=self.environment(), cwd=self.folder, stdout=screen, stderr=subprocess.PIPE, text=True, timeout=900, check=False
            )
        return self.outcome(done.returncode, self.screen.read_text(), done.stderr)

    def start(self, playbook: str, graph: dict[str, list[str]], **variables: Any) -> subprocess.Popen[str]:
        """Begin a playbook in a process group of its own, as a terminal does."""
        command = self.command(playbook, self.inventory(graph), 12, {"fake_plan": plan_of(graph), **variables})
        return subprocess.Popen(
            command, env=self.environment(), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def outcome(self, code: int, out: str, error: str) -> Outcome:
        runs = sorted((path for path in self.runs.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns) if self.runs.is_dir() else []
        found = Outcome(code, out, runs[-1] if runs else None, error=error)
        if runs and (runs[-1] / "run.json").is_file():
            found.document = json.loads((runs[-1] / "run.json").read_text())
        return found
