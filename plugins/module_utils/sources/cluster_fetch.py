# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Segments of the log, fetched in parallel ahead of a server that replays them.

The server's restore command only moves files out of a directory; what it asks for and is not there yet it writes down and
waits for. Histories of timelines are all there from the beginning. An error while fetching ends the command with a code above
125, which stops recovery: it never looks like the end of the log. The files on their way are bounded.
"""

from __future__ import annotations

import os
import shlex
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .. import durable
from ..errors import LifeboatError, StorageError
from ..meter import Meter
from .cluster_lsn import history_name, parse_segment
from .cluster_places import Owner, present
from .cluster_reach import Reach
from .contract import Log

#: Bytes of segments that may lie ready or be on their way.
_AHEAD = 256 << 20
_PIECE = 16 << 20
_POLL = 0.005

_COMMAND = """#!/bin/sh
# Moves a file of the log to where the server wants it. Exit codes: 0 done, 1 there is no such file, 255 it could not be fetched.
place={place}
case $1 in
*.history)
    [ -e "$place/known" ] || exit 255
    [ -e "$place/known/$1" ] || exit 1
    cp "$place/known/$1" "$2" && exit 0
    exit 255
esac
asked=
while :; do
    if [ -e "$place/ready/$1" ]; then
        [ -z "$asked" ] || rm -f "$place/want/$1"
        mv -f "$place/ready/$1" "$2" && exit 0
        exit 255
    fi
    [ -e "$place/none/$1" ] && exit 1
    [ -e "$place/failed" ] && exit 255
    [ -d /proc/{pid} ] && [ -d "$place/want" ] || exit 255
    if [ -z "$asked" ]; then
        : > "$place/want/$1" || exit 255
        asked=1
    fi
    sleep 0.01
done
"""


class Fetcher:
    """Context manager: answers a restore command while it is open.

    log None: there are only the history files of ``others`` (timeline -> content), which keep new timelines unique.
    """

    def __init__(self, log: Log | None, reach: Reach, others: dict[int, bytes], directory: str, owner: Owner, workers: int, meter: Meter) -> None:
        self._meter = meter
        self._log = log
        self._reach = reach
        self._histories = {**others, **(log.histories() if log is not None else {})}
        self._place = directory
        self._owner = owner
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="log")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._under_way: dict[str, Future[None]] = {}
        self._next = reach.start // reach.segment
        self._window = max(2, _AHEAD // reach.segment)
        #: The first error met.
        self.error: Exception | None = None
        #: Segments and bytes fetched.
        self.segments = 0

    @property
    def command(self) -> str:
        """For restore_command."""
        return f"{shlex.quote(self._place + '/restore')} %f %p".replace(self._place, self._place.replace("%", "%%"))

    def __enter__(self) -> Fetcher:
        shutil.rmtree(self._place, ignore_errors=True)
        durable.make_dirs(self._place, 0o700, "stage")
        self._owner.give(self._place)
        for name in ("ready", "want", "none", "coming", "known"):
            os.mkdir(os.path.join(self._place, name), 0o700)
            self._owner.give(os.path.join(self._place, name))
        for timeline, content in self._histories.items():
            self._write(f"known/{history_name(timeline)}", content, 0o600)
        self._write("restore", _COMMAND.format(place=shlex.quote(self._place), pid=os.getpid()).encode(), 0o700)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_details: Any) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for future in self._under_way.values():
            future.cancel()
        self._threads.shutdown()
        shutil.rmtree(self._place, ignore_errors=True)

    def _run(self) -> None:
        try:
            while not self._stop.wait(_POLL):
                for name in os.listdir(os.path.join(self._place, "want")):
                    self._asked(name)
                self._look_ahead()
                for name, future in list(self._under_way.items()):
                    if future.done():
                        del self._under_way[name]
                        future.result()
        except Exception as error:  # whatever it is, recovery must stop
            self.error = error
            try:
                self._write("failed", b"", 0o600)
            except OSError:
                self._threads.shutdown(wait=False)
                shutil.rmtree(self._place, ignore_errors=True)  # no room for a word: without the directory the command fails too

    def _look_ahead(self) -> None:
        last = -(-self._reach.end // self._reach.segment)
        while self._next < last and len(self._under_way) + len(os.listdir(os.path.join(self._place, "ready"))) < self._window:
            number, self._next = self._next, self._next + 1
            if self._served(number):
                self._submit(number)

    def _served(self, number: int) -> bool:
        """The log holds of this segment at least what the snapshot itself does."""
        if self._log is None:
            return False
        start = number * self._reach.segment
        if start >= self._reach.end:
            return False
        return self._reach.extent(start) >= min(start + self._reach.segment, max(self._reach.stop, start + 1))

    def _submit(self, number: int) -> None:
        name = self._reach.name(number)
        if name not in self._under_way and not present(os.path.join(self._place, "ready", name)):
            self._under_way[name] = self._threads.submit(self._fetch, number, name)

    def _asked(self, name: str) -> None:
        if name in self._under_way or present(os.path.join(self._place, "ready", name)) or present(os.path.join(self._place, "none", name)):
            return
        if not present(os.path.join(self._place, "want", name)):
            return  # it was taken just now
        segment = parse_segment(name, self._reach.segment)
        if segment is not None and self._served(segment[1]) and self._reach.name(segment[1]) == name:
            self._submit(segment[1])
            self._next = max(self._next, segment[1] + 1)
        else:
            self._write(f"none/{name}", b"", 0o600)

    def _fetch(self, number: int, name: str) -> None:
        """One segment, filled up with zeros where the log ends in it."""
        if self._log is None:
            raise AssertionError("no log")
        position, size = number * self._reach.segment, self._reach.segment
        start, end = position, min(position + size, self._reach.extent(position))
        coming = os.path.join(self._place, "coming", name)
        try:
            descriptor = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                self._owner.give(descriptor)
                while position < end:
                    timeline, high = self._reach.part(position)
                    data = self._log.read(timeline, position, min(high, end, position + _PIECE))
                    written = 0
                    with self._meter.during("write"):
                        while written < len(data):
                            written += os.pwrite(descriptor, memoryview(data)[written:], position - start + written)
                    self._meter.add(written=len(data))
                    position += len(data)
                os.ftruncate(descriptor, size)
            finally:
                os.close(descriptor)
            os.rename(coming, os.path.join(self._place, "ready", name))
        except OSError as error:
            raise StorageError(f"a segment of the log cannot be written ({error.strerror})", coming, "free space, then run the same command again") from error
        self.segments += 1

    def _write(self, name: str, data: bytes, mode: int) -> None:
        coming = os.path.join(self._place, "coming", name.replace("/", "-"))
        descriptor = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._owner.give(descriptor)
            os.fchmod(descriptor, mode)
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
        os.rename(coming, os.path.join(self._place, name))

    def raise_error(self) -> None:
        """Raise what fetching met, in preference to what recovery made of it."""
        if self.error is not None:
            if isinstance(self.error, LifeboatError):
                raise self.error
            raise StorageError(f"fetching the log failed ({self.error})", self._place, "run the same command again") from self.error
