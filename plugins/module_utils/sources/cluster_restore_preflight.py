# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What would keep the restore of a cluster from working: all findings at once, changing nothing. And the stage record."""

from __future__ import annotations

import os
from typing import Any

from .. import clocks
from ..errors import CommandError, LifeboatError, SourceError, TargetError, VersionError
from . import cluster_places as places
from .cluster_backup import read_control
from .cluster_lsn import parse_position
from .cluster_private import find_programs
from .cluster_reach import parse_time
from .contract import Context, Finding, Footprint, Need
from .postgresql_client import Client, ServerDown
from .server import Server

_IN_PLACE = "or set in_place: true, which overwrites the live cluster while it rebuilds it: then there is no rollback, and nothing to start until it is done"


def live_directory(context: Context) -> str:
    """The data directory, behind a symbolic link where it is one."""
    path = str(context.config["data_directory"]).rstrip("/") or "/"
    return os.path.realpath(path) if os.path.islink(path) else path


def plan(context: Context, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
    """The stage record."""
    facts = manifest["facts"]
    live = live_directory(context)
    owner = places.find_owner(live, facts)
    mapped = {str(old): str(new) for old, new in (context.config.get("tablespace_map") or {}).items()}
    wal = context.config.get("wal_directory") or facts.get("wal_directory")
    try:
        mode = os.stat(live).st_mode & 0o750
    except FileNotFoundError:
        mode = 0o700
    in_place = bool(context.config.get("in_place"))
    given_up = places.given_up(live) if in_place and not places.present(live) else None
    return {
        "stage_id": stage_id, "live": live, "staged": places.side(live, stage_id, "staged"), "displaced": places.side(live, stage_id, "displaced"),
        "set_aside": places.side(live, stage_id, "aside"), "private": places.side(live, stage_id, "private"),
        "tablespaces": [
            {"oid": str(space["oid"]), "from": str(space["path"]), "to": mapped.get(str(space["path"]), str(space["path"])).rstrip("/")}
            for space in facts.get("tablespaces") or [] if space.get("path")
        ],
        "wal_directory": str(wal).rstrip("/") if wal else None, "owner": [owner.uid, owner.gid], "mode": mode | 0o700,
        "major": int(facts["server_version"]) // 10000, "target": context.target,
        "in_place": in_place and (places.present(live) or given_up is not None), "had_live": places.present(live), "given_up": given_up,
    }


def footprint(context: Context, manifest: dict[str, Any]) -> Footprint:
    """Where the cluster lies, and room on every file system for what goes there; in place only for what the cluster grows by."""
    record, facts = plan(context, manifest, "preflight"), manifest["facts"]
    live, total = str(record["live"]), int(facts.get("bytes", 0))
    needs: list[list[Any]] = []
    for space in record["tablespaces"]:
        size = next(int(found.get("bytes") or 0) for found in facts["tablespaces"] if str(found["oid"]) == space["oid"])
        total -= size
        if os.path.isabs(str(space["to"])):
            needs.append([str(space["to"]), size])
    needs.append([os.path.dirname(live), max(0, total)])
    spare = places.size_of(live) if record["in_place"] else 0
    for need in reversed(needs):
        taken = min(spare, need[1])
        spare, need[1] = spare - taken, need[1] - taken
    hint = _IN_PLACE if record["had_live"] and not record["in_place"] else ""
    return Footprint(os.path.realpath(live), system=_system(live), captured=str(facts.get("system_identifier") or ""),
                     needs=tuple(Need(path, size, hint=hint) for path, size in needs))


def _system(live: str) -> str:
    """The system identifier of the cluster in place; "" when there is none that says."""
    try:
        return read_control(live).system_identifier if places.holds_cluster(live) else ""
    except SourceError:
        return ""  # damaged: it is displaced as it is


class Preflight:
    """Collects findings."""

    def __init__(self, context: Context, client: Client, server: Server, manifest: dict[str, Any]) -> None:
        self._context = context
        self._client = client
        self._server = server
        self._facts: dict[str, Any] = manifest["facts"]
        self._record = plan(context, manifest, "preflight")
        self._live = str(self._record["live"])
        self._owner = places.Owner(*self._record["owner"])
        self._all: list[Finding] = []

    def run(self) -> list[Finding]:
        for check in (self._programs, self._place, self._rights, self._commands, self._former, self._spaces, self._log_directory,
                      self._configuration, self._login, self._identity, self._target):
            try:
                check()
            except LifeboatError as error:
                self._all.append(Finding("error", error))
        return self._all

    def _error(self, kind: str, what: str, where: str, remedy: str) -> None:
        self._all.append(Finding("error", SourceError(what, where, remedy), kind))

    def _warning(self, kind: str, what: str, where: str, remedy: str) -> None:
        self._all.append(Finding("warning", SourceError(what, where, remedy), kind))

    def _programs(self) -> None:
        programs = find_programs(self._context.config.get("bin_dir"), int(self._record["major"]), self._client.where)
        if not os.path.exists(f"{programs}/pg_amcheck"):
            self._all.append(Finding("note", VersionError("the copy's indexes are not held against its tables: there is no pg_amcheck", programs,
                                                          "install it where amcheck shall be part of the proof")))

    def _place(self) -> None:
        live, parent = self._live, os.path.dirname(self._live)
        if places.present(live) and not os.path.isdir(live):
            self._error("place", "what stands in the place of the data directory is no directory", live,
                        "move it away, or correct data_directory in the catalog")
        elif os.path.isdir(live) and os.listdir(live) and not places.holds_cluster(live):
            self._error("place", "the data directory holds files but no cluster", live, "move them away: they are never replaced")
        if os.path.ismount(live):
            self._error("place", "the data directory is a mount point, which cannot be swapped by rename", live,
                        "use a directory below the mount point as data_directory")
        if not os.path.isdir(parent):
            if not self._server.can_provision:
                self._error("place", "the directory above the data directory does not exist", parent,
                            "create or mount it, or give the source a 'provision' command")
        elif not os.access(parent, os.W_OK | os.X_OK):
            self._error("permission", "no right to create and rename beside the data directory", parent, "run as root, or as an owner of that directory")

    def _rights(self) -> None:
        if os.geteuid() not in (0, self._owner.uid):
            self._error("permission", f"the cluster belongs to uid {self._owner.uid}", self._live, "run the restore as root or as that user")
        if self._owner.uid == 0:
            self._error("permission", "the cluster's files would belong to root, as whom the server refuses to run", self._live,
                        f"create the user {self._facts.get('user') or 'postgres'!r} on this host")

    def _commands(self) -> None:
        missing = [name for name, there in (("start", self._server.can_start), ("stop", self._server.can_stop)) if not there]
        if missing:
            raise CommandError(
                f"the server is swapped while it is down, but the catalog does not say how to {' and '.join(missing)} it", self._client.where,
                f"set {' and '.join('server.' + name for name in missing)} on this source",
            )

    def _former(self) -> None:
        if places.holds_cluster(self._live) and places.major_of(self._live) != self._record["major"]:
            self._warning("version", f"the cluster in place is of PostgreSQL {places.major_of(self._live)}, the snapshot of {self._record['major']}",
                          self._live,
                          "it is displaced; the start command must start the captured version")
        if self._record["in_place"]:
            self._warning("place", "in_place: the live cluster is stopped at once and overwritten while it is rebuilt", self._live,
                          "there is no rollback, and nothing to start until it is done; take in_place out if there is room for two")
        elif places.present(self._live) and places.postmaster(self._live) is None and self._client.listening():
            self._error("port", "something else listens where the cluster's server should", self._client.place,
                        "find it with `ss -ltnp`, or correct address and port")

    def _spaces(self) -> None:
        mine = {os.path.realpath(place) for _link, place in places.spaces(self._live)}
        seen: dict[str, str] = {}
        old = {str(space["from"]) for space in self._record["tablespaces"]}
        for unknown in sorted(set(self._context.config.get("tablespace_map") or {}) - old):
            self._error("catalog", f"tablespace_map names {unknown!r}, but no tablespace of the snapshot lies there", self._client.where,
                        f"known: {', '.join(sorted(old)) or 'none'}")
        for space in self._record["tablespaces"]:
            place = str(space["to"])
            if not os.path.isabs(place):
                self._error("catalog", "the new place of a tablespace is no absolute path", place, "correct tablespace_map")
                continue
            if os.path.realpath(place) in seen:
                self._error("catalog", f"two tablespaces ({seen[os.path.realpath(place)]} and {space['oid']}) would share one place", place,
                            "correct tablespace_map")
            seen[os.path.realpath(place)] = str(space["oid"])
            if (os.path.realpath(place) + "/").startswith(os.path.realpath(self._live) + "/"):
                self._error("catalog", "a tablespace would lie inside the data directory, which is swapped as a whole", place,
                            "map it to a place outside with tablespace_map")
            if places.version_directories(place, int(self._record["major"])) and os.path.realpath(place) not in mine:
                self._error("place", f"the place of tablespace {space['oid']} holds files of another cluster", place,
                            "move them away, or give the tablespace another place with tablespace_map")
            self._writable(place, f"tablespace {space['oid']}", "map it to another place with tablespace_map")

    def _log_directory(self) -> None:
        place = self._record["wal_directory"]
        if place is None:
            return
        mine = os.path.realpath(f"{self._live}/pg_wal")
        if os.path.ismount(place):
            self._error("place", "the log directory is a mount point, which cannot be swapped by rename", place, "set wal_directory to a directory below it")
        if os.path.isdir(place) and os.listdir(place) and os.path.realpath(place) != mine:
            self._error("place", "the place of the log directory holds files of another cluster", place,
                        "move them away, or set wal_directory to another place")
        self._writable(os.path.dirname(place), "the log directory", "set wal_directory to another place")

    def _writable(self, place: str, what: str, remedy: str) -> None:
        there = place
        while there != "/" and not os.path.isdir(there):
            if places.present(there):
                self._error("place", f"the place of {what} is no directory", there, remedy)
                return
            there = os.path.dirname(there)
        if not os.access(there, os.W_OK | os.X_OK):
            self._error("permission", f"no right to write to the place of {what}", there, f"run as root, or {remedy}")

    def _configuration(self) -> None:
        place = self._context.config.get("config_directory")
        if place and not os.path.isfile(os.path.join(str(place), "postgresql.conf")):
            self._error("place", "the configuration outside the data directory is not there, and it is not part of the snapshot", f"{place}/postgresql.conf",
                        "put it there (it belongs to the host's configuration), or correct config_directory")

    def _login(self) -> None:
        """The swapped cluster's server is asked with this login; where the former one runs, it can be tried, and its clock read."""
        self._client.password()
        if places.postmaster(self._live) is None:
            return
        try:
            connection = self._client.connect(self._client.maintenance())
        except ServerDown:
            return
        except SourceError as error:
            self._warning("store", f"the server that runs does not let us in ({error.what})", error.where,
                          f"{error.remedy}; after the swap the restored one will be asked the same way")
            return
        try:
            skew = clocks.ask(self._context.clock, lambda: float(self._client.rows(connection, "SELECT extract(epoch FROM clock_timestamp())")[0][0]))
        finally:
            connection.close()
        told = clocks.judge(skew, f"the server {self._client.place}", "this host", (self._context.target or {}).get("kind") == "time") if skew else None
        if told:
            self._all.append(Finding(*told))

    def _identity(self) -> None:
        found, captured = _system(self._live), str(self._facts.get("system_identifier") or "")
        if found and captured and found != captured:
            self._warning("identity", f"another cluster is in place (system identifier {found}, captured was {captured})", self._live,
                          "it is displaced, not merged; make sure that data_directory is meant")

    def _target(self) -> None:
        target = self._context.target
        if target is None:
            return
        try:
            if target["kind"] == "lsn" and parse_position(target["value"]) < parse_position(str(self._facts["stop_lsn"])):
                raise TargetError(f"{target['value']} lies before the end of the snapshot at {self._facts['stop_lsn']}", "target", "choose an earlier snapshot")
            if target["kind"] == "time" and parse_time(target["value"]) < parse_time(str(self._facts["stop_time"])):
                raise TargetError(f"{target['value']} lies before the end of the snapshot at {self._facts['stop_time']}", "target",
                                  "choose an earlier snapshot")
        except ValueError as error:
            raise TargetError(f"the target cannot be read ({error})", "target", "correct it") from error
