# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A hash-chained, append-only journal: one JSON object per line, each line naming the digest of the one before.

Entry: {seq, time, run, verb, who, service, phase, event, data, prev, hash}; ``hash`` is the SHA-256 of the canonical JSON of the
entry without ``hash``, ``prev`` that of the entry before (64 zeros for the first). A process killed in the middle of a write
leaves a torn last line: the good prefix is kept, the rest is cut off by the next writer, which records what it cut.
The last line of a finished journal is its seal (module_utils/audit/seal.py); nothing is appended after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils.audit import seal
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, DamageError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import ZERO
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import entry_hash as digest
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import files, words

__all__ = ["ZERO", "Chain", "Journal", "digest", "parse", "read"]


@dataclass
class Chain:
    """What a journal file holds. ``good_bytes`` is the length of the intact prefix, ``problem`` why the rest is not good, ``seal`` its end."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    good_bytes: int = 0
    total_bytes: int = 0
    problem: Optional[str] = None
    torn: bool = False
    seal: Optional[seal.Seal] = None

    @property
    def head(self) -> str:
        return str(self.entries[-1]["hash"]) if self.entries else ZERO

    @property
    def whole(self) -> bool:
        return self.problem is None


def check_entry(entry: Any, seq: int, prev: str) -> Optional[str]:
    """Why an entry does not continue a chain at (seq, prev); None when it does."""
    if not isinstance(entry, dict):
        return "is not an object"
    if entry.get("seq") != seq:
        return f"has sequence number {words.one_line(entry.get('seq'), 20)} where {seq} was expected"
    if entry.get("prev") != prev:
        return "does not name the entry before it"
    try:
        if entry.get("hash") != digest(entry):
            return "was altered: its digest does not match"
    except ValueError:
        return "holds a value that has no digest"
    return None


def parse(data: bytes) -> Chain:
    """Check a journal's bytes from the start; everything up to the first bad line is the good prefix."""
    chain = Chain(total_bytes=len(data))
    while chain.good_bytes < len(data):
        end = data.find(b"\n", chain.good_bytes)
        if end < 0:
            chain.problem, chain.torn = f"line {len(chain.entries) + 1} is torn ({len(data) - chain.good_bytes} bytes)", True
            break
        if chain.seal is not None:
            chain.problem = f"line {len(chain.entries) + 2} stands after the seal"
            break
        if seal.is_line(data[chain.good_bytes:end]):
            try:
                chain.seal = seal.read(data[chain.good_bytes:end])
            except DamageError as error:
                chain.problem = error.what
                break
            if chain.seal.hashes != [entry["hash"] for entry in chain.entries]:
                chain.problem = "the seal is not that of these entries"
                break
            chain.good_bytes = end + 1
            continue
        try:
            entry = json.loads(data[chain.good_bytes:end])
        except (ValueError, RecursionError):
            # a line that is not JSON at the very end is a torn write whose newline survived; in the middle it is damage
            chain.torn = end == len(data) - 1
            chain.problem = f"line {len(chain.entries) + 1} is not JSON"
            break
        wrong = check_entry(entry, len(chain.entries), chain.head)
        if wrong is not None:
            chain.problem = f"entry {len(chain.entries)} {wrong}"
            break
        chain.entries.append(entry)
        chain.good_bytes = end + 1
    return chain


def read(path: str) -> Chain:
    """Read and check a journal; an absent file is an empty chain."""
    try:
        with open(path, "rb") as handle:
            return parse(handle.read())
    except FileNotFoundError:
        return Chain()


class Journal:
    """Appends to one run's journal from any number of processes, one at a time."""

    def __init__(self, path: str, run: str, verb: str, who: str = "") -> None:
        self.path = path
        self.run = run
        self.verb = verb
        self.who = who

    def append(self, event: str, service: str = "", phase: str = "", data: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Append one entry durably and return it. StorageError when it cannot be written or the chain was altered, ConflictError after the seal."""
        return self.extend([{"event": event, "service": service, "phase": phase, "data": data or {}}])[-1]  # a repair may come first

    def extend(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Append several entries {event, service, phase, data} with one write and one sync."""
        try:
            with files.locked(self.path + ".lock"):
                return self._extend(list(events))
        except OSError as error:
            raise StorageError(f"cannot write the journal ({error.strerror})", self.path, "free space on the controller") from error

    def close(self, ecosystem: str, sign: Optional[Callable[[str], dict[str, Any]]] = None) -> Optional[seal.Seal]:
        """Write the seal as the last line, signed where ``sign`` can; the one that is there already stands. None when the chain is not whole."""
        with files.locked(self.path + ".lock"):
            chain = read(self.path)
            if chain.seal is not None or not chain.whole or not chain.entries:
                return chain.seal if chain.whole else None
            text = seal.text_of(chain.entries, ecosystem)
            files.append_line(self.path, seal.line_of(text, sign(text) if sign else None).decode().rstrip("\n"), durable=True)
            return read(self.path).seal

    def sign(self, signature: dict[str, Any]) -> None:
        """Put a signature into a seal that has none."""
        with files.locked(self.path + ".lock"):
            chain = read(self.path)
            if chain.seal is None or chain.seal.signature is not None or not chain.whole:
                return
            lines = "".join(files.canonical(entry) + "\n" for entry in chain.entries).encode()
            files.replace(self.path, lines + seal.line_of(chain.seal.text, signature))

    def _extend(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        fresh = not os.path.exists(self.path)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            tail = _tail(descriptor)
            if tail is None:  # rare: the cheap look at the last line failed, so the whole file decides
                with open(self.path, "rb") as handle:
                    chain = parse(handle.read())
                if chain.seal is not None:
                    raise ConflictError("the run has its end, its journal is sealed", self.path, "begin a new run")
                if chain.problem is not None and not chain.torn:
                    raise StorageError(
                        f"the journal was altered: {chain.problem}", self.path, "keep the file as evidence and start a new run"
                    )
                cut = chain.total_bytes - chain.good_bytes
                os.ftruncate(descriptor, chain.good_bytes)
                events.insert(0, {"event": "journal_tail_cut", "data": {"bytes": cut, "problem": chain.problem}})
                tail = (len(chain.entries), chain.head)
            sequence, head = tail
            written = []
            for event in events:
                entry: dict[str, Any] = {
                    "seq": sequence, "time": words.iso(time.time()), "run": self.run, "verb": self.verb, "who": self.who,
                    "service": str(event.get("service") or ""), "phase": str(event.get("phase") or ""), "event": str(event["event"]),
                    "data": _plain(event.get("data") or {}), "prev": head,
                }
                entry["hash"] = head = digest(entry)
                written.append(entry)
                sequence += 1
            os.lseek(descriptor, 0, os.SEEK_END)
            text = "".join(files.canonical(entry) + "\n" for entry in written)
            view = memoryview(text.encode())
            while view:
                view = view[os.write(descriptor, view):]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            files.sync_directory(os.path.dirname(self.path))
        return written


def _plain(value: Any) -> Any:
    """A value as JSON will read it back, so that the digest of what is read is the digest of what was written."""
    return json.loads(json.dumps(value, default=str, allow_nan=False))


def _tail(descriptor: int) -> Optional[tuple[int, str]]:
    """(next sequence number, head) from the last line alone; None when that line is not whole."""
    length = os.fstat(descriptor).st_size
    if length == 0:
        return 0, ZERO
    step = 65536
    while True:
        start = max(0, length - step)
        data = os.pread(descriptor, length - start, start)
        if not data.endswith(b"\n"):
            return None
        cut = data.rfind(b"\n", 0, len(data) - 1)
        if cut >= 0 or start == 0:
            break
        step *= 8
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        entry = json.loads(data[cut + 1:])
        if entry["hash"] == digest(entry):
            return int(entry["seq"]) + 1, str(entry["hash"])
    return None
