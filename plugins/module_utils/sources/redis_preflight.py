# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What would keep a capture or a restore of a Redis from working: all findings at once, changing nothing."""

from __future__ import annotations

import os
import re
from typing import Any, Callable

from .. import clocks, room
from ..errors import CommandError, ConfigError, DamageError, LifeboatError, SourceError
from .contract import Finding, Need
from .redis_client import OLDEST, Client, Link, ServerDown, version
from .redis_private import find_program, program_version
from .server import Server

#: Settings that say where and how a server keeps its data.
SETTINGS = ("dir", "dbfilename", "appendonly", "appendfilename", "appenddirname", "databases")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")


def safe_name(name: str, where: str) -> str:
    """A file name of a server's configuration that stays inside its directory and is no option."""
    if not _NAME.fullmatch(name):
        raise DamageError(f"unusable file name {name[:60]!r}", where, "the server's dbfilename, appendfilename and appenddirname must be plain names")
    return name


def settings_of(link: Link, config: dict[str, Any]) -> dict[str, Any]:
    """directory, dbfilename, appendonly (bool), appendfilename, appenddirname, databases (int) of a running server."""
    found = link.config(*SETTINGS)
    return {
        "directory": str(config.get("directory") or found.get("dir") or ""),
        "dbfilename": safe_name(found.get("dbfilename", "dump.rdb"), link.place),
        "appendonly": found.get("appendonly") == "yes",
        "appendfilename": safe_name(found.get("appendfilename", "appendonly.aof"), link.place),
        "appenddirname": safe_name(found.get("appenddirname", "appendonlydir"), link.place),
        "databases": int(found.get("databases", 16)),
    }


def live_settings(client: Client, config: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The same, from the running server or, when it is down, as they were at capture."""
    try:
        link = client.open()
    except ServerDown:
        captured = facts["settings"]
        return {
            "directory": str(config.get("directory") or captured["directory"]), "appendonly": bool(captured["appendonly"]),
            "databases": int(captured["databases"]),
            **{key: safe_name(str(captured[key]), client.where) for key in ("dbfilename", "appendfilename", "appenddirname")},
        }
    try:
        return settings_of(link, config)
    finally:
        link.close()


def _error(findings: list[Finding], what: str, where: str, remedy: str, kind: str = "") -> None:
    findings.append(Finding("error", SourceError(what, where, remedy), kind))


def capture(client: Client, config: dict[str, Any]) -> list[Finding]:
    """Findings before a capture."""
    findings: list[Finding] = []
    try:
        link = client.open()
    except LifeboatError as error:
        return [Finding("error", error)]
    try:
        info = link.info()
        _version(findings, client, version(info))
        _modules(findings, client, link)
        try:
            find_program(config.get("program"), info.get("executable"), client.where)
            settings = settings_of(link, config)
        except LifeboatError as error:
            findings.append(Finding("error", error))
            return findings
        directory = settings["directory"]
        if not os.path.isdir(directory):
            _error(findings, "the data directory is not on this host", directory, "set host to the server's host, or directory to where it is mounted")
        elif not os.access(directory, os.R_OK | os.X_OK):
            _error(findings, "the data directory cannot be read", directory, "run as the server's user or as root")
        _memory(findings, client, int(info.get("used_memory", "0")))
    except LifeboatError as error:
        findings.append(Finding("error", error))
    finally:
        link.close()
    return findings


def restore(client: Client, server: Server, config: dict[str, Any], manifest: dict[str, Any], clock: Callable[[], float]) -> list[Finding]:
    """Findings before a restore of this snapshot. A dead server is fine: it is started with the restored data."""
    findings: list[Finding] = []
    facts = manifest["facts"]
    if not server.can_start:
        findings.append(Finding("error", CommandError("the catalog does not say how to start the server", client.where, "set server.start on this source")))
    info: dict[str, str] = {}
    try:
        settings = live_settings(client, config, facts)
    except LifeboatError as error:
        findings.append(Finding("error", error))
        return findings
    try:
        link = client.open()
        try:
            info = link.info()
            _version(findings, client, version(info))
            if version(info) < tuple(facts["version"]):
                _error(findings, f"the server is older than the captured {'.'.join(map(str, facts['version']))}", client.place,
                       "install the same version or a newer one", "version")
            if info.get("role") == "slave":
                _error(findings, "the server is a replica: its data comes from its primary", client.place, "restore on the primary")
            limit = int(info.get("maxmemory", "0"))
            if 0 < limit < int(facts["memory"]):
                _error(findings, f"maxmemory ({limit >> 20} MiB) is less than the captured data needs ({int(facts['memory']) >> 20} MiB)", client.place,
                       "raise maxmemory: a restored server must not evict", "space")
            if settings["databases"] < int(facts["highest_database"]) + 1:
                _error(findings, f"the server has {settings['databases']} databases, the snapshot uses number {facts['highest_database']}", client.place,
                       "raise databases in its configuration")
            skew = clocks.ask(clock, lambda: _time(link))
            told = clocks.judge(skew, f"the server {client.place}", "this host", False) if skew else None
            if told:
                findings.append(Finding(*told))
        finally:
            link.close()
    except ServerDown:
        pass  # cutover starts it
    except LifeboatError as error:
        findings.append(Finding("error", error))
    try:
        program = find_program(config.get("program"), info.get("executable"), client.where)
        if program_version(program) < tuple(facts["version"]):
            _error(findings, "the redis-server program is older than the captured server and may not read its dump", program, "install a newer one", "version")
    except LifeboatError as error:
        findings.append(Finding("error", error))
    _directory(findings, server, settings)
    return findings


def needs(client: Client, config: dict[str, Any], manifest: dict[str, Any]) -> tuple[str, tuple[Need, ...]]:
    """(data directory, room for the staged copy and memory to check it)."""
    facts = manifest["facts"]
    settings = live_settings(client, config, facts)
    directory = str(settings["directory"])
    size = int(int(facts["bytes"]) * (2.2 if settings["appendonly"] else 1.1))
    return directory, ((Need(directory, size),) if directory else ()) + (Need("", int(facts["memory"])),)


def _time(link: Link) -> float:
    seconds, micro = link.call("TIME")
    return int(seconds) + int(micro) / 1e6


def _directory(findings: list[Finding], server: Server, settings: dict[str, Any]) -> None:
    directory = str(settings["directory"])
    if not directory:
        findings.append(Finding("error", ConfigError("the data directory is not known", server.where, "set directory on this source")))
        return
    existing = directory
    while not os.path.isdir(existing) and existing != "/":
        existing = os.path.dirname(existing) or "/"
    if not os.access(existing, os.W_OK | os.X_OK):
        _error(findings, "the data directory cannot be written", existing, "run as the server's user or as root (become: true)", "permission")


def _version(findings: list[Finding], client: Client, found: tuple[int, int]) -> None:
    if found < OLDEST:
        _error(findings, f"Redis {found[0]}.{found[1]} is too old", client.place, f"version {OLDEST[0]}.{OLDEST[1]} or newer is needed", "version")


def _modules(findings: list[Finding], client: Client, link: Link) -> None:
    modules = link.call("MODULE", "LIST")
    if modules:
        findings.append(Finding("warning", SourceError(
            f"the server has {len(modules)} modules loaded", client.place, "keys of module types are refused at capture: they have no canonical form",
        )))


def _memory(findings: list[Finding], client: Client, used: int) -> None:
    found = room.measured(Need("", used))
    if found is not None and found["free"] < used:
        _error(findings, f"checking a dump loads it into a private server: {used >> 20} MiB needed, {found['free'] >> 20} MiB of memory available",
               client.where, "free memory on this host", "space")
