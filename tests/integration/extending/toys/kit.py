# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The toy source's kit: the class is put into tests/lab/kits.py, which has these imports."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.kits import Kit


class SingleFileKit(Kit):
    """One file in a folder of its own."""

    type = "single_file"

    def __init__(self) -> None:
        self.home = processes.private_dir("single-file")
        self.path = os.path.join(self.home, "file")

    @property
    def config(self) -> dict[str, Any]:
        return {"type": self.type, "file": self.path}

    def _write(self, path: str, data: bytes) -> None:
        with open(path, "wb") as handle:
            handle.write(data)

    def fill(self) -> None:
        self._write(self.path, b"secret-canary" + os.urandom(100_000))

    def change(self) -> None:
        with open(self.path, "ab") as handle:
            handle.write(b"more")

    def damage(self) -> None:
        self._write(self.path, b"damaged" + os.urandom(8))

    def lose(self) -> None:
        os.unlink(self.path)

    def damage_staged(self, record: dict[str, Any]) -> None:
        self._write(record["staged"], b"not what was captured")

    def fingerprint(self) -> Any:
        if not os.path.exists(self.path):
            return None
        with open(self.path, "rb") as handle:
            return handle.read(), "single_file"

    def leftovers(self) -> list[str]:
        return sorted(set(os.listdir(self.home)) - {"file"})

    def destroy(self) -> None:
        processes.remove(self.home)
