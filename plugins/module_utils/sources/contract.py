# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The one contract of all sources, and what the engine hands them.

A source turns a data store into entries and chunks and back. It knows nothing of repositories, keys, ledgers
or Ansible. Everything it is given is in the context; everything it must remember between calls is in the stage
record (plain JSON, written to the ledger *before* it acts), so each call can be repeated after a kill.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, ClassVar, Dict, Iterator, Tuple

from ..errors import LifeboatError
from ..findings import finding
from ..progress import Progress

#: One extent of a byte stream: (chunk number in this tree, offset inside the chunk, length), all in bytes.
Extent = Tuple[int, int, int]

#: A content digest: {"algorithm": str, "value": hex str, ...source's own fields that comparison needs}.
Digest = Dict[str, Any]

#: A tree entry: one JSON object; "type" names its kind, "extents" (list of Extent) its data where it has any.
Entry = Dict[str, Any]


@dataclass
class Finding:
    """One preflight observation. level: a word of findings.LEVELS; kind: one of findings.KINDS, the error's own when it is not given."""

    level: str
    error: LifeboatError
    kind: str = ""

    def as_dict(self) -> dict[str, str]:
        return finding(self.level, self.error, self.kind)


@dataclass(frozen=True)
class Need:
    """Room that a restore takes on the source's host, beside what is there: bytes and entries (inodes) where ``path`` lies or will lie.

    path "": memory. hint: what else helps where there is too little.
    """

    path: str
    bytes: int
    entries: int = 0
    hint: str = ""


@dataclass(frozen=True)
class Footprint:
    """What a restore of a source touches on its host. live: the live data in one word, the same for whoever means the same data: a
    path of the host, or a server and what is in it. network: the word is good on every host, not on this one alone.
    system: the identifier of the cluster in place, where there is one; captured: of the one in the snapshot. needs: see Need.
    """

    live: str
    network: bool = False
    system: str = ""
    captured: str = ""
    needs: tuple[Need, ...] = ()


@dataclass
class Context:
    """What a source may know: its names, its catalog entry, a private directory, where to tell progress.

    config: the source's validated catalog entry. work_dir: private directory (0700) on the data's host.
    workers: how many threads it may use.
    digest_key: 32 bytes; content digests are keyed with it, so that they tell an outsider nothing.
    """

    service: str
    source: str
    config: dict[str, Any]
    work_dir: str
    progress: Progress
    digest_key: bytes
    workers: int = 2
    #: Where in the source's log a restore shall end: {"kind": "latest|time|lsn|xid|name|immediate", "value": str,
    #: "timeline": "" for the newest reachable one, or a number}; None: at the snapshot itself.
    target: dict[str, str] | None = None
    #: What time it is on this host, in seconds since 1970.
    clock: Callable[[], float] = time.time


class Writer(ABC):
    """Where a capture puts what it reads. put() and put_stream() are thread-safe."""

    #: The tree of the parent snapshot, or None for a full capture.
    previous: TreeReader | None

    @abstractmethod
    def put(self, data: bytes | memoryview) -> int:
        """Store one chunk (at most 4 MiB, never empty); returns its number in this tree. Deduplicates."""

    @abstractmethod
    def put_stream(self, stream: BinaryIO, name: str) -> tuple[list[Extent], int]:
        """Cut a byte stream by content into chunks and store them in parallel; returns (extents, size in bytes)."""

    @abstractmethod
    def reuse(self, number: int) -> int:
        """Take over a chunk of the parent tree by its number there, without reading it; returns its number here.

        Raises KeyError when the parent does not have it or its pack is gone: capture the data anew.
        """

    @abstractmethod
    def chunk_id(self, number: int) -> bytes:
        """The keyed BLAKE3 (32 bytes) of a chunk's plain content."""

    @abstractmethod
    def entry(self, entry: Entry) -> None:
        """Append an entry to the tree, in the order in which stage() wants to read; do not change it afterwards. Not thread-safe."""

    def settle(self) -> None:
        """Most content has come: what is stored so far may become durable while the source does something else."""
        return


class TreeReader(ABC):
    """A snapshot's entries, readable with the index key alone."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """The entries in the order of capture, streamed."""

    @abstractmethod
    def chunk_id(self, number: int) -> bytes:
        """As Writer.chunk_id, for a chunk of this tree whose entry has been read already."""


@dataclass
class Covered:
    """One gap-free range of a log as the repository holds it.

    start, end: byte positions. until: ISO UTC time at which its last byte was captured.
    """

    timeline: int
    start: int
    end: int
    until: str


class Log(ABC):
    """What was captured continuously of a source, opened for restore. Thread-safe."""

    @abstractmethod
    def coverage(self) -> list[Covered]:
        """What is there, per timeline in order of position; ranges that touch are one."""

    @abstractmethod
    def histories(self) -> dict[int, bytes]:
        """Timeline -> content of its history file."""

    @abstractmethod
    def read(self, timeline: int, start: int, end: int) -> bytes:
        """The bytes of a range, opened and checked; DamageError names the object that is damaged, or the hole."""


class Reader(TreeReader):
    """A snapshot opened for restore: chunk contents too. Thread-safe."""

    #: The signed manifest (see docs/repository-format.md): "digest", "facts", "snapshot", ...
    manifest: dict[str, Any]
    #: The source's log where the repository holds one.
    log: Log | None = None

    @abstractmethod
    def chunk(self, number: int, read_back: bool = False) -> bytes:
        """One chunk, decrypted, decompressed and checked against its id; DamageError names snapshot and object.

        read_back: the caller reads what it makes of the chunk back and compares it with a digest of the same strength
        before anything relies on it, so that the id need not be computed here too; the seal is checked in any case.
        """

    @abstractmethod
    def stream(self, extents: list[Extent]) -> Iterator[bytes]:
        """The bytes of the extents in order, fetched ahead in parallel with bounded memory."""


@dataclass
class Captured:
    """What a capture proves about itself.

    digest: of exactly the captured state. proof: "content" or "physical". facts: JSON that restore, plan and
    points need in clear inside the manifest (versions, sizes in bytes, item counts, position); no content, no secret.
    """

    digest: Digest
    proof: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Comparison:
    """The result of holding content against the digest of a snapshot."""

    equal: bool
    differences: list[str] = field(default_factory=list)
    items: int = 0


def whole_files(path: str) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Every file below a path, or the path itself, as warm_ranges() names them."""
    if not os.path.isdir(path):
        yield path, []
    for parent, directories, names in os.walk(path):
        directories.sort()
        for name in sorted(names):
            yield os.path.join(parent, name), []


@dataclass(frozen=True)
class Wanted:
    """A part of a snapshot. tables: none means the whole database. name: the new name in the live store; "": made of the
    database's and suffix.
    """

    database: str
    tables: tuple[str, ...]
    name: str
    suffix: str


class Extraction(ABC):
    """A part of a snapshot, moved into the live store under a new name. Nothing that exists there is altered.

    It is built under a name of its own and gets the new one last, so what carries the new name is whole and was verified.
    Every method may be called again with the same record after a kill at any place.
    """

    @abstractmethod
    def plan(self, manifest: dict[str, Any], wanted: Wanted, stage_id: str) -> dict[str, Any]:
        """The record: every name that the others will use, with "kind" and "name" for people. Changes nothing. Raises ConfigError."""

    @abstractmethod
    def preflight(self, manifest: dict[str, Any], record: dict[str, Any]) -> list[Finding]:
        """What would keep it from working; changes nothing."""

    @abstractmethod
    def present(self, record: dict[str, Any]) -> str:
        """How what has the new name already is dropped (a statement for people); "" when nothing has it."""

    @abstractmethod
    def published(self, record: dict[str, Any]) -> bool:
        """What has the new name was put there by this very record."""

    @abstractmethod
    def digest(self, record: dict[str, Any]) -> str:
        """The digest of the content that has the new name now."""

    @abstractmethod
    def extract(self, reader: Reader, record: dict[str, Any], note: Callable[..., None]) -> dict[str, Any]:
        """Stage, load, verify, and give it the new name; note(step, **facts) is called after each of these.

        Returns {"digest", "tables": [{"table", "rows"}], "rows", "bytes", "extracted", "of", "left_out": [text], "roles_missing", "reached", ...}.
        Raises when what was loaded is not what the snapshot holds.
        """

    @abstractmethod
    def clean(self, record: dict[str, Any]) -> None:
        """Remove everything that is not the finished result: the private server, the staged copy, what was loaded and not published."""


class LocalShare(ABC):
    """How much of a snapshot the live data still holds, estimated cheaply. It is shown every entry of the tree once, in order."""

    @abstractmethod
    def see(self, entry: Entry) -> None:
        """One entry; no work yet."""

    @abstractmethod
    def share(self) -> tuple[float, int]:
        """(share of the bytes, 0 to 1, that a restore would take from the live data, pieces that were compared)."""


class Source(ABC):
    """One kind of data store. Life cycle of a restore:

    preflight_restore -> plan_stage -> stage -> verify_staged -> cutover -> [rollback | commit]; discard for a stage given up.
    Every method may be called again with the same stage record after a kill at any place and must finish the work.
    """

    #: The catalog word.
    type: ClassVar[str]
    #: Catalog options: name -> {"type": "str|int|bool|list|dict|path", "required": bool, "default": value, "help": str, "choices": list}.
    #: "server" (dict start/stop/status), "provision" (argv), "compression" and "host" are common to all and not repeated here.
    options: ClassVar[dict[str, dict[str, Any]]]
    #: How much its chunks are compressed (repository/compression.py) where the catalog does not say.
    compression: ClassVar[int] = 3

    @abstractmethod
    def preflight_capture(self, context: Context) -> list[Finding]:
        """What would keep capture from working: store down, tools missing, permission. Changes nothing."""

    @abstractmethod
    def capture(self, context: Context, writer: Writer) -> Captured:
        """Write one consistent state. Raises SourceError; a vanished or unreadable item is never skipped silently."""

    @abstractmethod
    def preflight_restore(self, context: Context, manifest: dict[str, Any]) -> list[Finding]:
        """What would keep the restore of this snapshot from working: space, versions, permissions. Changes nothing.

        An absent store is an error only if it can neither be started nor provisioned.
        """

    def footprint(self, context: Context, manifest: dict[str, Any]) -> Footprint | None:
        """What the restore of this snapshot touches and the room it takes; None: nothing that can be told. Changes nothing.

        Preflight adds the needs of all sources and services of a host up: they are staged at once.
        """
        return None

    def local_share(self, context: Context, manifest: dict[str, Any]) -> LocalShare | None:
        """What a restore could take from the live data instead of the repository; None: nothing. Changes nothing."""
        return None

    def log_range(self, manifest: dict[str, Any], log: Log) -> Covered | None:
        """How far the log leads on from this snapshot without a hole; None when it does not. ``start`` is where a restore may end first."""
        return None

    def log_bytes(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> int:
        """Bytes of its log that a restore of this snapshot to a position (as Context.target) goes through, as far as can be told without opening it."""
        return 0

    def reachable(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> str:
        """Why a restore of this snapshot cannot end at a position of its log (as Context.target), as far as positions and times
        tell without opening the log; "" when they do not speak against it. stage() proves it before it builds anything.
        """
        return "this type of source has no log"

    def lost_behind(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> str:
        """What of the log lies behind a hole, so that a restore of this snapshot to the end of its log (``latest``) leaves it out; "" for nothing."""
        return ""

    @abstractmethod
    def plan_stage(self, context: Context, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
        """The stage record: every name that stage, cutover, commit and rollback will use. Changes nothing.

        Must hold "staged" and "displaced" (paths or database names) for people to read.
        """

    @abstractmethod
    def prepare(self, context: Context, record: dict[str, Any]) -> bool:
        """Bring up an absent or stopped store so that staging can begin (server.start, provision).

        Returns True if it had to act. Never replaces data that is there.
        """

    @abstractmethod
    def stage(self, context: Context, reader: Reader, record: dict[str, Any]) -> None:
        """Build the copy beside the live data. A half-built copy of an earlier try is completed or thrown away."""

    def settle(self, context: Context, record: dict[str, Any]) -> None:
        """Make the staged copy durable, where stage() has not done so; runs beside verify_staged()."""
        return

    @abstractmethod
    def verify_staged(self, context: Context, reader: Reader, record: dict[str, Any]) -> Comparison:
        """Read the staged copy back from the store and compare it with the captured digest."""

    def warm_ranges(self, context: Context, record: dict[str, Any], manifest: dict[str, Any]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """(file of the staged copy, [(offset, length)], none for all of it): what is worth being in memory when the service starts, the most wanted first.

        Names may be gone by the time they are opened. Where the staged copy is no file or directory there is nothing.
        """
        staged = str(record.get("staged") or "")
        if os.path.isabs(staged):
            yield from whole_files(staged)

    @abstractmethod
    def verify_live(self, context: Context, reader: TreeReader, manifest: dict[str, Any]) -> Comparison:
        """The same for the live data; absent data is not equal, not an error."""

    @abstractmethod
    def cutover(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        """Swap the staged copy in, keep the former data under the displaced name; returns facts for the ledger,
        with "displaced": True if there was data to displace. Complete after a kill between the two renames."""

    @abstractmethod
    def rollback(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        """Put the displaced data back and set the restored copy aside (kept under "set_aside" of the returned facts)."""

    @abstractmethod
    def commit(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        """Delete what cutover displaced or rollback set aside; returns {"freed": bytes}."""

    @abstractmethod
    def discard(self, context: Context, record: dict[str, Any]) -> None:
        """Remove a staged copy that will not be used."""

    def extraction(self, context: Context) -> Extraction | None:
        """How a part of a snapshot is taken out of it; None: this type of source restores as a whole only."""
        return None
