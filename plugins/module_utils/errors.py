# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Errors as a product: what happened, where, and what to do about it."""

from __future__ import annotations

import errno
from typing import Any, TypeVar

_Error = TypeVar("_Error", bound="LifeboatError")

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
    #: Whether it may pass by itself, because something did not answer: then the same step may be tried again.
    transient = False
    #: What preflight calls it when nobody says more exactly (findings.KINDS).
    kind = "host"

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
        """The error as run.json and module results carry it; ``reason`` (the cause) only where it is known."""
        told = {"code": self.code, "what": self.what, "where": self.where, "remedy": self.remedy}
        return {**told, "reason": self.cause} if self.cause else told

    def passing(self: _Error) -> _Error:
        """The same error, marked as one that may pass by itself."""
        self.transient = True
        return self


def _cause_of(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return next((word for word, numbers in _CAUSES.items() if number in numbers), "")


class ConfigError(LifeboatError):
    """The catalog or the arguments are wrong; nothing was touched."""

    code = "config"
    kind = "catalog"


class DamageError(LifeboatError):
    """A stored object is missing, altered or cannot be decoded. ``where`` names snapshot and object."""

    code = "damage"
    kind = "snapshot"


class KeyAccessError(LifeboatError):
    """A key is missing, wrong, or this role may not use it."""

    code = "key"
    kind = "key"


class StorageError(LifeboatError):
    """The file system or object store refused: full, read-only, unreachable, no permission."""

    code = "storage"
    kind = "repository"


class ClockError(StorageError):
    """Somebody refuses because the clocks are too far apart."""

    kind = "clock"


class VersionError(ConfigError):
    """A program, server or library is missing or of a version that does not do."""

    kind = "version"


class CommandError(ConfigError):
    """The catalog does not say how to do something to a server or service, or what it names is not there to be run."""

    kind = "command"


class SourceError(LifeboatError):
    """The data store of a service refused or is down."""

    code = "source"
    kind = "store"


class CheckError(LifeboatError):
    """Health, an invariant or a digest comparison failed."""

    code = "check"
    kind = "store"


class ConflictError(LifeboatError):
    """Somebody else holds the lease, the lock or the name."""

    code = "conflict"
    kind = "lease"


class TargetError(LifeboatError):
    """The asked target does not exist, is torn, or cannot be reached."""

    code = "target"
    kind = "target"


class LimitError(LifeboatError):
    """A step took longer than the policy of its service allows."""

    code = "limit"
