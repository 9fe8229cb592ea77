# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What is sent to a host to run one of our modules: Ansible's own payload without its code, which the host keeps compiled (kept_host.py).

With the code, a payload has 800 KB, and the host compiles some hundred files on each call. What cannot be read as the payload that is known
here is sent as it is.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import re
import zipfile
from typing import Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError

from . import files, kept_host

#: How AnsiballZ ends its text: one keyword argument per line, each as Python writes it.
_CALL = b"\n    _ansiballz_main(\n"
#: Not needed: the archive is not made anew.
_TIME = re.compile(rb"^date_time=.*\n", re.MULTILINE)
_ZIP = re.compile(rb"^zip_data='([A-Za-z0-9+/=]*)',$", re.MULTILINE)
_ARGUMENTS = ("ansible_module", "module_fqn", "profile", "date_time", "rlimit_nofile", "params", "extensions", "zip_data")
#: An answer with this key means: the host keeps no copy, send the code. "absent": it will then; "impossible": it cannot, send it every time.
ABSENT = "lifeboat_code"


def slim(payload: bytes, whole: bool, folder: Optional[str] = None, family: str = "", nice: int = 0) -> bytes:
    """The payload that runs from the copy on the host; ``whole`` carries the code along, for a host that has none yet.

    folder: where the digest of a code that was seen may be noted, so that it is not unpacked for each call. family: of all code that belongs
    together, for the process that waits on the host for the next call; "" where none shall wait. nice: the least niceness that it runs with.
    """
    head, call, arguments = payload.rpartition(_CALL)
    zipped = _ZIP.search(arguments)
    names = re.findall(rb"^([a-z_]+)=", arguments, re.MULTILINE)
    if not head or not call or zipped is None or sorted(names) != sorted(name.encode() for name in _ARGUMENTS):
        return payload
    shebang = head.split(b"\n", 1)[0] if head.startswith(b"#!") else b"#!/usr/bin/python"
    if not whole:
        arguments = arguments[:zipped.start(1)] + arguments[zipped.end(1):]
    arguments = _TIME.sub(b"", arguments)
    given = f"digest={_digest(zipped.group(1), folder)!r},\nfamily={family!r},\nnice={nice!r},\n".encode()
    with open(str(kept_host.__file__), "rb") as handle:
        start = handle.read()
    return shebang + b"\n" + start + b'\n\nif __name__ == "__main__":\n    _lifeboat_main(\n' + given + arguments


def note(folder: str, *where: str) -> str:
    """The file of this playbook's temporary folder that says: the host and user of this name can keep nothing."""
    return os.path.join(folder, f"lifeboat-whole-{hashlib.sha256(repr(where).encode()).hexdigest()}")


def _digest(zip_data: bytes, folder: Optional[str]) -> str:
    """Of names and contents: an archive has the time of its making in it."""
    seen = os.path.join(folder, f"lifeboat-code-{hashlib.sha256(zip_data).hexdigest()}") if folder else ""
    with contextlib.suppress(OSError), open(seen, encoding="ascii") as handle:
        return handle.read()
    found = hashlib.sha256()
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(zip_data))) as archive:
        for name in sorted(archive.namelist()):
            content = hashlib.sha256(archive.read(name)).hexdigest()
            found.update(f"{name}\0{content}\n".encode())
    if seen:
        with contextlib.suppress(StorageError):
            files.replace(seen, found.hexdigest().encode(), durable=False)
    return found.hexdigest()
