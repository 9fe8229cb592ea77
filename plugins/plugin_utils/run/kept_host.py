# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Sent to a host in place of AnsiballZ's own start: run a module from the copy of its code that the host keeps.

Stands alone and is sent as text; payload.py appends the call. The copy is what AnsiballZ would have sent, compiled once by the host's own Python
into one file ``<digest of the code>-<version>.zip``: a line with the checksum of what follows, and an archive. Nothing of a task is in it.
"""

from __future__ import annotations

import datetime  # the appended call names a time
import os
import sys

#: Copies that no call used for so long are removed when a new one is made.
FORGET_AFTER = 30 * 86400.0
#: Seconds to wait for another call that makes the same copy.
_PATIENCE = 10.0


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


def _lifeboat_main(
    digest: str, zip_data: str, ansible_module: str, module_fqn: str, params: str, profile: str, date_time: datetime.datetime,
    extensions: dict[str, dict[str, object]], rlimit_nofile: int,
) -> None:
    """As AnsiballZ's own start. Without ``zip_data`` and without a copy it only says so."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")
    if rlimit_nofile:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, rlimit_nofile), hard))
    import __main__

    here = getattr(__main__, "__file__", None)
    sys.path = [entry for entry in sys.path if entry not in ("", ".", os.path.dirname(os.path.realpath(here)) if here else "")]
    path, remove, why = "", False, "absent"
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
    if not path:
        import tempfile

        handle, path = tempfile.mkstemp(prefix="ansible_" + ansible_module + "_payload_", suffix=".zip")
        remove = True
        with open(handle, "wb") as made:
            made.write(_compiled(zip_data))
    try:
        sys.path.insert(0, path)
        from ansible.module_utils._internal._ansiballz import _loader

        _loader.run_module(json_params=params.encode(), profile=profile, module_fqn=module_fqn, modlib_path=path, extensions=extensions)
    finally:
        if remove:
            os.unlink(path)
