# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Recovery of a staged cluster to its target: proven reachable before anything is built, and the position reached is read back.

None as target is the snapshot itself: recovery ends where the snapshot is consistent. Every recovery ends on a timeline of
its own, so the copy and the original never write the same piece of log.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from typing import Any, Callable, Iterator

from .. import durable, limits
from ..errors import SourceError, TargetError
from . import cluster_reach
from .cluster_fetch import Fetcher
from .cluster_lsn import history_name, parse_history, parse_history_name, parse_position, position_text, segment_name
from .cluster_places import Owner
from .cluster_private import STALLED, PrivateCluster, private_settings
from .cluster_reach import Reach
from .contract import Context, Log, Reader

_IMMEDIATE = {"kind": "immediate", "value": "", "timeline": ""}
#: Segments that are searched at once for a transaction or a named point.
_WINDOW = 128 << 20
_ENDED_EARLY = "recovery ended before configured recovery target was reached"
_ENDS = re.compile(r"desc: (?:COMMIT|ABORT)(?:_PREPARED (\d+):)? ?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \S+)?")
_RECORD = re.compile(r"tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+),")
_LAST_COMMIT = re.compile(r"last completed transaction was at log time (.*)")
_STOPPING = re.compile(r"recovery stopping (.*)")


class Recovery:
    """One recovery: prove(), then run() on the rebuilt files."""

    def __init__(self, context: Context, reader: Reader, record: dict[str, Any], programs: str, owner: Owner) -> None:
        self._context = context
        self._facts: dict[str, Any] = reader.manifest["facts"]
        self._log: Log | None = getattr(reader, "log", None)
        self._record = record
        self._programs = programs
        self._owner = owner
        self._where = f"{context.service}.{context.source}"
        self._private = str(record["private"])
        self._target: dict[str, str] = record.get("target") or _IMMEDIATE
        self._reach: Reach | None = None
        self._found: dict[str, str] = {}

    def prove(self) -> Reach:
        """The way to the target. Raises TargetError when it cannot be reached, DamageError when the log is damaged."""
        if self._target["kind"] == "immediate" and not self._target.get("timeline"):
            reach = self._snapshot_alone()
        else:
            fitting, reason = cluster_reach.candidates(self._facts, self._log, self._target)
            if not fitting:
                raise self._refused(reason)
            reach = self._search(fitting) if self._target["kind"] in ("xid", "name") else fitting[0]
        self._reach = reach
        return reach

    def _snapshot_alone(self) -> Reach:
        own = int(self._facts["timeline"])
        for reach in cluster_reach.reaches(self._facts, self._log):
            if reach.timeline == own:
                return reach
        return cluster_reach.reaches(self._facts, None)[0]

    def _refused(self, reason: str) -> TargetError:
        return TargetError(
            f"the target {_said(self._target)} cannot be reached from this snapshot: {reason}", self._where,
            "nothing was changed; choose another target or another snapshot (list them with the points playbook)",
        )

    # -- searching the log

    def _search(self, fitting: list[Reach]) -> Reach:
        """The newest timeline on which the transaction ends, or the named point was made."""
        kind, value = self._target["kind"], self._target["value"]
        early = ""
        for reach in fitting:
            self._context.progress.say(f"looking for {_said(self._target)} on timeline {reach.timeline}")
            found = self._find(reach, kind, value)
            if found is None:
                continue
            if found < reach.stop:
                early = f"it lies at {position_text(found)}, before the end of the snapshot at {position_text(reach.stop)}"
                continue
            self._found = {"position": position_text(found)}
            return reach
        what = f"transaction {value} does not end" if kind == "xid" else f"no restore point has the name {value!r}"
        spans = ", ".join(f"{position_text(reach.start)} to {position_text(reach.end)} on timeline {reach.timeline}" for reach in fitting)
        raise self._refused(early or f"{what} in the log from {spans}")

    def _find(self, reach: Reach, kind: str, value: str) -> int | None:
        """The position of the first record that is the target, None when there is none."""
        for line in self._records(reach, "Transaction" if kind == "xid" else "XLOG"):
            found = _RECORD.search(line)
            if not found:
                continue
            if kind == "name":
                matched = line.rstrip().endswith(f"desc: RESTORE_POINT {value}")
            else:
                ends = _ENDS.search(line)
                matched = ends is not None and int(ends.group(1) or found.group(1)) == int(value) % (1 << 32)
            if matched:
                return parse_position(found.group(2))
        return None

    def _records(self, reach: Reach, manager: str) -> Iterator[str]:
        """pg_waldump's lines about one resource manager, from the snapshot's start to the end of the log, window by window."""
        size = reach.segment
        place = os.path.join(self._private, "search")
        shutil.rmtree(place, ignore_errors=True)
        durable.make_dirs(self._private, 0o700, "stage")
        self._owner.give(self._private)
        os.mkdir(place, 0o700)
        self._owner.give(place)
        log = self._log
        try:
            position = reach.stop if reach.extent(reach.start) < reach.stop else reach.start
            if reach.extent(position) == position:
                position = -(-position // size) * size
            first, last = position // size, -(-reach.end // size)
            window = max(2, _WINDOW // size)
            while log is not None and first < last:
                upto = min(last, first + window)
                for number in range(first, upto):
                    path = os.path.join(place, segment_name(1, number, size))
                    if not os.path.exists(path):
                        self._copy(log, reach, number, path)
                start = max(position, first * size)
                yield from self._dump(place, manager, start, min(reach.end, upto * size))
                for number in range(first, upto - 1):
                    os.unlink(os.path.join(place, segment_name(1, number, size)))
                first = upto - 1 if upto < last else last  # a record may begin in one segment and end in the next
        finally:
            shutil.rmtree(place, ignore_errors=True)
            try:
                os.rmdir(self._private)
            except OSError:
                pass

    def _copy(self, log: Log, reach: Reach, number: int, path: str) -> None:
        """One segment under the name of timeline 1, whichever timelines it is made of: pg_waldump follows one name only."""
        size = reach.segment
        position, end = number * size, min((number + 1) * size, reach.end)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            self._owner.give(descriptor)
            while position < end:
                timeline, high = reach.part(position)
                if high == position:
                    raise TargetError(f"the log has a hole at {position_text(position)}", self._where, "choose another target")
                data = log.read(timeline, position, min(high, end, position + (16 << 20)))
                os.pwrite(descriptor, data, position - number * size)
                position += len(data)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def _dump(self, place: str, manager: str, start: int, end: int) -> list[str]:
        argv = [f"{self._programs}/pg_waldump", "-p", place, "-t", "1", "-r", manager, "-s", position_text(start), "-e", position_text(end)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=STALLED, check=False, cwd="/",
                              env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}, **self._owner.run_as())
        # it ends with an error where the window or the log ends within a record; what it printed before counts
        output: bytes = done.stdout
        return output.decode("utf-8", "surrogateescape").splitlines()

    # -- recovering

    def run(self, examine: Callable[[PrivateCluster], None] | None = None) -> dict[str, Any]:
        """Recover the rebuilt files and stop the server cleanly; ``examine`` may ask the recovered server before. Returns what was reached:

        {"timeline", "from_timeline", "position", "reason", "last_commit" (time of the last transaction), "target", "hole" (where the log has
        one, in words)}.
        """
        reach = self._reach or self.prove()
        directory = str(self._record["staged"])
        with Fetcher(self._log, reach, self._other_histories(), os.path.join(self._private, "log-in"), self._owner, self._context.workers,
                     self._context.progress.meter) as fetcher:
            try:
                reached = self._replay(directory, reach, fetcher, self._settings(reach), examine)
            except _EndedEarly:
                # the whole log up to the target was there and nothing came after it: its end is the target
                reached = self._replay(directory, reach, fetcher, {}, examine)
        reached["target"] = _said(self._target)
        if self._target["kind"] == "latest" and reach.hole:
            reached["hole"] = reach.behind_hole()
        self._check_reached(reach, reached)
        return reached

    def _settings(self, reach: Reach) -> dict[str, str]:
        kind, value = self._target["kind"], self._target.get("value", "")
        if kind == "immediate":
            return {"recovery_target": "immediate"}
        if kind == "time":
            moment = cluster_reach.parse_time(value)
            return {"recovery_target_time": moment.isoformat(sep=" ")}
        if kind == "lsn":
            return {"recovery_target_lsn": position_text(parse_position(value))}
        if kind in ("xid", "name"):
            return {f"recovery_target_{kind}": value}
        if kind == "latest":
            return {}
        raise TargetError(f"unknown kind of target {kind!r}", self._where, "use latest, time, lsn, xid, name or immediate")

    def _other_histories(self) -> dict[int, bytes]:
        """Timelines that the live cluster knows: the new one must be none of them."""
        found: dict[int, bytes] = {}
        folder = os.path.join(str(self._record["live"]), "pg_wal")
        try:
            for name in os.listdir(folder):
                number = parse_history_name(name)
                if number is not None:
                    with open(os.path.join(folder, name), "rb") as handle:
                        found[number] = handle.read(1 << 20)
        except OSError:
            pass
        return found

    def _replay(self, directory: str, reach: Reach, fetcher: Fetcher, target: dict[str, str],
                examine: Callable[[PrivateCluster], None] | None) -> dict[str, Any]:
        self._signal(directory)
        settings = {
            **private_settings(self._programs, directory, self._owner, self._where, bool(self._context.config.get("members"))), **target,
            "restore_command": fetcher.command, "recovery_target_timeline": str(reach.timeline), "recovery_target_action": "promote",
        }
        user = str(self._context.config.get("user") or "postgres")
        before = set(_histories(directory))
        private = PrivateCluster(self._programs, directory, self._private, self._owner, user, settings, self._where)
        with private:
            with self._context.progress.meter.during("replay"):
                self._wait(private, fetcher, bool(target))
            lines = private.lines()
            if examine is not None:
                with self._context.progress.meter.during("verify"):
                    examine(private)
            private.stop()
        return self._reached(directory, before, lines)

    def _signal(self, directory: str) -> None:
        path = os.path.join(directory, "recovery.signal")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._owner.give(descriptor)
        os.close(descriptor)

    def _wait(self, private: PrivateCluster, fetcher: Fetcher, targeted: bool) -> None:
        """Until recovery has ended and the server takes connections. It has no time limit as long as anything moves."""
        seen: tuple[int, int] = (0, 0)
        since = time.monotonic()
        pause = 0.005
        while True:
            try:
                if private.answers():
                    return
            except SourceError as error:
                fetcher.raise_error()
                self._translate(private.fatal(), targeted)
                raise error
            moved = (fetcher.segments, _size(private.log))
            if moved != seen:
                if moved[0] != seen[0]:
                    self._context.progress.say(f"replaying the log: {moved[0]} segments fetched")
                seen, since = moved, time.monotonic()
            elif time.monotonic() - since > STALLED:
                raise SourceError(f"recovery made no progress for {STALLED:.0f} s", self._where, f"see {private.log}")
            limits.check()
            time.sleep(pause)
            pause = min(pause * 1.1, 0.25)

    def _translate(self, words: str, targeted: bool) -> None:
        if _ENDED_EARLY in words:
            if targeted and self._target["kind"] in ("time", "lsn"):
                raise _EndedEarly()
            raise self._refused("the log ended before it")
        if "before consistent recovery point" in words:
            raise self._refused("it lies before the snapshot is consistent")
        if "is not a child of this server's history" in words:
            raise self._refused(words)

    def _reached(self, directory: str, before: set[int], lines: list[str]) -> dict[str, Any]:
        """Read where recovery ended from the new timeline's own history, and the time of its last transaction from the log."""
        fresh = sorted(set(_histories(directory)) - before)
        told: dict[str, Any] = {"timeline": None, "from_timeline": None, "position": None, "reason": None, "last_commit": None}
        for number in reversed(fresh):
            with open(os.path.join(directory, "pg_wal", history_name(number)), "rb") as handle:
                parents = parse_history(handle.read(1 << 20))
            # recovery fetches the histories of other timelines too: the new one is the one that nobody knew
            if parents and number not in self._known():
                parent, left, reason = parents[-1]
                told.update(timeline=number, from_timeline=parent, position=position_text(left), reason=reason)
                break
        for line in lines:
            last, stopping = _LAST_COMMIT.search(line), _STOPPING.search(line)
            if last:
                told["last_commit"] = last.group(1).strip()
            if stopping:
                told["stopped"] = stopping.group(1).strip()
        if told["position"] is None:
            raise SourceError("recovery ended, but does not say where", self._where, f"see {self._private}/log")
        return told

    def _known(self) -> set[int]:
        return {*(self._log.histories() if self._log is not None else {}), *self._other_histories()}

    def _check_reached(self, reach: Reach, reached: dict[str, Any]) -> None:
        """What was reached must be what was promised: not a byte less than the target or the proven end of the log."""
        position, kind = parse_position(str(reached["position"])), self._target["kind"]
        wanted, slack = reach.stop, max(2 * reach.segment, 16 << 20)
        if kind == "latest":
            wanted = reach.end - slack  # the log may end in a record that is not whole, or in an unused rest of a segment
        elif kind == "lsn":
            wanted = min(parse_position(self._target["value"]), reach.end - slack)
        if kind != "immediate" and position < max(wanted, reach.stop):
            raise SourceError(
                f"recovery ended at {reached['position']}, but the log goes on to {position_text(reach.end)}", self._where,
                "a record in between cannot be read: take another snapshot as the base, or a target before it",
            )


class _EndedEarly(Exception):
    """The log ended before the server saw something beyond the target."""


def _histories(directory: str) -> list[int]:
    found = []
    for name in os.listdir(os.path.join(directory, "pg_wal")):
        number = parse_history_name(name)
        if number is not None:
            found.append(number)
    return found


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _said(target: dict[str, str]) -> str:
    text = f"{target['kind']}:{target['value']}" if target.get("value") else target["kind"]
    return f"{text},timeline:{target['timeline']}" if target.get("timeline") else text
