# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Pages of a cluster: marks by which they are compared, their own checksums, and the digest over a whole snapshot.

Capture, restore and checks of a ``postgresql`` source share this module. Hashing releases the interpreter's lock for a few
microseconds per page; threads that do so at once only hand the lock to and fro, so callers that work in parallel hold
``CPU`` around marks() and bad_pages().
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from typing import Any

from ..libraries import need
from .contract import Entry

#: Bytes of a page, and of the pieces of other files that are compared one by one.
PAGE = 8192
#: Bytes of a page's mark.
MARK = 8
#: Bytes of a span's sum, and how long a span is at least that has one.
SUM = 32
SUMMED = 128 << 10
#: Held while many pages are hashed or summed up.
CPU = threading.Lock()

# src/include/storage/checksum_impl.h: 32 FNV-1a sums over columns of the page, each begun with its own offset.
_COLUMNS = 32
_PRIME = 16777619
_OFFSETS = (
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
)


def unit_of(size: int) -> int:
    """Bytes that share a mark in a new span of a file of ``size`` bytes: in large files several pages, so that trees stay small."""
    return 4 * PAGE if size >= 96 << 20 else 2 * PAGE if size >= 16 << 20 else PAGE


def marks(key: bytes, data: bytes | bytearray | memoryview, unit: int = PAGE) -> bytes:
    """The marks of ``data``, joined: the first 8 bytes of the keyed BLAKE3 of each ``unit`` bytes; the last ones may be fewer."""
    view = memoryview(data)
    blake3 = need("blake3").blake3
    return b"".join([blake3(view[at:at + unit], key=key).digest(MARK) for at in range(0, len(view), unit)])


def total(key: bytes, data: bytes | bytearray | memoryview) -> bytes:
    """The sum of a span: the keyed BLAKE3 of all its bytes. One long hash is twice as fast as many short ones, and threads do not wait for each other."""
    digest: bytes = need("blake3").blake3(data, key=key).digest(SUM)
    return digest


def encode_marks(joined: bytes) -> str:
    """Marks as an entry holds them."""
    return base64.b64encode(joined).decode()


def decode_marks(text: str) -> bytes:
    """The joined marks of a span entry; ValueError when they are no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("marks are no base64") from error


def page_sums(pages: Any, blocks: Any) -> Any:
    """The checksums that PostgreSQL would write into pages.

    pages: numpy uint8 array of shape (n, 8192), contiguous. blocks: uint32 array of their block numbers in the relation.
    Returns a uint16 array.
    """
    numpy = need("numpy")
    rows = pages.view(numpy.uint32).reshape(len(pages), -1, _COLUMNS).transpose(1, 0, 2)
    first = rows[0].copy()
    first[:, 2] &= numpy.uint32(0xFFFF0000)  # the checksum itself counts as zero
    sums = first ^ numpy.array(_OFFSETS, numpy.uint32)
    spare = numpy.empty_like(sums)
    prime, shift = numpy.uint32(_PRIME), numpy.uint32(17)
    add, multiply, right = numpy.bitwise_xor, numpy.multiply, numpy.right_shift
    for row in rows[1:]:
        right(sums, shift, spare)
        multiply(sums, prime, sums)
        add(sums, spare, sums)
        add(sums, row, sums)
    for _step in range(3):  # the last row, and two rows of zeros
        right(sums, shift, spare)
        multiply(sums, prime, sums)
        add(sums, spare, sums)
    folded = add.reduce(sums, axis=1)
    return ((folded ^ blocks) % numpy.uint32(65535) + numpy.uint32(1)).astype(numpy.uint16)


def bad_pages(pages: Any, blocks: Any) -> Any:
    """Which pages a server with checksums would refuse: the indexes (numpy array) into ``pages``.

    A page that was never initialised must be all zeros; every other one must carry its own checksum.
    """
    numpy = need("numpy")
    halves = pages.view(numpy.uint16)
    bad = page_sums(pages, blocks) != halves[:, 4]
    new = numpy.flatnonzero(halves[:, 7] == 0)  # pd_upper
    if len(new):
        bad[new] = pages[new].any(axis=1)
    return numpy.flatnonzero(bad)


def page_position(page: Any) -> int:
    """The position in the log of the page's last change, as its header says; page: numpy uint8 array of one page."""
    numpy = need("numpy")
    high, low = page[:8].view(numpy.uint32)
    return int(high) << 32 | int(low)


_NAMES = {
    "dir": ("type", "path", "mode"), "link": ("type", "path", "target"), "file": ("type", "path", "mode", "size"),
    "span": ("type", "path", "at", "length", "unit", "marks"), "label": ("type", "path", "content"),
}


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class PageDigest:
    """Keyed BLAKE3 over what "the same" means for each entry, in the order of the tree: a JSON line each of its type, path and
    mode, target, size, marks or content. Where something is stored and when a file was changed does not count.
    """

    ALGORITHM = "blake3-keyed pages"

    def __init__(self, key: bytes) -> None:
        self._hash = need("blake3").blake3(key=key)

    def add(self, entry: Entry) -> None:
        """Add one entry; the head does not count."""
        names = _NAMES.get(entry["type"])
        if names is not None:
            self._hash.update(_ENCODE([entry[name] for name in names]).encode() + b"\n")

    def result(self) -> dict[str, Any]:
        """The digest as a manifest records it."""
        return {"algorithm": self.ALGORITHM, "value": self._hash.hexdigest()}
