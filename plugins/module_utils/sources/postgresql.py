# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A whole PostgreSQL cluster, physically: captured page by page, rebuilt beside, recovered privately, swapped in by rename."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Iterator

from .. import durable, libraries, state
from ..errors import SourceError, StorageError
from . import cluster_buffers
from . import cluster_checks as checks
from . import cluster_content as content
from . import cluster_places as places
from . import cluster_reach as reach
from .cluster_private import PrivateCluster, end_leftover, find_programs
from .cluster_recovery import Recovery
from .cluster_restore import Rebuild
from .cluster_restore_preflight import Preflight, footprint, live_directory, plan
from .cluster_slot import keep_log
from .cluster_standby import Standby
from .cluster_swap import Swap
from .contract import (
    Captured,
    Comparison,
    Context,
    Covered,
    Extraction,
    Finding,
    Footprint,
    LocalShare,
    Log,
    Reader,
    Source,
    TreeReader,
    Writer,
    whole_files,
)
from .postgresql_client import TLS_OPTIONS, Client, ServerDown
from .server import Server

#: What restored clusters held is remembered of so many besides the newest: a rollback leads back to an earlier one.
_KEPT = 4
_SETTINGS = "postgresql.auto.conf"
#: Nanoseconds that times of files may lag behind.
_TICK = 20_000_000


class Postgresql(Source):
    """See the module's text. Tested with PostgreSQL 15, written for 13 to 18."""

    type: ClassVar[str] = "postgresql"
    compression: ClassVar[int] = 1
    options: ClassVar[dict[str, dict[str, Any]]] = {
        "data_directory": {"type": "path", "required": True, "help": "The cluster's data directory on the source's host; not a mount point."},
        "address": {"type": "str", "default": "127.0.0.1", "help": "Address of the server as seen from the source's host."},
        "port": {"type": "int", "default": 5432, "help": "Port of the server, also part of the socket's name."},
        "socket": {"type": "path", "help": "Directory of the server's socket; used instead of address."},
        "user": {"type": "str", "default": "postgres", "help": "A superuser of the server."},
        "password_file": {"type": "path", "help": "File whose first line is the password; without it ~/.pgpass and peer logins work."},
        **TLS_OPTIONS,
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
        "content_digest": {
            "type": "bool", "default": False,
            "help": "Restores also measure a digest of every table, which reads all rows: it tells later which tables were written to.",
        },
        "conninfo": {
            "type": "str",
            "help": "How standbys reach this server, as libpq reads it, without a password: host, port, user, passfile (on the standby), sslmode…",
        },
        "replication_slot": {"type": "str", "help": "Slot by which this server streams when it is a standby; default: lifeboat_standby_<host>."},
        "capture_from": {
            "type": "str", "default": "primary", "choices": ["primary", "standby"],
            "help": "Which of the members a capture reads; where no standby streams, the primary.",
        },
        "slot": {"type": "str", "help": "Replication slot of the continuous log; default: lifeboat_<service>_<source>."},
        "log": {"type": "dict", "help": "Continuous log: {spool: path, spool_limit: bytes, interval: seconds}.", "options": {
            "spool": {"type": "path", "help": "Private directory for what was received and is not proven yet; default: in the state directory."},
            "spool_limit": {"type": "size", "least": 64 << 20, "help": "What the spool may hold; default 4G."},
            "interval": {"type": "float", "least": 0.1, "most": 60, "help": "Seconds between two looks at what was received; default 1."},
        }},
    }

    def __init__(self) -> None:
        #: Directories that this process staged and inspected.
        self._staged: set[str] = set()

    def preflight_capture(self, context: Context) -> list[Finding]:
        libraries.begin("numpy", "blake3", "zstandard")  # which takes about as long as the server needs to answer
        from .cluster_capture_preflight import preflight_capture

        return preflight_capture(context)

    def capture(self, context: Context, writer: Writer) -> Captured:
        from .cluster_capture import ClusterCapture

        return ClusterCapture(context, writer).run()

    def preflight_restore(self, context: Context, manifest: dict[str, Any]) -> list[Finding]:
        client = _client(context)
        found = Preflight(context, client, _server(context, client), manifest).run()
        return found + (Standby(context, manifest["facts"]).findings() if context.config.get("standby") else [])

    def footprint(self, context: Context, manifest: dict[str, Any]) -> Footprint:
        return footprint(context, manifest)

    def local_share(self, context: Context, manifest: dict[str, Any]) -> LocalShare | None:
        from .cluster_share import ClusterShare

        live = live_directory(context)
        return ClusterShare(live, context.digest_key, str(manifest["digest"]["value"])) if places.holds_cluster(live) else None

    def log_range(self, manifest: dict[str, Any], log: Log) -> Covered | None:
        return reach.log_range(manifest["facts"], log)

    def log_bytes(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> int:
        return reach.log_bytes(manifest["facts"], position, log)

    def reachable(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> str:
        return reach.reachable(manifest["facts"], position, log)

    def lost_behind(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> str:
        return reach.lost_behind(manifest["facts"], position, log)

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
        facts: dict[str, Any] = reader.manifest["facts"]
        owner = places.Owner(*record["owner"])
        if context.config.get("standby"):
            self._stage_standby(context, reader, record, owner)
            return
        programs = find_programs(context.config.get("bin_dir"), int(record["major"]), where)
        end_leftover(staged, where)
        told: dict[str, Any] = {"checksums": bool(facts.get("checksums"))}

        def examine(private: PrivateCluster) -> None:
            able: list[str] = []
            told["evidence"] = content.evidence(private.client, lambda name, connection: able.append(name) if checks.has_amcheck(private, connection) else None)
            checks.amcheck(private, owner, able)
            told["amcheck"] = able
            keep_log(context, private.client, facts.get("parameters") or {})
            if context.config.get("content_digest"):
                told["content"] = content.measure(private.client, context.digest_key, context.workers, context.progress.add)

        try:
            recovery = Recovery(context, reader, record, programs, owner)
            recovery.prove()
            if record["in_place"]:
                _swap(context, record).take_live()
            else:
                places.remove(staged, str(record["stage_id"]), "staged", record, "stage")
            context.progress.expect(int(facts.get("bytes", 0)))
            rebuild = Rebuild(context, reader, record, owner)
            told.update(rebuild.run())
            built = rebuild.seen()
            _let_clock_tick(built)
            libraries.begin("psycopg2", "numpy")  # needed as soon as the server has recovered
            told["reached"] = recovery.run(examine)
            told["evidence"]["timeline"] = told["reached"]["timeline"]  # the server may not have written it to its control file by then
            inspection = checks.Inspection(context, staged, where, facts.get("bad_pages") or [], int(facts["relation_segment_size"]))
            with ThreadPoolExecutor(2, thread_name_prefix="beside") as beside:
                roots = [staged, *(place for _link, place in places.spaces(staged)), os.path.join(staged, "pg_wal")]
                synced = beside.submit(durable.sync_trees, roots, "stage")
                archives = beside.submit(_archives, context, staged, programs, owner)
                with context.progress.meter.during("verify"):
                    files = inspection.run(built, rebuild.doubtful, told["checksums"])
                synced.result()
            told["archiving"] = None
            if archives.result():
                told["archiving"] = _hold_archiving(staged, owner)
                durable.sync_tree(staged, "stage")
                files[_SETTINGS] = inspection.one(_SETTINGS)
        except OSError as error:
            raise StorageError(f"the staged copy cannot be written ({error.strerror})", error.filename or staged,
                               "free space or fix permissions, then run the same command again") from error
        record["reached"] = told["reached"]
        self._staged_as(context, record, files, told)

    def _stage_standby(self, context: Context, reader: Reader, record: dict[str, Any], owner: places.Owner) -> None:
        """The staged copy as a standby of the primary that config["standby"] names: it recovers when it is live, from where it streams."""
        staged, facts = str(record["staged"]), reader.manifest["facts"]
        try:
            places.remove(staged, str(record["stage_id"]), "staged", record, "stage")
            standby = Standby(context, facts)
            standby.keep_log(reader.log)
            context.progress.expect(int(facts.get("bytes", 0)))
            rebuild = Rebuild(context, reader, record, owner)
            told: dict[str, Any] = dict(rebuild.run())
            built = rebuild.seen()
            _let_clock_tick(built)
            told["standby"] = standby.complete(staged, reader.log)
            durable.sync_trees([staged, *(place for _link, place in places.spaces(staged)), os.path.join(staged, "pg_wal")], "stage")
            inspection = checks.Inspection(context, staged, _where(context), facts.get("bad_pages") or [], int(facts["relation_segment_size"]))
            files = inspection.run(built, rebuild.doubtful, False)
        except OSError as error:
            raise StorageError(f"the staged copy cannot be written ({error.strerror})", error.filename or staged,
                               "free space or fix permissions, then run the same command again") from error
        self._staged_as(context, record, files, told)

    def _staged_as(self, context: Context, record: dict[str, Any], files: checks.Files, told: dict[str, Any]) -> None:
        _write(context, record, "files", files)
        _write(context, record, "stage", {**told, "complete": True})
        self._staged.add(str(record["staged"]))

    def verify_staged(self, context: Context, reader: Reader, record: dict[str, Any]) -> Comparison:
        staged, where = str(record["staged"]), _where(context)
        known = _read(context, record, "stage")
        if not known.get("complete") or not places.present(staged):
            return Comparison(False, [f"the staged cluster {staged} does not exist or was not finished"])
        end_leftover(staged, where)
        record["reached"] = known.get("reached")
        files = _read(context, record, "files")
        try:
            # what this process built and inspected itself is read again where somebody wrote since, what it found here is read as a whole
            wrong = checks.differences(context, reader, staged, files, everything=staged not in self._staged)
        except OSError as error:
            wrong = [f"{error.filename!r} cannot be read ({error.strerror})"]
        if wrong:
            return Comparison(False, wrong, len(files))
        if not context.config.get("standby"):
            _remember(context, reader.manifest, record, known)
        return Comparison(True, [], len(files))

    def warm_ranges(self, context: Context, record: dict[str, Any], manifest: dict[str, Any]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        staged = str(record["staged"])
        try:
            yield from cluster_buffers.ranges(staged, int(manifest["facts"]["relation_segment_size"]))
        except FileNotFoundError:  # nobody knows what the server held
            for folder in (staged, *(place for _link, place in places.spaces(staged))):
                yield from whole_files(folder)

    def verify_live(self, context: Context, reader: TreeReader, manifest: dict[str, Any]) -> Comparison:
        if context.config.get("standby"):
            lacks = Standby(context, manifest["facts"]).proves_well()
            return Comparison(not lacks, [lacks] if lacks else [], 1)
        known = state.read_json(_baseline(context, manifest))
        if known is None:
            return Comparison(False, ["the live cluster was not restored from this snapshot on this host"])
        if context.target is not None and known.get("target") != context.target:
            return Comparison(False, ["the live cluster was restored to another position of the log"])
        client = _client(context)
        try:
            evidence = content.evidence(client)
            if known.get("evidence") == evidence:
                return Comparison(True, [], len(evidence["sequences"]) + 1)
            if known.get("content") is None:
                return Comparison(False, content.since(known["evidence"], evidence))
            found = content.measure(client, context.digest_key, context.workers, context.progress.add)
        except ServerDown as error:
            return Comparison(False, [f"{error.what} ({error.where})"])
        return content.compare(known["content"], found)

    def cutover(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        known = _read(context, record, "stage")
        if places.present(str(record["staged"])) and not known.get("complete"):
            raise SourceError("the staged cluster was not finished", str(record["staged"]), "stage it again")
        facts = _swap(context, record).cutover()
        for name in ("reached", "archiving", "checksums", "amcheck", "bytes_reused", "bytes_fetched", "standby"):
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


def _let_clock_tick(built: dict[str, list[int]]) -> None:
    """Wait until a file that is written from now on has other times than all that were written before, however coarse the kernel's clock."""
    newest = max((max(status[1], status[2]) for status in built.values()), default=0)
    for _try in range(20):
        if time.time_ns() > newest + _TICK:
            return
        time.sleep(0.005)


def _archives(context: Context, staged: str, programs: str, owner: places.Owner) -> bool:
    """The staged cluster would archive its log when it is started."""
    folder = str(context.config.get("config_directory") or staged)
    if not os.path.isfile(os.path.join(folder, "postgresql.conf")):
        return False
    try:
        return places.run_program(
            [f"{programs}/postgres", "-D", staged, "-c", f"config_file={folder}/postgresql.conf", "-C", "archive_mode"], owner, 60,
            "reading archive_mode", staged,
        ).strip() != "off"
    except SourceError:
        return True  # a configuration that cannot be read may well archive


def _hold_archiving(staged: str, owner: places.Owner) -> str:
    """A restored copy archives nowhere until told: it is on a timeline of its own, and the original's place is not its own. Returns what was done."""
    path = os.path.join(staged, _SETTINGS)
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
    kept = {"target": record.get("target"), "content": found.get("content"), "evidence": found["evidence"]}
    names = sorted((name for name in os.listdir(context.work_dir) if name.startswith("content-")),
                   key=lambda name: os.stat(os.path.join(context.work_dir, name)).st_mtime_ns)
    for name in names[:-_KEPT]:
        durable.unlink(os.path.join(context.work_dir, name), "origin")
    durable.replace_file(_baseline(context, manifest), json.dumps(kept, separators=(",", ":")).encode(), "origin")
