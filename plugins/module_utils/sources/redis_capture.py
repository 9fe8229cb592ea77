# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One capture of a Redis: a background save, its file pinned by an open descriptor, its digest from a private server."""

from __future__ import annotations

import base64
import grp
import io
import os
import pwd
import shutil
import time
from typing import Any, Iterable

from ..errors import SourceError
from . import redis_digest as digest
from .contract import Captured, Context, Entry, Writer
from .redis_client import Client, Link, version
from .redis_preflight import settings_of
from .redis_private import PrivateServer, find_program, scratch
from .redis_rdb import Shape, Slice, shape
from .server import wait_until


class Capture:
    """Capture(...).run(writer)."""

    def __init__(self, context: Context, client: Client) -> None:
        self.context = context
        self.client = client

    def run(self, writer: Writer) -> Captured:
        """Write the tree of one consistent state. Raises SourceError."""
        link = self.client.open()
        try:
            info = link.info()
            settings = settings_of(link, self.context.config)
            path = os.path.join(settings["directory"], settings["dbfilename"])
            parent = _parent(writer)
            facts = {
                "version": list(version(info)), "memory": int(info.get("used_memory", "0")), "settings": settings,
                "owner": _owner(settings["directory"]),
            }
            if parent is not None and self._unchanged(link, parent, path):
                captured = self._again(writer, parent, facts)
                if captured is not None:
                    return captured
            self._save(link)
            descriptor = _open(path)
            try:
                return self._full(writer, link, parent, descriptor, path, facts, info.get("executable"))
            finally:
                os.close(descriptor)
        finally:
            link.close()

    def _full(
        self, writer: Writer, link: Link, parent: dict[str, Any] | None, descriptor: int, path: str, facts: dict[str, Any], running: str | None,
    ) -> Captured:
        context = self.context
        outside = shape(descriptor, path)
        start, end = outside.body
        context.progress.expect(end - start)
        stream = io.BufferedReader(Slice(descriptor, start, end, context.progress.add), 1 << 20)
        extents, size = writer.put_stream(stream, "rdb")
        if size != end - start:
            raise SourceError("the RDB file changed while it was read", path, "run the same command again")
        if parent is not None and _same_body(writer, parent, extents, size):
            content = digest.from_entries(parent["entries"])  # the same bytes hold the same keys
        else:
            content = self._digest(descriptor, path, facts["settings"]["databases"], running)
        evidence = _evidence(link.info(), descriptor)
        writer.entry(_rdb_entry(outside, extents, size, evidence))
        return self._finish(writer, content, facts, outside.size)

    def _finish(self, writer: Writer, content: digest.Content, facts: dict[str, Any], size: int) -> Captured:
        for entry in content.entries():
            writer.entry(entry)
        numbers = [database for database, _kind in content.permanent] + [database for database, _mark in content.volatile]
        facts = {**facts, "bytes": size, "keys": content.keys, "volatile": len(content.volatile), "highest_database": max(numbers, default=0)}
        return Captured(content.digest(self.context.digest_key), "content", facts)

    def _again(self, writer: Writer, parent: dict[str, Any], facts: dict[str, Any]) -> Captured | None:
        """Take over the parent's chunks unread; None when one of them is gone."""
        rdb = parent["rdb"]
        try:
            extents = [(writer.reuse(number), offset, length) for number, offset, length in rdb["extents"]]
        except KeyError:
            return None
        writer.entry({**rdb, "extents": extents})
        size = int(rdb["size"]) + len(base64.b64decode(rdb["header"])) + len(base64.b64decode(rdb["footer"]))
        return self._finish(writer, digest.from_entries(parent["entries"]), facts, size)

    def _unchanged(self, link: Link, parent: dict[str, Any], path: str) -> bool:
        """The server's and the file system's evidence that the file at ``path`` is the parent's and holds all there is."""
        wanted = parent["rdb"].get("evidence")
        try:
            descriptor = _open(path)
        except SourceError:
            return False
        try:
            info = link.info()
            quiet = info.get("rdb_changes_since_last_save") == "0" and info.get("rdb_bgsave_in_progress") == "0" and info.get("loading") == "0"
            return bool(quiet and wanted and wanted == _evidence(info, descriptor))
        finally:
            os.close(descriptor)

    def _save(self, link: Link) -> None:
        """BGSAVE, and proof that it was this one that ended well."""
        timeout = self.client.timeout
        self.context.progress.say("saving")
        idle = SourceError("a background save or rewrite does not end", self.client.place, "see the server's log; raise timeout if it is only slow")
        wait_until(lambda: _idle(link.info()), timeout, idle)
        before = int(link.call("LASTSAVE"))
        # LASTSAVE counts seconds: a save within the same second would not show.
        wait_until(lambda: int(link.call("TIME")[0]) > before, 10, SourceError("the server's clock stands still", self.client.place, "check the clock"))
        deadline = time.monotonic() + timeout
        while True:
            try:
                link.call("BGSAVE")
                break
            except SourceError as error:
                if "in progress" not in error.what and "active" not in error.what or time.monotonic() > deadline:
                    raise
                wait_until(lambda: _idle(link.info()), timeout, idle)
        wait_until(lambda: link.info().get("rdb_bgsave_in_progress") == "0", timeout, idle)
        if link.info().get("rdb_last_bgsave_status") != "ok" or int(link.call("LASTSAVE")) <= before:
            raise SourceError("the background save failed", self.client.place, "see the server's log: disk full, no permission, or no memory to fork")

    def _digest(self, descriptor: int, path: str, databases: int, running: str | None) -> digest.Content:
        os.makedirs(self.context.work_dir, 0o700, exist_ok=True)
        for name in os.listdir(self.context.work_dir):
            if name.startswith("private-"):  # left by a capture that was killed
                shutil.rmtree(os.path.join(self.context.work_dir, name), ignore_errors=True)
        directory = scratch(self.context.work_dir)
        try:
            # The private server reads the very inode that was captured, through our descriptor: no copy, no second name.
            os.symlink(f"/proc/{os.getpid()}/fd/{descriptor}", os.path.join(directory, "dump.rdb"))
            program = find_program(self.context.config.get("program"), running, self.client.where)
            self.context.progress.say("checking the dump in a private server")
            with PrivateServer(program, directory, databases, None, self.client.timeout, path) as link:
                return digest.measure(link, self.context.digest_key)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _idle(info: dict[str, str]) -> bool:
    return info.get("rdb_bgsave_in_progress") == "0" and info.get("aof_rewrite_in_progress", "0") == "0"


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"the dump cannot be opened ({error.strerror})", path, "run as the server's user or as root; check dir and dbfilename") from error


def _evidence(info: dict[str, str], descriptor: int) -> dict[str, Any]:
    found = os.fstat(descriptor)
    return {
        "run_id": info.get("run_id"), "last_save": info.get("rdb_last_save_time"), "changes": info.get("rdb_changes_since_last_save"),
        "device": found.st_dev, "inode": found.st_ino, "size": found.st_size, "mtime_ns": found.st_mtime_ns,
    }


def _owner(directory: str) -> dict[str, Any]:
    """Names and mode of a directory's owner, to make a lost one again."""
    found = os.stat(directory)
    try:
        user: str | None = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        user = None
    try:
        group: str | None = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = None
    return {"uid": found.st_uid, "gid": found.st_gid, "user": user, "group": group, "mode": found.st_mode & 0o7777}


def _rdb_entry(outside: Shape, extents: list[Any], size: int, evidence: dict[str, Any]) -> Entry:
    return {
        "type": "rdb", "header": base64.b64encode(outside.header).decode(), "footer": base64.b64encode(outside.footer).decode(),
        "extents": extents, "size": size, "evidence": evidence,
    }


def _parent(writer: Writer) -> dict[str, Any] | None:
    """{"rdb": entry, "entries": [the digest's entries]} of the parent snapshot."""
    if writer.previous is None:
        return None
    entries = list(_digest_first(writer.previous.entries()))
    rdb = next((entry for entry in entries if entry["type"] == "rdb"), None)
    return None if rdb is None else {"rdb": rdb, "entries": [entry for entry in entries if entry["type"] != "rdb"]}


def _digest_first(entries: Iterable[Entry]) -> Iterable[Entry]:
    return (entry for entry in entries if entry["type"] in ("rdb", "content", "keys", "volatile"))


def _same_body(writer: Writer, parent: dict[str, Any], extents: list[Any], size: int) -> bool:
    """The body is the parent's, chunk by chunk."""
    before, previous = parent["rdb"], writer.previous
    if previous is None or before["size"] != size or len(before["extents"]) != len(extents):
        return False
    return all(
        tuple(old[1:]) == tuple(new[1:]) and previous.chunk_id(int(old[0])) == writer.chunk_id(int(new[0]))
        for old, new in zip(before["extents"], extents)
    )
