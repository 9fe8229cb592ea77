# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A whole PostgreSQL cluster, physically: captured page by page, rebuilt beside, recovered privately, swapped in by rename."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar

from .. import durable, state
from ..errors import SourceError, StorageError
from . import cluster_checks as checks
from . import cluster_content as content
from . import cluster_places as places
from . import cluster_reach as reach
from .cluster_private import end_leftover, find_programs
from .cluster_recovery import Recovery
from .cluster_restore import Rebuild
from .cluster_restore_preflight import Preflight, plan
from .cluster_swap import Swap
from .contract import Captured, Comparison, Context, Covered, Extraction, Finding, Log, Reader, Source, TreeReader, Writer
from .postgresql_client import Client, ServerDown
from .server import Server

#: What restored clusters held is remembered of so many besides the newest: a rollback leads back to an earlier one.
_KEPT = 4


class Postgresql(Source):
    """See the module's text. Tested with PostgreSQL 15, written for 13 to 18."""

    type: ClassVar[str] = "postgresql"
    options: ClassVar[dict[str, dict[str, Any]]] = {
        "data_directory": {"type": "path", "required": True, "help": "The cluster's data directory on the source's host; not a mount point."},
        "address": {"type": "str", "default": "127.0.0.1", "help": "Address of the server as seen from the source's host."},
        "port": {"type": "int", "default": 5432, "help": "Port of the server, also part of the socket's name."},
        "socket": {"type": "path", "help": "Directory of the server's socket; used instead of address."},
        "user": {"type": "str", "default": "postgres", "help": "A superuser of the server."},
        "password_file": {"type": "path", "help": "File whose first line is the password; without it ~/.pgpass and peer logins work."},
        "bin_dir": {"type": "path", "help": "Directory of the server's programs; default: those of the captured version."},
        "config_directory": {"type": "path", "help": "Where postgresql.conf and pg_hba.conf lie, when not in the data directory."},
        "tablespace_map": {"type": "dict", "help": "Old path of a tablespace -> where it shall lie after a restore."},
        "wal_directory": {"type": "path", "help": "Where the log directory shall lie after a restore, when it is not inside the data directory."},
        "bad_pages": {
            "type": "str", "default": "fail", "choices": ["fail", "warn"],
            "help": "What a page with a wrong checksum means for a capture; it is named either way.",
        },
        "in_place": {
            "type": "bool", "default": False,
            "help": "Overwrite the live cluster instead of building beside it. There is no rollback, and nothing to start until it is done.",
        },
        "slot": {"type": "str", "help": "Replication slot of the continuous log; default: lifeboat_<service>_<source>."},
        "log": {"type": "dict", "help": "Continuous log: {spool: path, spool_limit: bytes, interval: seconds}."},
    }

    def preflight_capture(self, context: Context) -> list[Finding]:
        from .cluster_capture_preflight import preflight_capture

        return preflight_capture(context)

    def capture(self, context: Context, writer: Writer) -> Captured:
        from .cluster_capture import ClusterCapture

        return ClusterCapture(context, writer).run()

    def preflight_restore(self, context: Context, manifest: dict[str, Any]) -> list[Finding]:
        client = _client(context)
        return Preflight(context, client, _server(context, client), manifest).run()

    def log_range(self, manifest: dict[str, Any], log: Log) -> Covered | None:
        return reach.log_range(manifest["facts"], log)

    def reachable(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> str:
        return reach.reachable(manifest["facts"], position, log)

    def plan_stage(self, context: Context, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
        return plan(context, manifest, stage_id)

    def prepare(self, context: Context, record: dict[str, Any]) -> bool:
        parent = os.path.dirname(str(record["live"]))
        if os.path.isdir(parent):
            return False
        server = _server(context, _client(context))
        with server.lock():
            if os.path.isdir(parent):
                return False
            if server.can_provision:
                server.provision()
        return True

    def stage(self, context: Context, reader: Reader, record: dict[str, Any]) -> None:
        staged, where = str(record["staged"]), _where(context)
        if _read(context, record, "stage").get("complete") and places.present(staged):
            return
        owner = places.Owner(*record["owner"])
        programs = find_programs(context.config.get("bin_dir"), int(record["major"]), where)
        end_leftover(staged, where)
        try:
            recovery = Recovery(context, reader, record, programs, owner)
            recovery.prove()
            if record["in_place"]:
                _swap(context, record).take_live()
            else:
                places.remove(staged, str(record["stage_id"]), "staged", record, "stage")
            context.progress.expect(int(reader.manifest["facts"].get("bytes", 0)))
            told: dict[str, Any] = Rebuild(context, reader, record, owner).run()
            told["reached"] = recovery.run()
            told["archiving"] = _hold_archiving(context, record, programs, owner)
            for root in [staged, *(place for _link, place in places.spaces(staged)), os.path.join(staged, "pg_wal")]:
                durable.sync_tree(root, "stage")
            files = checks.fingerprint(context, staged)
        except OSError as error:
            raise StorageError(f"the staged copy cannot be written ({error.strerror})", error.filename or staged,
                               "free space or fix permissions, then run the same command again") from error
        record["reached"] = told["reached"]
        _write(context, record, "files", files)
        _write(context, record, "stage", {**told, "complete": True})

    def verify_staged(self, context: Context, reader: Reader, record: dict[str, Any]) -> Comparison:
        staged, where = str(record["staged"]), _where(context)
        known = _read(context, record, "stage")
        if not known.get("complete") or not places.present(staged):
            return Comparison(False, [f"the staged cluster {staged} does not exist or was not finished"])
        end_leftover(staged, where)
        owner = places.Owner(*record["owner"])
        programs = find_programs(context.config.get("bin_dir"), int(record["major"]), where)
        files = _read(context, record, "files")
        if files:
            try:
                wrong = checks.differences(files, checks.fingerprint(context, staged))
            except OSError as error:
                wrong = [f"{error.filename!r} cannot be read ({error.strerror})"]
            if wrong:
                return Comparison(False, wrong, len(files))
        _write(context, record, "files", {})  # from here on the server writes; what it holds is compared by content
        try:
            found = checks.examine(context, programs, staged, str(record["private"]), owner, where)
        except SourceError as error:
            return Comparison(False, [str(error)])
        comparison = checks.compare(known.get("content"), found["content"])
        if comparison.equal:
            durable.sync_tree(staged, "stage")
            _write(context, record, "files", checks.fingerprint(context, staged, files))
            _write(context, record, "stage", {**known, **found})
            _remember(context, reader.manifest, record, found)
        return comparison

    def verify_live(self, context: Context, reader: TreeReader, manifest: dict[str, Any]) -> Comparison:
        known = state.read_json(_baseline(context, manifest))
        if known is None:
            return Comparison(False, ["the live cluster was not restored from this snapshot on this host"])
        if context.target is not None and known.get("target") != context.target:
            return Comparison(False, ["the live cluster was restored to another position of the log"])
        client = _client(context)
        try:
            if known.get("evidence") == content.evidence(client):
                return Comparison(True, [], len(known["content"]))
            found = content.measure(client, context.digest_key, context.workers, context.progress.add)
        except ServerDown as error:
            return Comparison(False, [f"{error.what} ({error.where})"])
        return content.compare(known["content"], found)

    def cutover(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        known = _read(context, record, "stage")
        if places.present(str(record["staged"])) and not known.get("complete"):
            raise SourceError("the staged cluster was not finished", str(record["staged"]), "stage it again")
        facts = _swap(context, record).cutover()
        for name in ("reached", "archiving", "checksums", "amcheck", "bytes_reused", "bytes_fetched"):
            if known.get(name) is not None:
                facts[name] = known[name]
        return facts

    def rollback(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        return _swap(context, record).rollback()

    def commit(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        facts = _swap(context, record).commit()
        _forget(context, record)
        return facts

    def discard(self, context: Context, record: dict[str, Any]) -> None:
        _forget(context, record)
        _swap(context, record).discard()

    def extraction(self, context: Context) -> Extraction:
        from .cluster_extract import ClusterExtraction

        return ClusterExtraction(self, context)


def _where(context: Context) -> str:
    return f"{context.service}.{context.source}"


def _client(context: Context) -> Client:
    return Client({**context.config, "database": "template1"}, _where(context))


def _server(context: Context, client: Client) -> Server:
    return Server(context.config, _where(context), f"postgresql:{client.port}")


def _swap(context: Context, record: dict[str, Any]) -> Swap:
    client = _client(context)
    return Swap(client, _server(context, client), record)


def _hold_archiving(context: Context, record: dict[str, Any], programs: str, owner: places.Owner) -> str | None:
    """A restored copy archives nowhere until told: it is on a timeline of its own, and the original's place is not its own.

    Returns what was done, None when the cluster did not archive.
    """
    staged = str(record["staged"])
    folder = str(context.config.get("config_directory") or staged)
    if not os.path.isfile(os.path.join(folder, "postgresql.conf")):
        return None
    try:
        mode = places.run_program(
            [f"{programs}/postgres", "-D", staged, "-c", f"config_file={folder}/postgresql.conf", "-C", "archive_mode"], owner, 60,
            "reading archive_mode", staged,
        ).strip()
    except SourceError:
        mode = "on"  # a configuration that cannot be read may well archive
    if mode == "off":
        return None
    path = os.path.join(staged, "postgresql.auto.conf")
    try:
        with open(path, encoding="utf-8") as handle:
            lines = [line for line in handle.read().splitlines() if not line.replace(" ", "").startswith("archive_mode=")]
    except FileNotFoundError:
        lines = ["# Do not edit this file manually!"]
    durable.replace_file(path, ("\n".join([*lines, "archive_mode = 'off'"]) + "\n").encode(), "origin")
    owner.give(path)
    return "off in the restored copy; it was on: ALTER SYSTEM RESET archive_mode and a restart switch it on again"


# -- what is remembered between calls, in the source's private directory


def _path(context: Context, record: dict[str, Any], name: str) -> str:
    return os.path.join(context.work_dir, f"{name}-{record['stage_id']}.json")


def _read(context: Context, record: dict[str, Any], name: str) -> dict[str, Any]:
    found = state.read_json(_path(context, record, name))
    return found if isinstance(found, dict) else {}


def _write(context: Context, record: dict[str, Any], name: str, value: dict[str, Any]) -> None:
    os.makedirs(context.work_dir, 0o700, exist_ok=True)
    durable.replace_file(_path(context, record, name), json.dumps(value, separators=(",", ":")).encode(), "origin")


def _forget(context: Context, record: dict[str, Any]) -> None:
    for name in ("stage", "files"):
        durable.unlink(_path(context, record, name), "origin")


def _baseline(context: Context, manifest: dict[str, Any]) -> str:
    return os.path.join(context.work_dir, f"content-{str(manifest['digest']['value'])[:32]}.json")


def _remember(context: Context, manifest: dict[str, Any], record: dict[str, Any], found: dict[str, Any]) -> None:
    """What the restored cluster holds: whether the live one still does is asked later, without the repository."""
    kept = {"target": record.get("target"), "content": found["content"], "evidence": found["evidence"]}
    names = sorted((name for name in os.listdir(context.work_dir) if name.startswith("content-")),
                   key=lambda name: os.stat(os.path.join(context.work_dir, name)).st_mtime_ns)
    for name in names[:-_KEPT]:
        durable.unlink(os.path.join(context.work_dir, name), "origin")
    durable.replace_file(_baseline(context, manifest), json.dumps(kept, separators=(",", ":")).encode(), "origin")
