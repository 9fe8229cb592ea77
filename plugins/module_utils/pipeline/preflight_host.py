# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Preflight of a restore, the host's part: who else works on the service, its records, ports, commands, libraries."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from typing import Any, Iterator
from urllib.parse import urlsplit

from .. import checks, lease, libraries
from ..errors import CommandError, ConflictError, LifeboatError, StorageError
from ..findings import finding
from . import host
from .restore_job import Job


class Found:
    """Collects findings; what two checks found alike is told once."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def add(self, error: LifeboatError, source: str | None = None, level: str = "error", kind: str = "", cause: str = "") -> None:
        self.all.append(finding(level, error, kind, source, cause))

    def told(self) -> list[dict[str, Any]]:
        """Errors first, then warnings, then notes."""
        seen: set[tuple[str, str]] = set()
        kept = []
        for one in sorted(self.all, key=lambda one: (("error", "warning", "note").index(one["level"]), one["source"] or "")):
            key = (one["what"], one["where"].split(", needed by")[0])
            if key not in seen:
                seen.add(key)
                kept.append(one)
        return kept


def look(job: Job, found: Found) -> None:
    """Everything that needs neither repository nor keys."""
    _records(job, found)
    _libraries(job, found)
    _commands(job, found)
    _ports(job, found)


def _records(job: Job, found: Found) -> None:
    spec = job.spec
    try:
        held = lease.read(spec)
        if held is not None and held["alive"] and held.get("run") not in (job.run["id"], *(job.run.get("gone") or ())):
            found.add(ConflictError(f"Service {spec.service} is in use", lease.describe(held), "wait for it to end, or ask its operator"))
        job.ledger.verify()
    except LifeboatError as error:
        found.add(error, kind="record")
    path = spec.service_dir
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    if not os.access(path, os.W_OK | os.X_OK):
        found.add(StorageError("the state directory cannot be written", path, "fix its permissions, or set state_dir in the catalog"), kind="permission")


def _libraries(job: Job, found: Found) -> None:
    """All that are missing at once: each by itself would only be known when it is needed."""
    for name in host.libraries(job.spec):
        try:
            libraries.need(name)
        except LifeboatError as error:
            found.add(error, cause=f"library {name} of {sys.executable}")


def _argvs(job: Job) -> Iterator[tuple[str, str | None, list[str]]]:
    """(what it is for, source, argv) of every command that the restore will run on this host."""
    runtime = job.spec.entry.get("runtime") or {}
    words = {} if runtime.get("hosts") else {f"runtime.{verb}": runtime.get(verb) for verb in ("start", "stop", "status")}
    commands: list[tuple[str, str | None, Any]] = [(word, None, command) for word, command in words.items()]
    for name, source in (job.spec.entry.get("sources") or {}).items():
        commands += [(f"server.{verb}", name, command) for verb, command in (source.get("server") or {}).items()]
        commands.append(("provision", name, source.get("provision")))
    for word, name, command in commands:
        if isinstance(command, dict) and command.get("unit"):
            yield word, name, ["systemctl"]
        elif isinstance(command, list) and command:
            yield word, name, [str(part) for part in command]


def _commands(job: Job, found: Found) -> None:
    """A command that is not there would only be missed when the service has been stopped, or its data switched."""
    for word, source, argv in _argvs(job):
        if shutil.which(argv[0]) is None:
            there = os.path.exists(argv[0])
            found.add(CommandError(
                f"{word} {'may not be run' if there else 'names a program that is not there'}", argv[0],
                "make it executable for the user who runs the restore" if there else "install it on this host, or correct the catalog",
            ), source)


def _ports(job: Job, found: Found) -> None:
    """A service that is down cannot start where somebody else listens: better known before its data is switched.

    A tcp probe names the service's own port. An http probe may go through a proxy that rightly listens, so it is only a warning.
    """
    own, asked = [], []
    for probe in job.spec.entry.get("health") or []:
        if "tcp" in probe:
            own.append(str(probe["tcp"]))
        elif "http" in probe:
            url = urlsplit(str(probe["http"]))
            asked.append(url.netloc.rpartition("@")[2] if ":" in url.netloc else f"{url.netloc}:{443 if url.scheme == 'https' else 80}")
    taken = [place for place in dict.fromkeys([*own, *asked]) if _taken(place)]
    if not taken or not checks.is_down(job.spec):
        return
    for place in taken:
        who = listener(int(place.rpartition(":")[2]))
        remedy = ("" if who else "find it with `ss -ltnp` and ") + "end it, or correct the port in the catalog"
        by = f" ({who})" if who else ""
        if place in own:
            found.add(ConflictError(f"port in use: the service is down and something else{by} listens on its port", place, remedy), kind="port")
        else:
            found.add(ConflictError(f"something{by} listens where the service is asked for its health, although it is down", place, remedy), None,
                      "warning", "port")


def _taken(place: str) -> bool:
    """Whether somebody listens on an address of this machine; False for an address that is not ours."""
    name, _colon, port = place.rpartition(":")
    try:
        addresses = socket.getaddrinfo(name.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return False  # the health check will say what is wrong with it
    for family, kind, protocol, _name, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def listener(port: int) -> str:
    """"process 123 (nginx)" that listens on a TCP port here; "" when it is not ours to see."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as handle:
                rows = [line.split() for line in handle.readlines()[1:]]
        except OSError:
            continue
        sockets |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    for pid in filter(str.isdigit, os.listdir("/proc") if sockets else []):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{number}") in sockets for number in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
                    return f"process {pid} ({handle.read().strip()})"
        except OSError:
            continue  # another user's, or gone
    return ""
