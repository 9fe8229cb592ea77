# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host of the lab boots: ``host_boot.py boot SPEC.json`` makes its root and becomes ``host_boot.py init``, which is its process 1.

Runs as process 1 of new mount, pid, uts and ipc namespaces; standard library only.
SPEC: {name, upper, work, root, binds: [[from, to, writable]], hosts: {name: address}, pid_file, init: argv}.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: Seconds that processes get to end when the host is shut down.
PATIENCE = 10


def mount(kind: str, where: str, *options: str) -> None:
    subprocess.run(["mount", "-t", kind, *(["-o", ",".join(options)] if options else []), kind, where], check=True, timeout=30)


def bind(source: str, target: str, writable: bool) -> None:
    """Show a file or folder of the machine inside; a folder is made where there is none."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "wb").close()
    subprocess.run(["mount", "--bind", source, target], check=True, timeout=30)
    if not writable:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True, timeout=30)


def make_devices(top: str) -> None:
    mount("tmpfs", top, "mode=755")
    for name in DEVICES:
        bind(f"/dev/{name}", f"{top}/{name}", True)
    for name in ("pts", "shm"):
        os.mkdir(f"{top}/{name}")
    mount("devpts", f"{top}/pts", "newinstance", "ptmxmode=0666", "mode=620", "gid=5")
    mount("tmpfs", f"{top}/shm", "mode=1777")
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{top}/{name}")


def write(path: str, text: str) -> None:
    """Anew: a file of the layer below is not written through a link."""
    with open(f"{path}.new", "w", encoding="utf-8") as handle:
        handle.write(text)
    os.rename(f"{path}.new", path)


def boot(spec: dict[str, Any]) -> None:
    # this /proc is still the machine's, so it tells the number by which the machine can end us
    write(spec["pid_file"], os.readlink("/proc/self"))
    os.umask(0o022)
    root = spec["root"]
    mount("overlay", root, "lowerdir=/", f"upperdir={spec['upper']}", f"workdir={spec['work']}")
    for folder in ("proc", "sys", "dev", "run", "tmp"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    mount("proc", f"{root}/proc")
    mount("sysfs", f"{root}/sys", "ro")
    mount("tmpfs", f"{root}/run", "mode=755")
    mount("tmpfs", f"{root}/tmp", "mode=1777")
    # after those: a checkout may lie below /tmp
    for source, target, writable in spec["binds"]:
        bind(source, root + target, writable)
    make_devices(f"{root}/dev")
    socket.sethostname(spec["name"])
    write(f"{root}/etc/hostname", spec["name"] + "\n")
    names = {"localhost": "127.0.0.1", **spec["hosts"]}
    write(f"{root}/etc/hosts", "".join(f"{address} {name}\n" for name, address in names.items()))
    write(f"{root}/etc/resolv.conf", "# the lab has no way out\n")
    os.chdir(root)
    os.makedirs(".machine", exist_ok=True)
    subprocess.run(["pivot_root", ".", ".machine"], check=True, timeout=30)
    os.chroot(".")
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/.machine"], check=True, timeout=30)
    os.execve(spec["init"][0], spec["init"], {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"})


class ShutDown(Exception):
    """Somebody asked for a clean end."""


def start_sshd() -> int:
    os.makedirs("/run/sshd", 0o755, exist_ok=True)
    with open("/var/log/sshd.log", "ab") as log:
        return subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/lab_sshd_config"], stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid


def init() -> None:
    """Keep sshd running, reap what others left, end everything when asked to."""

    def asked(*_arguments: Any) -> None:
        raise ShutDown

    signal.signal(signal.SIGTERM, asked)
    try:
        daemon = start_sshd()
        while True:
            ended, _status = os.waitpid(-1, 0)
            if ended == daemon:
                time.sleep(0.5)  # as a supervisor does, or a broken daemon would take a core
                daemon = start_sshd()
    except ShutDown:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(-1, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.02)
        except ChildProcessError:
            break


if __name__ == "__main__":
    if sys.argv[1] == "init":
        init()
    else:
        with open(sys.argv[2], encoding="utf-8") as given:
            boot(json.load(given))
