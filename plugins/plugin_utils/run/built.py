# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What Ansible gathers for a module of ours, kept from one ansible-playbook to the next.

To send a module Ansible reads all that it imports, which takes a second of CPU time for each of ours, and forgets it when it ends. It looks for it
in a folder of its temporary directory first; what an earlier run left is put there, as long as neither the collection nor Ansible has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sys
import time
from typing import Iterator

from ansible import module_utils as ansible_utils
from ansible.release import __version__ as ansible_version

from ansible_collections.lifeboat.recovery.plugins import module_utils as own_utils
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError

from . import files, kept_host

_PACKAGE = "ansible_collections.lifeboat.recovery.plugins.modules."


@contextlib.contextmanager
def remembered(module: str, temporary: str) -> Iterator[None]:
    """While it lasts Ansible finds what was gathered for a module (its last name); what it gathers anew is kept. Never fails.

    temporary: DEFAULT_LOCAL_TMP of the running Ansible.
    """
    theirs = os.path.join(temporary, "ansiballz_cache")
    if _names(theirs, module):
        yield
        return
    ours = ""
    with contextlib.suppress(OSError):
        ours = os.path.join(kept_host.private_folder("built"), _fingerprint(module))
        os.makedirs(theirs, exist_ok=True)
        _take(ours, theirs, module)
    yield
    if ours:
        with contextlib.suppress(OSError):
            if not os.path.isdir(ours):
                _forget(os.path.dirname(ours))
                os.mkdir(ours, 0o700)
            _take(theirs, ours, module)
            os.utime(ours)


def _names(folder: str, module: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [name for name in names if name.startswith(f"{_PACKAGE}{module}-") and not name.endswith((".lock", "-part"))]


def _take(source: str, target: str, module: str) -> None:
    """Copy what is not there; each file appears whole."""
    for name in set(_names(source, module)) - set(_names(target, module)):
        part = os.path.join(target, f".{secrets.token_hex(6)}-part")
        shutil.copyfile(os.path.join(source, name), part)
        os.rename(part, os.path.join(target, name))


def family(folder: str) -> str:
    """The same for all modules as long as no file that may go along changes; a playbook's temporary folder takes a note of it."""
    seen = os.path.join(folder, "lifeboat-family")
    with contextlib.suppress(OSError), open(seen, encoding="ascii") as handle:
        return handle.read()
    found = _engine().hexdigest()[:32]
    with contextlib.suppress(StorageError):
        files.replace(seen, found.encode(), durable=False)
    return found


def _fingerprint(module: str) -> str:
    """Of everything that may go along with a module, and the module."""
    found = _engine()
    found.update(repr(_seen(os.path.join(os.path.dirname(list(own_utils.__path__)[0]), "modules", f"{module}.py"))).encode())
    return found.hexdigest()


def _engine() -> hashlib._Hash:
    """Of each file of the engine by name, size and time, and which Ansible and Python this is."""
    root = list(own_utils.__path__)[0]
    found = hashlib.sha256(repr((ansible_version, sys.version, root, _seen(os.path.join(list(ansible_utils.__path__)[0], "basic.py")))).encode())
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            found.update(repr((parent, name, _seen(os.path.join(parent, name)))).encode())
    return found


def _seen(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _forget(folder: str) -> None:
    """Remove what no run used for long."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.stat(path).st_mtime < time.time() - kept_host.FORGET_AFTER:
            shutil.rmtree(path)
