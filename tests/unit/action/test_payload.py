# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to a host for one of our modules, and the copy of the code that the host keeps."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import payload

#: In place of Ansible's loader and a module: says what it was given, and where it came from.
LOADER = """
import json

def run_module(**given):
    print(json.dumps({**given, "json_params": given["json_params"].decode(), "file": __file__}))
"""


def stock(text: str = LOADER, minute: int = 0) -> bytes:
    """A payload as AnsiballZ writes it, as far as anybody looks at it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        folder = ""
        for part in ("ansible", "module_utils", "_internal", "_ansiballz"):
            folder += part + "/"
            archive.writestr(zipfile.ZipInfo(folder + "__init__.py", (2030, 1, 1, 0, minute, 0)), "")
        archive.writestr(zipfile.ZipInfo(folder + "_loader.py", (2030, 1, 1, 0, minute, 0)), text)
    arguments = {
        "ansible_module": "toy", "module_fqn": "some.toy", "profile": "legacy", "rlimit_nofile": 0, "params": '{"word": "it\'s"}', "extensions": {},
        "zip_data": base64.b64encode(out.getvalue()).decode(),
    }
    lines = "".join(f"{name}={value!r},\n" for name, value in arguments.items()) + "date_time=datetime.datetime(2030, 1, 1),\n"
    return f"#!{sys.executable}\nstart = 1\n\n\nif __name__ == \"__main__\":\n    _ansiballz_main(\n{lines}\n)\n".encode()


class Host:
    """A home directory, and Python that is given a payload as Ansible gives it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / ".cache" / "lifeboat" / "code"

    def run(self, text: bytes) -> dict[str, object]:
        kept = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
        done = subprocess.run([sys.executable], input=text, capture_output=True, env={**kept, "HOME": str(self.home)}, cwd="/", timeout=120, check=True)
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def copies(self) -> list[Path]:
        return sorted(self.folder.glob("*.zip"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_without_a_copy_says_so_then_makes_one_and_keeps_it(host: Host) -> None:
    small, whole = payload.slim(stock(), False), payload.slim(stock(), True)
    assert host.run(small)[payload.ABSENT] == "absent" and not host.copies()
    first = host.run(whole)
    [copy] = host.copies()
    assert first["json_params"] == '{"word": "it\'s"}' and first["module_fqn"] == "some.toy" and str(first["file"]).startswith(str(copy))
    assert copy.stat().st_mode & 0o777 == 0o600 and b"it's" not in copy.read_bytes(), "nothing of a task is kept"
    inode = copy.stat().st_ino
    assert host.run(small) == first == host.run(whole) and host.copies() == [copy] and copy.stat().st_ino == inode


def test_other_code_is_another_copy_and_another_time_is_not(host: Host) -> None:
    for given in (stock(), stock(minute=5), stock(LOADER + "# changed\n")):
        host.run(payload.slim(given, True))
    assert len(host.copies()) == 2
    old = host.copies()[0]
    os.utime(old, (0, 0))
    host.run(payload.slim(stock(LOADER + "# changed again\n"), True))
    assert len(host.copies()) == 2 and old not in host.copies(), "what nobody used for long is forgotten"


def test_a_damaged_copy_is_not_run(host: Host) -> None:
    host.run(payload.slim(stock(), True))
    [copy] = host.copies()
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    assert host.run(payload.slim(stock(), False))[payload.ABSENT] == "absent"
    assert host.run(payload.slim(stock(), True))["profile"] == "legacy"
    assert host.run(payload.slim(stock(), False))["profile"] == "legacy", "made anew"


def test_a_folder_that_others_may_write_to_is_not_used(host: Host) -> None:
    host.folder.mkdir(parents=True)
    host.folder.chmod(0o777)
    assert host.run(payload.slim(stock(), False))[payload.ABSENT] == "impossible"
    answer = host.run(payload.slim(stock(), True))
    assert answer["profile"] == "legacy" and not host.copies() and not Path(str(answer["modlib_path"])).exists(), "it ran, and nothing is left"


def test_what_is_sent_is_small_and_what_is_unknown_is_sent_as_it_is(tmp_path: Path) -> None:
    given = stock(LOADER + "#" + base64.b64encode(os.urandom(300_000)).decode())
    assert len(payload.slim(given, False, str(tmp_path))) < 14_000 < 300_000 < len(given)
    assert payload.slim(given, False, str(tmp_path)) == payload.slim(given, False), "with and without the note of what was unpacked before"
    for strange in (b"#!/bin/sh\necho hello\n", given.replace(b"zip_data=", b"zip="), given.replace(b"profile=", b"more=1,\nprofile=")):
        assert payload.slim(strange, False) is strange
