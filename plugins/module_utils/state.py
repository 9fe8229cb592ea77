# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Where a service's state lives on its host, and how small JSON files there are read and replaced.

``<state_dir>/services/<service>/``, 0700: ledger.jsonl, lease.json + lease.lock, origin.json, marks.json,
progress.json, work/<source>/.
"""

from __future__ import annotations

import json
import os
from typing import Any

from . import durable
from .errors import ConfigError, DamageError, StorageError

#: No state file is larger; a bigger one is damage, not data.
_LIMIT = 16 << 20


def resolve_state_dir(configured: str) -> str:
    """The absolute state directory: what the catalog says, else the place this user may write.

    Raises ConfigError for a relative path.
    """
    if not configured:
        return "/var/lib/lifeboat" if os.geteuid() == 0 else os.path.expanduser("~/.local/state/lifeboat")
    path = os.path.expanduser(configured)
    if not os.path.isabs(path):
        raise ConfigError("The state directory must be an absolute path", configured, "set state_dir in the catalog to an absolute path")
    return os.path.normpath(path)


def service_dir(state_dir: str, service: str) -> str:
    """The directory of one service below the state directory."""
    return os.path.join(state_dir, "services", service)


def ensure_private(path: str, subject: str = "ledger") -> None:
    """Create a private directory (0700) with its parents; refuse one that others may write."""
    try:
        durable.make_dirs(path, 0o700, subject)
        info = os.stat(path)
    except OSError as error:
        raise StorageError(f"Failed to create the state directory ({error.strerror})", path, "check owner, permissions and free space") from error
    if info.st_mode & 0o022:
        raise StorageError("The state directory may be written by others", path, f"run: chmod 700 {path}")
    if info.st_uid != os.geteuid():
        raise StorageError(
            f"The state directory belongs to user id {info.st_uid}, not to {os.geteuid()}", path,
            "run as its owner, or set state_dir in the catalog to a directory of this user",
        )


def read_json(path: str) -> dict[str, Any] | None:
    """The JSON object in a file; None when the file is absent. Raises DamageError when it is no JSON object."""
    try:
        with open(path, "rb") as handle:
            raw = handle.read(_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"Failed to read a state file ({error.strerror})", path, "check owner and permissions") from error
    try:
        if len(raw) > _LIMIT:
            raise ValueError("too large")
        value = json.loads(raw)
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise DamageError(f"A state file is damaged ({error})", path, "move it aside; the ledger holds what is needed to go on") from error
    return value


def write_json(path: str, value: dict[str, Any], subject: str) -> None:
    """Replace a small JSON file so that a crash leaves the old or the new one."""
    data = (json.dumps(value, sort_keys=True, ensure_ascii=True) + "\n").encode()
    try:
        durable.replace_file(path, data, subject)
    except OSError as error:
        raise StorageError(f"Failed to write a state file ({error.strerror})", path, "check owner, permissions and free space") from error
