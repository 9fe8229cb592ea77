# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The second places of a sealed journal: a file that grows, a syslog server, or a store of objects. Sent by the controller."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
from typing import Any, Callable, Mapping

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, LifeboatError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import now
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.registry import backend_for

#: Seconds until a place counts as silent.
TIMEOUT = 15
#: Facility "log audit" (13), severity "notice" (5): RFC 5424, 6.2.1.
_PRIORITY = 13 * 8 + 5
#: The most that one UDP datagram carries.
_DATAGRAM = 65000


def name_of(place: Mapping[str, Any]) -> str:
    """A place in one word, for reports and to know it again."""
    if place.get("file"):
        return f"file {place['file']}"
    return f"syslog {place['syslog']}" if place.get("syslog") else str(place.get("url"))


def send(place: Mapping[str, Any], run: str, data: bytes) -> dict[str, Any]:
    """Bring a sealed journal to a place: {"where", "required", "ok", "problem"}. Never raises."""
    way: Callable[[Mapping[str, Any], str, bytes], None] = _file if place.get("file") else _syslog if place.get("syslog") else _object
    try:
        way(place, run, data)
        problem = ""
    except LifeboatError as error:
        problem = str(error)
    except OSError as error:
        problem = str(StorageError(f"the operating system refused ({error.strerror or error})", name_of(place), "see why; the next run sends it again"))
    return {"where": name_of(place), "required": bool(place.get("required")), "ok": not problem, "problem": problem}


def _file(place: Mapping[str, Any], run: str, data: bytes) -> None:
    """Append it whole, under a lock, to a file that holds the journals of many runs; a torn end of another one is cut off first."""
    descriptor = os.open(os.path.expanduser(str(place["file"])), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        end = os.lseek(descriptor, 0, os.SEEK_END)
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        view = memoryview((b"\n" if torn else b"") + data)
        while view:
            view = view[os.write(descriptor, view):]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _syslog(place: Mapping[str, Any], run: str, data: bytes) -> None:
    """One message per line, RFC 5424; by TCP each with its length before it (RFC 6587, 3.4.1), so that none is cut or joined."""
    where = str(place["syslog"])
    messages = [
        f"<{_PRIORITY}>1 {now()} {platform.node() or '-'} lifeboat {os.getpid()} journal - ".encode("ascii", "replace") + line
        for line in data.split(b"\n")[:-1]
    ]
    if where.startswith("/"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(TIMEOUT)
            sender.connect(where)
            for message in messages:
                sender.send(message)
        return
    host, _colon, port = where.rpartition(":")
    host = host.strip("[]")
    if place.get("protocol") == "udp":
        longest = max(len(message) for message in messages)
        if longest > _DATAGRAM:
            raise StorageError(f"a line of {longest} bytes does not fit into a datagram", name_of(place), "use protocol: tcp")
        family, kind, protocol, _name, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.settimeout(TIMEOUT)
            for message in messages:
                sender.sendto(message, address)
        return
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as sender:
        for message in messages:
            sender.sendall(str(len(message)).encode() + b" " + message)
        sender.shutdown(socket.SHUT_WR)
        sender.recv(1)  # a server that is gone answers with a reset, one that took it closes


def _object(place: Mapping[str, Any], run: str, data: bytes) -> None:
    """An object of its own per run; what is there already must be the same."""
    options = {key: value for key, value in place.items() if key not in ("required", "grace")}
    backend = backend_for(options)
    name = f"journals/{run}.jsonl"
    try:
        if backend.scheme == "file":
            backend.prepare()  # a bucket is made by its owner: whoever sends journals there only puts and reads
        backend.create(name, data, "history")
    except ConflictError:
        if backend.read(name, len(data) + 1) != data:
            raise
