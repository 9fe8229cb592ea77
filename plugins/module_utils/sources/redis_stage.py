# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Build the staged files of a Redis beside the live ones, and read them back through a private server.

A server with append-only files starts from those and ignores a dump, so for such a server they are built too, by a
private server of the same version.
"""

from __future__ import annotations

import base64
import grp
import os
import pwd
import shutil
from typing import Any

from .. import durable
from ..errors import DamageError, SourceError, StorageError
from . import redis_digest as digest
from .contract import Context, Entry, Reader
from .redis_client import Client, Link, ServerDown
from .redis_private import PrivateServer, find_program, scratch
from .redis_swap import COMPLETE
from .server import wait_until

#: Header and footer of a dump are small: anything larger is no snapshot of ours.
_OUTSIDE_LIMIT = 1 << 20


class Stage:
    """Stage(...).run(reader) may be repeated after a kill at any place."""

    def __init__(self, context: Context, client: Client, record: dict[str, Any]) -> None:
        self.context = context
        self.client = client
        self.staged = str(record["staged"])
        self.directory = str(record["directory"])
        self.dump, self.append_dir, self.append_file = (str(name) for name in record["names"])
        self.append = {"filename": self.append_file, "dirname": self.append_dir} if record["appendonly"] else None
        self.databases = int(record["databases"])

    def run(self, reader: Reader) -> None:
        """Raises SourceError, DamageError, StorageError."""
        if os.path.exists(os.path.join(self.staged, COMPLETE)):
            return
        try:
            if os.path.isdir(self.staged):
                shutil.rmtree(self.staged)
            durable.make_dirs(self.staged, 0o700, "stage")
            with self.context.progress.meter.during("write"):
                self._write_dump(reader)
            if self.append is not None:
                with self.context.progress.meter.during("replay"):
                    self._build_append_files()
            self._give_away()
            self._mark()
        except OSError as error:
            raise StorageError(f"the staged copy cannot be written ({error.strerror})", self.staged, "free space or fix permissions, then run again") from error

    def measure(self) -> digest.Content | None:
        """The content of the staged copy, loaded the way the live server will load it; None when there is none."""
        if not os.path.exists(os.path.join(self.staged, COMPLETE)):
            return None
        directory = scratch(self.staged)
        try:
            self._lend(directory)
            with self._server(directory, self.append) as link:
                return digest.measure(link, self.context.digest_key)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _write_dump(self, reader: Reader) -> None:
        entry = next((entry for entry in reader.entries() if entry["type"] == "rdb"), None)
        if entry is None:
            raise DamageError("the snapshot holds no dump", f"{self.context.service}.{self.context.source}", "choose another point")
        header, footer = _outside(entry, "header"), _outside(entry, "footer")
        path = os.path.join(self.staged, self.dump)
        self.context.progress.expect(int(entry["size"]))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            durable.write_all(descriptor, header, path, "stage")
            for piece in self.context.progress.meter.waiting(reader.stream(list(entry["extents"]))):
                durable.write_all(descriptor, piece, path, "stage")
                self.context.progress.meter.add(written=len(piece))
                self.context.progress.add(len(piece))
            durable.write_all(descriptor, footer, path, "stage")
            durable.fsync_file(descriptor, path, "stage")
        finally:
            os.close(descriptor)
        durable.fsync_dir(self.staged, "stage")

    def _build_append_files(self) -> None:
        if self.append is None:
            raise AssertionError("self.append")
        self.context.progress.say("building append-only files")
        with self._server(self.staged, None, self.append, self.dump) as link:
            # The server starts with a rewrite of everything into the base file.
            link.call("CONFIG", "SET", "appendonly", "yes")
            wait_until(lambda: _rewritten(link), self.client.timeout, SourceError(
                "a private server did not finish the append-only files", self.staged, "see the disk's free space; raise timeout if it is only slow",
            ))
        for name in os.listdir(self.staged):
            if name not in (self.dump, self.append_dir):
                durable.unlink(os.path.join(self.staged, name), "stage")  # its log and socket
        built = os.path.join(self.staged, self.append_dir)
        for name in os.listdir(built):
            descriptor = os.open(os.path.join(built, name), os.O_RDONLY)
            try:
                durable.fsync_file(descriptor, os.path.join(built, name), "stage")
            finally:
                os.close(descriptor)
        durable.fsync_dir(built, "stage")
        durable.fsync_dir(self.staged, "stage")

    def _mark(self) -> None:
        """The last name made: its being there says that the copy is whole."""
        path = os.path.join(self.staged, COMPLETE)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            durable.fsync_file(descriptor, path, "stage")
        finally:
            os.close(descriptor)
        durable.fsync_dir(self.staged, "stage")

    def _lend(self, directory: str) -> None:
        """Second names of the staged files for a private server: it may open them, what it makes new stays there."""
        if self.append is None:
            os.link(os.path.join(self.staged, self.dump), os.path.join(directory, "dump.rdb"))
            return
        os.mkdir(os.path.join(directory, self.append_dir), 0o700)
        for name in os.listdir(os.path.join(self.staged, self.append_dir)):
            os.link(os.path.join(self.staged, self.append_dir, name), os.path.join(directory, self.append_dir, name))

    def _server(self, directory: str, append: dict[str, str] | None, names: dict[str, str] | None = None, dump: str = "dump.rdb") -> PrivateServer:
        program = find_program(self.context.config.get("program"), self._running(), self.client.where)
        return PrivateServer(program, directory, self.databases, append, self.client.timeout, self.staged, names, dump)

    def _running(self) -> str | None:
        try:
            link = self.client.open()
        except ServerDown:
            return None
        try:
            return link.info().get("executable")
        finally:
            link.close()

    def _give_away(self) -> None:
        """The files get the owner of the live directory, and the mode of the live dump."""
        owner = os.stat(self.directory)
        try:
            mode = os.stat(os.path.join(self.directory, self.dump)).st_mode & 0o666
        except FileNotFoundError:
            mode = 0o640
        os.chmod(os.path.join(self.staged, self.dump), mode)
        if os.geteuid() != 0:
            return
        for directory, _names, files in os.walk(self.staged):
            for path in [os.path.join(directory, name) for name in files] + ([directory] if directory != self.staged else []):
                os.chown(path, owner.st_uid, owner.st_gid)


def _rewritten(link: Link) -> bool:
    info = link.info()
    if info.get("aof_rewrite_in_progress") != "0" or info.get("aof_rewrite_scheduled") != "0":
        return False
    if info.get("aof_last_bgrewrite_status") != "ok":
        raise SourceError("a private server could not write append-only files", link.place, "see the disk's free space")
    return info.get("aof_enabled") == "1" and int(info.get("aof_base_size", "0")) > 0


def _outside(entry: Entry, part: str) -> bytes:
    text = str(entry[part])
    if len(text) > _OUTSIDE_LIMIT:
        raise DamageError(f"the {part} of the dump is too large", "redis snapshot", "choose another point")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DamageError(f"the {part} of the dump cannot be decoded", "redis snapshot", "choose another point") from error


def make_directory(path: str, owner: dict[str, Any] | None) -> None:
    """Make a lost data directory again, with the owner and mode it had."""
    mode = int(owner["mode"]) & 0o777 if owner else 0o750
    try:
        durable.make_dirs(path, mode, "stage")
        if owner and os.geteuid() == 0:
            os.chown(path, _identity(owner.get("user"), int(owner["uid"]), False), _identity(owner.get("group"), int(owner["gid"]), True))
        os.chmod(path, mode)
    except OSError as error:
        raise StorageError(f"the data directory cannot be made ({error.strerror})", path, "make it by hand, owned by the server's user") from error


def _identity(name: str | None, number: int, group: bool) -> int:
    try:
        if name is not None:
            return grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid
    except KeyError:
        pass  # another host: its numbers are the best guess
    return number
