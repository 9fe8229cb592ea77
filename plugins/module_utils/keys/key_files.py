# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Key files on disk: one line of base64 of 32 raw bytes each, secret ones 0600; one writer at a time per directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from typing import Callable, Iterator

from .. import durable
from ..errors import ConflictError, KeyAccessError, StorageError
from . import envelope

#: Subject of the fault points.
SUBJECT = "key"
_LOCK_WAIT = 30.0  # seconds


@contextlib.contextmanager
def sole_writer(directory: str) -> Iterator[None]:
    """One ensure() at a time per directory; sweeps what a killed one left half made (it may hold a secret)."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyAccessError(f"cannot open the key directory ({error.strerror})", directory, "give the user that runs Lifeboat access to it") from error
    try:
        end = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ConflictError("another bootstrap holds the key directory", directory, "wait for it, then run bootstrap again") from None
                time.sleep(0.05)
        for name in os.listdir(directory):
            if name.startswith(".tmp-"):
                durable.unlink(os.path.join(directory, name), SUBJECT)
        yield
    finally:
        os.close(descriptor)


def exists(path: str | None) -> bool:
    """True when the name is there; refuses to take "not allowed to look" for "absent"."""
    if path is None:
        return False
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KeyAccessError(
            f"cannot look at key file ({error.strerror})", path, "give the user that runs Lifeboat access to it",
        ) from error
    return True


def create(path: str, make: Callable[[], bytes]) -> bool:
    """Create a random key file unless there is one; True if this call made it. Of two at once, one wins and counts for both."""
    return not exists(path) and write(path, make())


def place(path: str | None, data: bytes) -> bool:
    """Create a key file with known content (a copy, a public half); one that is there must hold the same. None: not kept here."""
    if path is None:
        return False
    if not exists(path) and write(path, data):
        return True
    if (read_private(path) if path.endswith(".key") else read_public(path)) != data:
        raise KeyAccessError("key file does not belong to the others beside it", path, "put the matching file back; nothing was changed")
    return False


def write(path: str, data: bytes) -> bool:
    try:
        durable.create_file(path, (envelope.to_text(data) + "\n").encode("ascii"), SUBJECT, 0o600 if path.endswith(".key") else 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(
            f"cannot write key file ({error.strerror})", path, "make room or give write access, then run bootstrap again",
        ) from error
    return True


def replace(path: str, data: bytes) -> None:
    """Put another key in a file's place at once; a crash leaves the old or the new one. Only a rotation does this."""
    try:
        durable.replace_file(path, (envelope.to_text(data) + "\n").encode("ascii"), SUBJECT, 0o600 if path.endswith(".key") else 0o644)
    except OSError as error:
        raise StorageError(f"cannot replace key file ({error.strerror})", path, "make room or give write access, then run the same command again") from error


def move(source: str, target: str) -> None:
    """Move a key file into a directory beside it, which is made when it is missing."""
    try:
        durable.make_dirs(os.path.dirname(target), 0o700, SUBJECT)
        durable.rename_durably(source, target, SUBJECT)
    except OSError as error:
        raise StorageError(f"cannot move key file ({error.strerror})", source, "give write access, then run the same command again") from error


def remove(path: str) -> None:
    """Remove a key file."""
    try:
        durable.unlink(path, SUBJECT)
        durable.fsync_dir(os.path.dirname(path), SUBJECT)
    except OSError as error:
        raise StorageError(f"cannot remove key file ({error.strerror})", path, "give write access, then run the same command again") from error


def overwrite(path: str) -> None:
    """Write random bytes over a key file in its place, flush them, remove it. What a disk or a copy keeps besides is out of reach."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            durable.write_all(descriptor, os.urandom(max(1, os.fstat(descriptor).st_size)), path, SUBJECT)
            durable.fsync_file(descriptor, path, SUBJECT)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"cannot overwrite key file ({error.strerror})", path, "give write access, then run the same command again") from error
    remove(path)


def read_private(path: str) -> bytes:
    return _read(path, private=True)


def read_public(path: str) -> bytes:
    return _read(path, private=False)


def _read(path: str, private: bool) -> bytes:
    """The 32 bytes of a key file; refuses a secret that others may read, and anything that is not such a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KeyAccessError("key file is not a regular file", path, "put the key file back")
            if private and status.st_mode & 0o077:
                raise KeyAccessError(
                    f"secret key file may be used by others (mode {stat.S_IMODE(status.st_mode):04o})", path,
                    f"chmod 600 {path}; if somebody else could read it, replace the key",
                )
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyAccessError(
            f"cannot read key file ({error.strerror})", path, "put it there, readable by the user that runs Lifeboat",
        ) from error
    try:
        data = envelope.from_text(text.decode("ascii").strip())
    except ValueError as error:
        raise KeyAccessError("key file is not one line of base64", path, "put the key file back from its copy") from error
    if len(data) != 32:
        raise KeyAccessError(f"key file holds {len(data)} bytes instead of 32", path, "put the key file back from its copy")
    return data
