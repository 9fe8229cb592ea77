# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Connections through sockets in the file system: who is at their other ends, as the kernel's socket diagnostics tell (netlink, sock_diag(7))."""

from __future__ import annotations

import os
import socket
import struct
from typing import Iterator, NamedTuple

_SOCK_DIAG, _BY_FAMILY, _DUMP = 4, 20, 0x301
_ERROR, _DONE = 2, 3
_ESTABLISHED = 1 << 1
_NAME, _PEER = 0, 2
_SHOW = 1 | 4  # their names and their peers
_LIMIT = 10.0


class Local(NamedTuple):
    """The accepted end of one connection. path: the socket's in the file system; client: the inode of the other end."""

    path: str
    inode: int
    client: int


def connections() -> list[Local]:
    """All of this network namespace. OSError where the kernel does not tell."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(_LIMIT)
        request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, _ESTABLISHED, 0, _SHOW, 0xFFFFFFFF, 0xFFFFFFFF)
        kernel.send(struct.pack("=IHHII", 16 + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
        found: list[Local] = []
        while True:
            data = kernel.recv(1 << 18)
            for kind, body in _messages(data):
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", body)[0], os.strerror(-struct.unpack_from("=i", body)[0]))
                one = _connection(body)
                if one is not None:
                    found.append(one)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16:
            return
        yield kind, data[at + 16:at + length]
        at += (length + 3) & ~3


def _connection(body: bytes) -> Local | None:
    """Of struct unix_diag_msg (16 bytes) and its attributes; None for an end without a name, which is a client's, and for abstract names."""
    inode, at, path, peer = struct.unpack_from("=I", body, 4)[0], 16, b"", 0
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        if kind == _NAME:
            path = body[at + 4:at + length]
        elif kind == _PEER:
            peer = struct.unpack_from("=I", body, at + 4)[0]
        at += (length + 3) & ~3
    return Local(os.fsdecode(path.rstrip(b"\0")), inode, peer) if path.startswith(b"/") and peer else None
