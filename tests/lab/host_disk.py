# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on the first disk of a host of the lab, and what it sees of this machine besides."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Folders in which a host sees nothing of the machine, with their modes.
PRIVATE = {
    "etc/lifeboat": 0o755, "home": 0o755, "mnt": 0o755, "root": 0o711, "srv": 0o755, "tmp": 0o1777, "var/lib": 0o755, "var/log": 0o755,
    "var/tmp": 0o1777,
}
USER = "deploy"
USER_ID = 2000


def prepare(upper: Path, address: str, keys: Path, name: str) -> None:
    """What hides the machine's own state, users, sshd. Nothing where there is a disk already."""
    if upper.exists():
        return
    etc = upper / "etc"
    for folder, mode in PRIVATE.items():
        place = upper / folder
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(mode)
        os.setxattr(place, "trusted.overlay.opaque", b"y")
    lines = {"passwd": f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash", "group": f"{USER}:x:{USER_ID}:", "shadow": f"{USER}:*:19000:0:99999:7:::"}
    for file, line in lines.items():
        shutil.copy(f"/etc/{file}", etc / file)
        with open(etc / file, "a", encoding="utf-8") as handle:
            handle.write(line + "\n")
    (etc / "sudoers.d").mkdir(exist_ok=True)
    write(etc / "sudoers.d" / USER, f"{USER} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    (upper / "home" / USER).mkdir(parents=True)
    os.chown(upper / "home" / USER, USER_ID, USER_ID)
    ssh = etc / "ssh"
    ssh.mkdir(exist_ok=True)
    write(ssh / "lab_host_key", (keys / f"host-{name}").read_text(), 0o600)
    write(ssh / "lab_keys", (keys / "controller.pub").read_text())
    config = (f"ListenAddress {address}\nHostKey /etc/ssh/lab_host_key\nAuthorizedKeysFile /etc/ssh/lab_keys\nPasswordAuthentication no\n"
              "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\nUseDNS no\nLogLevel VERBOSE\nSubsystem sftp internal-sftp\n")
    write(ssh / "lab_sshd_config", config)


def python() -> str:
    """The interpreter of the checkout's environment: it has what the engine needs."""
    return str(ROOT / ".venv" / "bin" / "python")


def needed() -> list[list[Any]]:
    """What a host must see of the machine although it lies in a private or another place: the checkout, its environment, their interpreter."""
    places = {str(ROOT), os.path.realpath(ROOT / ".venv"), os.path.realpath(sys.base_prefix)}
    device = os.stat("/").st_dev
    private = tuple(f"/{name}/" for name in PRIVATE)
    return [[place, place, False] for place in sorted(places) if f"{place}/".startswith(private) or os.stat(place).st_dev != device]


def write(path: Path, text: str, mode: int = 0o644) -> None:
    with os.fdopen(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as handle:
        handle.write(text)
    os.rename(f"{path}.new", path)
