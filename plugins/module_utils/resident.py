# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A process that waits on a host for the next call of a module: the call is answered by a fork of it, which has the code loaded already.

kept_host starts it in the first call of a run, as a program of its own, and asks it for that one and the next. It is another process per user,
environment, limits and namespaces (that is its key), takes calls of the same user only, and ends when none came for IDLE seconds. Of a call it never
has more than the name of the code and of the modules that were loaded for it: the fork reads the rest.

A call sends what it is, with its own three standard files. The fork says when it is ready, begins at a word of the call, and never else: a call
that gave no word does its work itself. It is then told the fork's status; what the fork writes goes where the call's own would. A signal that the call
gets goes on to the fork; when the call itself is gone, the fork and what it started are killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import marshal
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

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
#: What a fork says when it could begin.
_READY = b"R"
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
    os.set_blocking(_learn, False)  # it is read when this process has ended
    with contextlib.suppress(OSError):
        os.write(_learn, text if len(text) <= _MOST else b"")
    _close(_learn)
    _learn = -1


def main(words: list[str]) -> None:
    """Wait for calls, until none comes.

    words: the number of the open socket that listens, the folder of the copies of the code, the socket's name in it, the name of the copy that is loaded
    from (the first place of sys.path), and the name of the file there that tells what is worth loading.
    """
    number, folder, address, code, names = words
    sys.argv[1:] = []
    # neither the terminal nor the caller's group keeps it from waiting; of the session it stays, for the kernel shares processors among those
    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _prctl(_PR_SET_NAME, b"lifeboat-waits")
    _Server(socket.socket(fileno=int(number)), os.path.join(folder, address), folder, code, names).run()


class _Call:
    """A fork, and the call that it answers."""

    def __init__(self, line: socket.socket, pid: int, told: int) -> None:
        self.line, self.pid, self.told, self.code = line, pid, told, ""

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class _Server:
    def __init__(self, listener: socket.socket, address: str, folder: str, code: str, names: str) -> None:
        self.listener, self.address, self.folder, self.names = listener, address, folder, os.path.join(folder, names)
        self.inode = os.stat(address).st_ino
        self.pid = os.getpid()
        self.calls: dict[int, _Call] = {}
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
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(self.woken, selectors.EVENT_READ, lambda: os.read(self.woken, 4096))
        self.turn_to(code)
        self.load(list(_FIRST))
        with contextlib.suppress(OSError), open(self.names, encoding="utf-8") as handle:
            self.load(handle.read(_MOST).split("\n"))

    def run(self) -> None:
        while self.calls or (time.monotonic() - self.since <= IDLE and self.at_home()):
            for key, _events in self.selector.select(1.0):
                key.data()
            self.reap()
        self.leave()

    def at_home(self) -> bool:
        """Whether calls still find the way here: the folder may be removed at any time, and another may have taken the place."""
        try:
            return os.stat(self.address).st_ino == self.inode
        except OSError:
            return False

    def leave(self) -> None:
        """No more calls; it ends with the last that it took."""
        if os.getpid() == self.pid and self.at_home():
            with contextlib.suppress(OSError):
                os.unlink(self.address)

    def accept(self) -> None:
        """Let a fork answer the next call. Where there can be none, the line ends, and the call does its work itself."""
        ends: tuple[int, ...] = ()
        try:
            line = self.listener.accept()[0]
        except OSError:
            return
        try:
            if _peer(line) != os.geteuid():
                raise OSError("a call of another user")
            ends = told, tell = os.pipe()
            pid = os.fork()
        except OSError:
            line.close()
            _close(*ends)
            return
        if not pid:
            self.answer(line, told, tell)
        os.close(tell)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        call = self.calls[pid] = _Call(line, pid, told)
        self.selector.register(told, selectors.EVENT_READ, functools.partial(self.begun, call))

    def answer(self, line: socket.socket, told: int, tell: int) -> NoReturn:
        """In the fork: what its own process would do. Nothing of the process that waits is left in it but its code."""
        global _learn, _known
        try:
            os.setpgid(0, 0)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self.pid:
                raise OSError("it was killed")
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a call that ignores it does not pass it on
            self.selector.close()
            self.listener.close()
            for call in self.calls.values():
                call.line.close()
                _close(call.told)
            _close(told, self.woken, self.waker)
            line.settimeout(_PATIENCE)
            request, files = _received(line)
            code = os.path.basename(str(request["code"]))
            self.turn_to(code)
            _become(request, files)
            line.sendall(_READY)
            if not line.recv(1):
                raise OSError("the call is gone")
            os.write(tell, f"{code}\n".encode())
            line.close()
        except BaseException:
            os._exit(1)  # nothing has begun: the call does its work itself
        _learn, _known = tell, frozenset(sys.modules)
        _end(functools.partial(_work, request, sys.path[0]))

    def turn_to(self, code: str) -> None:
        """Load from this copy first; OSError where it is not. Two copies have the same module where they have the same name (other code is another key),
        but not all have all."""
        path = os.path.join(self.folder, code)
        os.stat(path)
        if sys.path[0] == path:
            return
        sys.path[:] = [path, *(place for place in sys.path if place != path)]
        for module in list(sys.modules.values()):
            places = getattr(module, "__path__", None)
            if isinstance(places, list) and places and places[0].startswith(self.folder + os.sep):
                place = os.path.join(path, places[0][len(self.folder) + 1:].partition(os.sep)[2])
                places[:] = [place, *(other for other in places if other != place)]

    def begun(self, call: _Call) -> None:
        """The first that a fork tells: it has begun, with this copy of the code. From now on the line is for signals."""
        self.selector.unregister(call.told)
        call.code = _line(call.told)
        if call.code:
            self.selector.register(call.line, selectors.EVENT_READ, functools.partial(self.heard, call))

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
            if call.told in self.selector.get_map():
                self.begun(call)
            self.since = time.monotonic()
            if call.code:
                if call.line.fileno() >= 0:
                    self.selector.unregister(call.line)
                    with contextlib.suppress(OSError):
                        call.line.sendall(struct.pack("=i", status))
                os.set_blocking(call.told, False)
                with contextlib.suppress(OSError, ValueError):
                    self.learn(call.code, os.read(call.told, _MOST).decode().split("\n"))
            call.line.close()
            _close(call.told)

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


def _peer(line: socket.socket) -> int:
    """The user at the other end of a line on this machine."""
    return int(struct.unpack("=iII", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def _line(told: int) -> str:
    """The first line of what can be read; "" where there is none. A byte at a time: what follows is read later."""
    found = b""
    with contextlib.suppress(OSError):
        while not found.endswith(b"\n"):
            piece = os.read(told, 1)
            if not piece:
                return ""
            found += piece
    return found.decode("utf-8", "replace").strip()


def _received(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """(what a call says that it is, its three standard files)"""
    first, files, _flags, _from = socket.recv_fds(line, 65536, 3)
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
    return request, files


def _become(request: dict[str, Any], files: list[int]) -> None:
    """The state that the call's own process would have."""
    for number, given in enumerate(files):
        os.dup2(given, number)
    _close(*files)
    os.environ.clear()
    os.environ.update(request["environment"])
    try:
        os.chdir(request["folder"])
    except OSError:
        os.chdir("/")


def _work(request: dict[str, Any], path: str) -> None:
    """As AnsiballZ's own start."""
    from ansible.module_utils._internal._ansiballz import _loader

    _loader.run_module(
        json_params=str(request["params"]).encode(), profile=request["profile"], module_fqn=request["module_fqn"], modlib_path=path,
        extensions=request["extensions"])


def _end(work: Callable[[], None]) -> NoReturn:
    """Work and end as a process does, but without taking apart the code that was loaded long before, which costs more than some calls do."""
    code: object = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    atexit._run_exitfuncs()
    if code is not None and not isinstance(code, int):
        sys.stderr.write(str(code) + "\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _close(*descriptors: int) -> None:
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.close(number)


def _prctl(option: int, value: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value)
