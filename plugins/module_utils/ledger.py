# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The ledger of one service on its host: hash-chained JSON lines, written and synced before anything is done.

An entry is {seq, time, run, verb, service, phase, event, data, prev, hash}; ``hash`` is the SHA-256 of the
entry without it in canonical JSON, ``prev`` the hash of the entry before (64 zeros for the first).

What a crash can leave, and what becomes of it:
 - a last line without its newline, or with blocks the disk never got (NUL bytes): it was never acknowledged. The next
   writer overwrites it in one write with a ``ledger.repair`` entry that keeps the torn bytes' hash and beginning;
 - a complete line that does not decode or does not fit the chain is not a crash but damage: refused, and named.

Segments: above SEGMENT_BYTES a new file is begun when a run begins; its first entry goes on with the chain. The newest
SEGMENTS old ones are kept, and the chain of what is kept is what can be verified.
"""

from __future__ import annotations

import base64
import datetime
import fcntl
import hashlib
import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any, Callable, Iterator

from . import durable, state
from .errors import DamageError, LifeboatError, StorageError

if TYPE_CHECKING:
    from .spec import Spec

ZERO = "0" * 64
#: One entry's data may not be larger in JSON: the ledger is for decisions, not for content.
ENTRY_BYTES = 256 << 10
SEGMENT_BYTES = 4 << 20
SEGMENTS = 8
_TORN_KEPT = 1024
_SEGMENT = re.compile(r"ledger-(\d{12})\.jsonl\Z")

Entry = dict[str, Any]

#: Every entry this process wrote, in any ledger: a module answers with those of its call.
written: list[Entry] = []


def now() -> str:
    """UTC in ISO 8601 with microseconds and Z."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(value: Any) -> bytes:
    """The one JSON form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def entry_hash(entry: Entry) -> str:
    """The hash an entry must carry."""
    return hashlib.sha256(canonical({key: value for key, value in entry.items() if key != "hash"})).hexdigest()


class Ledger:
    """Reader and writer of one service's ledger. Threads and processes may append; a lock serialises them.

    ``appended`` holds the entries this object wrote, for the caller's result.
    """

    def __init__(self, directory: str, service: str, clock: Callable[[], str] = now) -> None:
        self.directory = directory
        self.service = service
        self.path = os.path.join(directory, "ledger.jsonl")
        self.appended: list[Entry] = []
        self._clock = clock
        self._mutex = threading.RLock()
        self._entries: list[Entry] = []
        self._size = -1  # of the newest segment as far as read; -1: nothing read yet
        self._inode = 0
        self._torn = b""

    @classmethod
    def for_spec(cls, spec: Spec) -> Ledger:
        """The ledger of a service; nothing is created until the first append."""
        return cls(spec.service_dir, spec.service)

    def entries(self, run: str | None = None) -> list[Entry]:
        """All entries in order (or one run's), verified. Raises DamageError naming the first bad entry.

        A torn tail is left out here and mended by the next append.
        """
        with self._mutex:
            self._read()
            return [entry for entry in self._entries if run is None or entry["run"] == run]

    def verify(self) -> dict[str, Any]:
        """Read everything anew: {"entries", "head": hash, "torn_bytes"}. Raises DamageError."""
        with self._mutex:
            self._size = -1
            self._read()
            return {"entries": len(self._entries), "head": self._head(), "torn_bytes": len(self._torn)}

    def append(self, run: dict[str, Any], phase: str, event: str, data: dict[str, Any] | None = None) -> Entry:
        """Write one entry and sync it; when this returns, the entry lasts. ``data``: JSON without secrets.

        Raises StorageError (disk full, read-only) or DamageError (the ledger is not what was written).
        """
        payload = data or {}
        if len(canonical(payload)) > ENTRY_BYTES:
            raise LifeboatError("A ledger entry is too large", f"{event} of {self.service}", "report this as a bug")
        with self._mutex:
            state.ensure_private(self.directory)
            try:
                return self._append_locked(run, phase, event, payload)
            except OSError as error:
                self._size = -1
                raise StorageError(
                    f"Failed to write the ledger ({error.strerror})", self.path, "free space or fix permissions, then run the same command again"
                ) from error

    def rotate(self) -> bool:
        """Begin a new segment when the newest is large; True if one was begun. Called when a run begins."""
        with self._mutex:
            try:
                if os.path.getsize(self.path) < SEGMENT_BYTES:
                    return False
            except FileNotFoundError:
                return False
            lock = self._lock()
            try:
                self._read()
                if self._torn:
                    return False
                first = self._segment_first(self.path)
                # a kill leaves either name; the reader joins segments and file in any case
                os.rename(self.path, os.path.join(self.directory, f"ledger-{first:012d}.jsonl"))
                durable.fsync_dir(self.directory, "ledger")
                for old in self._segments()[:-SEGMENTS]:
                    os.unlink(old)
            finally:
                os.close(lock)
            self._size = -1
            return True

    # -- inside ------------------------------------------------------------------------------------------------

    def _append_locked(self, run: dict[str, Any], phase: str, event: str, data: dict[str, Any]) -> Entry:
        lock = self._lock()
        try:
            self._read()
            fresh = not os.path.exists(self.path)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._torn:
                    self._repair(descriptor, run)
                entry = self._put(descriptor, self._build(run, phase, event, data))
            finally:
                os.close(descriptor)
            if fresh:
                durable.fsync_dir(self.directory, "ledger")
            return entry
        finally:
            os.close(lock)

    def _lock(self) -> int:
        descriptor = os.open(os.path.join(self.directory, "ledger.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def _build(self, run: dict[str, Any], phase: str, event: str, data: dict[str, Any]) -> Entry:
        last = self._entries[-1] if self._entries else None
        entry: Entry = {
            "seq": int(last["seq"]) + 1 if last else 1, "time": self._clock(), "run": str(run["id"]), "verb": str(run.get("verb", "")),
            "service": self.service, "phase": phase, "event": event, "data": data, "prev": self._head(),
        }
        entry["hash"] = entry_hash(entry)
        return dict(json.loads(canonical(entry)))  # what a reader will see: no tuples, no bytes

    def _put(self, descriptor: int, entry: Entry) -> Entry:
        line = canonical(entry) + b"\n"
        os.lseek(descriptor, self._size, os.SEEK_SET)
        durable.write_all(descriptor, line, self.path, "ledger")
        durable.fsync_file(descriptor, self.path, "ledger")
        self._size += len(line)
        self._inode = os.fstat(descriptor).st_ino
        self._entries.append(entry)
        self.appended.append(entry)
        written.append(entry)
        return entry

    def _repair(self, descriptor: int, run: dict[str, Any]) -> None:
        """Overwrite the torn tail with an entry that tells of it. A kill in here leaves a torn tail again."""
        torn = self._torn
        data = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest(), "beginning": base64.b64encode(torn[:_TORN_KEPT]).decode()}
        self._put(descriptor, self._build(run, "", "ledger.repair", data))
        os.ftruncate(descriptor, self._size)
        durable.fsync_file(descriptor, self.path, "ledger")
        self._torn = b""

    def _head(self) -> str:
        return str(self._entries[-1]["hash"]) if self._entries else ZERO

    def _segments(self) -> list[str]:
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        return [os.path.join(self.directory, name) for name in sorted(filter(_SEGMENT.match, names))]

    def _segment_first(self, path: str) -> int:
        with open(path, "rb") as handle:
            return int(json.loads(handle.readline())["seq"])

    def _read(self) -> None:
        """Read what is new: everything the first time or after a rotation, else the newest segment's growth."""
        try:
            info = os.stat(self.path)
            size, inode = info.st_size, info.st_ino
        except FileNotFoundError:
            size, inode = 0, 0
        if self._size == size and self._inode == inode and not self._torn:
            return
        if self._size < 0 or inode != self._inode or size < self._size:
            self._entries = []
            for segment in self._segments():
                with open(segment, "rb") as handle:
                    if self._take(handle.read(), segment):
                        raise DamageError("The ledger is damaged: a closed segment is cut short", segment, self._remedy())
            self._size = 0
        self._torn = b""
        if size > self._size:
            with open(self.path, "rb") as handle:
                handle.seek(self._size)
                data = handle.read()
            self._torn = self._take(data, self.path)
            self._size += len(data) - len(self._torn)
        self._inode = inode

    def _take(self, data: bytes, path: str) -> bytes:
        """Decode lines onto the entries; returns the torn tail."""
        start = 0
        while start < len(data):
            end = data.find(b"\n", start)
            line = data[start:] if end < 0 else data[start:end]
            if end < 0 or (b"\0" in line and not data[end + 1:].strip(b"\0\n")):
                return data[start:]
            self._entries.append(self._check(line, path))
            start = end + 1
        return b""

    def _check(self, line: bytes, path: str) -> Entry:
        last = self._entries[-1] if self._entries else None
        number = int(last["seq"]) + 1 if last else 1
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("not an object")
            seq, claimed, previous = int(entry["seq"]), str(entry["hash"]), str(entry["prev"])
            if not entry.keys() >= {"run", "event", "data", "phase", "verb"}:
                raise ValueError("not an entry")
        except (ValueError, KeyError, TypeError) as error:
            raise DamageError(f"The ledger is damaged: entry {number} does not decode", path, self._remedy()) from error
        if claimed != entry_hash(entry):
            raise DamageError(f"The ledger is damaged: entry {seq} was altered", path, self._remedy())
        if last is not None and (previous != last["hash"] or seq != number):
            raise DamageError(f"The ledger is damaged: entry {seq} does not follow entry {last['seq']}", path, self._remedy())
        if last is None and (seq != 1 or previous != ZERO) and len(self._segments()) < SEGMENTS:
            raise DamageError(f"The ledger is damaged: what came before entry {seq} is missing", path, self._remedy())
        return entry

    def _remedy(self) -> str:
        return "nothing was done; compare it with its copy in the repository and the run's journal, then move it aside"


def iter_events(entries: list[Entry], *events: str) -> Iterator[Entry]:
    """The entries with one of these events."""
    wanted = set(events)
    return (entry for entry in entries if entry["event"] in wanted)
