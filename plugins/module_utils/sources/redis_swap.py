# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Swap a Redis data directory's files by renaming, with the server down.

Everything lies inside the data directory, so mount points and permissions of its parent do not matter:
``.lifeboat-<id>.staged``, ``.displaced`` and ``.aside``. While a swap is under way the directory that takes the live
files is called ``.out`` in addition (they are being moved out) and then ``.in`` (the others are being moved in), so
that a call after a kill finishes the swap and never takes new files for old ones.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from .. import durable, faults
from ..errors import ConflictError, SourceError
from .redis_client import Client, ServerDown
from .server import ANSWER_TIMEOUT, Server, wait_until

#: Written last into a staged directory: it is whole.
COMPLETE = "complete"
#: Seconds for which writes are held back while the last state is saved.
_PAUSE = 600


def side_path(directory: str, stage_id: str, part: str) -> str:
    """The directory of one part (staged, displaced, aside)."""
    return os.path.join(directory, f".lifeboat-{stage_id}.{part}")


class Swap:
    """Cutover, rollback, commit and discard of one stage record. Every method may be repeated after a kill."""

    def __init__(self, client: Client, server: Server, record: dict[str, Any]) -> None:
        self.client = client
        self.server = server
        self.directory = str(record["directory"])
        self.names = [str(name) for name in record["names"]]
        self.staged, self.displaced, self.aside = str(record["staged"]), str(record["displaced"]), str(record["set_aside"])

    def cutover(self) -> dict[str, Any]:
        """The staged files become the live ones and the server is started; {"displaced": bool, "bytes_displaced": int}."""
        with self.server.lock():
            if self._phase(self.displaced) != "done":
                self._swap_in()
            _remove(self.staged, "stage")
            self._start()
        held = self._held(self.displaced)
        return {"displaced": bool(held), "bytes_displaced": _size(self.displaced)}

    def _swap_in(self) -> None:
        if not os.path.exists(os.path.join(self.staged, COMPLETE)):
            raise ConflictError("the staged copy is not there or was not finished", self.staged, "stage again")
        self._move_out(self.displaced)
        faults.point("restore.cutover.displaced")
        for name in self.names:
            self._move(os.path.join(self.staged, name), os.path.join(self.directory, name), f"{self.displaced}.in", keep_target=False)
        self._sync(self.directory, self.staged)
        durable.rename_durably(f"{self.displaced}.in", self.displaced, "swap")
        faults.point("restore.cutover.swapped")

    def _move_out(self, side: str) -> None:
        """Stop the server and move the live files out; leaves the phase "in"."""
        phase = self._phase(side)
        if phase == "in":
            return self._stop()
        out = f"{side}.out"
        if phase is None or not self._held(out):
            self._save()
        self._stop()
        durable.make_dirs(out, 0o700, "swap")
        for name in self.names:
            self._move(os.path.join(self.directory, name), os.path.join(out, name), out, keep_target=True)
        self._sync(out, self.directory)
        return durable.rename_durably(out, f"{side}.in", "swap")

    def rollback(self) -> dict[str, Any]:
        """The displaced files are live again, the restored ones kept aside; {"displaced": bool, "set_aside": path | None}."""
        with self.server.lock():
            if self._phase(self.aside) != "done":
                self._swap_back()
            _remove(self.displaced, "displaced")
            _remove(self.staged, "stage")
            if self._held(None):
                self._start()  # without data it was down or absent before the restore, and stays so
        return {"displaced": bool(self._held(None)), "set_aside": self.aside, "bytes_set_aside": _size(self.aside)}

    def _swap_back(self) -> None:
        phase = self._phase(self.displaced)
        if phase is None:  # the swap was intended and never happened
            if os.path.isdir(self.staged):
                durable.rename_durably(self.staged, self.aside, "swap")
                return
            raise ConflictError("there is nothing to roll back", self.displaced, "see the status of the service")
        if phase != "done":
            self._swap_in()  # finish the half-made swap first: then the way back is always the same
        self._move_out(self.aside)
        faults.point("rollback.displaced")
        for name in self.names:
            self._move(os.path.join(self.displaced, name), os.path.join(self.directory, name), f"{self.aside}.in", keep_target=False)
        self._sync(self.directory, self.displaced)
        extra = os.path.join(self.displaced, "extra")
        if os.path.isdir(extra):
            durable.rename(extra, os.path.join(f"{self.aside}.in", "extra-displaced"), "swap")
            self._sync(f"{self.aside}.in", self.displaced)
        durable.rename_durably(f"{self.aside}.in", self.aside, "swap")
        faults.point("rollback.swapped")

    def commit(self) -> dict[str, Any]:
        """Delete what was displaced or set aside; {"freed": bytes}."""
        if self._phase(self.displaced) in ("out", "in") or self._phase(self.aside) in ("out", "in"):
            raise ConflictError("the swap is not finished", self.displaced, "run the restore or the rollback again first")
        freed = _size(self.displaced) + _size(self.aside)
        _remove(self.displaced, "displaced")
        _remove(self.aside, "displaced")
        _remove(self.staged, "stage")  # a swap that was killed in its last step leaves it empty
        return {"freed": freed}

    def discard(self) -> None:
        """Delete the staged copy."""
        if self._phase(self.displaced) in ("out", "in"):
            raise ConflictError("the swap has begun", self.displaced, "finish it or roll it back first")
        _remove(self.staged, "stage")

    # -- files

    def _phase(self, side: str) -> str | None:
        """None: not begun; out: live files are moved out; in: others are moved in; done."""
        for ending, phase in ((".out", "out"), (".in", "in"), ("", "done")):
            if os.path.isdir(side + ending):
                return phase
        return None

    def _held(self, side: str | None) -> list[str]:
        """Which of the names lie in a directory (None: the live one)."""
        return [name for name in self.names if os.path.lexists(os.path.join(side or self.directory, name))]

    def _move(self, source: str, target: str, side: str, keep_target: bool) -> None:
        """Rename. When both exist, a server was started in between and wrote one: that one is kept under ``extra``.

        keep_target: the target was moved there before and is the right one; otherwise the source is.
        """
        if not os.path.lexists(source):
            return
        if os.path.lexists(target):
            extra = os.path.join(side, "extra")
            durable.make_dirs(extra, 0o700, "swap")
            late = source if keep_target else target
            durable.rename_durably(late, os.path.join(extra, f"{len(os.listdir(extra)) + 1}-{os.path.basename(late)}"), "swap")
            if keep_target:
                return
        durable.rename(source, target, "swap")

    def _sync(self, *directories: str) -> None:
        for directory in directories:
            durable.fsync_dir(directory, "swap")

    # -- the server

    def _save(self) -> None:
        """Hold back writes and save, so that what is displaced is the latest state. A dead server has nothing to save."""
        try:
            link = self.client.open()
        except ServerDown:
            return
        try:
            self._pause(link)
            config = link.config("appendonly")
            wait_until(lambda: link.info().get("rdb_bgsave_in_progress") == "0", self.client.timeout, SourceError(
                "a background save does not end", self.client.place, "see the server's log",
            ))
            try:
                link.call("SAVE")
            except SourceError as error:
                if config.get("appendonly") == "yes" and link.info().get("aof_last_write_status") == "ok":
                    return  # the append-only files hold everything
                link.call("CLIENT", "UNPAUSE")
                raise SourceError(
                    f"the live data cannot be saved before it is displaced ({error.what})", self.client.place,
                    "free space or fix permissions; or stop the server by hand, if its data may be lost",
                ) from error
        finally:
            link.close()

    def _pause(self, link: Any) -> None:
        try:
            link.call("CLIENT", "PAUSE", _PAUSE * 1000, "WRITE")
        except ServerDown:
            raise
        except SourceError:
            pass  # not permitted: then the last writes before the stop may be lost, as with any stop

    def _stop(self) -> None:
        try:
            if self.client.listening() or self.server.running():
                if self.server.can_stop:
                    self.server.stop()
                else:
                    self._shutdown()
            wait_until(lambda: not self.client.listening() and not self.server.running(), ANSWER_TIMEOUT, SourceError(
                "the server does not stop, or something starts it again", self.client.place, "set server.stop to what really stops it",
            ))
        except SourceError:
            self._unpause()
            raise

    def _unpause(self) -> None:
        try:
            link = self.client.open()
            link.call("CLIENT", "UNPAUSE")
            link.close()
        except SourceError:
            pass  # the pause ends by itself

    def _shutdown(self) -> None:
        try:
            link = self.client.open()
        except ServerDown:
            return
        try:
            link.call("SHUTDOWN", "NOSAVE")
        except ServerDown:
            pass  # that is the answer of a server that ends
        finally:
            link.close()

    def _start(self) -> None:
        if not self.client.reachable():
            self.server.start()
            self.client.wait_answer(max(ANSWER_TIMEOUT, self.client.timeout))


def _size(path: str) -> int:
    total = 0
    for directory, _names, files in os.walk(path):
        total += sum(os.lstat(os.path.join(directory, name)).st_size for name in files)
    return total


def _remove(path: str, subject: str) -> None:
    """Delete a directory of ours; the mark that makes it valid goes first, so that half of it never counts."""
    if not os.path.isdir(path):
        return
    durable.unlink(os.path.join(path, COMPLETE), subject)
    for directory, _names, files in os.walk(path):
        for name in files:
            durable.unlink(os.path.join(directory, name), subject)
    shutil.rmtree(path)
    durable.fsync_dir(os.path.dirname(path), subject)
