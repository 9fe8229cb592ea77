# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A repository read through a meter: how fast the way to it is, told by the reads that are made anyway."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Iterator, Sequence

from ..clocks import Skew
from ..errors import LifeboatError, StorageError
from .backend import Backend, ReadOnly

#: Reads below this size tell of the way's delay, not of its width.
BULK = 64 << 10


class MeteredBackend(ReadOnly):
    """The same objects as ``inner``, to read. Thread-safe."""

    scheme = "metered"

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._active = 0
        self._since = 0.0
        self._busy = 0.0
        self._bytes = 0
        self._began = self._ended = 0.0

    def link(self) -> dict[str, Any] | None:
        """{"bytes", "seconds" in which at least one large read was under way, "began", "ended" (Unix times)}; None without a large read."""
        with self._lock:
            if not self._bytes or self._busy <= 0:
                return None
            return {"bytes": self._bytes, "seconds": round(self._busy, 6), "began": round(self._began, 3), "ended": round(self._ended, 3)}

    @property
    def bulk(self) -> int:
        """Bytes of large reads so far."""
        return self._bytes

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if length < BULK:
            return self._inner.read_range(name, offset, length)
        with self._lock:
            if not self._active:
                self._since = time.monotonic()
                self._began = self._began or time.time()
            self._active += 1
        got = 0
        try:
            data = self._inner.read_range(name, offset, length)
            got = len(data)
            return data
        finally:
            with self._lock:
                self._active -= 1
                self._bytes += got
                if not self._active:
                    self._busy += time.monotonic() - self._since
                    self._ended = time.time()

    def read(self, name: str, limit: int) -> bytes:
        return self._inner.read(name, limit)

    def size(self, name: str) -> int:
        return self._inner.size(name)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return self._inner.list(prefix)

    def older(self) -> Backend | None:
        return self._inner.older()

    def doubt(self, name: str, error: LifeboatError) -> bool:
        return self._inner.doubt(name, error)

    def held(self, prefix: str) -> dict[str, set[str]]:
        return self._inner.held(prefix)

    def told(self) -> Sequence[dict[str, Any]]:
        return self._inner.told()

    def skew(self, clock: Callable[[], float], names: Sequence[str]) -> Skew | None:
        return self._inner.skew(clock, names)

    def locked_until(self, name: str) -> str | None:
        return self._inner.locked_until(name)

    def refused(self) -> StorageError:
        return StorageError("nothing is written while a restore is looked at", "repository", "this is a fault of the collection: report it")
