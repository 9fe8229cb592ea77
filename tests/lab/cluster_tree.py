# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Captures of a cluster into a real repository, and a plain rebuild of the files from the tree, without any code of the restore."""

from __future__ import annotations

import base64
import os
import pathlib
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.seal import keyed_hash
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.session import CaptureSession
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_capture import ClusterCapture, preflight_capture
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_pages import PageDigest
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Captured, Context, Reader
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres


class Snapshot:
    """One capture. written: bytes of new sealed chunks."""

    def __init__(self, reader: Reader, captured: Captured, stored: Any, written: int, chunks: int) -> None:
        self.reader = reader
        self.captured = captured
        self.facts = captured.facts
        self.stored = stored
        self.written = written
        self.chunks = chunks


class ClusterStore:
    """A directory repository with one source ``db`` of service ``shop``, captured as the engine would."""

    def __init__(self, home: pathlib.Path, server: Postgres, **options: Any) -> None:
        self.config = cluster_config(server, **options)
        self.spec = Spec.from_dict({
            "service": "shop", "entry": {"sources": {"db": {"type": "postgresql"}}},
            "repository": {"name": "local", "url": f"file://{home}/repository"},
            "keys": {"provider": "file", "path": f"{home}/keys/host", "private_path": f"{home}/keys/private"}, "state_dir": f"{home}/state",
        })
        self.spec.provider().ensure()
        Repository.create(self.spec.repository)
        self.store = self.spec.store()
        self.home = home
        self._sequence: tuple[int, str | None] = (0, None)

    def context(self) -> Context:
        """A new context."""
        return Context("shop", "db", self.config, str(self.home / "work"), Progress("shop", "test"), self.store.chunk_key, 2)

    def capture(self, parent: Snapshot | None = None) -> Snapshot:
        """A snapshot after a clean preflight."""
        context = self.context()
        assert [str(finding.error) for finding in preflight_capture(context) if finding.level == "error"] == []
        session = CaptureSession(self.store, str(self.home / "cache"), context.progress)
        try:
            writer = session.writer(parent.stored if parent else None)
            captured = ClusterCapture(context, writer).run()
            (part,) = session.seal()
            stored = session.publish({
                "format": 1, "kind": "snapshot", "repository": self.store.repository.id, "service": "shop", "source": "db", "type": "postgresql",
                "point": {"id": "p", "sources": ["db"]}, "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:00Z",
                "mode": "incremental" if parent else "full", "parent": parent.stored.id if parent else None, **part, "digest": captured.digest,
                "proof": captured.proof, "facts": captured.facts, "catalog": {"digest": "0" * 64, "object": ""},
                "bytes": {"source": 0, "read": 0, "stored": 0, "chunks_new": 0, "chunks_reused": 0, "seconds": 0},
            }, self._sequence)
            self._sequence = (stored.data["sequence"], stored.digest)
        except BaseException:
            session.abort()
            raise
        session.close()
        return Snapshot(self.store.reader(stored), captured, stored, writer.bytes_stored, writer.chunks_new)


def cluster_config(server: Postgres, **options: Any) -> dict[str, Any]:
    """A catalog entry of type postgresql for a lab server."""
    return {"type": "postgresql", "data_directory": server.data, "port": server.port, "password_file": server.password_file, "bad_pages": "fail", **options}


def rebuild(reader: Reader, digest: dict[str, Any], key: bytes, target: str, spaces: dict[str, str] | None = None) -> None:
    """Write the files of a tree below ``target``, chunk by chunk, and hold every page against its mark.

    spaces: old -> new place of tablespaces and of a log directory behind a link.
    """
    os.mkdir(target, 0o700)
    total = PageDigest(key)
    chunks: dict[int, bytes] = {}
    seen: set[str] = set()
    for entry in reader.entries():
        total.add(entry)
        path = f"{target}/{entry['path']}"
        if entry["type"] != "span":
            assert entry["path"] not in seen
            seen.add(entry["path"])
        if entry["type"] == "dir":
            os.mkdir(path, entry["mode"])
        elif entry["type"] == "link":
            place = (spaces or {}).get(entry["target"], entry["target"])
            os.makedirs(place, exist_ok=True)
            os.symlink(place, path)
        elif entry["type"] == "file":
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, entry["mode"]), "wb") as handle:
                handle.truncate(entry["size"])
        elif entry["type"] == "span":
            content = bytearray(entry["length"])
            for at, number, offset, length in entry["data"]:
                if number not in chunks:
                    if len(chunks) > 200:
                        chunks.clear()
                    chunks[number] = reader.chunk(number)
                assert 0 <= at - entry["at"] <= entry["length"] - length and offset + length <= len(chunks[number])
                content[at - entry["at"]:at - entry["at"] + length] = chunks[number][offset:offset + length]
            found = b"".join(keyed_hash(key, bytes(content[start:start + entry["unit"]]))[:8] for start in range(0, len(content), entry["unit"]))
            assert found == base64.b64decode(entry["marks"]), f"{entry['path']} at {entry['at']}"
            with open(path, "r+b") as handle:
                handle.seek(entry["at"])
                handle.write(content)
        elif entry["path"] == "backup_label":  # a tablespace_map would point the links back at the original's places
            pathlib.Path(path).write_text(entry["content"])
    assert total.result() == digest
    own(target)
    for place in (spaces or {}).values():
        own(place)


def own(top: str) -> None:
    """Give a tree to the servers' user."""
    who = processes.account()
    if who is not None:
        for folder, _names, files in os.walk(top):
            os.chown(folder, *who)
            for name in files:
                os.chown(f"{folder}/{name}", *who, follow_symlinks=False)


def start_copy(server: Postgres, reader: Reader, digest: dict[str, Any], key: bytes, spaces: dict[str, str] | None = None) -> Postgres:
    """A server of its own on a rebuilt snapshot, recovered by the log inside the snapshot alone."""
    copy = Postgres(programs=server.bin)
    rebuild(reader, digest, key, copy.data, spaces)
    with open(f"{copy.data}/postgresql.auto.conf", "a", encoding="utf-8") as handle:
        handle.write(f"\nport = {copy.port}\nunix_socket_directories = '{copy.home}'\narchive_mode = off\n")
    copy.password_file = server.password_file
    return copy.start()


def sound(copy: Postgres) -> None:
    """pg_amcheck finds nothing, and after a clean stop neither does pg_checksums."""
    environment = {**os.environ, "PGPASSWORD": "lab-password"}
    if copy.can_amcheck():
        processes.checked([f"{copy.bin}/pg_amcheck", "-h", "127.0.0.1", "-p", str(copy.port), "-U", "postgres", "--all", "--install-missing",
                           "--heapallindexed"], env=environment)
    copy.stop()
    processes.checked([f"{copy.bin}/pg_checksums", "--check", "-D", copy.data])
