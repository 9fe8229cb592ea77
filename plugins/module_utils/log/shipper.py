# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The shipper: one process per source that keeps its log flowing from the server into the repository.

Three threads, so that none can hold up another: this one starts, bounds and stops the receiver and tells what is going on; one ships;
one asks the server. A repository that hangs stops neither the bound of the spool nor the alarm; a server that hangs stops no shipping.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from typing import Any, Callable

from .. import lease
from ..errors import DamageError, LifeboatError, SourceError, StorageError
from ..repository.log_index import LogIndex, load
from ..repository.log_piece import iso
from ..repository.log_writer import LogWriter
from ..spec import Spec
from . import backlog, begin, config, proven, wal
from .receiver import Receiver
from .server import Identity, LogServer
from .shipping import Divergence, Shipping
from .spool import Spool, SpoolFile
from .watch import Alarms, Watch

#: Seconds between two tries: the first, and the most.
_RETRY = (0.5, 15.0)
#: The longest pause before a server that does not answer is asked again: after a restore the service waits for that.
_SERVER = 2.0
#: Seconds that the last pass may take when the shipper ends.
_LAST = 60.0
#: Seconds without any progress, although the server is ahead, after which a receiver counts as hanging.
_STUCK = 60.0
#: Seconds between two looks whether a segment is complete.
_LOOK = 0.05
#: Files of coming segments that are made at most.
_PREPARED = 8
#: Room that stays free on the spool's disk, in segments.
_SPARE = 3


class Shipper:
    """run() returns when stop() was called or a signal asked for the end.

    take_over: the server is a copy that has taken the original's place, although it was not restored here.
    """

    def __init__(self, spec: Spec, source: str, take_over: bool = False) -> None:
        self.spec = spec
        self._take_over = take_over
        self.config = config.read(spec, source)
        self._client = self.config.client()
        self._data = str(self.config.entry["data_directory"])
        self._spool = Spool(self.config.spool)
        self._receiver = Receiver(self.config.spool, self._spool.wal)
        self._url = str(spec.repository["url"])
        self._path = os.path.join(self.config.directory, "proven.json")
        self._mark = proven.Proven()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._shipping: Shipping | None = None
        self._shipping_lock = threading.Lock()
        self._loaded = 0.0
        self._alarms = Alarms()
        self._watch = Watch(self.config, self._server(), self._alarms)
        self._started = iso(time.time_ns())
        self._state = "starting"
        self._base = 0
        self._found: tuple[tuple[int, int], int] = ((0, 0), 0)
        self._backlog: tuple[int, int, int] | None = None
        self._kept = 0.0
        self._refused = False
        self._received_since = 0.0
        self._next_start = 0.0
        self._retry = _RETRY[0]
        self._told = 0.0
        self._used = 0
        self._moved: tuple[tuple[int, int, str, int], float] = ((0, 0, "", 0), time.monotonic())
        self._version = 0

    def stop(self) -> None:
        """Ship the tail and end."""
        self._stop.set()
        self._wake.set()

    def run(self) -> bool:
        """Ship until asked to stop; True when everything received was proven at the end. Raises what makes shipping impossible at all."""
        config.prepare(self.config, self.spec)
        self._spool.lock()
        try:
            self._receiver.end_orphan()
            if self._receiver.rebooted():
                self._spool.drop_partials()
            self._remember()
            threads = [threading.Thread(target=self._guard, args=(target,), name=name, daemon=True)
                       for name, target in (("shipping", self._ship_always), ("server", lambda: self._watch.run(self._stop)))]
            for thread in threads:
                thread.start()
            while not self._stop.is_set():
                try:
                    self._supervise()
                    self._clear("host")
                except (LifeboatError, OSError) as error:  # a disk that refuses for a while must not end the receiving for good
                    self._alarm("host", _as_error(error, self.config.spool))
                self._tell()
                self._stop.wait(0.05 if self._used > self.config.spool_limit // 2 else 0.2)
            return self._end(threads[0])
        finally:
            self._receiver.stop()
            self._state = "stopped"
            self._tell(force=True)
            self._spool.unlock()

    def _guard(self, target: Callable[[], None]) -> None:
        """A thread that dies takes the shipper with it: half a shipper would look alive."""
        try:
            target()
        except BaseException as error:
            self._alarm("internal", LifeboatError(
                f"the shipper failed ({type(error).__name__}: {error})", self.config.where, "it is started again; report this as a bug"))
            self.stop()
            raise

    def _remember(self) -> None:
        try:
            self._mark = proven.read(self._path, self._url)
        except DamageError as error:
            os.replace(self._path, f"{self._path}.damaged")
            self._alarm("state", error)

    def _end(self, thread: threading.Thread) -> bool:
        self._state = "stopping"
        self._tell(force=True)
        self._receiver.stop()
        self._wake.set()
        thread.join(_LAST)
        if thread.is_alive() or self._shipping is None or "internal" in self._alarms:
            return False
        try:
            with self._shipping_lock:
                self._shipping.expect(None, 0)
                while self._shipping.ship():
                    pass
        except (LifeboatError, OSError) as error:
            self._alarm("repository", _as_error(error, self.config.spool))
            return False
        return True

    # -- the receiver and its bound

    def _supervise(self) -> None:
        full = self._full()
        if full is not None:
            self._alarm("spool", full)
            if self._receiver.running:
                self._receiver.stop()
            self._state = "stopped receiving: the spool is full"
            return
        if self._backlog is not None and "repository" not in self._alarms:
            self._state = "catching up from the server's own files"
            self._keep_less()
            return
        self._backlog = None
        if self._receiver.running:
            self._state = "receiving"
            if time.monotonic() - self._received_since > 5:
                self._retry = _RETRY[0]
                self._clear("receiver")
            if self._stuck():
                self._alarm("receiver", SourceError(f"the receiver received nothing for {_STUCK:.0f} s although the server is ahead", self._client.place,
                                                    "it is started again; look at the network and the server's log if this stays"))
                self._receiver.stop()
                self._later()
            elif self._followed():
                self._receiver.stop()  # it followed the server to its timeline; started anew, what it reports is of this timeline only
                self._next_start = 0.0
            else:
                self._prepare()
            return
        status = self._receiver.ended()
        if status is not None:
            self._refused = "already been removed" in self._receiver.message()
            self._alarm("receiver", SourceError(f"the receiver ended ({self._receiver.message() or f'status {status}'})", self._client.place,
                                                "it is started again; look into the server's log if this stays"))
            self._receiver.stop()
            self._later()
        if time.monotonic() < self._next_start:
            return
        try:
            self._start_receiver()
            for name in ("server", "diverged"):
                self._clear(name)
        except Divergence as error:
            self._alarm("diverged", error)
            self._state = "stopped: " + error.what
            self._later()
        except (LifeboatError, OSError) as error:
            self._alarm("server", _as_error(error, self.config.spool))
            self._state = "waiting for the server"
            self._later(_SERVER)

    def _later(self, longest: float = _RETRY[1]) -> None:
        self._next_start = time.monotonic() + min(longest, self._retry)
        self._retry = min(_RETRY[1], self._retry * 2)

    def _full(self) -> LifeboatError | None:
        """Why nothing more may be received now. A limit that was hit is left only when a good part is free again."""
        size = self._mark.segment_size or 16 << 20
        used, free, limit = self._spool.used(), self._spool.free(), self.config.spool_limit
        self._used = used
        stopped = "spool" in self._alarms
        margin = max(2 * size, limit // (4 if stopped else 8))  # room for what arrives between two looks
        remedy = "the server keeps its log for the slot meanwhile: bring the repository back, or raise log.spool_limit, before the server's disk fills"
        if used + margin > limit:
            return StorageError(f"the spool is full ({used} of {limit} bytes), nothing is received", self.config.spool, remedy)
        if free < (_SPARE + stopped) * size:
            return StorageError(f"the spool's disk is nearly full ({free} bytes free), nothing is received", self.config.spool, remedy)
        self._clear("spool")
        if used > limit // 2 or free < limit // 20:
            self._alarm("spool-near", StorageError(
                f"the spool fills up ({used} of {limit} bytes, {free} bytes free on its disk)", self.config.spool, "bring the repository back"))
        else:
            self._clear("spool-near")
        return None

    def _start_receiver(self) -> None:
        server = self._server()
        try:
            identity = server.identify()
            if self._mark.system and self._mark.system != identity.system:
                self._another_cluster(identity.system, identity.segment_size)
            self._mark.system, self._mark.segment_size, self._version = identity.system, identity.segment_size, identity.version
            sample = begin.ensure_slot(server)
            start = begin.plan(server, identity, sample, self._spool, self._mark, self._refused)
            gathered = self._gathered(server, identity, start)
        finally:
            server.close()
        self._refused = False
        if start.aside:
            self._empty_spool()
        if gathered:
            self._backlog = (start.timeline, start.position, identity.position)
            self._wake.set()
            return
        self._spool.begin_at(start.timeline, start.position, identity.segment_size)
        self._base = identity.timeline if start.timeline == identity.timeline else 0
        self._found = self._newest(identity.segment_size)
        self._receiver.start(self._client.tool("pg_receivewal", identity.version), self._client, self.config.slot)
        self._received_since = time.monotonic()

    def _gathered(self, server: LogServer, identity: Identity, start: begin.Start) -> bool:
        """So much log waits on the server that it is better read there than received. Not while the repository does not take it."""
        behind = identity.position - start.position
        if start.timeline != identity.timeline or behind < backlog.LEAST * identity.segment_size or "repository" in self._alarms:
            return False
        return len(self._finished(start.timeline, start.position, identity.position)) >= backlog.LEAST and backlog.at_hand(server, self._data)

    def _finished(self, timeline: int, position: int, until: int) -> list[SpoolFile]:
        """Finished segments in the server's own directory, as far as it was when it was last asked; at least up to ``until``."""
        sample, mark = self._watch.sample, self._mark
        if sample is not None and sample.timeline == timeline:
            until = max(until, sample.position)
        return backlog.finished(self._data, mark.system, mark.segment_size, timeline, position, until)

    def _keep_less(self) -> None:
        """While nobody receives, the slot does not move by itself: what is proven need not be kept."""
        sample, now = self._watch.sample, time.monotonic()
        if sample is None or not sample.slot["restart"] or now - self._kept < self.config.interval:
            return
        self._kept = now
        if wal.parse(sample.slot["restart"]) < self._mark.position and sample.timeline == self._mark.timeline:
            server = self._server()
            try:
                server.advance_slot(self._mark.position)
            except LifeboatError as error:
                self._alarm("server", error)
            finally:
                server.close()

    def _empty_spool(self) -> None:
        """Ship all there is, then take away what the receiver would go on from."""
        if self._shipping is None or not self._shipping_lock.acquire(timeout=1):
            raise SourceError("the server went on elsewhere; what was received before is shipped first", self.config.spool, "this needs the repository")
        try:
            self._shipping.ship()
            self._spool.drop_partials()
        finally:
            self._shipping_lock.release()

    def _another_cluster(self, system: str, size: int) -> None:
        """Another cluster stands at the address: its log is another one, kept apart by its identifier."""
        self._empty_spool()
        with self._shipping_lock:
            mark = self._mark
            mark.add_gap(mark.timeline, mark.position, mark.position, f"another cluster stands there now ({system}, before: {mark.system})", time.time_ns())
            mark.system, mark.segment_size, mark.timeline, mark.begin, mark.position = system, size, 0, 0, 0
            proven.write(self._path, self._url, mark)
            self._watch.forget()

    def _newest(self, size: int) -> tuple[tuple[int, int], int]:
        """The newest segment in the spool, (timeline, position), and when it was written to last."""
        files = self._spool.files(size)
        if files:
            with contextlib.suppress(FileNotFoundError):  # completed or shipped meanwhile
                return (files[-1].timeline, files[-1].start), os.stat(files[-1].path).st_mtime_ns
        return (0, 0), 0

    def _prepare(self) -> None:
        """Files for the next segments; more of them where the server is ahead. Never before this receiver has written: it goes on behind
        the newest file that it finds when it starts, and would leave out what should have come before."""
        sample, size = self._watch.sample, self._mark.segment_size
        newest = self._newest(size)
        if newest == self._found or newest[0] < self._found[0]:
            return
        files = self._spool.files(size)
        if files:
            ahead = (sample.position - files[-1].start) // size if sample else 0
            self._spool.prepare(files[-1], size, max(1, min(_PREPARED, ahead)))

    def _stuck(self) -> bool:
        """Neither spool nor proven position moved for long, and the server has more than both."""
        mark, sample, now = self._mark, self._watch.sample, time.monotonic()
        files = self._spool.files(mark.segment_size) if mark.segment_size else []
        touched = 0
        if files:
            with contextlib.suppress(FileNotFoundError):  # completed or shipped meanwhile
                touched = os.stat(files[-1].path).st_mtime_ns
        seen = (mark.timeline, mark.position, files[-1].path if files else "", touched)
        if seen != self._moved[0] or sample is None or sample.position <= mark.position or now - sample.asked > _STUCK / 2:
            self._moved = (seen, now)
        return now - self._moved[1] > _STUCK

    def _followed(self) -> bool:
        """The server went on on a timeline of its own, and the receiver has reached it."""
        sample, size = self._watch.sample, self._mark.segment_size
        files = self._spool.files(size) if size else []
        return bool(sample and sample.timeline and files and files[-1].timeline == sample.timeline != self._base)

    # -- shipping

    def _ship_always(self) -> None:
        """The tail at the interval's pace, whole segments as soon as they are there."""
        retry, due = _RETRY[0], 0.0
        while not self._stop.is_set():
            now, seen = time.monotonic(), self._spool.changed()
            tail = now >= due
            if tail:
                due = now + self.config.interval
            try:
                with self._shipping_lock:
                    count = self._pass(tail)
                retry = _RETRY[0]
                for name in ("repository", "diverged-log"):
                    self._clear(name)
                if not count:
                    self._rest(max(due, time.monotonic() + _LOOK), seen)
            except Divergence as error:
                self._alarm("diverged-log", error)
                self._wake.wait(_RETRY[1])
            except (LifeboatError, OSError) as error:
                self._alarm("repository", _as_error(error, self.config.spool))
                self._wake.wait(retry)
                retry = min(_RETRY[1], retry * 2)

    def _rest(self, due: float, seen: int) -> None:
        """Until the tail is due, or the receiver has finished a segment."""
        while time.monotonic() < due and self._spool.changed() == seen and not self._wake.is_set():
            self._wake.wait(min(_LOOK, max(0.0, due - time.monotonic())))

    def _pass(self, tail: bool) -> int:
        if self._shipping is None:
            self._shipping = self._opened()
        shipping, sample = self._shipping, self._watch.sample
        shipping.version = self._version
        known = (self._base, sample.written) if sample and sample.written and self._base and sample.asked > self._received_since else (0, 0)
        shipping.reported(*known)
        shipping.expect(sample.timeline if sample else None, sample.position if sample else 0)
        count = shipping.ship(tail)
        waiting = self._backlog
        if waiting is not None:
            timeline, start, until = waiting
            gained = shipping.catch_up(timeline, start, lambda timeline, position: self._finished(timeline, position, until))
            count += gained
            if gained < backlog.LEAST * self._mark.segment_size // 2:
                self._backlog = None  # the rest is received
        self._watch.note(self._mark)
        return count

    def _opened(self) -> Shipping:
        store = self.spec.store()

        def listed() -> LogIndex:
            found = load(store.backend, store.provider, store.repository.id, self.spec.service, self.config.source)
            self._loaded = time.monotonic()
            return found

        if self._mark.repository not in ("", store.repository.id):
            forgotten = self._mark
            self._mark = proven.Proven(system=forgotten.system, segment_size=forgotten.segment_size)
        self._mark.repository = store.repository.id
        return Shipping(self._spool, LogWriter(store, self.config.source), listed, self._mark,
                        lambda mark: proven.write(self._path, self._url, mark), self._fetch_history, self._position,
                        lambda: 0 if self._take_over else config.restored_at(self.spec, self.config.source))

    def _fetch_history(self, timeline: int) -> bytes:
        server = self._server()
        try:
            return server.history(timeline)
        finally:
            server.close()

    def _position(self) -> tuple[int | None, int] | None:
        sample = self._watch.sample
        return (sample.timeline, sample.position) if sample is not None and sample.asked > self._loaded else None

    # -- the server

    def _server(self) -> LogServer:
        return LogServer(self._client, self.config.slot)

    # -- what is told

    def _alarm(self, name: str, error: LifeboatError) -> None:
        self._alarms.set(name, error)

    def _clear(self, name: str) -> None:
        self._alarms.clear(name)

    def _tell(self, force: bool = False) -> None:
        if not force and time.monotonic() - self._told < min(1.0, self.config.interval):
            return
        self._told = time.monotonic()
        with contextlib.suppress(LifeboatError, OSError):  # a courtesy: shipping goes on without it, and the proven position is kept elsewhere
            self._write_status()

    def _write_status(self) -> None:
        sample = self._watch.sample
        document: dict[str, Any] = {
            "pid": os.getpid(), "pid_started": lease.process_started(os.getpid()), "boot": lease.boot_id(), "started": self._started,
            "updated": iso(time.time_ns()), "state": self._state, "receiver": self._receiver.pid if self._receiver.running else None,
            "caught_up": iso(self._watch.caught_up) if self._watch.caught_up else None,
            "spool": {"bytes": self._spool.used(), "limit": self.config.spool_limit},
            "server": {"time": iso(sample.time_ns), "timeline": sample.timeline, "position": wal.text(sample.position), "standby": sample.standby,
                       "slot": sample.slot} if sample else None,
            "alarms": self._alarms.as_list(),
        }
        path = os.path.join(self.config.directory, "status.json")
        with open(f"{path}.new", "w", encoding="utf-8") as handle:
            json.dump(document, handle)
        os.replace(f"{path}.new", path)


def _as_error(error: BaseException, where: str) -> LifeboatError:
    if isinstance(error, LifeboatError):
        return error
    return StorageError(f"the operating system refused ({getattr(error, 'strerror', None) or error})", str(getattr(error, "filename", None) or where),
                        "free space or correct the permissions there")


def run(spec: Spec, source: str, take_over: bool = False) -> bool:
    """Ship in the foreground until SIGTERM or SIGINT; see Shipper."""
    shipper = Shipper(spec, source, take_over)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: shipper.stop())
    return shipper.run()
