# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What would keep a capture of a whole cluster from working: all findings at once, changing nothing."""

from __future__ import annotations

import os

from ..errors import ConfigError, LifeboatError, SourceError
from ..libraries import need
from .cluster_backup import About, Backup, client_of, postmaster, read_control
from .cluster_pages import PAGE
from .contract import Context, Finding
from .postgresql_client import OLDEST, Client

#: Seconds between the start of a postmaster as its lock file tells it and as the server tells it.
_START_SLACK = 30.0


def preflight_capture(context: Context) -> list[Finding]:
    """Findings before a capture; asks the server and looks into the data directory."""
    client = client_of(context.config, f"{context.service}.{context.source}")
    backup = Backup(client)
    try:
        backup.connect()
        about = backup.about()
    except LifeboatError as error:
        return [Finding("error", error)]
    finally:
        backup.close()
    return findings_of(context, client, about)


def findings_of(context: Context, client: Client, about: About) -> list[Finding]:
    """The same for a server that has answered already."""
    findings: list[Finding] = []

    def error(what: str, where: str, remedy: str) -> None:
        findings.append(Finding("error", SourceError(what, where, remedy)))

    try:
        need("numpy")
    except ConfigError as missing:
        findings.append(Finding("error", missing))
    if about.version < OLDEST:
        error(f"PostgreSQL {about.version // 10000} is too old", client.place, f"version {OLDEST // 10000} or newer is needed")
    if about.wal_level == "minimal":
        error("the server's log does not hold what a backup needs: wal_level is minimal", client.place,
              "set wal_level = replica and max_wal_senders > 0, then restart the server")
    elif about.slots_free < 1:
        error("no replication slot is free to keep the log during a capture", client.place, "raise max_replication_slots and restart, or drop an unused slot")
    if about.block_size != PAGE:
        error(f"the server's pages have {about.block_size} bytes", client.place, f"only servers built with {PAGE} bytes are supported")
    if not about.superuser and not about.may_start:
        error(f"user {client.user!r} may not begin a backup", client.place, "connect as a superuser, or GRANT EXECUTE on pg_backup_start and pg_backup_stop")
    if not about.superuser and not about.replication:
        error(f"user {client.user!r} may not make a replication slot", client.place, "connect as a superuser, or ALTER ROLE ... REPLICATION")
    if not about.checksums:
        findings.append(Finding("warning", SourceError(
            "the cluster has no data checksums, so damaged pages are not noticed", client.place, "enable them with pg_checksums while the server is stopped")))
    try:
        _directory(str(context.config["data_directory"]), about, client)
        for space in about.tablespaces:
            if not os.access(os.path.join(str(context.config["data_directory"]), space["path"]), os.R_OK | os.X_OK):
                error(f"tablespace {space['name']!r} cannot be read", space["path"], "run as the server's user or as root, on the server's host")
    except LifeboatError as found:
        findings.append(Finding("error", found))
    return findings


def _directory(data: str, about: About, client: Client) -> None:
    """Raises when the directory is not that of the server that answered."""
    if not os.path.isdir(data):
        raise SourceError("the data directory does not exist on this host", data, "correct data_directory, or the host of the source")
    if not os.access(data, os.R_OK | os.X_OK):
        raise SourceError("the data directory cannot be read", data, "run as the server's user or as root")
    control = read_control(data)
    if control.system_identifier != about.system_identifier:
        raise SourceError("the data directory is of another cluster than the server that answers", f"{data}, {client.place}",
                          "correct data_directory, or address and port")
    pid, started, port = postmaster(data)
    if not pid:
        raise SourceError("no server runs on the data directory, but one answers", f"{data}, {client.place}", "correct data_directory, or address and port")
    if port != about.port or abs(started - about.started) > _START_SLACK:
        raise SourceError("the server that answers runs on another data directory", f"{data}, {client.place}", "correct data_directory, or address and port")
