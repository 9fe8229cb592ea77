# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What directories take on the disk, and what may be done in them."""

from __future__ import annotations

import os
import stat


def tree_bytes(path: str) -> int:
    """Bytes on disk of the files below a directory; 0 when it is not there."""
    total = 0
    for directory, _names, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def rename_refused(parent: str, path: str) -> tuple[str, str, str] | None:
    """(what, where, remedy) when this user may not create beside ``path`` in ``parent`` and rename it; None when nothing speaks against it."""
    remedy = "run as the owner of that directory or as root (become: true)"
    if os.statvfs(parent).f_flag & os.ST_RDONLY:
        return "the file system is mounted read-only", parent, "mount it writable"
    if not os.access(parent, os.W_OK | os.X_OK):
        return "no right to create and rename beside the source", parent, remedy
    above = os.stat(parent)
    if above.st_mode & stat.S_ISVTX and os.geteuid() not in (0, above.st_uid):
        try:
            owner = os.lstat(path).st_uid
        except FileNotFoundError:
            return None
        if owner != os.geteuid():
            return f"only uid {owner} may rename it there (sticky directory)", path, remedy
    return None
