# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A secret that lies in a file is exchanged for a new one: kept before it is used, proven before the old one ends.

    FILE.next   the new secret, from before anybody knows it until it is proven
    FILE.old    the former one, from the exchange until it is ended

A call that was killed at any moment is completed by the next one: whichever of the two the other side has by then, it is in a file.
"""

from __future__ import annotations

import os
from typing import Callable

from .. import durable
from ..errors import ConfigError, KeyAccessError, LifeboatError, StorageError
from ..keys.key_files import remove

_SUBJECT = "key"
_LONGEST = 64 << 10


class Exchange:
    """make: a new secret (and tells the other side, when that makes it). install: tell the other side the new one, given both.
    prove: raises LifeboatError unless a secret works. end: end the former one, once nothing uses it."""

    def __init__(
        self, path: str, make: Callable[[], str], prove: Callable[[str], None],
        install: Callable[[str, str], None] | None = None, end: Callable[[str], None] | None = None,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self._make, self._prove, self._install, self._end = make, prove, install, end

    def check(self) -> None:
        """Refuse what cannot work, changing nothing."""
        self._prove(_read(self.path))

    def run(self) -> None:
        """Exchange the secret."""
        upcoming, former = self.path + ".next", self.path + ".old"
        if os.path.exists(former):
            self._finish(former)  # a killed call had come as far
        current = _read(self.path)
        new = _read(upcoming) if os.path.exists(upcoming) else ""
        if not new or not self._works(new):
            if not new or self._install is None:
                new = self._make()
                self._write(upcoming, new)
            if self._install is not None:
                self._install(current, new)
            self._prove(new)
        self._write(former, current)
        try:
            durable.rename_durably(upcoming, self.path, _SUBJECT)
        except OSError as error:
            raise StorageError(f"cannot replace the credential ({error.strerror})", self.path, "give write access, then run the same command again") from error
        self._finish(former)

    def _finish(self, former: str) -> None:
        old, current = _read(former), _read(self.path)
        if self._end is not None and old != current:
            self._end(old)
        remove(former)  # it opens nothing any more

    def _works(self, secret: str) -> bool:
        try:
            self._prove(secret)
        except LifeboatError:
            return False
        return True

    def _write(self, path: str, secret: str) -> None:
        """0600 and the owner of the present file: who reads that one must read this one."""
        try:
            owner = os.stat(self.path)
            durable.replace_file(path, (secret + "\n").encode(), _SUBJECT, 0o600)
            if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(path, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise StorageError(
                f"cannot write the credential ({error.strerror})", path, "make room or give write access, then run the same command again",
            ) from error


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as handle:
            mode = os.fstat(handle.fileno()).st_mode
            text = handle.read(_LONGEST + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise KeyAccessError(f"cannot read the credential ({reason})", path, "put it there, readable by the user that runs Lifeboat") from error
    if mode & 0o007:
        raise KeyAccessError("the credential may be read by everybody", path, f"chmod 600 {path}, then exchange it")
    if not text or len(text) > _LONGEST or "\n" in text:
        raise ConfigError("the credential is no single line of text", path, "put the credential there and nothing else")
    return text
