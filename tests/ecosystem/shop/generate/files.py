# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The invoice tree: many plain files, and every oddity a file system allows."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path

from ..layout import Home

#: Names as bytes: what shells, JSON, line-based tools and archivers stumble over.
ODD_NAMES = (
    b"new\nline.txt", b"caf\xe9-latin1.txt", b"-rf", b"--", b" leading and trailing ", b"tab\there", b"back\\slash", b"star*?[a].txt", b"quote'\"`$(x).txt",
    b"\xff\xfe\xfd", b"e\xcc\x81 combining", "\u0645\u0631\u062d\u0628\u0627 \U0001f4e6.pdf".encode(), b"trailing.", b"...", b".hidden",
    b"%00%2e", b"a;b&c|d", b"~tilde", b"#hash#",
    b"x" * 255, b"carriage\rreturn", b"\x01\x1b[31mred",
)


class InvoiceWriter:
    """Writes below the invoice directory as the shop's user would have. ``bytes`` and ``files`` count."""

    def __init__(self, home: Home) -> None:
        self.bytes = 0
        self.files = 0
        self._root = home.invoices
        self._who = home.account
        self._made: set[str] = set()
        self._last = ""

    def write(self, relative: str, data: bytes, at: datetime) -> None:
        """One invoice, with the time and one of the modes it would have."""
        directory = os.path.dirname(relative)
        if directory != self._last:
            self._directory(directory)
            self._last = directory
        path = self._root / relative
        with open(path, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), (0o640, 0o640, 0o644, 0o600, 0o440)[self.files % 5])
        self._who.own(path)
        nanoseconds = int(at.timestamp()) * 10**9 + at.microsecond * 1000 + self.files % 1000
        os.utime(path, ns=(nanoseconds, nanoseconds))
        self.bytes += len(data)
        self.files += 1

    def _directory(self, relative: str) -> None:
        parts = relative.split("/")
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            if name not in self._made:
                path = self._root / name
                if not path.exists():
                    path.mkdir(mode=0o750)
                    self._who.own(path)
                self._made.add(name)

    def finish(self) -> None:
        """Add the oddities, in a directory of their own and beside the invoices."""
        corner = self._root / "archive" / "odd"
        self._directory("archive/odd")
        for number, name in enumerate(ODD_NAMES):
            odd = os.path.join(os.fsencode(corner), name)
            with open(odd, "wb") as file:
                file.write(b"odd %d\n" % number * number)
            os.utime(odd, ns=(10**18 + number, 1_700_000_000_123_456_789 + number))
        self._deep()
        self._links(corner)
        self._sparse(corner)
        self._attributes(corner)
        self._modes(corner)
        self._owners(corner)
        # Directories last: writing into them changes their times.
        for number, path in enumerate(sorted(self._root.rglob("*"), key=lambda item: -len(item.parts))):
            if path.is_dir() and not path.is_symlink():
                os.utime(path, ns=(10**18, 1_600_000_000_000_000_001 + number))
        (self._root / "archive").chmod(0o2775)

    def _deep(self) -> None:
        """A path longer than PATH_MAX is reached by directories alone."""
        path = os.open(self._root / "archive", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for number in range(24):
                name = f"d{number:02d}-" + "long" * 50
                os.mkdir(name, 0o750, dir_fd=path)
                if self._who.change:
                    os.chown(name, self._who.uid, self._who.gid, dir_fd=path)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=path)
                os.close(path)
                path = inner
                if number == 15:
                    break
            with open(os.open("bottom.txt", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=path), "wb") as file:
                file.write(b"the bottom\n")
        finally:
            os.close(path)

    def _links(self, corner: Path) -> None:
        (corner / "target.txt").write_bytes(b"linked\n" * 100)
        os.symlink("target.txt", corner / "link-beside")
        os.symlink("../../archive/odd/target.txt", corner / "link-relative")
        os.symlink("/nonexistent/absolute", corner / "link-dangling")
        os.symlink(b"caf\xe9\n-target", os.path.join(os.fsencode(corner), b"link-b\xfftes"))
        os.symlink(".", corner / "link-to-here")
        os.utime(corner / "link-dangling", ns=(5 * 10**17, 5 * 10**17 + 7), follow_symlinks=False)
        (corner / "empty-directory").mkdir(mode=0o700)
        other = self._root / "archive" / "hard"
        other.mkdir()
        for name in (corner / "hard-1", other / "hard-2", self._root / "hard-3"):
            os.link(corner / "target.txt", name)
        (other / "pair").write_bytes(b"pair")
        os.link(other / "pair", other / "pair-again")

    def _sparse(self, corner: Path) -> None:
        for name, pieces, size in (
            ("sparse-middle", ((0, 5000), (20 << 20, 70_000)), 64 << 20), ("sparse-all", (), 8 << 20),
            ("sparse-tail", ((12 << 20, 4096),), (12 << 20) + 4096), ("zeros-written", ((0, 0),), 1 << 20),
        ):
            with open(corner / name, "wb") as file:
                for offset, length in pieces:
                    file.seek(offset)
                    file.write(b"S" * length if length else bytes(size))
                file.truncate(size)

    def _attributes(self, corner: Path) -> None:
        path = corner / "with-xattrs"
        path.write_bytes(b"attributes\n")
        # The file system may lack them; then there is nothing to keep either.
        try:
            for name, value in (("user.origin", b"till"), ("user.binary", bytes(range(256))), ("user.empty", b""), ("user.\u00fc", b"unicode name")):
                os.setxattr(path, name, value)
            os.setxattr(corner, "user.directory", b"yes")
            os.setxattr(self._root / "hard-3", "user.linked", b"shared by all its names")
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise

    def _modes(self, corner: Path) -> None:
        for mode in (0o000, 0o400, 0o4755, 0o2750, 0o1777, 0o777):
            if mode in (0o000, 0o400) and not self._who.change:
                # An ordinary user could not read the first back; the second is fine.
                mode |= 0o400
            path = corner / f"mode-{mode:04o}"
            if not path.exists():
                path.write_bytes(b"mode\n")
                path.chmod(mode)
        (corner / "sticky").mkdir()
        (corner / "sticky").chmod(0o1777)
        (corner / "empty").write_bytes(b"")
        os.utime(corner / "empty", ns=(-1, -86_400 * 10**9 + 1))
        os.utime(corner / "target.txt", ns=(4_102_444_800 * 10**9, 4_102_444_800 * 10**9 + 999_999_999))

    def _owners(self, corner: Path) -> None:
        """As root: the shop's user owns all but a few, which belong to others, one of them without a name."""
        if not self._who.change:
            return
        for path in (self._root / "archive").rglob("*"):
            if path.lstat().st_uid == 0:
                mode = path.lstat().st_mode
                os.chown(path, self._who.uid, self._who.gid, follow_symlinks=False)
                if not path.is_symlink() and path.stat().st_mode != mode:
                    path.chmod(mode & 0o7777)  # chown drops setuid and setgid
        for name, uid, gid in (("owned-by-number", 4242, 4243), ("owned-by-daemon", 1, 1)):
            (corner / name).write_bytes(b"owner\n")
            os.chown(corner / name, uid, gid)
