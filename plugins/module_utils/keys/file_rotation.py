# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The life of a data key in files: new pairs, retired halves, destruction. Works where ``private_path`` is.

    private_path/<service>/data.versions       a line per version, oldest first: fingerprint, and ``retired`` behind it when it is
    private_path/<service>/data.key            the newest private half
    private_path/<service>/data-<fp>.key       older ones, which still open
    private_path/<service>/retired/data-<fp>.key   retired ones: nothing here reads them

A version's number is its line. A rotation may be killed anywhere: ``data.versions`` names the newest pair as soon as its private
half is kept, and whoever comes next brings the other files in line with it.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Iterator

from .. import durable
from ..errors import DamageError, KeyAccessError, StorageError
from . import envelope, key_files
from .provider import KeyVersions

_OLDER = re.compile(r"data-([0-9a-f]{16})\.key")
_LINE = re.compile(r"([0-9a-f]{16})( retired)?")


class FileRotation:
    """public_dir, private_dir: the service's directories; private_dir None where only captures run."""

    def __init__(self, service: str, public_dir: str, private_dir: str | None) -> None:
        self._service = service
        self._public_dir = public_dir
        self._private = private_dir

    def versions(self) -> KeyVersions:
        """The versions; KeyAccessError where the private halves are not."""
        lines = self._lines()
        return KeyVersions(
            {number: f"{self._service}-data@{mark}" for number, (mark, _retired) in enumerate(lines, 1)},
            next(number for number, (_mark, retired) in enumerate(lines, 1) if not retired),
        )

    def retired(self) -> set[str]:
        """Fingerprints that open nothing any more, wherever their files are."""
        if self._private is None or not key_files.exists(os.path.join(self._private, "data.versions")):
            return set()
        return {mark for mark, retired in self._lines() if retired}

    def number_of(self, mark: str) -> int:
        marks = [each for each, _retired in self._lines()]
        if mark not in marks:
            raise KeyAccessError(
                f"no version of the data key of service {self._service} has fingerprint {mark}", self._at("data.versions"),
                f"put its private half back as data-{mark}.key; if it was never this service's, somebody else wrote the object",
            )
        return marks.index(mark) + 1

    def rotate(self, after: int) -> int:
        """A pair newer than version ``after``; one that a killed call began is completed instead."""
        with self.sole():
            lines = self._lines()
            if len(lines) <= after:
                new = envelope.new_private()
                mark = envelope.fingerprint(envelope.public_of(new))
                key_files.place(self._at(f"data-{mark}.key"), new)
                lines = [*lines, (mark, False)]
                self._write(lines)
            self.complete()
            return len(lines)

    def complete(self) -> bool:
        """Make data.key and data.pub those of the newest version; True if something was done. Under the lock of sole()."""
        if self._private is None or not key_files.exists(self._at("data.versions")):
            return False
        newest = self._lines()[-1][0]
        current, kept = self._at("data.key"), self._at(f"data-{newest}.key")
        done = False
        if not key_files.exists(current) or _mark(key_files.read_private(current)) != newest:
            if not key_files.exists(kept):
                raise KeyAccessError(
                    "data.key is not the newest version, and that one is not here", self._private, f"put the private half of {newest} back as data.key",
                )
            if key_files.exists(current):
                old = key_files.read_private(current)
                key_files.place(self._at(f"data-{_mark(old)}.key"), old)
            self._seal_for(key_files.read_private(kept))
            key_files.replace(current, key_files.read_private(kept))
            done = True
        else:
            done = self._seal_for(key_files.read_private(current))
        if key_files.exists(kept):
            key_files.remove(kept)
        return done

    def _seal_for(self, private: bytes) -> bool:
        """Bring data.pub in line with the newest private half; only a public half of this service is ever replaced."""
        path, public = os.path.join(self._public_dir, "data.pub"), envelope.public_of(private)
        if not key_files.exists(path):
            return False
        held = key_files.read_public(path)
        if held == public:
            return False
        if envelope.fingerprint(held) not in [mark for mark, _retired in self._lines()]:
            raise KeyAccessError("data.pub is no version of this service's data key", path, "put the service's own data.pub back; nothing was changed")
        key_files.replace(path, public)
        return True

    def retire(self, through: int) -> None:
        """Move private halves up to version ``through`` into ``retired/``, where nothing looks for them."""
        with self.sole():
            lines = self._lines()
            self._write([(mark, retired or number <= through) for number, (mark, retired) in enumerate(lines, 1)])
            directory = self._at("retired")
            for mark, _retired in lines[:through]:
                source = self._at(f"data-{mark}.key")
                if key_files.exists(source):
                    key_files.move(source, os.path.join(directory, os.path.basename(source)))

    def destroy(self) -> list[str]:
        """Overwrite and remove everything that opens: private halves, retired ones too, and the index key; then what seals."""
        private = self._needed()
        with self.sole():
            halves = [self._at(name) for name in self._names(private) if name == "data.key" or _OLDER.fullmatch(name)]
            moved = os.path.join(private, "retired")
            halves += [os.path.join(moved, name) for name in self._names(moved) if _OLDER.fullmatch(name)]
            index = [path for path in (self._at("index.key"), os.path.join(self._public_dir, "index.key")) if key_files.exists(path)]
            # what seals goes first: a capture in this moment must not succeed with a key that nobody will have
            for path in (os.path.join(self._public_dir, "data.pub"), self._at("data.versions")):
                if key_files.exists(path):
                    key_files.remove(path)
            for path in [*index, *halves]:
                key_files.overwrite(path)
        return [f"{what} {path}" for what, paths in (("private half of the data key", halves), ("index key", index)) for path in paths]

    @contextlib.contextmanager
    def sole(self) -> Iterator[None]:
        """One writer at a time in both directories."""
        with contextlib.ExitStack() as locks:
            for each in (self._public_dir, self._needed()):
                if os.path.isdir(each):
                    locks.enter_context(key_files.sole_writer(each))
            yield

    def _lines(self) -> list[tuple[str, bool]]:
        """(fingerprint, retired) of every version, oldest first; without data.versions: as the files tell."""
        private, path = self._needed(), self._at("data.versions")
        if key_files.exists(path):
            try:
                with open(path, encoding="ascii") as handle:
                    found = [_LINE.fullmatch(line) for line in handle.read(1 << 20).splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise KeyAccessError(
                    f"cannot read the versions of a key ({type(error).__name__})", path, "make it readable for the user that runs Lifeboat",
                ) from error
            lines = [(match[1], bool(match[2])) for match in found if match]
            if len(lines) != len(found) or not lines or lines[-1][1] or len({mark for mark, _retired in lines}) != len(lines):
                raise DamageError("the list of a key's versions is damaged", path, "put it back from a copy of the directory")
            return lines
        current = self._at("data.key")
        if not key_files.exists(current):
            raise KeyAccessError(
                f"the private half of the data key of service {self._service} is missing", current,
                "put data.key back from the safe place where its copy is kept; a rotation needs it",
            )
        older = sorted((name for name in self._names(private) if _OLDER.fullmatch(name)), key=lambda name: os.stat(self._at(name)).st_mtime_ns)
        newest = _mark(key_files.read_private(current))
        return [(name[5:21], False) for name in older if name[5:21] != newest] + [(newest, False)]

    def _write(self, lines: list[tuple[str, bool]]) -> None:
        text = "".join(f"{mark}{' retired' if retired else ''}\n" for mark, retired in lines)
        try:
            durable.replace_file(self._at("data.versions"), text.encode("ascii"), key_files.SUBJECT)
        except OSError as error:
            raise StorageError(f"cannot write the versions of a key ({error.strerror})", self._at("data.versions"), "make room or give write access") from error

    def _names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeyAccessError(f"cannot list keys ({error.strerror})", directory, "give the user that runs Lifeboat access to it") from error

    def _needed(self) -> str:
        if self._private is None:
            raise KeyAccessError(
                f"this host can seal but not rotate the data key of service {self._service}", "keys.private_path is not set",
                "run it where the private half is, and copy data.pub to the capturing hosts afterwards",
            )
        return self._private

    def _at(self, name: str) -> str:
        return os.path.join(self._needed(), name)


def _mark(private: bytes) -> str:
    return envelope.fingerprint(envelope.public_of(private))
