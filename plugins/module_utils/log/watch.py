# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Looking at the server while its log is shipped: how far it is, what its slot does, and since when everything it had is proven."""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

from ..errors import LifeboatError, SourceError
from ..repository.log_piece import iso
from .config import LogConfig
from .proven import Proven
from .server import LogServer, Sample

#: Samples of the server's position that wait to be proven.
_SAMPLES = 4096
#: The longest pause between two looks, in seconds.
_PAUSE = 15.0


class Alarms:
    """What is wrong now, by name, and since when. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._raised: dict[str, tuple[str, LifeboatError]] = {}

    def set(self, name: str, error: LifeboatError) -> None:
        with self._lock:
            before = self._raised.get(name)
            self._raised[name] = (before[0] if before else iso(time.time_ns()), error)

    def clear(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self._raised.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._raised

    def as_list(self) -> list[dict[str, Any]]:
        """[{"name", "since", "code", "what", "where", "remedy"}]"""
        with self._lock:
            return [{"name": name, "since": since, **error.as_dict()} for name, (since, error) in sorted(self._raised.items())]


class Watch:
    """run() is a thread's; the others may read ``sample`` and ``caught_up`` (ns; 0: not yet) at any time."""

    def __init__(self, config: LogConfig, server: LogServer, alarms: Alarms) -> None:
        self.sample: Sample | None = None
        self.caught_up = 0
        self._config = config
        self._server = server
        self._alarms = alarms
        self._waiting: collections.deque[Sample] = collections.deque(maxlen=_SAMPLES)

    def run(self, stop: threading.Event) -> None:
        """Look until asked to stop; less often while the server does not answer."""
        failures = 0
        while not stop.is_set():
            try:
                sample = self._server.sample()
                failures = 0
                self.sample = sample
                self._waiting.append(sample)
                self._alarms.clear("ask")
                self._judge(sample)
            except LifeboatError as error:
                failures += 1
                if failures > 1:
                    self._alarms.set("ask", error)
            stop.wait(min(self._config.interval * 2 ** min(failures, 4), _PAUSE))
        self._server.close()

    def forget(self) -> None:
        """Another cluster stands at the address."""
        self._waiting.clear()

    def note(self, mark: Proven) -> None:
        """Up to which look at the server everything it had is proven."""
        while self._waiting:
            first = self._waiting[0]
            if first.position > mark.position and (first.timeline is None or first.timeline >= mark.timeline):
                break
            self.caught_up = first.time_ns
            self._waiting.popleft()

    def _judge(self, sample: Sample) -> None:
        slot, place = self._config.slot, self._server.client.place
        status = sample.slot["wal_status"]
        if status in ("unreserved", "lost"):
            self._alarms.set("slot", SourceError(f"the slot {slot} is {status}: the server removes log that was not received", place,
                                                 "raise max_slot_wal_keep_size; if a gap is reported, take a full snapshot"))
        else:
            self._alarms.clear("slot")
        if sample.sync:
            self._alarms.set("synchronous", SourceError("the receiver counts as a synchronous standby: commits wait for it", place,
                                                        f"name the standbys in synchronous_standby_names so that {slot} is none of them"))
        else:
            self._alarms.clear("synchronous")
