# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks for secrets where none may be: in files, and in what processes show of themselves while something runs."""

from __future__ import annotations

import os
import pathlib
import re
import threading
from types import TracebackType
from typing import Iterable, Mapping

#: Files above this size are looked at in part: no secret is written behind megabytes of something else in a temporary file.
_READ = 8 << 20


class Canaries:
    """name -> secret. A secret is found as it is, and tokens by how Vault makes them."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        assert all(len(secret) >= 12 for secret in secrets.values()), "short words are found everywhere"
        self.secrets = dict(secrets)
        self._pattern = re.compile(b"|".join([*(re.escape(secret.encode()) for secret in secrets.values()), rb"hvs\.[A-Za-z0-9_-]{24,}"]))

    def inside(self, data: bytes) -> list[str]:
        """The names of the secrets in some bytes."""
        found = {match.decode("utf-8", "replace") for match in self._pattern.findall(data)}
        return sorted({name for name, secret in self.secrets.items() if secret in found} | {"a Vault token" for one in found if one.startswith("hvs.")})

    def below(self, *places: pathlib.Path, but: Iterable[pathlib.Path] = ()) -> list[str]:
        """Files and names below directories that hold one, as "secret: path"."""
        spared = [str(path) for path in but]
        found = []
        for place in places:
            for directory, _folders, files in os.walk(place):
                for name in files:
                    path = os.path.join(directory, name)
                    if any(path == one or path.startswith(one + "/") for one in spared):
                        continue
                    try:
                        with open(path, "rb") as handle:
                            data = handle.read(_READ)
                    except OSError:
                        continue  # a socket, or gone meanwhile
                    found += [f"{secret}: {path}" for secret in self.inside(os.fsencode(path) + b"\n" + data)]
        return found


class Watch:
    """What all processes of this machine show while the context lasts: argument lists, environments, and files below ``places``.

    allowed: secret -> programs whose environment may hold it (a client that has no other way to take a password).
    """

    def __init__(self, canaries: Canaries, allowed: Mapping[str, tuple[str, ...]], *places: pathlib.Path) -> None:
        self._canaries = canaries
        self._allowed = dict(allowed)
        self._places = places
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._here = str(os.getpid())
        self.leaks: set[str] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join(30)

    def _run(self) -> None:
        rounds = 0
        while not self._done.wait(0.02):
            self._processes()
            if rounds % 40 == 0:
                self.leaks |= {f"temporary file: {one}" for one in self._canaries.below(*self._places)}
            rounds += 1

    def _processes(self) -> None:
        for pid in os.listdir("/proc"):
            if not pid.isdigit() or pid == self._here:
                continue
            words, variables = _read(f"/proc/{pid}/cmdline"), _read(f"/proc/{pid}/environ")
            program = os.path.basename(words.split(b"\0", 1)[0].decode("utf-8", "replace"))
            self.leaks |= {f"{secret}: argument of {program}" for secret in self._canaries.inside(words)}
            for secret in self._canaries.inside(variables):
                if program not in self._allowed.get(secret, ()):
                    self.leaks.add(f"{secret}: environment of {program}")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except OSError:
        return b""
