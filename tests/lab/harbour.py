# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small ecosystem for tests of the playbooks: a few real services with a directory each, a catalog, and ansible-playbook.

Everything lives below one folder; services are ended by pid when it is left.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

import yaml

from . import processes, quick

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVICE = pathlib.Path(__file__).with_name("small_service.py")
#: Seconds after which a playbook counts as hung.
LIMIT = 900
#: Lines of a terminal's first screen.
SCREEN = 40


@dataclass
class Outcome:
    """How a playbook went. document: its run.json, plan: its plan.json, where there is one."""

    code: int
    text: str
    directory: pathlib.Path | None = None
    document: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)

    def with_run(self, runs: pathlib.Path, before: set[str]) -> Outcome:
        """With what it left in its directory: the newest of those that were not there before."""
        new = sorted({path.name for path in runs.iterdir() if path.is_dir()} - before) if runs.is_dir() else []
        if new:
            self.directory = runs / new[-1]
            for name, kept in (("run.json", self.document), ("plan.json", self.plan)):
                if (self.directory / name).exists():
                    kept.update(json.loads((self.directory / name).read_text(encoding="utf-8")))
        return self

    def verdicts(self) -> dict[str, str]:
        """service -> verdict."""
        return {name: str(item["verdict"]) for name, item in self.document.get("services", {}).items()}

    def message(self, service: str) -> str:
        """Why a service has its verdict."""
        return str(self.document["services"][service]["message"])

    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]

    def changed(self) -> dict[str, int]:
        """host -> changed, from the recap."""
        return {name: int(count) for name, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.text, re.M)}

    def recap(self, word: str) -> dict[str, int]:
        """host -> failed, unreachable, … from the recap."""
        return {line.split()[0]: int(found.group(1)) for line in self.text.splitlines() if (found := re.search(rf" {word}=(\d+)", line)) and ": ok=" in line}


class Harbour:
    """Services named in ``graph`` ({service: [hard requirements]}); use it as a context manager."""

    def __init__(self, graph: Mapping[str, Sequence[str]], collections: pathlib.Path | None = None) -> None:
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="lifeboat-harbour-", dir="/var/tmp"))
        self.collections = collections or ROOT / ".dev"
        self.ports = {name: processes.free_port() for name in graph}
        self.repository = self.home / "repository"
        self.state = self.home / "state"
        self.private = self.home / "keys" / "private"
        self.runs = self.home / "runs"
        self.catalog: dict[str, Any] = {
            "plugin": "lifeboat.recovery.catalog",
            "ecosystem": "harbour",
            "repositories": {"local": {"url": f"file://{self.repository}"}},
            "keys": {"provider": "file", "path": str(self.home / "keys" / "host"), "private_path": str(self.private)},
            "state_dir": str(self.state),
            "services": {name: self.entry(name, requires) for name, requires in graph.items()},
        }
        self.file = self.home / "harbour.catalog.yml"
        #: What the stores held when they were captured, for the tests that keep it.
        self.captured: dict[str, Any] = {}
        self.write_catalog()

    def __enter__(self) -> Harbour:
        try:
            for name in self.ports:
                self.fill(name)
                self.control("start", name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        for name in self.ports:
            self.control("stop", name)
        shutil.rmtree(self.home, ignore_errors=True)

    # -- the catalog ---------------------------------------------------------------------------------------------------

    def entry(self, name: str, requires: Sequence[str] = ()) -> dict[str, Any]:
        """The catalog entry of one service."""
        where = f"http://127.0.0.1:{self.ports[name]}"
        return {
            "owner": "team-harbour", "host": "localhost", "requires": list(requires),
            "sources": {"files": {"type": "files", "path": str(self.data(name))}},
            "runtime": {verb: self.argv(verb, name) for verb in ("start", "stop", "status")},
            "health": [{"tcp": f"127.0.0.1:{self.ports[name]}"}, {"http": f"{where}/health"}],
            "invariants": [{"name": "every item is there", "http": f"{where}/audit", "json": "missing", "equals": 0}],
            "policy": {"start": {"timeout": "60s"}, "stop": {"timeout": "60s"}, "health": {"timeout": "60s"}},
        }

    def write_catalog(self, path: pathlib.Path | None = None, catalog: Mapping[str, Any] | None = None) -> pathlib.Path:
        """Write a catalog (this harbour's own by default) where a playbook will read it."""
        path = path or self.file
        path.write_text(yaml.safe_dump(dict(catalog or self.catalog), sort_keys=False), encoding="utf-8")
        return path

    # -- the services --------------------------------------------------------------------------------------------------

    def folder(self, name: str) -> pathlib.Path:
        return self.home / "services" / name

    def data(self, name: str) -> pathlib.Path:
        return self.folder(name) / "data"

    def argv(self, verb: str, name: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(SERVICE), verb, str(self.folder(name)), str(self.ports[name])]

    def fill(self, name: str, items: int = 5) -> None:
        """Give a service its data."""
        (self.data(name) / "items").mkdir(parents=True, exist_ok=True)
        for number in range(items):
            (self.data(name) / "items" / f"item{number}").write_text(f"{name} {number}\n" * 50, encoding="utf-8")
        (self.data(name) / "count").write_text(str(items), encoding="utf-8")
        self.set_state(name, "good")

    def set_state(self, name: str, state: str) -> None:
        """What the service's health says of itself; it is part of its data."""
        (self.data(name) / "state").write_text(state, encoding="utf-8")

    def wreck(self, name: str) -> None:
        """Delete some of the data, change some, and leave a file that belongs to nobody."""
        items = sorted((self.data(name) / "items").iterdir())
        items[0].unlink()
        items[1].write_text("overwritten", encoding="utf-8")
        (self.data(name) / "junk").write_text("junk", encoding="utf-8")

    def control(self, verb: str, name: str) -> None:
        done = subprocess.run(self.argv(verb, name), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0 or verb == "stop", f"{verb} {name}: {done.stderr}"

    def pid(self, name: str) -> int:
        """The process of a service, 0 when it does not run."""
        path = self.folder(name) / "pid"
        pid = int(path.read_text()) if path.exists() else 0
        return pid if pid and processes.alive(pid) else 0

    def healthy(self, name: str) -> bool:
        return answers_well(f"http://127.0.0.1:{self.ports[name]}/health")

    # -- what there is, for comparisons --------------------------------------------------------------------------------

    def fingerprint(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """service -> everything below its folder's data with its metadata, names beside it, and its process."""
        return {name: (tree(self.data(name)), sorted(os.listdir(self.folder(name))), self.pid(name)) for name in names or self.ports}

    def contents(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """service -> its data with metadata, whatever runs."""
        return {name: tree(self.data(name)) for name in names or self.ports}

    def everything(self) -> dict[str, Any]:
        """Live data, processes, repository, keys and what hosts keep; not the run directories."""
        return {
            "services": self.fingerprint(), "repository": tree(self.repository), "keys": tree(self.home / "keys"), "state": tree(self.state),
        }

    # -- the playbooks -------------------------------------------------------------------------------------------------

    def environment(self, **more: str) -> dict[str, str]:
        """Like a shell of its own with the settings of this checkout."""
        return {**environment(self.home, self.collections), **more}

    def play(self, verb: str, *arguments: str, catalog: pathlib.Path | None = None, env: Mapping[str, str] | None = None) -> Outcome:
        """One verb of the collection, as an operator would call it."""
        before = {path.name for path in self.runs.iterdir() if path.is_dir()} if self.runs.is_dir() else set()
        argv = [
            str(pathlib.Path(sys.executable).with_name("ansible-playbook")), verb if verb.endswith(".yml") else f"lifeboat.recovery.{verb}",
            "-i", str(catalog or self.file), "-e", f"lifeboat_runs={self.runs}",
        ]
        if verb == "bootstrap":
            argv += ["-e", f"lifeboat_config_dir={self.home / 'etc'}", "-e", f"lifeboat_command_path={self.home / 'bin' / 'lifeboat'}",
                     "-e", "lifeboat_log_units=false"]  # nothing of a test belongs into this machine's systemd
        with tempfile.TemporaryFile() as output:  # a service would keep a pipe open
            done = subprocess.run(
                [*argv, *arguments], cwd=self.home, env=self.environment(**(env or {})), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, timeout=LIMIT, check=False, start_new_session=True,
            )
            output.seek(0)
            found = Outcome(done.returncode, output.read().decode("utf-8", "replace"))
        return found.with_run(self.runs, before)

    def succeed(self, verb: str, *arguments: str, **more: Any) -> Outcome:
        """As play(), but it must end in success."""
        found = self.play(verb, *arguments, **more)
        assert found.code == 0, f"{verb} ended with {found.code}:\n{found.text}"
        return found


def environment(home: pathlib.Path, collections: pathlib.Path = ROOT / ".dev") -> dict[str, str]:
    """What a shell has that belongs to nobody, with the settings of this checkout."""
    return {
        "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_HOME": str(home / "ansible"),
        **quick.variables(collections),
    }


def answers_well(url: str) -> bool:
    """Whether somebody answers 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def tree(top: pathlib.Path) -> dict[str, Any]:
    """Path -> kind, mode, owner, time of change in ns, content, of everything below a folder; {} when it is absent. A socket is none of it: it goes
    when its process does."""
    found: dict[str, Any] = {}
    for directory, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISSOCK(status.st_mode):
                continue
            what: Any = os.readlink(path) if os.path.islink(path) else None
            if name in files and what is None:
                with open(path, "rb") as handle:
                    what = handle.read()
            # what happens inside of a folder is seen by its entries
            when = status.st_mtime_ns if name in files else 0
            found[os.path.relpath(path, top)] = (status.st_mode, status.st_uid, status.st_gid, when, what)
    return found


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two nested dictionaries differ; for messages of assertions."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                lines += differences(before.get(name, "(absent)"), after.get(name, "(absent)"), f"{path}/{name}")
        return lines
    return [] if before == after else [f"{path}: {str(before)[:160]} -> {str(after)[:160]}"]
