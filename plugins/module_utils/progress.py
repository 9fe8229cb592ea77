# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a long operation tells while it runs: one small JSON file per service, replaced at most twice a second."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from . import limits
from .meter import Meter


class Progress:
    """Counters of one service's phase, written to ``path`` for the live view (None: count only); ``meter`` measures what it takes.

    Whoever counts also learns that the step's time is over (limits.check).

    The file holds {service, phase, detail, bytes_done, bytes_total, items_done, started, updated}; bytes and Unix seconds.
    """

    def __init__(self, service: str, phase: str, path: str | None = None) -> None:
        self.meter = Meter()
        self._path = path
        self._lock = threading.Lock()
        self._written = 0.0
        self._state: dict[str, Any] = {
            "service": service, "phase": phase, "detail": "", "bytes_done": 0, "bytes_total": 0,
            "items_done": 0, "started": time.time(), "updated": time.time(),
        }
        self._write(force=True)

    def add(self, byte_count: int = 0, items: int = 0) -> None:
        """Count work done. Raises LimitError."""
        limits.check()
        with self._lock:
            self._state["bytes_done"] += byte_count
            self._state["items_done"] += items
        self._write()

    def expect(self, byte_count: int) -> None:
        """Raise the number of bytes expected in all."""
        with self._lock:
            self._state["bytes_total"] += byte_count
        self._write()

    def say(self, detail: str) -> None:
        """Set the short text shown behind the counters. Raises LimitError."""
        limits.check()
        with self._lock:
            self._state["detail"] = detail
        self._write(force=True)

    def snapshot(self) -> dict[str, object]:
        """A copy of the counters."""
        with self._lock:
            return dict(self._state)

    def close(self) -> None:
        """Remove the file: the result of the operation takes over."""
        if self._path is not None:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass

    def _write(self, force: bool = False) -> None:
        if self._path is None:
            return
        now = time.time()
        with self._lock:
            if not force and now - self._written < 0.5:
                return
            self._written = now
            self._state["updated"] = now
            text = json.dumps(self._state)
        temporary = f"{self._path}.{os.getpid()}.{threading.get_ident()}"
        try:
            with open(temporary, "w", encoding="utf-8") as handle:
                handle.write(text)
            os.replace(temporary, self._path)
        except OSError:
            pass  # the view is a courtesy: a full disk must fail the work, not its display
