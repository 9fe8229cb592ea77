# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What would keep the restore of a cluster from working: all findings at once, changing nothing. And the stage record."""

from __future__ import annotations

import os
from typing import Any

from ..errors import ConfigError, LifeboatError, SourceError, StorageError, TargetError
from . import cluster_places as places
from .cluster_lsn import parse_position
from .cluster_private import find_programs
from .cluster_reach import parse_time
from .contract import Context, Finding
from .postgresql_client import Client
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
        for check in (self._programs, self._place, self._rights, self._commands, self._former, self._spaces, self._log_directory, self._space,
                      self._configuration, self._target):
            try:
                check()
            except LifeboatError as error:
                self._all.append(Finding("error", error))
        return self._all

    def _error(self, what: str, where: str, remedy: str) -> None:
        self._all.append(Finding("error", SourceError(what, where, remedy)))

    def _warning(self, what: str, where: str, remedy: str) -> None:
        self._all.append(Finding("warning", SourceError(what, where, remedy)))

    def _programs(self) -> None:
        find_programs(self._context.config.get("bin_dir"), int(self._record["major"]), self._client.where)

    def _place(self) -> None:
        live, parent = self._live, os.path.dirname(self._live)
        if places.present(live) and not os.path.isdir(live):
            self._error("what stands in the place of the data directory is no directory", live, "move it away, or correct data_directory in the catalog")
        elif os.path.isdir(live) and os.listdir(live) and not places.holds_cluster(live):
            self._error("the data directory holds files but no cluster", live, "move them away: they are never replaced")
        if os.path.ismount(live):
            self._error("the data directory is a mount point, which cannot be swapped by rename", live,
                        "use a directory below the mount point as data_directory")
        if not os.path.isdir(parent):
            if not self._server.can_provision:
                self._error("the directory above the data directory does not exist", parent, "create or mount it, or give the source a 'provision' command")
        elif not os.access(parent, os.W_OK | os.X_OK):
            self._error("no right to create and rename beside the data directory", parent, "run as root, or as an owner of that directory")

    def _rights(self) -> None:
        if os.geteuid() not in (0, self._owner.uid):
            self._error(f"the cluster belongs to uid {self._owner.uid}", self._live, "run the restore as root or as that user")
        if self._owner.uid == 0:
            self._error("the cluster's files would belong to root, as whom the server refuses to run", self._live,
                        f"create the user {self._facts.get('user') or 'postgres'!r} on this host")

    def _commands(self) -> None:
        missing = [name for name, there in (("start", self._server.can_start), ("stop", self._server.can_stop)) if not there]
        if missing:
            raise ConfigError(
                f"the server is swapped while it is down, but the catalog does not say how to {' and '.join(missing)} it", self._client.where,
                f"set {' and '.join('server.' + name for name in missing)} on this source",
            )

    def _former(self) -> None:
        if places.holds_cluster(self._live) and places.major_of(self._live) != self._record["major"]:
            self._warning(f"the cluster in place is of PostgreSQL {places.major_of(self._live)}, the snapshot of {self._record['major']}", self._live,
                          "it is displaced; the start command must start the captured version")
        if self._record["in_place"]:
            self._warning("in_place: the live cluster is stopped at once and overwritten while it is rebuilt", self._live,
                          "there is no rollback, and nothing to start until it is done; take in_place out if there is room for two")
        elif places.present(self._live) and places.postmaster(self._live) is None and self._client.listening():
            self._error("something else listens where the cluster's server should", self._client.place,
                        "find it with `ss -ltnp`, or correct address and port")

    def _spaces(self) -> None:
        mine = {os.path.realpath(place) for _link, place in places.spaces(self._live)}
        seen: dict[str, str] = {}
        old = {str(space["from"]) for space in self._record["tablespaces"]}
        for unknown in sorted(set(self._context.config.get("tablespace_map") or {}) - old):
            self._error(f"tablespace_map names {unknown!r}, but no tablespace of the snapshot lies there", self._client.where,
                        f"known: {', '.join(sorted(old)) or 'none'}")
        for space in self._record["tablespaces"]:
            place = str(space["to"])
            if not os.path.isabs(place):
                self._error("the new place of a tablespace is no absolute path", place, "correct tablespace_map")
                continue
            if os.path.realpath(place) in seen:
                self._error(f"two tablespaces ({seen[os.path.realpath(place)]} and {space['oid']}) would share one place", place, "correct tablespace_map")
            seen[os.path.realpath(place)] = str(space["oid"])
            if (os.path.realpath(place) + "/").startswith(os.path.realpath(self._live) + "/"):
                self._error("a tablespace would lie inside the data directory, which is swapped as a whole", place,
                            "map it to a place outside with tablespace_map")
            if places.version_directories(place, int(self._record["major"])) and os.path.realpath(place) not in mine:
                self._error(f"the place of tablespace {space['oid']} holds files of another cluster", place,
                            "move them away, or give the tablespace another place with tablespace_map")
            self._writable(place, f"tablespace {space['oid']}", "map it to another place with tablespace_map")

    def _log_directory(self) -> None:
        place = self._record["wal_directory"]
        if place is None:
            return
        mine = os.path.realpath(f"{self._live}/pg_wal")
        if os.path.ismount(place):
            self._error("the log directory is a mount point, which cannot be swapped by rename", place, "set wal_directory to a directory below it")
        if os.path.isdir(place) and os.listdir(place) and os.path.realpath(place) != mine:
            self._error("the place of the log directory holds files of another cluster", place, "move them away, or set wal_directory to another place")
        self._writable(os.path.dirname(place), "the log directory", "set wal_directory to another place")

    def _writable(self, place: str, what: str, remedy: str) -> None:
        there = place
        while there != "/" and not os.path.isdir(there):
            if places.present(there):
                self._error(f"the place of {what} is no directory", there, remedy)
                return
            there = os.path.dirname(there)
        if not os.access(there, os.W_OK | os.X_OK):
            self._error(f"no right to write to the place of {what}", there, f"run as root, or {remedy}")

    def _space(self) -> None:
        """Room on every file system for what goes there; in place only for what the cluster grows by."""
        wanted: dict[int, list[Any]] = {}

        def want(path: str, size: int) -> None:
            while not os.path.isdir(path):
                path = os.path.dirname(path) or "/"
            wanted.setdefault(os.stat(path).st_dev, [path, 0])[1] += size

        total = int(self._facts.get("bytes", 0))
        for space in self._record["tablespaces"]:
            size = next(int(found.get("bytes") or 0) for found in self._facts["tablespaces"] if str(found["oid"]) == space["oid"])
            total -= size
            if os.path.isabs(str(space["to"])):
                want(str(space["to"]), size)
        want(os.path.dirname(self._live), max(0, total))
        present = places.size_of(self._live) if self._record["in_place"] else 0
        for path, size in wanted.values():
            status = os.statvfs(path)
            free, need = status.f_bavail * status.f_frsize, max(0, size - present)
            if free < need:
                remedy = "free space or enlarge the file system"
                if not self._record["in_place"] and self._record["had_live"]:
                    remedy += f", {_IN_PLACE}"
                self._all.append(Finding("error", StorageError(
                    f"the staged copy needs {need >> 20} MiB and {free >> 20} MiB are free", path, remedy, "no_space",
                )))

    def _configuration(self) -> None:
        place = self._context.config.get("config_directory")
        if place and not os.path.isfile(os.path.join(str(place), "postgresql.conf")):
            self._error("the configuration outside the data directory is not there, and it is not part of the snapshot", f"{place}/postgresql.conf",
                        "put it there (it belongs to the host's configuration), or correct config_directory")

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
