# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Log that has gathered on the server: finished segments are read where the server keeps them, instead of being received, written and flushed
a second time. The slot keeps them there until they are proven.
"""

from __future__ import annotations

import os

from ..errors import LifeboatError
from . import wal
from .server import LogServer
from .spool import SpoolFile

#: Segments that must wait for this to be worth it.
LEAST = 8
#: Segments that are looked up at once.
_MOST = 64


def at_hand(server: LogServer, directory: str) -> bool:
    """The server that answers runs on this host, in this data directory: its own session is the child of a process that works there."""
    try:
        with open(f"/proc/{server.session()}/stat", encoding="utf-8", errors="replace") as handle:
            parent = int(handle.read().rpartition(")")[2].split()[1])
        return os.path.samefile(f"/proc/{parent}/cwd", directory)
    except (LifeboatError, OSError, ValueError, IndexError):
        return False


def finished(directory: str, system: str, size: int, timeline: int, position: int, until: int) -> list[SpoolFile]:
    """The finished segments of a data directory that follow each other from a position on; ``until``: the server has flushed so far."""
    found: list[SpoolFile] = []
    start = position // size * size
    while start + size <= until and len(found) < _MOST:
        path = os.path.join(directory, "pg_wal", wal.segment_name(timeline, start, size))
        try:
            with open(path, "rb") as handle:
                head = wal.header(handle.read(wal.PAGE))
        except OSError:
            break
        if head is None or (head.system, head.start, head.segment_size) != (system, start, size):
            break
        found.append(SpoolFile(path, timeline, start, complete=True, received=False))
        start += size
    return found
