# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""pg_dump's output and psql's input as byte streams: no shell, no temporary file, no success without exit code 0."""

from __future__ import annotations

import collections
import io
import os
import re
import secrets
import selectors
import subprocess
import threading
import time
from typing import Any, Callable, Iterable, Iterator

from ..errors import SourceError

#: Largest piece read from or written to a pipe, in bytes.
_PIECE = 1 << 20


class _Process:
    """A child with its last words kept; ends when the context does."""

    def __init__(self, argv: list[str], environment: dict[str, str], where: str, timeout: float, **pipes: Any) -> None:
        self.name = os.path.basename(argv[0])
        self.where = where
        self.timeout = timeout
        try:
            self.child = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, cwd="/", bufsize=0, **pipes)
        except OSError as error:
            raise SourceError(f"{self.name} cannot be run ({error.strerror})", f"{where}: {argv[0]}", "install the client programs or set bin_dir") from error
        self._words: collections.deque[str] = collections.deque(maxlen=200)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        if self.child.stderr is None:
            raise AssertionError("self.child.stderr")
        with self.child.stderr as raw, open(raw.fileno(), "rb", closefd=False) as stream:
            for line in iter(lambda: stream.readline(4096), b""):
                self._words.append(line.decode("utf-8", "replace").strip())

    def kill(self) -> None:
        """End the child now, whatever it does."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self._listener.join(10)
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # a broken pipe has nothing left to flush

    def finish(self) -> None:
        """Wait for the exit code; anything but 0 is a SourceError with the tool's own first error."""
        try:
            status = self.child.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise self.stalled() from None
        self._listener.join(10)
        if status != 0:
            ended = f"was killed by signal {-status}" if status < 0 else f"failed with exit code {status}"
            raise SourceError(f"{self.name} {ended}{self._why()}", self.where, "see the server's log, then run the same command again")

    def stalled(self) -> SourceError:
        return SourceError(
            f"{self.name} made no progress for {self.timeout:.0f} s", self.where, "look for locks on the server; raise the source's timeout if it is only slow",
        )

    def _why(self) -> str:
        # Only the error itself: DETAIL and CONTEXT lines quote rows.
        for line in self._words:
            found = re.search(r"(?:ERROR|FATAL|PANIC|error|fatal):\s+(.*)", line)
            if found:
                return f" ({found.group(1)[:300]})"
        return ""


class DumpStream(io.RawIOBase):
    r"""The plain text of pg_dump as a stream, the same bytes for the same content; call finish() after its end.

    pg_dump guards its text with \restrict and a fresh random key, so that a hostile server cannot smuggle in commands
    for psql. The two lines are taken out here, and psql_text() puts a key of the restore's own around the text: a
    constant key would make the streams equal too, but an attacker could learn it.
    seen: called with every piece, in order (hashing, progress).
    """

    _TAIL = 512

    def __init__(self, argv: list[str], environment: dict[str, str], where: str, timeout: float, seen: Callable[[bytes], None]) -> None:
        super().__init__()
        self._process = _Process(argv, environment, where, timeout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._seen = seen
        self._selector = selectors.DefaultSelector()
        if self._process.child.stdout is None:
            raise AssertionError("self._process.child.stdout")
        self._descriptor = self._process.child.stdout.fileno()
        self._selector.register(self._descriptor, selectors.EVENT_READ)
        self._pieces = self._clean()
        self._current = memoryview(b"")
        self._last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._current:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._seen(piece)
            self._last = (self._last + piece[-self._TAIL:])[-self._TAIL:]
            self._current = memoryview(piece)
        size = min(len(view), len(self._current))
        view[:size] = self._current[:size]
        self._current = self._current[size:]
        return size

    def finish(self) -> None:
        """Raise SourceError unless the tool ended well and its text is whole."""
        self._process.finish()
        if not self._last.rstrip().endswith(b"-- PostgreSQL database dump complete\n--"):
            raise SourceError(f"{self._process.name} delivered a text without its end", self._process.where, "run the same command again")

    def kill(self) -> None:
        """End the tool; the reading thread then finds the end and finish() the signal."""
        self._process.child.kill()

    def close(self) -> None:
        if not self.closed:
            self._selector.close()
            self._process.kill()
        super().close()

    def _raw(self) -> bytes:
        if not self._selector.select(self._process.timeout):
            raise self._process.stalled()
        return os.read(self._descriptor, _PIECE)

    def _clean(self) -> Iterator[bytes]:
        head = b""
        while b"\nSET " not in head and len(head) < 65536:
            piece = self._raw()
            if not piece:
                break
            head += piece
        found = re.search(rb"^\\restrict (\w+)\n", head, re.MULTILINE)
        held = head
        if found:
            held = head[:found.start()] + head[found.end():]
        while True:
            piece = self._raw()
            if not piece:
                break
            held += piece
            if len(held) > self._TAIL:
                yield held[:-self._TAIL]
                held = held[-self._TAIL:]
        if found:
            end = b"\\unrestrict " + found.group(1) + b"\n"
            before, _mark, after = held.rpartition(end)
            held = before + after
        if held:
            yield held


def psql_text(pieces: Iterable[bytes], guard: bool) -> Iterator[bytes]:
    """A section as psql gets it: with ``guard`` inside \\restrict with a key nobody could have known at capture."""
    key = secrets.token_hex(32)
    if guard:
        yield f"\\restrict {key}\n".encode()
    yield from pieces
    if guard:
        yield f"\n\\unrestrict {key}\n".encode()


def feed(argv: list[str], environment: dict[str, str], where: str, timeout: float, pieces: Iterable[bytes], seen: Callable[[int], None]) -> None:
    """Write the pieces to the standard input of a tool and wait for its exit code 0; its output is dropped.

    An error while producing the pieces kills the tool: what it did so far is the caller's to drop.
    """
    process = _Process(argv, environment, where, timeout, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        if process.child.stdin is None:
            raise AssertionError("process.child.stdin")
        descriptor = process.child.stdin.fileno()
        os.set_blocking(descriptor, False)
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_WRITE)
            try:
                for piece in pieces:
                    _write(process, selector, descriptor, memoryview(piece))
                    seen(len(piece))
            except BrokenPipeError:
                pass  # the tool ended early: its exit code and its words say why
        process.child.stdin.close()
        process.finish()
    finally:
        process.kill()


def _write(process: _Process, selector: selectors.BaseSelector, descriptor: int, view: memoryview) -> None:
    deadline = time.monotonic() + process.timeout
    while view:
        if not selector.select(min(5.0, process.timeout)):
            if process.child.poll() is not None:
                raise BrokenPipeError
            if time.monotonic() > deadline:
                raise process.stalled()
            continue
        try:
            view = view[os.write(descriptor, view[:_PIECE]):]
            deadline = time.monotonic() + process.timeout
        except BlockingIOError:
            continue
