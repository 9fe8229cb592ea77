# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A process that waits on a host for the next call of a module: the call is answered by a fork of it, which has the code loaded already.

kept_host starts it in the first call of a run and asks it for that one and the next. It is another process per user, environment, limits and namespaces
(that is its key), takes calls of the same user only, holds nothing of a call, and ends when none came for IDLE seconds.

A call sends what it is, with its own three standard files. It is told when the fork begins, then the fork's status; what it writes goes where
the call's own would. A signal that it gets goes on to the fork; when the call itself is gone, the fork and what it started are killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import marshal
import os
import selectors
import signal
import socket
import struct
import sys
import time
from typing import Any

#: Seconds without a call after which it ends.
IDLE = 15.0
#: Seconds a call may take to say what it is.
_PATIENCE = 5.0
_LARGEST = 256 << 20
#: Bytes of the names of modules that one call may teach.
_MOST = 60000
#: Loaded before the first call, which has nothing to teach yet; a copy that lacks one does without.
_FIRST = (
    "ansible.module_utils.basic", "ansible.module_utils._internal._ansiballz._loader", "ansible_collections.lifeboat.recovery.plugins.module_utils.arguments",
    "ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.operations",
)
#: What a call is told when the fork has begun; it must not do the work itself any more.
TAKEN = b"T"
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
#: Said once by a fork, when its work is done: which modules it had to load.
_learn = -1
_known: frozenset[str] = frozenset()


def learned() -> None:
    """Called when a call's work is done: the process that waits loads what this call had to load, so that the next need not."""
    global _learn
    if _learn < 0:
        return
    names = [name for name in list(sys.modules) if name not in _known and name != "__main__"]
    text = "\n".join(names).encode()
    with contextlib.suppress(OSError):
        os.write(_learn, text if len(text) <= _MOST else b"")
    _close(_learn)
    _learn = -1


class _Call:
    """A fork at work, for a call that waits for its status."""

    def __init__(self, line: socket.socket, pid: int, names: int, code: str) -> None:
        self.line, self.pid, self.names, self.code = line, pid, names, code

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def serve(listener: socket.socket, address: str, folder: str, code: str, names: str) -> dict[str, Any]:
    """Wait for calls. Returns in a fork, with the call it is to run and ``path`` of its code; the process that waits ends in here.

    listener: bound to ``address``. folder: where the copies of the code are, ``code`` among them, which is loaded from, and the file ``names`` of what
    is worth loading.
    """
    _prctl(_PR_SET_NAME, b"lifeboat-waits")
    return _Server(listener, address, folder, code, names).run()


class _Server:
    def __init__(self, listener: socket.socket, address: str, folder: str, code: str, names: str) -> None:
        self.listener, self.address, self.folder, self.names = listener, address, folder, os.path.join(folder, names)
        self.inode = os.stat(address).st_ino
        self.calls: dict[int, _Call] = {}
        self.whole = {code}
        self.tried: set[str] = set()
        self.since = time.monotonic()
        self.woken, self.waker = os.pipe()
        for end in (self.woken, self.waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.leave())
        listener.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.load(list(_FIRST))
        with contextlib.suppress(OSError), open(self.names, encoding="utf-8") as handle:
            self.load(handle.read(_MOST).split("\n"))

    def run(self) -> dict[str, Any]:
        while True:
            for key, _events in self.selector.select(1.0):
                if key.fileobj is self.listener:
                    request = self.accept()
                    if request is not None:
                        return request
                elif key.fileobj == self.woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.woken, 4096)
                else:
                    self.heard(key.data)
            self.reap()
            if not self.calls and (time.monotonic() - self.since > IDLE or not self.at_home()):
                self.leave()
                os._exit(0)

    def at_home(self) -> bool:
        """Whether calls still find the way here: the folder may be removed at any time, and another may have taken the place."""
        try:
            return os.stat(self.address).st_ino == self.inode
        except OSError:
            return False

    def leave(self) -> None:
        """No more calls; it ends with the last that it took."""
        if self.at_home():
            with contextlib.suppress(OSError):
                os.unlink(self.address)

    def accept(self) -> dict[str, Any] | None:
        """In a fork the call; None in the process that waits."""
        try:
            line = self.listener.accept()[0]
        except OSError:
            return None
        files: list[int] = []
        try:
            line.settimeout(_PATIENCE)
            if peer(line) != os.geteuid():
                raise OSError("a call of another user")
            request, files = _received(line)
            self.check(str(request["code"]))
            taught, names = os.pipe()
            pid = os.fork()
        except (OSError, ValueError, KeyError, EOFError, TypeError):
            line.close()  # not taken: the call does its work itself
            _close(*files)
            return None
        if not pid:
            return self.forked(request, files, line, taught, names)
        _close(names, *files)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        call = self.calls[pid] = _Call(line, pid, taught, str(request["code"]))
        self.selector.register(line, selectors.EVENT_READ, call)
        with contextlib.suppress(OSError):
            line.sendall(TAKEN)
        return None

    def forked(self, request: dict[str, Any], files: list[int], line: socket.socket, taught: int, names: int) -> dict[str, Any]:
        """Nothing of the process that waits is left in the fork but its code."""
        global _learn, _known
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.selector.close()
            for held in (self.listener, line, *(call.line for call in self.calls.values())):
                held.close()
            _close(taught, self.woken, self.waker, *(call.names for call in self.calls.values()))
            self.turn_to(str(request["code"]))
            _become(request, files)
            _learn, _known = names, frozenset(sys.modules)
            request["path"] = os.path.join(self.folder, str(request["code"]))
        except BaseException as error:
            os.write(2, f"the fork could not begin: {error!r}\n".encode())
            os._exit(1)
        return request

    def check(self, code: str) -> None:
        """OSError unless the copy of a call's code is there and whole."""
        if code not in self.whole:
            if os.path.basename(code) != code or not whole(os.path.join(self.folder, code)):
                raise OSError("no such copy")
            self.whole.add(code)

    def turn_to(self, code: str) -> None:
        """Load from this copy first. Two copies have the same module where they have the same name (other code is another key), but not all have all."""
        path = os.path.join(self.folder, code)
        if sys.path[0] == path:
            return
        sys.path[:] = [path, *(place for place in sys.path if place != path)]
        for module in list(sys.modules.values()):
            places = getattr(module, "__path__", None)
            if isinstance(places, list) and places and places[0].startswith(self.folder + os.sep):
                place = os.path.join(path, places[0][len(self.folder) + 1:].partition(os.sep)[2])
                places[:] = [place, *(other for other in places if other != place)]

    def heard(self, call: _Call) -> None:
        """A signal for the fork, or the call is gone."""
        try:
            told = call.line.recv(16)
        except OSError:
            told = b""
        for number in told:
            call.kill(number)
        if not told:
            self.selector.unregister(call.line)
            call.line.close()
            call.kill(signal.SIGKILL)

    def reap(self) -> None:
        while self.calls:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            call = self.calls.pop(pid, None)
            if call is None:
                continue
            if call.line.fileno() >= 0:
                self.selector.unregister(call.line)
                with contextlib.suppress(OSError):
                    call.line.sendall(struct.pack("=i", status))
                call.line.close()
            self.since = time.monotonic()
            os.set_blocking(call.names, False)
            with contextlib.suppress(OSError, ValueError):
                self.learn(call.code, os.read(call.names, _MOST).decode().split("\n"))
            _close(call.names)

    def learn(self, code: str, told: list[str]) -> None:
        """Load what a call had to load, and note it for the process that waits here next time."""
        self.turn_to(code)
        if self.load(told):
            with contextlib.suppress(OSError):
                new = f"{self.names}.{os.getpid()}.new"
                with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
                    handle.write("\n".join(sorted(self.tried)))
                os.rename(new, self.names)

    def load(self, names: list[str]) -> bool:
        new = [name for name in names if name and name not in self.tried]
        for name in new:
            self.tried.add(name)
            with contextlib.suppress(Exception):  # of a library of the host: the call that needs it says what is wrong with it
                importlib.import_module(name)
        gc.freeze()
        return bool(new)


def peer(line: socket.socket) -> int:
    """The user at the other end of a line on this machine."""
    return int(struct.unpack("=iII", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def whole(path: str) -> bool:
    """Whether a copy of code is what was written: kept_host's own check, which is not in the copy."""
    import hashlib

    with open(path, "rb") as handle:
        told, content = handle.readline(), handle.read()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" == told


def _received(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """(what a call says that it is, its three standard files)"""
    first, files, _flags, _from = socket.recv_fds(line, 65536, 3)
    try:
        if len(files) != 3 or len(first) < 4:
            raise OSError("not a call")
        size, data = struct.unpack("=I", first[:4])[0], bytearray(first[4:])
        if size > _LARGEST:
            raise OSError("too large")
        while len(data) < size:
            piece = line.recv(min(1 << 20, size - len(data)))
            if not piece:
                raise OSError("not all of it came")
            data += piece
        request = marshal.loads(bytes(data))
        if not isinstance(request, dict):
            raise ValueError("not a call")
    except Exception:
        _close(*files)
        raise
    return request, files


def _become(request: dict[str, Any], files: list[int]) -> None:
    """The state that the call's own process would have."""
    os.setpgid(0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number, given in enumerate(files):
        os.dup2(given, number)
    _close(*files)
    os.environ.clear()
    os.environ.update(request["environment"])
    try:
        os.chdir(request["folder"])
    except OSError:
        os.chdir("/")


def _close(*descriptors: int) -> None:
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.close(number)


def _prctl(option: int, value: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value)
