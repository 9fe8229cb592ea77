# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hand that may write to a repository does to its objects."""

from __future__ import annotations

import random
from typing import Callable, Protocol


class Object(Protocol):
    """An object where it is stored: a file, or something like it."""

    @property
    def name(self) -> str: ...

    def read_bytes(self) -> bytes: ...

    def write_bytes(self, data: bytes) -> object: ...

    def unlink(self) -> None: ...


def flip(path: Object, _older: Object, _foreign: Object) -> None:
    """One bit, anywhere."""
    data = bytearray(path.read_bytes())
    at = random.Random(path.name).randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(bytes(data))


def truncate(path: Object, _older: Object, _foreign: Object) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:random.Random(path.name).randrange(len(data))])


def delete(path: Object, _older: Object, _foreign: Object) -> None:
    path.unlink()


def older(path: Object, former: Object, _foreign: Object) -> None:
    """An older valid object of the class under this name."""
    path.write_bytes(former.read_bytes())


def swap(path: Object, former: Object, _foreign: Object) -> None:
    """Two valid objects exchange their names."""
    content = path.read_bytes()
    path.write_bytes(former.read_bytes())
    former.write_bytes(content)


def replay(path: Object, _older: Object, foreign: Object) -> None:
    """The object of another service, valid there, under this name."""
    path.write_bytes(foreign.read_bytes())


Manipulation = Callable[[Object, Object, Object], None]
MANIPULATIONS: tuple[Manipulation, ...] = (flip, truncate, delete, older, swap, replay)
