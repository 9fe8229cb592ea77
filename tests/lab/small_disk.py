# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of a few megabytes that only chosen processes see: a tmpfs in a mount namespace, as root or, in a user namespace, as anybody."""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import Any, Callable

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_PRIVATE = 0x40000 | 0x4000  # MS_PRIVATE | MS_REC
_SET_DUMPABLE = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)} (a full disk needs mount rights or user namespaces: kernel.unprivileged_userns_clone)")


class SmallDisk:
    """A disk of ``size`` bytes at a directory. user: keyword arguments for subprocess, who owns it."""

    def __init__(self, place: str, size: int, user: dict[str, Any]) -> None:
        self.place = place
        self._user = user
        self._root = os.geteuid() == 0 and not user
        self._keeper = subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL, preexec_fn=self._make(size), **user)

    def _make(self, size: int) -> Callable[[], None]:
        def made() -> None:
            user, group = os.geteuid(), os.getegid()
            if not self._root:
                _call("prctl", _SET_DUMPABLE, 1, 0, 0, 0)  # lost with root's rights, and /proc/self with it
            _call("unshare", _NEWNS | (0 if self._root else _NEWUSER))
            for name, text in () if self._root else (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
                descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)  # nothing may be imported here: the user may not see where from
                os.write(descriptor, text.encode())
                os.close(descriptor)
            _call("mount", b"none", b"/", None, _PRIVATE, None)
            _call("mount", b"tmpfs", os.fsencode(self.place), b"tmpfs", 0, f"size={size},mode=0700".encode())

        return made

    def enter(self) -> None:
        """For preexec_fn: what is started sees the disk."""
        for kind in ("mnt",) if self._root else ("user", "mnt"):
            descriptor = os.open(f"/proc/{self._keeper.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            _call("setns", descriptor, 0)
            os.close(descriptor)

    def run(self, *argv: str) -> None:
        """One command on it; output to nobody: a server would keep a pipe open."""
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, check=False, cwd="/",
                              preexec_fn=self.enter, **self._user)
        assert done.returncode == 0, f"{argv} ended with {done.returncode}"

    def fill(self) -> None:
        """Leave no byte."""
        subprocess.run(["dd", "if=/dev/zero", f"of={self.place}/filler", "bs=64k"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=120, check=False, cwd="/", preexec_fn=self.enter, **self._user)

    def clear(self) -> None:
        """Room again."""
        self.run("rm", f"{self.place}/filler")

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.wait(30)
