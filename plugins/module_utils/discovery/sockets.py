# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""TCP sockets as the kernel lists them, and the processes that hold them.

Containers have networks of their own: each network namespace of a process is a ``space`` (its inode), with sockets, addresses and a loopback that
only its own processes reach.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import socket
import sys
from dataclasses import dataclass, field
from typing import Iterable, NamedTuple

_STATES = {"01": "established", "0A": "listening"}


class Socket(NamedTuple):
    """One end. space: see above. inode: 0 where the kernel does not say."""

    space: str
    state: str
    address: str
    port: int
    remote: str
    remote_port: int
    inode: int


@dataclass
class Process:
    """One process as far as we may look. seen: False when its sockets and working directory are hidden from this user."""

    pid: int
    parent: int
    name: str
    argv: list[str]
    cgroup: str
    space: str = ""
    cwd: str = ""
    inodes: set[int] = field(default_factory=set)
    seen: bool = True


def address_of(words: str) -> str:
    """An address as /proc/net/tcp{,6} writes it: 32-bit words in the host's byte order. An IPv4 address inside an IPv6 one is that IPv4 address."""
    raw = b"".join(int(words[at:at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return plain(str(ipaddress.ip_address(raw)))


def plain(address: str) -> str:
    """One spelling per address, without zone; what is no address stays as it is."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def table(text: str, space: str) -> list[Socket]:
    """The listening and the established sockets of one of the kernel's tables."""
    found = []
    for line in text.splitlines()[1:]:
        cells = line.split()
        if len(cells) < 10 or cells[3] not in _STATES:
            continue
        (here, port), (there, remote_port) = cells[1].split(":"), cells[2].split(":")
        found.append(Socket(space, _STATES[cells[3]], address_of(here), int(port, 16), address_of(there), int(remote_port, 16), int(cells[9])))
    return found


def processes(root: str = "/proc") -> dict[int, Process]:
    """All processes but those that ended while we looked."""
    found = {}
    for name in os.listdir(root):
        if name.isdigit():
            process = _process(root, int(name))
            if process is not None:
                found[process.pid] = process
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as handle:
        return handle.read()


def _process(root: str, pid: int) -> Process | None:
    home = f"{root}/{pid}"
    try:
        stat = _read(f"{home}/stat")
        argv = [word for word in _read(f"{home}/cmdline").split("\0") if word]
        cgroup = _read(f"{home}/cgroup")
    except OSError:
        return None
    name, _bracket, rest = stat.partition("(")[2].rpartition(")")
    found = Process(pid, int(rest.split()[1]), name, argv, cgroup)
    try:
        found.space = re.sub(r"\D", "", os.readlink(f"{home}/ns/net"))
        found.cwd = os.readlink(f"{home}/cwd")
        descriptors = os.listdir(f"{home}/fd")
    except OSError:
        found.seen = not argv  # a thread of the kernel has neither
        return found
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{home}/fd/{descriptor}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found.inodes.add(int(target[8:-1]))
    return found


def own_space(root: str = "/proc") -> str:
    """The network namespace of this process."""
    return re.sub(r"\D", "", os.readlink(f"{root}/self/ns/net"))


def sockets(known: Iterable[Process], root: str = "/proc") -> tuple[list[Socket], dict[str, list[str]]]:
    """All TCP sockets and, by space, the addresses in it, of every network namespace that one of these processes is in and ours."""
    own = own_space(root)
    one_of = {own: "self"}
    for process in known:
        if process.space:
            one_of.setdefault(process.space, str(process.pid))
    found: list[Socket] = []
    addresses = {}
    for space, pid in one_of.items():
        for name in ("tcp", "tcp6"):
            try:
                found += table(_read(f"{root}/{pid}/net/{name}"), space)
            except OSError:
                continue  # no IPv6, or the process has ended: the next look sees another of its kind
        addresses[space] = _addresses(f"{root}/{pid}/net")
    return found, addresses


def _addresses(net: str) -> list[str]:
    """The addresses of a network namespace without loopback."""
    found: list[str] = []
    try:
        found += re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", _read(f"{net}/fib_trie"))
        found += [str(ipaddress.ip_address(bytes.fromhex(line.split()[0]))) for line in _read(f"{net}/if_inet6").splitlines()]
    except OSError:
        pass  # no IPv6 here, or the process has ended
    return sorted({address for address in found if not ipaddress.ip_address(address).is_loopback})


@functools.lru_cache(maxsize=1024)
def resolved(host: str) -> frozenset[str]:
    """What a name of the catalog, or an address, means on this host; nothing when nobody knows it."""
    try:
        return frozenset(plain(str(found[4][0])) for found in socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return frozenset()
