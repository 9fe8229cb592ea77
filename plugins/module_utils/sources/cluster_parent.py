# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The parent snapshot as an incremental capture sees it: its tree beside the live files, and its chunks to be taken over."""

from __future__ import annotations

import os
import threading
from typing import Any, List

from .cluster_walk import Item, order_key
from .contract import Entry, TreeReader, Writer

#: [offset in the file, chunk number, offset in the chunk, length]
Piece = List[int]

HEAD = "\0lifeboat"
#: A file changed this short before the parent's capture began may have changed again within the clock's grain.
_RACE_NS = 2_000_000_000
#: Chunk numbers remembered for reuse.
_KNOWN = 65536


class Parent:
    """Walks the parent's tree. Paths, and the spans of a path, must be asked for in order."""

    def __init__(self, tree: TreeReader | None, facts: dict[str, Any], started_ns: int) -> None:
        """facts: what the head of this snapshot holds; where the parent's head differs, everything is compared by content."""
        self._entries = iter(tree.entries()) if tree is not None else iter(())
        self._next: Entry | None = None
        self._key: list[bytes] = []
        self._path = ""
        self._advance()
        self._started_ns = started_ns
        self._before_ns = 0
        #: Why nothing is taken over unread, or "".
        self.distrust = ""
        self.present = self._next is not None and self._next["path"] == HEAD
        if self.present and self._next is not None:
            self._before_ns = int(self._next["started_ns"])
            self.distrust = self._oddity(self._next, facts)
            self._advance()

    def _oddity(self, head: Entry, facts: dict[str, Any]) -> str:
        if self._before_ns > self._started_ns:
            return "the clock went back since the parent snapshot"
        if head.get("system_identifier") != facts["system_identifier"]:
            return "the parent snapshot is of another cluster"
        if head.get("timeline") != facts["timeline"]:
            return f"the timeline changed from {head.get('timeline')} to {facts['timeline']} since the parent snapshot"
        if head.get("directory") != facts["directory"]:
            return "the data directory is another one than at the parent snapshot"
        if int(head.get("position", 0)) > facts["position"]:
            return "the server's log is behind the parent snapshot"
        if head.get("checksums") != facts["checksums"]:
            return "checksums were switched on or off since the parent snapshot"
        return ""

    def find(self, path: str) -> Entry | None:
        """The parent's entry of ``path``; its spans come next."""
        key = order_key(path)
        while self._next is not None and (self._key < key or (self._next["path"] == path and self._next["type"] == "span")):
            self._advance()
        if self._next is None or self._next["path"] != path:
            return None
        found = self._next
        self._advance()
        return found

    def span(self, path: str, at: int) -> Entry | None:
        """The parent's span of ``path`` that begins at ``at``."""
        while self._next is not None and self._next["path"] == path and self._next["type"] == "span" and self._next["at"] < at:
            self._advance()
        found = self._next
        if found is None or found["path"] != path or found["type"] != "span" or found["at"] != at:
            return None
        self._advance()
        return found

    def unchanged(self, found: Entry | None, item: Item) -> bool:
        """Every evidence says that the file's content is what the parent recorded."""
        if found is None or self.distrust or found["type"] != "file":
            return False
        status = item.status
        newest = max(status.st_mtime_ns, status.st_ctime_ns)
        return (
            found["size"] == status.st_size and found["mtime_ns"] == status.st_mtime_ns and found["seen"] == [status.st_ino, status.st_ctime_ns]
            and newest < self._before_ns - _RACE_NS and newest <= self._started_ns
        )

    def _advance(self) -> None:
        self._next = next(self._entries, None)
        if self._next is not None and self._next["path"] != self._path:
            self._path = self._next["path"]
            # WAL segments, pg_control and labels stand at the end, behind every path that is asked for
            self._key = order_key(self._path) if self._next["type"] != "label" else [b"\xff"]


class Reuse:
    """Chunks of the parent in this tree; thread-safe."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._known: dict[int, int] = {}

    def take(self, pieces: list[Piece]) -> tuple[list[Piece], list[Piece]]:
        """(pieces with numbers of this tree, pieces whose chunks are gone and must be stored anew)."""
        taken, gone = [], []
        with self._lock:
            for piece in pieces:
                number = self._known.get(piece[1])
                if number is None:
                    try:
                        number = self._writer.reuse(piece[1])
                    except KeyError:
                        gone.append(piece)
                        continue
                    if len(self._known) >= _KNOWN:
                        self._known.clear()
                    self._known[piece[1]] = number
                taken.append([piece[0], number, piece[2], piece[3]])
        return taken, gone


def cut(pieces: list[Piece], start: int, end: int) -> list[Piece]:
    """The parts of pieces (in order of their offset in the file) that lie within [start, end)."""
    found = []
    for at, number, offset, length in pieces:
        if at >= end:
            break
        low, high = max(at, start), min(at + length, end)
        if low < high:
            found.append([low, number, offset + low - at, high - low])
    return found


def join(pieces: list[Piece]) -> list[Piece]:
    """Pieces in order of their offset in the file, those that touch in the file and in the chunk made one."""
    pieces.sort()
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and last[1] == piece[1] and last[0] + last[3] == piece[0] and last[2] + last[3] == piece[2]:
            last[3] += piece[3]
        else:
            joined.append(list(piece))
    return joined


def directory_identity(path: str) -> int:
    """What tells this directory from one that was put in its place: its inode (devices change their numbers at a reboot)."""
    return os.stat(path).st_ino
