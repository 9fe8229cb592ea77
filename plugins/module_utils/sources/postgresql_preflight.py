# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What would keep a capture or a restore of a database from working: all findings at once, changing nothing."""

from __future__ import annotations

import functools
import os
from typing import Any, Callable

from .. import clocks
from ..errors import CommandError, LifeboatError, SourceError, VersionError
from . import postgresql_catalog as catalog
from .contract import Finding, Need
from .postgresql_client import OLDEST, Client, ServerDown, columns, tool_version, version_of
from .postgresql_stage import knows_restrict
from .server import Server

#: A restored database may be larger than the captured one by this factor while it is built.
_GROWTH = 1.2


def version_text(number: int) -> str:
    """150004 -> 15.4"""
    return f"{number // 10000}.{number % 10000}"


class Findings:
    """Collects; a check that raises becomes a finding of its own."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def error(self, error: LifeboatError, kind: str = "") -> None:
        self.all.append(Finding("error", error, kind))

    def warning(self, error: LifeboatError, kind: str = "") -> None:
        self.all.append(Finding("warning", error, kind))

    def attempt(self, check: Callable[[], Any]) -> None:
        try:
            check()
        except LifeboatError as error:
            self.error(error)


def capture(client: Client) -> list[Finding]:
    """Findings before a capture."""
    findings = Findings()
    try:
        connection = client.connect(client.maintenance())
    except LifeboatError as error:
        findings.error(error)
        return findings.all
    try:
        server = _server(findings, client, connection)
        for tool in ("pg_dump", "psql"):
            findings.attempt(functools.partial(client.tool, tool, server))
        found = catalog.databases(client, connection, [client.database]).get(client.database)
        if found is None:
            findings.error(SourceError(f"database {client.database!r} does not exist", client.place, "correct the database option, or restore it"))
        elif not found["connections"]:
            findings.error(SourceError(f"database {client.database!r} takes no connections", client.place, "ALTER DATABASE ... ALLOW_CONNECTIONS true"))
        else:
            findings.attempt(lambda: _inside(findings, client))
    finally:
        connection.close()
    return findings.all


def _inside(findings: Findings, client: Client) -> None:
    inside = client.connect(client.database)
    try:
        foreign = catalog.summary(client, inside)["foreign_tables"]
        if foreign:
            findings.warning(SourceError(
                f"the rows of {foreign} foreign tables are not captured, only their definitions", f"{client.place}, database {client.database}",
                "back up the server that holds them",
            ))
    finally:
        inside.close()


def _server(findings: Findings, client: Client, connection: Any) -> int:
    server = version_of(connection)
    if server < OLDEST:
        findings.error(VersionError(f"PostgreSQL {version_text(server)} is too old", client.place, f"version {OLDEST // 10000} or newer is needed"))
    if client.rows(connection, "SHOW is_superuser")[0][0] != "on":
        findings.error(SourceError(
            f"user {client.user!r} is no superuser", client.place, "roles, large objects and renames need one: set user and password_file of a superuser",
        ), "permission")
    return server


def restore(client: Client, server: Server, data_directory: str | None, manifest: dict[str, Any], clock: Callable[[], float]) -> list[Finding]:
    """Findings before a restore of this snapshot. A server that is down is an error only if it cannot be brought up.

    data_directory: as the catalog says or, when it does not, as it was at capture.
    """
    findings = Findings()
    facts = manifest["facts"]
    try:
        connection = client.connect(client.maintenance())
    except ServerDown as error:
        findings.attempt(lambda: client.tool("psql", int(facts["version"])))
        findings.attempt(lambda: client.tool("pg_dump", int(facts["version"])))
        findings.attempt(lambda: bring_up_plan(client, server, data_directory))
        findings.warning(SourceError(error.what, error.where, "it will be brought up before staging"))
        return findings.all
    except LifeboatError as error:
        findings.error(error)
        return findings.all
    try:
        version = _server(findings, client, connection)
        _versions(findings, client, version, facts)
        findings.attempt(lambda: _locale(findings, client, connection, facts, version))
        findings.attempt(lambda: _extensions(findings, client, connection, facts))
        spaces = set(columns(client.rows(connection, "SELECT spcname FROM pg_tablespace")))
        for missing in sorted(set(facts.get("tablespaces", [])) - spaces):
            findings.error(SourceError(f"tablespace {missing!r} does not exist", client.place, "create it as it was on the captured server"))
        if client.rows(connection, "SELECT pg_is_in_recovery()")[0][0]:
            findings.error(SourceError("the server is a standby: it takes no writes", client.place, "restore on the primary"))
        prepared = client.rows(connection, "SELECT count(*) FROM pg_prepared_xacts WHERE database = %s", (client.database,))[0][0]
        if prepared:
            findings.error(SourceError(
                f"{prepared} prepared transactions hold database {client.database!r}", client.place, "commit or roll them back (pg_prepared_xacts)",
            ))
        skew = clocks.ask(clock, lambda: float(client.rows(connection, "SELECT extract(epoch FROM clock_timestamp())")[0][0]))
        told = clocks.judge(skew, f"the server {client.place}", "this host", False) if skew else None
        if told:
            findings.all.append(Finding(*told))
    except LifeboatError as error:
        findings.error(error)
    finally:
        connection.close()
    return findings.all


def bring_up_plan(client: Client, server: Server, data_directory: str | None) -> str:
    """"start" or "provision": how a server that is down comes up. Raises ConfigError or SourceError when it cannot."""
    if data_directory is None:
        if server.can_start:
            return "start"
        raise CommandError(
            "the server is down and the catalog does not say how to start it", client.place,
            "set server.start (and data_directory with provision, to recreate a lost one), or start it by hand",
        )
    try:
        names = os.listdir(data_directory)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except PermissionError:
        names = ["PG_VERSION"]  # it is there, and it is the server's own business
    if "PG_VERSION" in names:
        if server.can_start:
            return "start"
        raise CommandError("the server is down and the catalog does not say how to start it", client.place, "set server.start, or start it by hand")
    if names:
        raise SourceError("the data directory holds files but no cluster", data_directory, "move them away: they are never replaced")
    if server.can_provision:
        return "provision"
    raise CommandError("the data directory is lost and the catalog does not say how to recreate an empty server", data_directory,
                       "set provision on this source")


def _versions(findings: Findings, client: Client, version: int, facts: dict[str, Any]) -> None:
    captured = int(facts["version"])
    if version // 10000 < captured // 10000:
        findings.error(VersionError(
            f"the server is PostgreSQL {version_text(version)}, the snapshot was taken from {version_text(captured)}", client.place,
            "restore into the same major version or a newer one",
        ))
    elif version // 10000 > captured // 10000:
        findings.warning(VersionError(
            f"the server is PostgreSQL {version_text(version)}, the snapshot was taken from {version_text(captured)}", client.place,
            "rows are compared in full, schema objects by name only",
        ))
    findings.attempt(lambda: client.tool("pg_dump", version))
    try:
        psql = tool_version(client.tool("psql", version))
    except LifeboatError as error:
        findings.error(error)
        return
    if not knows_restrict(psql):
        findings.warning(VersionError(
            f"psql {version_text(psql)} cannot guard itself against commands hidden in a dump (CVE-2025-8714)", client.where,
            "install the latest minor release of the client programs",
        ))


def _locale(findings: Findings, client: Client, connection: Any, facts: dict[str, Any], version: int) -> None:
    if facts["provider"] != "c":
        if version < 150000 or (facts["provider"] == "b" and version < 170000):
            findings.error(VersionError("this server lacks the database's locale provider", f"{client.place}: {facts['locale']}", "restore into a newer one"))
        elif facts["provider"] == "i" and not client.rows(connection, "SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1"):
            findings.error(VersionError("this server was built without ICU", f"{client.place}: {facts['locale']}", "install a build with ICU"))
    known = columns(client.rows(connection, """
        SELECT collcollate FROM pg_collation WHERE collprovider = 'c' AND collcollate IS NOT NULL
        UNION SELECT collctype FROM pg_collation WHERE collprovider = 'c' AND collctype IS NOT NULL
        UNION SELECT datcollate FROM pg_database UNION SELECT datctype FROM pg_database"""))
    have = {_plain(name) for name in known} | {"c", "posix"}
    for locale in sorted({facts["collate"], facts["ctype"]}):
        if _plain(locale) not in have:
            findings.error(SourceError(f"locale {locale!r} is not known to the server", client.place, "generate it on its host, restart the server"))


def _plain(locale: str) -> str:
    return locale.lower().replace("-", "")


def _extensions(findings: Findings, client: Client, connection: Any, facts: dict[str, Any]) -> None:
    available = dict(client.rows(connection, "SELECT name, default_version FROM pg_available_extensions"))
    for name, version in sorted(facts.get("extensions", {}).items()):
        if name not in available:
            findings.error(VersionError(f"extension {name!r} is not available on the server", client.place, "install the package that holds it"))
        elif available[name] != version:
            findings.warning(VersionError(
                f"extension {name!r} {version} was captured, the server offers {available[name]}", client.place, "the offered version is installed",
            ))


def needs(client: Client, data_directory: str | None, manifest: dict[str, Any]) -> tuple[Need, ...]:
    """Room for the staged copy; nothing can be told of a server on another host."""
    if not client.local:
        return ()
    try:
        connection = client.connect(client.maintenance())
    except LifeboatError:
        directory = data_directory
    else:
        try:
            directory = str(client.rows(connection, "SELECT current_setting('data_directory', true)")[0][0] or "")
        finally:
            connection.close()
        if not os.path.isdir(directory):
            return ()
    return (Need(directory, int(int(manifest["facts"]["bytes"]) * _GROWTH)),) if directory else ()
