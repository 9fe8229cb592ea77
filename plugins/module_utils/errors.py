# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Errors as a product: what happened, where, and what to do about it."""

from __future__ import annotations

import errno
from typing import Any

#: Why the system below refused, as far as its own error number tells; closed, see failures.py.
_CAUSES = {
    "no_space": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "permission": (errno.EACCES, errno.EPERM, errno.EROFS),
    "timeout": (errno.ETIMEDOUT,),
}


class LifeboatError(Exception):
    """One line for an operator: ``what: where; remedy``.

    what: what happened, without a trailing period. where: object, path or address.
    remedy: what to do next. code: a stable word from the closed taxonomy below,
    used by callers that must tell failures apart. cause: why the system below refused (no_space, permission,
    unreachable, timeout) where whoever raises it knows; else the number of the OSError behind it tells.
    No argument may hold a secret.
    """

    code = "error"

    def __init__(self, what: str, where: str = "", remedy: str = "", cause: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        self._cause = cause
        #: What a module had found out until then, for its answer.
        self.result: dict[str, Any] = {}
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f": {self.where}"
        if self.remedy:
            text += f"; {self.remedy}"
        return text

    @property
    def cause(self) -> str:
        """Why the system below refused, in one word; "" when nobody knows."""
        error: BaseException | None = self
        for _depth in range(8):
            if error is None:
                break
            told = error._cause if isinstance(error, LifeboatError) else _cause_of(error)
            if told:
                return told
            error = error.__cause__
        return ""

    def as_dict(self) -> dict[str, str]:
        """The error as run.json and module results carry it; ``cause`` only where it is known."""
        told = {"code": self.code, "what": self.what, "where": self.where, "remedy": self.remedy}
        return {**told, "cause": self.cause} if self.cause else told


def _cause_of(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return next((word for word, numbers in _CAUSES.items() if number in numbers), "")


class ConfigError(LifeboatError):
    """The catalog or the arguments are wrong; nothing was touched."""

    code = "config"


class DamageError(LifeboatError):
    """A stored object is missing, altered or cannot be decoded. ``where`` names snapshot and object."""

    code = "damage"


class KeyAccessError(LifeboatError):
    """A key is missing, wrong, or this role may not use it."""

    code = "key"


class StorageError(LifeboatError):
    """The file system or object store refused: full, read-only, unreachable, no permission."""

    code = "storage"


class SourceError(LifeboatError):
    """The data store of a service refused or is down."""

    code = "source"


class CheckError(LifeboatError):
    """Health, an invariant or a digest comparison failed."""

    code = "check"


class ConflictError(LifeboatError):
    """Somebody else holds the lease, the lock or the name."""

    code = "conflict"


class TargetError(LifeboatError):
    """The asked target does not exist, is torn, or cannot be reached."""

    code = "target"
