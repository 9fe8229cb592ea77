# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A standby, built from a snapshot beside what the host has, so that it goes on by streaming from the primary that runs.

Only a snapshot on the primary's own way will do: another one would have taken log that the primary never had. The log between
snapshot and primary comes from the repository as far as it leads, and from the primary's slot from there on; where neither has
it, that is said before anything is built. No log is left in the copy that the primary does not share: a standby would replay it.
"""

from __future__ import annotations

import os
import re
from typing import Any

from .. import durable
from ..errors import ConflictError, LifeboatError, SourceError, StorageError, TargetError
from . import cluster_reach, cluster_roles
from .cluster_lsn import Piece, history_name, on_way, parse_position, parse_segment, position_text
from .cluster_members import format_conninfo, passfile_of
from .cluster_places import Owner, find_owner
from .cluster_private import escaped
from .cluster_upstream import Upstream
from .contract import Context, Finding, Log

_SETTINGS = "postgresql.auto.conf"
#: What a copy may have been told of its own recovery; none of it holds for a standby of ours.
_RECOVERY = re.compile(r"\s*(primary_conninfo|primary_slot_name|recovery_target\w*|restore_command|promote_trigger_file)\s*=")
_PIECE = 16 << 20
#: Seconds in which a standby that was put back has made some progress, or it is reseeded.
_AGAIN = 90.0


class Standby:
    """The standby that config["standby"] speaks of (cluster_members.way_between). facts: of the snapshot it is built from."""

    def __init__(self, context: Context, facts: dict[str, Any]) -> None:
        self._context = context
        self._facts = facts
        self._where = f"{context.service}.{context.source} on {context.config['standby']['member']}"
        self._way: dict[str, Any] = context.config["standby"]
        self._owner = find_owner(str(context.config["data_directory"]), facts)
        self._parameters = passfile_of(self._way["conninfo"], self._owner.uid)
        self.upstream = Upstream(self._parameters, self._where)
        self._primary: dict[str, Any] = {}
        self._history = b""
        self._pieces: list[Piece] = []

    # -- before anything is built

    def look(self) -> None:
        """Ask the primary who it is, and how it came there."""
        self._primary = self.upstream.identify()
        timeline = int(self._primary["timeline"])
        self._history = self.upstream.history(timeline)
        self._pieces = self.upstream.way(timeline, self._history)

    def fits(self) -> str:
        """Why the snapshot cannot become a standby of this primary; "" when it can."""
        if str(self._facts["system_identifier"]) != self._primary["system_identifier"]:
            return f"it is of system {self._facts['system_identifier']}, the primary is {self._primary['system_identifier']}"
        if not on_way(self._pieces, int(self._facts["timeline"]), parse_position(str(self._facts["stop_lsn"]))):
            return (f"its end {self._facts['stop_lsn']} on timeline {self._facts['timeline']} does not lie on the way of the primary, "
                    f"which is on timeline {self._primary['timeline']}")
        return ""

    def connects(self, log: Log | None) -> str:
        """Why the log does not lead from the snapshot to what the primary still has; "" when it does."""
        end = self._reach(log).end
        if not self.upstream.behind(end):
            return ""
        segment = int(self._facts["segment_size"])
        reason = self.upstream.still_has(end // segment * segment, self._timeline_at(end))
        return f"the repository's log leads up to {position_text(end)}, and of the primary: {reason}" if reason else ""

    def findings(self) -> list[Finding]:
        """What would keep it from working as far as it can be told without the log, changing nothing."""
        try:
            found = cluster_roles.ask(self._context.config, self._where)
            if found["role"] == "primary":
                raise ConflictError("the server that shall become a standby takes writes", f"{self._where}, timeline {found['timeline']}",
                                    "find out whose writes count; stop it, then run the same command again: its data is kept aside")
            self.look()
            reason = self.fits()
            if reason:
                raise TargetError(f"the snapshot cannot become a standby: {reason}", self._where,
                                  "take a snapshot of the primary, then run the same command again")
        except LifeboatError as error:
            return [Finding("error", error)]
        return []

    # -- building

    def keep_log(self, log: Log | None) -> None:
        """From here on the primary keeps its log for this standby. Raises SourceError when what came before is not there."""
        self.look()
        self.upstream.make_slot(str(self._way["slot"]))
        reason = self.connects(log)
        if reason:
            raise SourceError(f"the log between the snapshot and the primary is not there: {reason}", self._where,
                              "take a snapshot of the primary (backup playbook), then run the same command again")

    def complete(self, directory: str, log: Log | None) -> dict[str, Any]:
        """Make rebuilt files a standby's: the log up to where the repository has it, nothing beyond the primary's way, settings, the signal."""
        if not self._primary:
            self.look()
        owner = self._owner
        reach = self._reach(log)
        self._cut(directory)
        fetched = self._fetch(directory, reach, log, owner)
        timeline = int(self._primary["timeline"])
        if self._history:
            _put(os.path.join(directory, "pg_wal", history_name(timeline)), self._history, owner)
        lines = _read_settings(directory)
        settings = {
            "primary_conninfo": format_conninfo(self._parameters), "primary_slot_name": str(self._way["slot"]), "recovery_target_timeline": "latest",
            "restore_command": "",
        }
        if self.upstream.setting("archive_mode") == "off":
            lines = [line for line in lines if not line.replace(" ", "").startswith("archive_mode=")]
            settings["archive_mode"] = "off"  # as the primary, which may be a restored copy: it archives nowhere until told
        text = "\n".join([*lines, *(f"{name} = '{escaped(value)}'" for name, value in settings.items())]) + "\n"
        _put(os.path.join(directory, _SETTINGS), text.encode(), owner)
        _put(os.path.join(directory, "standby.signal"), b"", owner)
        return {"primary": self._way["primary"], "slot": self._way["slot"], "timeline": timeline, "from": position_text(reach.end), "log_bytes": fetched}

    def prove(self) -> dict[str, Any]:
        """It streams by its slot and has replayed what the primary has now; as cluster_roles.prove()."""
        return cluster_roles.prove(self._context.config, self._where, self.upstream.identify, str(self._way["slot"]))

    def follows_again(self) -> dict[str, Any]:
        """The same for a server that was a standby before, whatever its slot is."""
        return cluster_roles.prove(self._context.config, self._where, self.upstream.identify, stalled=_AGAIN)

    def down(self) -> bool:
        """Whether no server runs there."""
        return bool(cluster_roles.ask(self._context.config, self._where)["role"] == "down")

    def proves_well(self) -> str:
        """Why what runs on this host is no standby of the primary already, by whatever slot; "" when it is."""
        found = cluster_roles.ask(self._context.config, self._where)
        return cluster_roles.follows(found, self.upstream.identify())

    # -- the log

    def _timeline_at(self, position: int) -> int:
        """The timeline that a standby asks for at a position: where one was left, its child's."""
        return next(piece.timeline for piece in self._pieces if piece.end is None or position < piece.end)

    def _reach(self, log: Log | None) -> cluster_reach.Reach:
        reach = cluster_reach.along(self._facts, log, int(self._primary["timeline"]), self._pieces)
        behind = -(-reach.stop // reach.segment) * reach.segment
        if reach.extent(reach.stop) == reach.stop and any(piece.end is not None and reach.stop <= piece.end < behind for piece in self._pieces):
            reach.end = reach.stop  # the rest of the snapshot's last segment is not the primary's
        return reach

    def _fetch(self, directory: str, reach: cluster_reach.Reach, log: Log | None, owner: Owner) -> int:
        """Bring the log behind the snapshot, segment by segment, zeros behind its end; the bytes."""
        fetched, size = 0, reach.segment
        if log is None or reach.end <= reach.stop:
            return 0
        for number in range(reach.stop // size, -(-reach.end // size)):
            low, high = number * size, min((number + 1) * size, reach.end)
            position = low if reach.extent(low) >= high else max(low, reach.stop)
            if reach.extent(position) == position:
                continue  # the snapshot holds this segment as a whole
            path = os.path.join(directory, "pg_wal", reach.name(number))
            before = b"" if position == low else self._before(directory, number, position - low)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                owner.give(descriptor)
                if before:
                    durable.write_all(descriptor, before, path, "stage")
                while position < high:
                    timeline, end = reach.part(position)
                    data = log.read(timeline, position, min(high, end, position + _PIECE))
                    os.pwrite(descriptor, data, position - low)
                    position, fetched = position + len(data), fetched + len(data)
                os.ftruncate(descriptor, high - low)
                os.ftruncate(descriptor, size)
            except OSError as error:
                raise StorageError(f"a segment of the log cannot be written ({error.strerror})", path, "free space, then run the same command again") from error
            finally:
                os.close(descriptor)
        return fetched

    def _before(self, directory: str, number: int, length: int) -> bytes:
        """The beginning of a segment as the snapshot has it."""
        for name in os.listdir(os.path.join(directory, "pg_wal")):
            found = parse_segment(name, int(self._facts["segment_size"]))
            if found is not None and found[1] == number:
                with open(os.path.join(directory, "pg_wal", name), "rb") as handle:
                    return handle.read(length)
        return b""

    def _cut(self, directory: str) -> None:
        """Of the snapshot's own log keep what the primary shares."""
        size, folder = int(self._facts["segment_size"]), os.path.join(directory, "pg_wal")
        for name in os.listdir(folder):
            found = parse_segment(name, size)
            if found is None:
                continue
            piece = next((piece for piece in self._pieces if piece.timeline == found[0]), None)
            low, path = found[1] * size, os.path.join(folder, name)
            if piece is None or (piece.end is not None and piece.end <= low):
                os.unlink(path)
            elif piece.end is not None and piece.end < low + size:
                os.truncate(path, piece.end - low)
                os.truncate(path, size)


def _read_settings(directory: str) -> list[str]:
    try:
        with open(os.path.join(directory, _SETTINGS), encoding="utf-8") as handle:
            return [line for line in handle.read().splitlines() if not _RECOVERY.match(line)]
    except FileNotFoundError:
        return ["# Do not edit this file manually!"]


def _put(path: str, data: bytes, owner: Owner) -> None:
    durable.replace_file(path, data, "origin")
    owner.give(path)
