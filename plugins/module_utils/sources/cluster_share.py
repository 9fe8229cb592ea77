# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How much of a snapshot the live cluster still holds, from a sample of spans: comparing all of it is the restore itself."""

from __future__ import annotations

import os
import random

from ..errors import DamageError
from .cluster_fill import Wanted, runs
from .contract import Entry, LocalShare

#: Spans that are compared, and bytes that are read for it, at most.
SPANS = 64
LIMIT = 64 << 20


class ClusterShare(LocalShare):
    """live: the data directory. Spans are picked with equal chances, the same ones at every look at the same snapshot."""

    def __init__(self, live: str, digest_key: bytes, snapshot: str) -> None:
        self._live = live
        self._key = digest_key
        self._random = random.Random(snapshot)
        self._path, self._size = "", 0
        self._picked: list[tuple[Entry, int]] = []
        self._seen = 0
        self._log = 0
        self._bytes = 0

    def see(self, entry: Entry) -> None:
        if entry["type"] == "file":
            self._path, self._size = str(entry["path"]), int(entry["size"])
        elif entry["type"] == "span":
            length = int(entry["length"])
            self._bytes += length
            if self._path.startswith("pg_wal/"):
                self._log += length  # the log's segments are never the same twice
                return
            self._seen += 1
            if len(self._picked) < SPANS:
                self._picked.append((entry, self._size))
            elif (place := self._random.randrange(self._seen)) < SPANS:
                self._picked[place] = (entry, self._size)

    def share(self) -> tuple[float, int]:
        looked = same = number = 0
        for entry, size in self._picked:
            if looked >= LIMIT:
                break
            number += 1
            length = int(entry["length"])
            looked += length
            same += self._same(entry, size)
        if not looked or not self._bytes:
            return 0.0, 0
        return same / looked * (self._bytes - self._log) / self._bytes, number

    def _same(self, entry: Entry, size: int) -> int:
        """Bytes of a span that the live file holds too."""
        wanted = Wanted(str(entry["path"]), size, entry)
        buffer = bytearray(wanted.length)
        try:
            descriptor = os.open(f"{self._live}/{wanted.path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return 0
        try:
            os.preadv(descriptor, [buffer], wanted.at)  # what it lacks counts as zeros, as in the restore
        except OSError:
            return 0
        finally:
            os.close(descriptor)
        try:
            differing = wanted.differing(self._key, memoryview(buffer))
        except DamageError:
            return 0  # the restore says it
        return wanted.length - sum(min(last * wanted.unit, wanted.length) - first * wanted.unit for first, last in runs(differing))
