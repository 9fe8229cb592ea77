# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a restore of a service will move, and over how fast a way: told by its preflight for the forecast on the controller."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from ..errors import LifeboatError
from ..repository import layout
from ..repository.metered import BULK, MeteredBackend
from .inspect import Point
from .restore_state import Restore

if TYPE_CHECKING:
    from ..repository.reader import SnapshotReader
    from ..repository.repository import ServiceStore
    from ..sources.contract import LocalShare

#: When preflight read less than this, a pack is read for the sake of measuring: so many bytes, or for so many seconds.
_ENOUGH = 1 << 20
_PROBE = 4 << 20
_PROBE_SECONDS = 2.0


class Estimate:
    """Collects what one preflight sees. Sources are added by several threads, each its own."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._sources: dict[str, dict[str, Any]] = {}

    def source(self, name: str, reader: SnapshotReader, local: LocalShare | None, log: int = 0) -> None:
        """A snapshot whose entries were all read, and shown to ``local``; and so many bytes of log."""
        data = reader.manifest
        plain, sealed = int((data.get("bytes") or {}).get("source", 0)), reader.sealed_bytes()
        share, sampled = local.share() if local is not None else (0.0, 0)
        reused = round(plain * min(1.0, max(0.0, share)))
        self._sources[name] = {
            "type": str(data.get("type", "")), "bytes": plain + log, "reused": reused, "written": plain + log - reused,
            "fetched": (round(sealed * (1 - reused / plain)) if plain else sealed) + log, "log": log, "sampled": sampled,
        }

    def result(self, store: ServiceStore, point: Point, restore: Restore | None, current: bool) -> dict[str, Any]:
        """{"bytes", "reused", "written", "fetched" (stored bytes over the link), "sources": the same by name with "type", "log" (bytes of log
        in it) and "sampled" (pieces of local data that were compared), "link": MeteredBackend.link() or None, "cores", "seconds" of
        this preflight}.

        What is in place already, and what an unfinished restore has staged, moves nothing.
        """
        for name, one in self._sources.items():
            done = restore.sources.get(name) if restore is not None else None
            if current or (done is not None and (done.cutover or done.stage in ("verified", "current"))):
                one.update(reused=one["bytes"], written=0, fetched=0)
        totals = {key: sum(int(one[key]) for one in self._sources.values()) for key in ("bytes", "reused", "written", "fetched")}
        return {
            **totals, "sources": self._sources, "link": _link(store, point), "cores": len(os.sched_getaffinity(0)),
            "seconds": round(time.monotonic() - self._began, 3),
        }


def _link(store: ServiceStore, point: Point) -> dict[str, Any] | None:
    meter = store.backend
    if not isinstance(meter, MeteredBackend):
        return None
    if meter.bulk < _ENOUGH:
        packs = [pack for manifest in point.snapshots.values() for pack in manifest.data["packs"]]
        largest = max(packs, key=lambda pack: int(pack[1]), default=None)
        if largest is not None:
            with contextlib.suppress(FileNotFoundError, LifeboatError):  # that it is missing or damaged is a finding already
                _probe(meter, layout.pack(store.service, bytes.fromhex(str(largest[0]))), int(largest[1]))
    return meter.link()


def _probe(meter: MeteredBackend, name: str, size: int) -> None:
    """Read a piece of a real object, growing, so that a slow way costs seconds and no more."""
    began, offset, step = time.monotonic(), 0, BULK
    while offset < min(size, _PROBE) and time.monotonic() - began < _PROBE_SECONDS:
        meter.read_range(name, offset, min(step, size - offset))
        offset, step = offset + step, min(2 * step, 1 << 20)
