# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Files of the run directory: replaced as a whole, or appended under a lock, and synced.

Why not the engine's durable layer: its fault points belong to the process on the data's host. A plan of faults set in the
environment of ansible-playbook must strike the modules, not the controller's own bookkeeping.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from typing import Any, Iterator, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, StorageError

#: A file of a run directory is small; anything larger is not ours.
MAX_BYTES = 64 * 1024 * 1024


def canonical(value: Any) -> str:
    """One text per value: sorted keys, no spaces. What hashes are taken of.

    ASCII only, so that a name that is not valid Unicode still has one spelling.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sync_directory(path: str) -> None:
    """Make names made or replaced in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def replace(path: str, data: bytes, durable: bool = True) -> None:
    """Replace a file so that readers and crashes see the old or the new content, never a mixture.

    ``durable=False`` is for what only the live view reads: whole for every reader, not synced.
    """
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        if durable:
            sync_directory(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise StorageError(
            f"cannot write ({error.strerror})", path, "free space or mend permissions on the controller, or set lifeboat_run_dir"
        ) from error


def replace_json(path: str, value: Any, durable: bool = True, indent: Optional[int] = None) -> None:
    """Replace a file by a JSON document."""
    replace(path, (json.dumps(value, indent=indent, default=str) + "\n").encode(), durable)


def read_json(path: str) -> Any:
    """The JSON document of a file; None when it is absent, too large or not JSON (a reader of a crashed run must go on)."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(MAX_BYTES + 1)
        return json.loads(data) if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def digest(path: str) -> str:
    """SHA-256 (hex) of a file."""
    with open(path, "rb") as handle:
        return hashlib.sha256(handle.read()).hexdigest()


def append_line(path: str, line: str, durable: bool = False) -> None:
    """Append one line with a single write, so that lines of concurrent workers never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        _write_all(descriptor, line.encode() + b"\n")
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: str, holding: tuple[bytes, ...] = ()) -> list[dict[str, Any]]:
    """Every whole JSON object line of a file; a torn or foreign line is left out. holding: only lines with one of these in them."""
    found = []
    try:
        with open(path, "rb") as handle:
            data = handle.read(MAX_BYTES)
    except OSError:
        return []
    for line in data.split(b"\n"):
        if holding and not any(part in line for part in holding):
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


@contextlib.contextmanager
def locked(path: str, timeout: float = 30.0) -> Iterator[None]:
    """Hold an exclusive lock on a file; ConflictError when somebody holds it for longer than ``timeout`` seconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ConflictError(
                        f"a lock was not given back within {timeout:.0f} s", path, "see which process holds it with: fuser " + path
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
