# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Row digests over a psql session: one keyed hash per line of COPY output, summed, so that the order does not matter.

psql does the protocol in a process of its own; what is left for Python is one BLAKE2b and one addition per row.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import selectors
import subprocess
from typing import Callable

from ..errors import SourceError
from .postgresql_client import SESSION, Client
from .postgresql_pipe import _Process

_PIECE = 1 << 20
#: A line longer than this is hashed as it comes; it cannot be the end mark.
_LONG = 1 << 16
_F_SETPIPE_SZ = 1031
_MODULUS = 1 << 256


class RowSum:
    """An order-independent digest of byte lines: count and sum mod 2^256 of keyed BLAKE2b-256."""

    def __init__(self, key: bytes) -> None:
        self._fresh = hashlib.blake2b(b"", key=key, digest_size=32).copy
        self.rows = 0
        self.sum = 0

    def lines(self, lines: list[bytes]) -> None:
        """Whole lines without their newlines."""
        fresh, number, total = self._fresh, int.from_bytes, 0
        for line in lines:
            digest = fresh()
            digest.update(line)
            total += number(digest.digest(), "little")
        self.sum = (self.sum + total) % _MODULUS
        self.rows += len(lines)

    def start(self) -> hashlib.blake2b:
        """A hash for one line that comes in pieces; give it to finish()."""
        return self._fresh()

    def finish(self, digest: hashlib.blake2b) -> None:
        self.sum = (self.sum + int.from_bytes(digest.digest(), "little")) % _MODULUS
        self.rows += 1

    @property
    def hex(self) -> str:
        return f"{self.sum:064x}"


class RowSession:
    """One psql connection, in the exported snapshot when one is given. Use from one thread."""

    def __init__(self, client: Client, program: str, database: str, encoding: str, codec: str, snapshot: str | None, timeout: float) -> None:
        environment = client.environment(database, SESSION, encoding)
        argv = [program, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        self._codec = codec
        self._process = _Process(argv, environment, client.place, timeout, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stdout = self._process.child.stdout
        if stdout is None:
            raise AssertionError("stdout")
        self._output = stdout.fileno()
        try:
            fcntl.fcntl(self._output, _F_SETPIPE_SZ, _PIECE)
        except OSError:
            pass  # smaller pieces only cost time
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n")
        if snapshot is not None:
            if not all(letter in "0123456789ABCDEFabcdef-" for letter in snapshot):
                raise SourceError("the server gave a snapshot name of unknown form", client.place, "report this as a bug")
            self._send(f"SET TRANSACTION SNAPSHOT '{snapshot}';\n")

    def copy(self, query: str, into: RowSum, seen: Callable[[int], None] | None = None) -> None:
        """Run COPY (query) TO STDOUT and add every row. seen: called with the bytes read."""
        self.copy_lines(query, into, None, seen)

    def copy_lines(self, query: str, into: RowSum, change: Callable[[bytes], bytes | None] | None, seen: Callable[[int], None] | None = None) -> None:
        """The same, with each line changed first (None: the line does not count)."""
        mark = secrets.token_hex(24)
        self._send(f"COPY ({query}) TO STDOUT;\n\\echo {mark}\n")
        end = mark.encode()
        tail = b""
        long_line: hashlib.blake2b | None = None
        while True:
            piece = self._read()
            if seen is not None:
                seen(len(piece))
            if long_line is not None:
                cut = piece.find(b"\n")
                if cut < 0:
                    long_line.update(piece)
                    continue
                long_line.update(piece[:cut])
                into.finish(long_line)
                long_line, piece = None, piece[cut + 1:]
            lines = (tail + piece).split(b"\n")
            tail = lines.pop()
            done = not tail and bool(lines) and lines[-1] == end
            if done:
                lines.pop()
            if change is not None:
                lines = [changed for changed in map(change, lines) if changed is not None]
            into.lines(lines)
            if done:
                return
            if len(tail) > _LONG and change is None:
                long_line = into.start()
                long_line.update(tail)
                tail = b""

    def close(self) -> None:
        """End the session; its transaction only read."""
        self._selector.close()
        self._process.kill()

    def _send(self, text: str) -> None:
        stdin = self._process.child.stdin
        if stdin is None:
            raise AssertionError("stdin")
        try:
            data = memoryview(text.encode(self._codec))
            while data:
                data = data[os.write(stdin.fileno(), data):]
        except BrokenPipeError:
            self._ended()

    def _read(self) -> bytes:
        if not self._selector.select(self._process.timeout):
            raise self._process.stalled()
        piece = os.read(self._output, _PIECE)
        if not piece:
            self._ended()
        return piece

    def _ended(self) -> None:
        self._process.finish()
        raise SourceError("psql ended before it had delivered all rows", self._process.where, "run the same command again")
