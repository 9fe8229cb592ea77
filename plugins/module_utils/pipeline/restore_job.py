# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What all steps of a restore share: the service, the run, its ledger, and sources worked on side by side."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Iterable, TypeVar

from ..errors import LifeboatError, SourceError
from ..ledger import Entry, Ledger
from ..progress import Progress
from ..repository.metered import MeteredBackend
from ..sources.contract import Context, Reader, Source
from .capture import default_workers
from .inspect import Point
from .resolve import resolve_target
from .restore_state import Restore, fold

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore
    from ..spec import Spec

T = TypeVar("T")

#: For calls that compute no digest (rollback, commit): they must work without repository and keys.
NO_DIGEST_KEY = bytes(32)


class Job:
    """One call of a run on a service. ``progress`` None: counts only, unless the state directory is there."""

    def __init__(self, spec: Spec, run: dict[str, Any], phase: str, progress: Progress | None = None) -> None:
        self.spec = spec
        self.run = run
        self.phase = phase
        self.ledger = Ledger.for_spec(spec)
        self.progress = progress or Progress(spec.service, phase)
        self.workers = max(1, default_workers() // max(1, len(spec.source_names)))
        #: What time it is on this host.
        self.clock: Callable[[], float] = time.time
        self._store: ServiceStore | None = None
        self._sources: dict[str, tuple[Source, dict[str, Any]]] = {}

    @property
    def store(self) -> ServiceStore:
        """The service's part of the repository, opened at first use."""
        if self._store is None:
            self._store = self._open()
        return self._store

    def _open(self) -> ServiceStore:
        store = self.spec.reading_store(self.workers)
        store.meter = self.progress.meter
        return store

    def metered(self) -> ServiceStore:
        """The store, from now on read through a meter."""
        self.store.backend = MeteredBackend(self.store.backend)
        return self.store

    def restores(self) -> list[Restore]:
        """All restores of the service as the ledger tells them now."""
        return fold(self.ledger.entries())

    def log(self, event: str, restore: str, source: str | None = None, **data: Any) -> Entry:
        """Write one ledger entry about a restore (and a source)."""
        about = {"restore": restore, **({"source": source} if source else {}), **data}
        return self.ledger.append(self.run, self.phase, event, about)

    def point(self, target: str) -> tuple[Point, list[LifeboatError]]:
        """The complete point a target means, and what is wrong around it."""
        return resolve_target(self.spec, self.store, target)

    def fallbacks(self) -> list[dict[str, Any]]:
        """What was read from elsewhere than the service's repository, and why, as error dicts."""
        return list(self._store.backend.told()) if self._store is not None else []

    def reader(self, point: Point, name: str) -> Reader:
        """A snapshot of the point, opened for restore."""
        return self.store.reader(point.snapshots[name])

    def source(self, name: str, digests: bool = True) -> tuple[Source, Context]:
        """A source with its context; ``digests`` False where neither repository nor keys may be needed."""
        if name not in self._sources:
            self._sources[name] = self.spec.source(name)
        source, config = self._sources[name]
        key = self.store.chunk_key if digests else NO_DIGEST_KEY
        context = self.spec.context(name, config, self.progress, key, self.workers)
        context.clock = self.clock
        return source, context

    def parallel(self, names: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
        """Do the work for every source at once and wait for all; one error carries what failed elsewhere too."""
        wanted = list(names)
        if not wanted:
            return {}
        if self._store is None and self.phase in ("preflight", "stage"):
            self._store = self._open()  # once, before the threads
        results: dict[str, T] = {}
        failures: list[LifeboatError] = []
        with ThreadPoolExecutor(len(wanted), thread_name_prefix=self.phase) as threads:
            futures = {name: threads.submit(_told, work, self.spec.service, name) for name in wanted}
            for name, future in futures.items():
                try:
                    results[name] = future.result()
                except LifeboatError as error:
                    failures.append(error)
        if failures:
            raise _joined(failures)
        return results


def _told(work: Callable[[str], T], service: str, name: str) -> T:
    try:
        return work(name)
    except OSError as error:
        where = f"{service}.{name}" + (f", {error.filename!r}" if error.filename else "")
        raise SourceError(
            f"the operating system refused: {error.strerror or error}", where, "free space or fix permissions, then run the same command again"
        ) from error


def _joined(failures: list[LifeboatError]) -> LifeboatError:
    first = failures[0]
    if len(failures) == 1:
        return first
    others = "; also: " + "; also: ".join(f"{error.what}: {error.where}" for error in failures[1:])
    joined = type(first)(first.what, first.where, first.remedy + others)
    joined.transient = all(error.transient for error in failures)
    joined.__cause__ = first
    return joined
