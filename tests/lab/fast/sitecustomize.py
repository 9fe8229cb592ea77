# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python imports this at its start where the variables of ../quick.py are in its environment: what is made anew for every module call is made once.

Code: Ansible sends a module as a zip of sources, and Python compiles each of them twice on every call, half of what a call costs. Here
an unchanged source is compiled once; it is found by a hash of its text, as in a hash-based .pyc.

Payloads: every ansible-playbook packs each module that it calls again, about a second each. Here it takes the zip that another one
packed from the same files, from the place where it looks for those that it packed itself.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys
import zipimport
from types import CodeType
from typing import Any

FOLDER = os.environ.get("LIFEBOAT_TESTS_FAST", "")
VERSION = int.from_bytes(sys.version.encode()[:8], "little")
compile_source: Any = getattr(zipimport, "_compile_source", None)


def compiled(path: str, source: bytes) -> CodeType:
    """The code of a source; ``path`` is its file name for tracebacks."""
    name = os.path.join(FOLDER, "code", _imp.source_hash(VERSION, source).hex() + "-" + path.rpartition(".zip/")[2].replace("/", "."))
    try:
        with open(name, "rb") as handle:
            code: CodeType = marshal.loads(handle.read())
        _imp._fix_co_filename(code, path)
        return code
    except (OSError, ValueError, EOFError, TypeError):
        code = compile_source(path, source)
    temporary = f"{name}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(temporary, "xb") as handle:
            handle.write(marshal.dumps(code))
        os.replace(temporary, name)
    except OSError:
        pass  # another user's folder, or none: it is compiled again next time
    return code


def packed(collections: str) -> str:
    """The folder of what was packed from these very files by this very Python and Ansible."""
    files = [sys.version, sys.prefix]
    top = os.path.join(collections, "ansible_collections", "lifeboat", "recovery")
    for kind in ("plugins/modules", "plugins/module_utils", "tests/integration"):  # the last has modules too
        for folder, _folders, names in os.walk(os.path.join(top, kind)):
            for name in names:
                if name.endswith(".py"):
                    found = os.stat(os.path.join(folder, name))
                    files.append(f"{folder}/{name} {found.st_size} {found.st_mtime_ns} {found.st_ino}")
    return os.path.join(FOLDER, "payloads", _imp.source_hash(VERSION, "\n".join(sorted(files)).encode()).hex())


class Settings:
    """Ansible's settings, with another place for packed modules."""

    def __init__(self, settings: Any, folder: str) -> None:
        self._settings = settings
        self.DEFAULT_LOCAL_TMP = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)


if FOLDER and compile_source is not None:
    zipimport._compile_source = compiled
if FOLDER and "ansible-playbook" in map(os.path.basename, sys.orig_argv[1:2]) and "ANSIBLE_COLLECTIONS_PATH" in os.environ:
    from ansible.executor import module_common

    module_common.C = Settings(module_common.C, packed(os.environ["ANSIBLE_COLLECTIONS_PATH"]))
