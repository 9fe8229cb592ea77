# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the host command: the engine as one executable file that needs no Ansible."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_command
author:
  - Lifeboat contributors (@lifeboat-recovery)
version_added: 0.1.0
short_description: Build the host command C(lifeboat) and return its path on the controller
description:
  - Packs the engine (C(plugins/module_utils)) and a start file into one executable zip archive, and returns the path of it.
  - The same engine and interpreter always give the same bytes, so that copying it twice changes nothing.
  - The file lives in the temporary directory of the running Ansible process and goes with it.
options:
  _terms:
    description: The interpreter line of the archive, such as V(/usr/bin/env python3) or the path of an interpreter.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Install the host command
  ansible.builtin.copy:
    src: "{{ lookup('lifeboat.recovery.host_command', '/usr/bin/env python3') }}"
    dest: /usr/local/bin/lifeboat
    mode: "0755"
"""

RETURN = r"""
_raw:
  description: One path per term.
  type: list
  elements: path
"""

import hashlib
import io
import os
import zipfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.lifeboat.recovery.plugins import module_utils

#: The name of the engine inside the archive; its modules import each other relatively.
PACKAGE = "lifeboat"
_MAIN = f"import sys\n\nfrom {PACKAGE}.cli.main import main\n\nraise SystemExit(main(sys.argv[1:]))\n"
#: The oldest time a zip archive can hold: no real time, so that equal content gives equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def engine_files(root: str) -> list[tuple[str, str]]:
    """(name in the archive, path) of every Python file of the engine, sorted."""
    found = []
    for parent, directories, files in os.walk(root):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(parent, name)
                found.append((os.path.join(PACKAGE, os.path.relpath(path, root)), path))
    return sorted(found)


def build(interpreter: str, root: str) -> bytes:
    """The archive as bytes."""
    if not interpreter or any(not character.isprintable() for character in interpreter):
        raise AnsibleError("lifeboat host command: the interpreter line is empty or not printable; give a path such as /usr/bin/python3")
    packed = io.BytesIO()
    packed.write(f"#!{interpreter}\n".encode())
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        entries = [("__main__.py", _MAIN.encode())]
        names = engine_files(root)
        if os.path.join(PACKAGE, "__init__.py") not in [name for name, _path in names]:
            entries.append((f"{PACKAGE}/__init__.py", b""))
        for name, path in names:
            with open(path, "rb") as handle:
                entries.append((name, handle.read()))
        for name, content in entries:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return packed.getvalue()


class LookupModule(LookupBase):
    """Returns the path of the archive for each interpreter line."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        root = list(module_utils.__path__)[0]
        paths = []
        for term in terms:
            content = build(str(term), root)
            folder = str(C.DEFAULT_LOCAL_TMP)
            path = os.path.join(folder, f"lifeboat-{hashlib.sha256(content).hexdigest()[:16]}")
            if not os.path.exists(path):
                temporary = f"{path}.{os.getpid()}"
                with open(temporary, "wb") as handle:
                    handle.write(content)
                os.chmod(temporary, 0o755)  # a program; the directory is private
                os.replace(temporary, path)
            paths.append(path)
        return paths
