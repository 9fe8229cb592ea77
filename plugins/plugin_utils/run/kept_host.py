# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Sent to a host in place of AnsiballZ's own start: run a module from the copy of its code that the host keeps.

Stands alone and is sent as text; payload.py appends the call. The copy is what AnsiballZ would have sent, compiled once by the host's own Python
into one file ``<digest of the code>-<version>.zip``: a line with the checksum of what follows, and an archive. Nothing of a task is in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

#: Copies that no call used for so long are removed when a new one is made.
FORGET_AFTER = 30 * 86400.0
#: Seconds to wait for another call that makes the same copy, or for the process that waits to listen.
_PATIENCE = 10.0
#: The process that waits (resident.py): its words, and the places that code is loaded from, the copy first.
_WAITS = """import sys
sys.path[:] = sys.argv[6:]
from ansible_collections.lifeboat.recovery.plugins.module_utils import resident
resident.main(sys.argv[1:6])
"""
#: Of the environment, what is another one for each call and of no weight: a call that a waiting process does gets its own all the same.
_OF_THIS_CALL = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SUDO_COMMAND", "XDG_SESSION_ID", "PWD", "OLDPWD", "SHLVL", "_")


def private_folder(name: str) -> str:
    """A folder of this user that lasts; OSError where there can be none that only we (and root) write to."""
    import pwd

    own = os.geteuid()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    above = os.path.dirname(os.path.abspath(base))
    if not os.path.isdir(above) or os.stat(above).st_uid != own:  # sudo may leave the variables of another user
        base = os.path.join(pwd.getpwuid(own).pw_dir, ".cache")
    os.makedirs(base, exist_ok=True)
    path = base
    for part in ("lifeboat", name):
        path = os.path.join(path, part)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            seen = os.lstat(path)
            if seen.st_uid != own or seen.st_mode & 0o022 or not os.path.isdir(path) or os.path.islink(path):
                raise OSError("others may write to " + path) from None
    return path


def _whole(path: str) -> bool:
    """Whether a copy is there and is what was written."""
    import hashlib

    try:
        with open(path, "rb") as handle:
            told, content = handle.readline(), handle.read()
        if hashlib.sha256(content).hexdigest().encode() + b"\n" != told:
            return False
        os.utime(path)
    except OSError:
        return False
    return True


def _compiled(zip_data: str) -> bytes:
    """What AnsiballZ sends, with compiled code in place of source."""
    import base64
    import importlib.util
    import io
    import marshal
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(zip_data))) as given, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        for name in given.namelist():
            content = given.read(name)
            if name.endswith(".py"):
                # unchecked hash-based bytecode: it is never held against a source
                head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + b"\0" * 8
                name, content = name + "c", head + marshal.dumps(compile(content, name, "exec", dont_inherit=True))
            made.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def _make(folder: str, path: str, zip_data: str) -> None:
    """Make the copy, durable before it has its name, unless another call just did; remove those long unused."""
    import fcntl
    import hashlib
    import time

    with open(os.path.join(folder, ".lock"), "a") as lock:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.1)
        if _whole(path):
            return
        content = _compiled(zip_data)
        new = f"{path}.{os.getpid()}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            handle.flush()
            os.fsync(handle.fileno())
        os.rename(new, path)
        for name in os.listdir(folder):
            other = os.path.join(folder, name)
            if name != ".lock" and os.stat(other).st_mtime < time.time() - FORGET_AFTER:
                os.unlink(other)


def _key(family: str) -> str:
    """Of all that a process has from where it was started, as far as its work may depend on it; OSError where Linux does not tell."""
    import hashlib
    import resource

    told: list[object] = [family, sys.executable, sys.version, sys.flags, sys.path]
    told += [sorted(pair for pair in os.environ.items() if pair[0] not in _OF_THIS_CALL)]
    told += [os.getresuid(), os.getresgid(), os.getgroups(), os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))]
    told += [resource.getrlimit(number) for number in range(16)]
    mask = os.umask(0o077)
    os.umask(mask)
    root = os.stat("/")
    told += [mask, root.st_dev, root.st_ino, sorted((name, os.readlink("/proc/self/ns/" + name)) for name in os.listdir("/proc/self/ns"))]
    with open("/proc/self/status", "rb") as handle:
        told += [line for line in handle if line.startswith((b"Cap", b"NoNewPrivs", b"Seccomp:"))]
    for name in ("cgroup", "attr/current", "loginuid", "oom_score_adj"):
        try:
            with open("/proc/self/" + name, "rb") as handle:
                told.append(handle.read())
        except OSError:
            told.append(name)
    return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _taken(folder: str, key: str, call: dict[str, object]) -> Any:
    """The line to a fork of the process that waits, which has the word to do a call; None when there is none, or it is not ready: nothing has begun then."""
    import _socket  # socket loads a dozen modules more, which takes longer than all the rest of a call
    import marshal
    import struct

    line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _at(folder, key, line.connect)
        if struct.unpack("=iII", line.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))[1] == os.geteuid():
            data = marshal.dumps(call)
            message = struct.pack("=I", len(data)) + data
            line.settimeout(_PATIENCE)
            sent = line.sendmsg([message[:4096]], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("=3i", 0, 1, 2))])
            line.sendall(message[sent:])
            if line.recv(1):
                line.sendall(b"G")
                line.settimeout(None)
                return line
    except OSError:
        pass
    line.close()
    return None


def _end_as(line: Any) -> None:
    """Pass signals on to the fork, and end as it ends. This process must not do the work any more, whatever happens."""
    import _signal  # type: ignore[import-not-found]  # typeshed leaves it out; as _socket, for the time it saves
    import struct

    for passed in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        if _signal.getsignal(passed) != _signal.SIG_IGN:
            _signal.signal(passed, lambda number, _frame: line.send(bytes([number])))
    told = b""
    while len(told) < 4:
        try:
            piece = line.recv(4 - len(told))
        except OSError:
            piece = b""
        if not piece:
            sys.exit("the process that ran the module was killed")
        told += piece
    status = struct.unpack("=i", told)[0]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != _signal.SIGKILL:
            _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _at(folder: str, name: str, use: Callable[[str], None]) -> None:
    """Use the address of that name, which may be too long for an address by itself."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        use(f"/proc/self/fd/{here}/{name}")
    finally:
        os.close(here)


def _leave_one(folder: str, key: str, path: str, names: str) -> None:
    """Leave a process behind that waits for this call and the next, unless there is one: a program of its own, which has nothing of this call."""
    import fcntl
    import socket
    import subprocess

    with open(os.path.join(folder, ".lock"), "a") as lock, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another call is doing it
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                _at(folder, key, line.connect)
            return  # another call has done it
        except OSError:
            pass
        new = f"{key}.{os.getpid()}.new"
        _at(folder, new, listener.bind)
        os.chmod(os.path.join(folder, new), 0o600)
        listener.listen(256)
        os.rename(os.path.join(folder, new), os.path.join(folder, key))
        words = [str(listener.fileno()), folder, key, os.path.basename(path), names]
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # typeshed leaves it out
        subprocess.Popen(
            [sys.executable, *flags, "-c", _WAITS, *words, path, *sys.path],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", pass_fds=[listener.fileno()])


def _by_another(folder: str, family: str, path: str, call: dict[str, object]) -> None:
    """Have a process that waits do a call, and end as it ended. Returns where that cannot be: this process does it."""
    try:
        key = _key(family)
        told = {**call, "code": os.path.basename(path), "environment": dict(os.environ), "folder": os.getcwd()}
        line = _taken(folder, key, told)
        if line is None:
            _leave_one(folder, key, path, family + ".names")
            line = _taken(folder, key, told)
    except (OSError, ImportError, AttributeError):
        return  # no Linux, one without /proc, or no room
    if line is not None:
        _end_as(line)


def _lifeboat_main(
    digest: str, family: str, nice: int, zip_data: str, ansible_module: str, module_fqn: str, params: str, profile: str,
    extensions: dict[str, dict[str, object]], rlimit_nofile: int,
) -> None:
    """As AnsiballZ's own start. Without ``zip_data`` and without a copy it only says so.

    family: of all code that was made together; with it a process that waits may answer. "": each call starts its own.
    """
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")
    if nice > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        try:
            with open("/proc/self/autogroup", "w") as session:
                session.write(str(nice))
        except OSError:
            pass  # the kernel does not share processors among sessions
    if rlimit_nofile:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, rlimit_nofile), hard))
    import __main__

    here = getattr(__main__, "__file__", None)
    sys.path = [entry for entry in sys.path if entry not in ("", ".", os.path.dirname(os.path.realpath(here)) if here else "")]
    path, remove, why, folder = "", False, "absent", ""
    try:
        folder = private_folder("code")
        path = os.path.join(folder, digest + "-" + str(sys.implementation.cache_tag) + ".zip")
        if not _whole(path):
            if not zip_data:
                path = ""
            else:
                _make(folder, path, zip_data)
    except OSError:
        path, why = "", "impossible"  # a home that is read-only or full, or that others write to
    if not path and not zip_data:
        sys.stdout.write('{"failed": true, "lifeboat_code": "' + why + '", "msg": "the code of the module is not kept on this host"}')
        return
    call: dict[str, object] = {"module_fqn": module_fqn, "profile": profile, "params": params, "extensions": extensions}
    if not path:
        import tempfile

        handle, path = tempfile.mkstemp(prefix="ansible_" + ansible_module + "_payload_", suffix=".zip")
        remove = True
        with open(handle, "wb") as made:
            made.write(_compiled(zip_data))
    elif family:
        _by_another(folder, family, path, call)
    try:
        sys.path.insert(0, path)
        from ansible.module_utils._internal._ansiballz import _loader

        _loader.run_module(json_params=params.encode(), profile=profile, module_fqn=module_fqn, modlib_path=path, extensions=extensions)
    finally:
        if remove:
            os.unlink(path)
