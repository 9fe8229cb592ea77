# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Cutover, rollback, commit and discard of a staged cluster: renames with the server down, then the server is started.

How far an earlier call came is read from what is there: the staged, the live, the displaced and the set-aside directory,
and the links of each to its tablespaces. A copy that was restored in place has nothing to go back to.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

from .. import durable, faults, limits
from ..errors import ConfigError, ConflictError, SourceError
from . import cluster_places as places
from .cluster_private import end_leftover, keep_settings_back
from .postgresql_client import Client, ServerDown
from .server import ANSWER_TIMEOUT, Server, wait_until

#: Seconds in which whatever keeps a server alive (systemd, a supervisor) has started one again that died.
RESTARTED_WITHIN = 15.0


class Swap:
    """All of one stage record. Every method may be repeated after a kill."""

    def __init__(self, client: Client, server: Server, record: dict[str, Any]) -> None:
        self.client = client
        self.server = server
        self.record = record
        self.stage = str(record["stage_id"])
        self.live, self.staged = str(record["live"]), str(record["staged"])
        self.displaced, self.aside = str(record["displaced"]), str(record["set_aside"])
        self.private = str(record["private"])

    def cutover(self) -> dict[str, Any]:
        """The staged cluster becomes the live one and its server is started; {"displaced": bool, "displaced_bytes": int}."""
        with self.server.lock():
            if places.present(self.staged):
                self._swap_in()
            elif not places.holds_cluster(self.live):
                raise ConflictError("neither a staged nor a live cluster is there", self.live, "stage it again: run the restore with lifeboat_force=true")
            self._remove_private()
            self._start()
        return {"displaced": places.present(self.displaced), "displaced_bytes": places.size_of(self.displaced)}

    def _swap_in(self) -> None:
        end_leftover(self.staged, self.client.where)
        keep_settings_back(self.staged, self.private)
        self._stop()
        if places.present(self.live):
            if places.present(self.displaced):
                raise ConflictError("something created the live cluster again while it was being swapped", self.live,
                                    "stop what writes there, move it away, then run the same command again")
            places.move_out(self.live, self.displaced, self.stage, "displaced")
        faults.point("restore.cutover.displaced")
        places.move_in(self.staged, self.live, self.stage, "staged")
        faults.point("restore.cutover.swapped")

    def rollback(self) -> dict[str, Any]:
        """The displaced cluster is live again, the restored one is kept aside."""
        if self.record.get("in_place"):
            raise ConflictError("the cluster was restored in place: there is nothing to go back to", self.live, "restore another point instead")
        with self.server.lock():
            if not places.present(self.aside):
                if places.present(self.staged) and not places.present(self.displaced):
                    self._abandon()  # the swap was intended and never happened
                else:
                    if places.present(self.staged):
                        self._swap_in()  # finish the half-made swap first: then the way back is always the same
                    self._stop()
                    if places.present(self.live):
                        places.move_out(self.live, self.aside, self.stage, "aside")
            faults.point("rollback.displaced")
            if places.present(self.displaced):
                self._stop()
                if places.present(self.live):
                    raise ConflictError("something created the live cluster again while it was being swapped back", self.live,
                                        "stop what writes there, move it away, then run the same command again")
                places.move_in(self.displaced, self.live, self.stage, "displaced")
            faults.point("rollback.swapped")
            self._remove_private()
            if places.holds_cluster(self.live):
                self._start()  # without data it was down or absent before the restore, and stays so
        kept = places.present(self.aside)
        return {"displaced": places.holds_cluster(self.live), "set_aside": self.aside if kept else None, "bytes_set_aside": places.size_of(self.aside)}

    def _abandon(self) -> None:
        """Set a staged copy aside that never went live. A live cluster half moved out is brought back by its links."""
        end_leftover(self.staged, self.client.where)
        if any(place == places.inside(os.path.dirname(place), self.stage, "displaced") for _link, place in places.spaces(self.live)) or (
                os.path.islink(f"{self.live}/pg_wal") and os.readlink(f"{self.live}/pg_wal") == places.side(
                    self._home_of_log(), self.stage, "displaced")):
            self._stop()
            places.move_out(self.live, self.displaced, self.stage, "displaced")
        places.move_out(self.staged, self.aside, self.stage, "aside")

    def _home_of_log(self) -> str:
        name = os.readlink(f"{self.live}/pg_wal")
        folder, base = os.path.split(name)
        return os.path.join(folder, base[1:].partition(".lifeboat-")[0])

    def commit(self) -> dict[str, Any]:
        """Delete what was displaced or set aside; {"freed": bytes}."""
        if places.present(self.displaced) and not places.holds_cluster(self.live):
            raise ConflictError("there is no live cluster: the displaced one is the only copy here", self.displaced, "roll back instead")
        try:
            freed = places.remove(self.displaced, self.stage, "displaced", self.record, "displaced")
            freed += places.remove(self.aside, self.stage, "aside", self.record, "displaced")
            self._remove_private()
        except OSError as error:
            raise SourceError(f"cannot delete what was displaced ({error.strerror})", error.filename or self.displaced,
                              "fix permissions, then commit again") from error
        return {"freed": freed}

    def discard(self) -> None:
        """Delete the staged copy. One that is restored in place is the only one there is and stays."""
        end_leftover(self.staged, self.client.where)
        if self.record.get("in_place"):
            self._remove_private()
            return
        try:
            places.remove(self.staged, self.stage, "staged", self.record, "stage")
            self._remove_private()
        except OSError as error:
            raise SourceError(f"cannot delete a staged copy ({error.strerror})", error.filename or self.staged, "fix permissions, then run again") from error

    def _remove_private(self) -> None:
        if os.path.isdir(self.private) and not os.path.islink(self.private):
            shutil.rmtree(self.private)
            durable.fsync_dir(os.path.dirname(self.private), "stage")

    # -- the server

    def take_live(self) -> None:
        """In place: the live cluster is stopped and becomes the staged one, so that nobody can start it half-restored."""
        with self.server.lock():
            left = self.record.get("given_up")
            if left and places.present(str(left[0])) and not places.present(self.live) and not places.present(self.staged):
                end_leftover(str(left[0]), self.client.where)
                places.move_in(str(left[0]), self.live, str(left[1]), "staged")  # without pg_control it cannot start
            if places.present(self.live) and not places.present(self.staged):
                self._stop()
                places.move_out(self.live, self.staged, self.stage, "staged")

    def _stop(self) -> None:
        halt(self.client, self.server, self.live)

    def _start(self) -> None:
        bring_up(self.client, self.server, self.live)


def halt(client: Client, server: Server, live: str) -> None:
    """Stop the server of a data directory and wait until it is gone; the caller holds its lock."""
    if places.postmaster(live) is not None:
        if not server.can_stop:
            raise ConfigError("the live server must be stopped, but the catalog gives no command", client.where, "set server.stop on this source")
        server.stop()
    elif client.listening():
        if not server.can_stop or places.present(live):
            raise ConflictError("something else listens where the cluster's server should", client.place, "find it with `ss -ltnp` and end it")
        server.stop()  # a server whose data directory was deleted under it
    wait_until(lambda: places.postmaster(live) is None and not client.listening(), ANSWER_TIMEOUT, SourceError(
        "the server does not stop, or something starts it again", client.place, "set server.stop to what really stops it",
    ))


def bring_up(client: Client, server: Server, live: str) -> None:
    """Start the server of a data directory where it does not run, and wait until it answers; the caller holds its lock.

    One that was seen, and is gone for longer than a supervisor takes to start it again, has failed.
    """
    if places.postmaster(live) is None:
        server.start()
    deadline = time.monotonic() + ANSWER_TIMEOUT
    gone_since: float | None = None
    seen = False
    while True:
        if places.postmaster(live) is not None:
            seen, gone_since = True, None
        elif seen:
            gone_since = gone_since or time.monotonic()
        try:
            if client.reachable():
                return
        except ServerDown:
            pass
        except SourceError:
            return  # it answers: that the login of today is none of then is for the health checks to tell
        if gone_since is not None and time.monotonic() - gone_since > RESTARTED_WITHIN:
            raise SourceError("the server ended right after its start", client.place, "look into the server's log, then run the same command again")
        if time.monotonic() > deadline:
            raise SourceError(f"the server did not answer within {ANSWER_TIMEOUT:.0f} s of its start", client.place, "look into the server's log")
        limits.check()
        time.sleep(0.05)
