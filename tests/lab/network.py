# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network of its own for the hosts of a lab: a bridge inside a network namespace without a way out.

The bridge is the controller's place, at ADDRESS; host number N has .10+N. Two labs never meet, whatever addresses they use.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

#: The first three parts of every address, and the controller's own.
NET = "10.77.0"
ADDRESS = f"{NET}.1"
CLONE_NEWNET = 0x40000000
#: A station that does not exist: what is sent there arrives nowhere.
NOBODY = "02:00:00:00:00:01"


def command(*argv: str, limit: float = 30, check: bool = True) -> str:
    """Run one command; its output. RuntimeError holds what it said."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def address(index: int) -> str:
    """Of the host with this number."""
    return f"{NET}.{10 + index}"


class Network:
    """The bridge, and one namespace per host that hangs on it. name: of the bridge's namespace; those of the hosts are NAME-HOST."""

    def __init__(self, name: str) -> None:
        self.name = name

    def of(self, host: str) -> str:
        """The namespace of a host."""
        return f"{self.name}-{host}"

    def exists(self, name: str) -> bool:
        return os.path.exists(f"/run/netns/{name}")

    def create(self) -> None:
        if self.exists(self.name):
            return
        command("ip", "netns", "add", self.name)
        command("ip", "-n", self.name, "link", "set", "lo", "up")
        command("ip", "-n", self.name, "link", "add", "br0", "type", "bridge")
        command("ip", "-n", self.name, "addr", "add", f"{ADDRESS}/24", "dev", "br0")
        command("ip", "-n", self.name, "link", "set", "br0", "up")

    def remove(self) -> None:
        """The bridge and every namespace of a host."""
        names = [name for name in os.listdir("/run/netns") if name.startswith(f"{self.name}-")] if os.path.isdir("/run/netns") else []
        for name in [*names, self.name]:
            if self.exists(name):
                command("ip", "netns", "del", name)

    def join(self, host: str, index: int) -> None:
        """A cable from the host to the bridge; the host has no other."""
        own = self.of(host)
        if self.exists(own):
            return
        command("ip", "netns", "add", own)
        command("ip", "-n", self.name, "link", "add", f"v{index}", "type", "veth", "peer", "name", "eth0", "netns", own)
        command("ip", "-n", own, "link", "set", "lo", "up")
        command("ip", "-n", own, "addr", "add", f"{address(index)}/24", "dev", "eth0")
        command("ip", "-n", own, "link", "set", "eth0", "up")
        command("ip", "-n", self.name, "link", "set", f"v{index}", "master", "br0", "up")

    # -- faults: whatever was done, heal() undoes ----------------------------------------------------------------------

    def cut(self, index: int) -> None:
        """Pull the cable at the switch: no packet passes, and nobody is told."""
        command("ip", "-n", self.name, "link", "set", f"v{index}", "nomaster")

    def block(self, one: tuple[str, int], other: tuple[str, int]) -> None:
        """(host, number) of both: they do not reach each other any more; everybody else does."""
        for (host, _index), (_other, target) in ((one, other), (other, one)):
            command("ip", "-n", self.of(host), "neigh", "replace", address(target), "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")

    def slow(self, index: int, mbit: float) -> None:
        """What goes to the host, and what it sends, is limited to so many megabits per second."""
        limit = ["root", "tbf", "rate", f"{int(mbit * 1000)}kbit", "burst", "64kb", "latency", "400ms"]
        command("tc", "-n", self.name, "qdisc", "replace", "dev", f"v{index}", *limit)

    def slow_sending(self, host: str, mbit: float) -> None:
        command("tc", "-n", self.of(host), "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{int(mbit * 1000)}kbit", "burst", "64kb",
                "latency", "400ms")

    def heal(self, host: str, index: int) -> None:
        """Undo cut, block and slow of one host."""
        command("ip", "-n", self.name, "link", "set", f"v{index}", "master", "br0")
        for own, device in ((self.name, f"v{index}"), (self.of(host), "eth0")):
            if "tbf" in command("tc", "-n", own, "qdisc", "show", "dev", device):
                command("tc", "-n", own, "qdisc", "del", "dev", device, "root")
        command("ip", "-n", self.of(host), "neigh", "flush", "dev", "eth0", "nud", "permanent")

    # -- being there ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets and processes that this thread makes meanwhile are the controller's: on the bridge, with no way out of the lab."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        away = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _enter(away)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)
            os.close(away)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot enter the network of the lab: {os.strerror(code)}")
