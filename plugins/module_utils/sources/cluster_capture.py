# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Capture of a running PostgreSQL cluster, primary or standby, into one tree (docs/repository-format.md, "Entries of postgresql").

For the source class: ``preflight_capture(context)`` and ``ClusterCapture(context, writer).run()``. Used options: data_directory,
address, port, user, password_file, socket (as of postgresql_database) and bad_pages ("fail" or "warn").
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Iterator

from .. import faults
from ..errors import SourceError
from . import cluster_buffers
from .cluster_backup import About, Backup, Control, client_of, read_control
from .cluster_capture_preflight import findings_of, preflight_capture
from .cluster_log_copy import LogCopy
from .cluster_lsn import position_text
from .cluster_pages import PAGE, PageDigest, encode_marks, marks
from .cluster_parent import HEAD, Parent, directory_identity
from .cluster_spans import SPAN, File, Part, Result, Spans, Suspect
from .cluster_walk import CONTROL, Item, Walk, order_key, relation_of
from .contract import Captured, Context, Entry, Finding, Writer

__all__ = ["ClusterCapture", "preflight_capture", "Finding"]

#: Bytes and parts of one job, without and with a parent: what changed of a job's files shares chunks.
_JOB = 8 << 20
_JOB_WITH_PARENT = 64 << 20
_PARTS = 512
#: Damaged pages that an error names.
_NAMED = 5


class ClusterCapture:
    """One capture: begin a backup, read everything once, end it, add the log it needs. run() returns what it proves.

    Raises SourceError; a server that was left in a backup forgets it by itself. Memory stays bounded whatever the size.
    """

    def __init__(self, context: Context, writer: Writer) -> None:
        self._context = context
        self._writer = writer
        self._data = os.path.realpath(str(context.config["data_directory"]))
        self._client = client_of(context.config, f"{context.service}.{context.source}")
        self._backup = Backup(self._client)
        self._digest = PageDigest(context.digest_key)
        self._threads = ThreadPoolExecutor(context.workers, thread_name_prefix="cluster")
        self._pending: deque[Future[Result]] = deque()
        self._job: list[Part | Entry] = []
        self._job_bytes = 0
        self._total = Result()
        self._note = os.path.join(context.work_dir, cluster_buffers.NAME)

    def run(self) -> Captured:
        try:
            self._backup.connect()
            return self._run()
        finally:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._backup.close()

    def _run(self) -> Captured:
        about, control = self._refuse()
        self._context.progress.say("waiting for a checkpoint")
        start_time, started_ns = self._backup.now(), time.time_ns()
        start = self._backup.start(f"lifeboat {self._context.service}.{self._context.source}", f"lifeboat_capture_{secrets.token_hex(6)}")
        faults.point("cluster.capture.started")
        about = self._backup.about(sizes=True)
        self._context.progress.expect(about.bytes)
        self._context.progress.say("")
        head = {
            "system_identifier": about.system_identifier, "timeline": about.timeline, "directory": directory_identity(self._data),
            "position": start, "checksums": about.checksums,
        }
        parent = Parent(self._writer.previous, head, started_ns)
        self._writer.entry({"type": "head", "path": HEAD, "format": 1, "started_ns": started_ns, **head})
        spans = Spans(self._context, self._writer, about.checksums, about.relation_segment)
        walk = Walk(self._data, f"PG_{about.version // 10000}_{control.catalog}")
        log = LogCopy(self._data, self._backup, spans, self._threads, about.timeline, start, about.wal_segment)
        try:
            self._read(self._with_buffers(walk.run()), parent, spans, log)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._note)
        control = self._same_cluster(about)  # the last of all files: on a standby it says how far the log must be replayed
        control_status = os.lstat(f"{self._data}/{CONTROL}")
        faults.point("cluster.capture.read")
        self._writer.settle()
        self._context.progress.say("ending the backup")
        stop, label, spaces = self._backup.stop()
        stop_time = self._backup.now()
        faults.point("cluster.capture.stopped")
        timeline = self._timeline(label, about)
        bad, mended = self._judge(self._total.suspects, start, stop)
        self._take(log.finish(timeline, stop))
        self._control(control, control_status)
        self._emit({"type": "label", "path": "backup_label", "content": label})
        if spaces:
            self._emit({"type": "label", "path": "tablespace_map", "content": spaces})
        facts = self._facts(about, parent, timeline)
        facts.update(start_lsn=position_text(start), stop_lsn=position_text(stop), start_time=start_time, stop_time=stop_time,
                     bad_pages=bad, mended_pages=mended, unlogged_left_out=walk.unlogged)
        return Captured(self._digest.result(), "physical", facts)

    def _refuse(self) -> tuple[About, Control]:
        about = self._backup.about()
        for finding in findings_of(self._context, self._client, about):
            if finding.level == "error":
                raise finding.error
        return about, read_control(self._data)

    def _same_cluster(self, about: About) -> Control:
        control = read_control(self._data)
        if control.system_identifier != about.system_identifier:
            raise SourceError("the data directory was replaced during the capture", self._data, "run the same command again")
        return control

    # -- files

    def _with_buffers(self, items: Iterator[Item]) -> Iterator[Item]:
        """The cluster's files, and in its place among them the note of what the server has in its buffers, unless it keeps one itself."""
        note = self._buffers()
        for item in items:
            if note is not None and order_key(note.path) <= order_key(item.path):
                if item.path != note.path:
                    yield note
                note = None
            yield item

    def _buffers(self) -> Item | None:
        if os.path.exists(os.path.join(self._data, cluster_buffers.NAME)):
            return None
        content = cluster_buffers.held(self._client)
        if content is None:
            return None
        try:
            os.makedirs(self._context.work_dir, 0o700, exist_ok=True)
            descriptor = os.open(self._note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(content)
            return Item("file", cluster_buffers.NAME, self._note, os.lstat(self._note))
        except OSError:
            return None  # a courtesy

    def _read(self, items: Iterator[Item], parent: Parent, spans: Spans, log: LogCopy) -> None:
        limit = _JOB_WITH_PARENT if parent.present else _JOB
        for item in items:
            if item.kind == "file":
                self._parts(item, parent, spans, limit)
            else:
                self._job.append(_plain(item))
            self._backup.alive()
            log.tick()
        self._submit(spans)
        self._drain(0)

    def _parts(self, item: Item, parent: Parent, spans: Spans, limit: int) -> None:
        file, size = File(item), item.status.st_size
        count = max(1, -(-size // SPAN))
        file.expect(count)
        found = parent.find(item.path)
        unread = parent.unchanged(found, item)
        for at in range(0, max(1, size), SPAN):
            before = parent.span(item.path, at) if found else None
            part = Part(file, at, min(SPAN, size - at), before, unread, at == 0, count == 1)
            self._job.append(part)
            self._job_bytes += 0 if unread and before else part.length
            if self._job_bytes >= limit or len(self._job) >= _PARTS:
                self._submit(spans)

    def _submit(self, spans: Spans) -> None:
        if self._job:
            self._pending.append(self._threads.submit(spans.job, self._job))
            self._job, self._job_bytes = [], 0
        self._drain(2 * self._context.workers)

    def _drain(self, left: int) -> None:
        """Write what is done into the tree until at most ``left`` jobs are unfinished."""
        while len(self._pending) > left or (self._pending and self._pending[0].done()):
            self._take(self._pending.popleft().result())

    def _take(self, result: Result) -> None:
        for entry in result.entries:
            self._emit(entry)
        self._total.suspects += result.suspects
        self._total.read += result.read
        self._total.files += result.files
        self._total.bytes += result.bytes

    def _emit(self, entry: Entry) -> None:
        self._writer.entry(entry)
        self._digest.add(entry)

    # -- the end

    def _timeline(self, label: str, about: About) -> int:
        """The timeline of the whole backup; a switch in its middle would need the log of both."""
        found = re.search(r"^START TIMELINE: (\d+)$", label, re.MULTILINE)
        timeline = int(found.group(1)) if found else about.timeline
        if about.standby and self._backup.standby_timeline() not in (0, timeline):
            raise SourceError("the standby followed its primary to a new timeline during the capture", self._client.place, "run the same command again")
        return timeline

    def _judge(self, suspects: list[Suspect], start: int, stop: int) -> tuple[list[dict[str, Any]], int]:
        """(damaged pages, number of pages that the log mends): a page changed since the start stands in the log as a whole."""
        bad = []
        names: dict[str, str] = {}
        for suspect in suspects:
            if start <= suspect.position < stop:
                continue
            relation = relation_of(suspect.path)
            if suspect.path not in names and relation is not None and len(names) < 1000:
                name = self._backup.relation(suspect.path, relation.filenode)
                names[suspect.path] = name + (f" ({relation.fork})" if name and relation.fork else "")
            bad.append({"path": suspect.path, "relation": names.get(suspect.path, ""), "block": suspect.block})
        if bad and self._context.config.get("bad_pages", "fail") != "warn":
            named = ", ".join(f"{page['relation'] or page['path']} block {page['block']}" for page in bad[:_NAMED])
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            what = "1 page is" if len(bad) == 1 else f"{len(bad)} pages are"
            raise SourceError(f"{what} damaged on disk: {named}{more}", self._data,
                              "restore them from an earlier snapshot, or capture them as they are with bad_pages: warn")
        return bad, len(suspects) - len(bad)

    def _control(self, control: Control, status: os.stat_result) -> None:
        number = self._writer.put(control.content)
        size = len(control.content)
        self._emit({
            "type": "file", "path": CONTROL, "mode": status.st_mode & 0o7777, "mtime_ns": status.st_mtime_ns, "size": size,
            "seen": [status.st_ino, status.st_ctime_ns],
        })
        self._emit({"type": "span", "path": CONTROL, "at": 0, "length": size, "unit": PAGE, "data": [[0, number, 0, size]],
                    "marks": encode_marks(marks(self._context.digest_key, control.content))})
        self._total.files += 1
        self._total.bytes += size

    def _facts(self, about: About, parent: Parent, timeline: int) -> dict[str, Any]:
        owner = os.stat(self._data)
        try:
            user = pwd.getpwuid(owner.st_uid).pw_name
        except KeyError:
            user = ""
        wal = f"{self._data}/pg_wal"
        facts = {
            "bytes": self._total.bytes, "bytes_read": self._total.read, "files": self._total.files, "server_version": about.version,
            "system_identifier": about.system_identifier, "timeline": timeline, "checksums": about.checksums, "segment_size": about.wal_segment,
            "relation_segment_size": about.relation_segment, "block_size": about.block_size, "tablespaces": about.tablespaces,
            "data_directory": self._data, "wal_directory": os.readlink(wal) if os.path.islink(wal) else None,
            "uid": owner.st_uid, "gid": owner.st_gid, "user": user, "parameters": about.parameters, "from_standby": about.standby,
        }
        if parent.distrust:
            facts["all_read_because"] = parent.distrust
        return facts


def _plain(item: Item) -> Entry:
    if item.kind == "link":
        return {"type": "link", "path": item.path, "target": item.target}
    return {"type": "dir", "path": item.path, "mode": item.status.st_mode & 0o7777}
