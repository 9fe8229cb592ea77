# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What the ledger says about the restores of a service. The ledger is the only memory of the state machine.

A *restore* may be worked on by several runs (a run, then those that resume it); it is named by the first of them.
Its events carry ``restore`` (that name) and, where they are about one source, ``source``:

 restore.target -> per source: stage.intent -> stage.provisioned -> stage.filled -> stage.verified
 -> cutover.intent -> cutover.done -> restore.live -> migrate.intent -> migrate.done -> restore.verdict
 -> rollback.intent -> rollback.source.done -> rollback.done, and commit.intent -> commit.source.done -> commit.done
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ..errors import TargetError
from ..ledger import Entry


@dataclass
class SourceState:
    """One source in one restore.

    size: bytes of the captured content. digest: as captured; equal: whether the staged copy was found to have it.
    stage: "", "intent", "provisioned", "filled", "verified", "current" (live data already equal) or "discarded".
    cutover, undo, commit: "", "intent" or "done". verified_by: the run that last verified the staged copy.
    """

    name: str
    snapshot: str = ""
    type: str = ""
    proof: str = ""
    size: int = 0
    record: dict[str, Any] = field(default_factory=dict)
    digest: dict[str, Any] = field(default_factory=dict)
    equal: bool | None = None
    stage: str = ""
    verified_by: str = ""
    attempts: int = 0
    cutover: str = ""
    undo: str = ""
    commit: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """The state in one word, for people."""
        if self.commit == "done":
            return "committed"
        if self.undo:
            return "rolled_back" if self.undo == "done" else "rolling_back"
        if self.cutover:
            return "live" if self.cutover == "done" else "swapping"
        return {"": "untouched", "verified": "staged", "current": "current", "discarded": "untouched"}.get(self.stage, "staging")


@dataclass
class Restore:
    """One restore: ``id`` is its first run; ``runs`` all that worked on it; ``asked`` the target as asked; ``migrated`` "", intent or done."""

    id: str
    asked: str
    point: dict[str, Any]
    time: str
    runs: list[str]
    origin_before: dict[str, Any] | None = None
    sources: dict[str, SourceState] = field(default_factory=dict)
    live: bool = False
    migrated: str = ""
    verdict: str = ""
    abandoned: bool = False
    undo: str = ""
    commit: str = ""
    ended_at: str = ""
    writes: dict[str, Any] = field(default_factory=dict)
    #: Source -> its live data in one word.
    places: dict[str, str] = field(default_factory=dict)

    @property
    def current(self) -> bool:
        """Whether the live data was the target already, so that nothing was to be done."""
        return bool(self.sources) and all(source.stage == "current" and not source.cutover for source in self.sources.values())

    @property
    def cut(self) -> list[SourceState]:
        """Sources whose live data this restore has replaced or begun to replace."""
        return [source for source in self.sources.values() if source.cutover]

    @property
    def holds(self) -> bool:
        """Whether displaced or set-aside data of it is still kept."""
        return bool(self.cut) and self.commit != "done"

    @property
    def open(self) -> bool:
        """Whether it can still be gone on with: neither finished, given up, rolled back nor committed."""
        return not (self.abandoned or self.undo or self.commit or (self.live and self.verdict))

    def state(self) -> dict[str, Any]:
        """For results and status: JSON."""
        return {
            "restore": self.id, "runs": list(self.runs), "asked": self.asked, "point": self.point.get("id"), "time": self.time,
            "live": self.live, "verdict": self.verdict or None, "open": self.open, "abandoned": self.abandoned,
            "committed": self.commit == "done", "rolled_back": self.undo == "done",
            "sources": {
                name: {
                    "state": source.word, "snapshot": source.snapshot, "type": source.type, "proof": source.proof, "bytes": source.size,
                    "captured": short_digest(source.digest), "found": short_digest(source.digest) if source.equal else None, "equal": source.equal,
                    "staged": source.record.get("staged"), "displaced": source.record.get("displaced"),
                    **({"facts": source.facts} if source.facts else {}),
                }
                for name, source in self.sources.items()
            },
        }


def short_digest(digest: dict[str, Any]) -> dict[str, Any]:
    """The two words of a digest that people compare."""
    return {key: digest.get(key) for key in ("algorithm", "value")}


def fold(entries: list[Entry]) -> list[Restore]:
    """The restores of a service in the order of their beginning."""
    restores: dict[str, Restore] = {}
    for entry in entries:
        data = entry["data"]
        name = data.get("restore")
        if not name:
            continue
        if entry["event"] == "restore.target":
            restores[name] = Restore(
                str(name), str(data.get("asked", "")), dict(data.get("point") or {}), str(entry["time"]), [str(entry["run"])], data.get("origin_before")
            )
            restores[name].places = dict(data.get("places") or {})
            for source, snapshot in (data.get("point") or {}).get("snapshots", {}).items():
                restores[name].sources[source] = SourceState(source, str(snapshot))
            continue
        restore = restores.get(name)
        if restore is None:
            continue  # its beginning is in a segment that is gone; it was finished long ago
        _apply(restore, entry, data)
    return list(restores.values())


def _apply(restore: Restore, entry: Entry, data: dict[str, Any]) -> None:
    event = str(entry["event"])
    if event == "restore.resumed":
        restore.verdict = ""
        if entry["run"] not in restore.runs:
            restore.runs.append(str(entry["run"]))
    elif event in ("restore.live", "restore.current"):
        restore.live = True
    elif event in ("migrate.intent", "migrate.done"):
        restore.migrated = event.rpartition(".")[2]
    elif event == "restore.verdict":
        restore.verdict, restore.ended_at = str(data["verdict"]), str(entry["time"])
        restore.live = restore.live or restore.current
    elif event == "restore.abandoned":
        restore.abandoned = True
    elif event in ("rollback.intent", "rollback.done"):
        restore.undo, restore.ended_at = event.rpartition(".")[2], str(entry["time"])
        restore.writes = dict(data.get("writes") or {})
    elif event in ("commit.intent", "commit.done"):
        restore.commit, restore.ended_at = event.rpartition(".")[2], str(entry["time"])
    if "source" in data:
        _apply_source(restore.sources.setdefault(str(data["source"]), SourceState(str(data["source"]))), entry, data)


def _apply_source(source: SourceState, entry: Entry, data: dict[str, Any]) -> None:
    event = str(entry["event"])
    if event == "stage.intent":
        source.record, source.digest = dict(data["record"]), dict(data.get("digest") or {})
        source.attempts += 1
    if event.startswith("stage."):
        source.stage = event.partition(".")[2]
        if event in ("stage.verified", "stage.current"):
            source.verified_by, source.equal = str(entry["run"]), True
            source.digest, source.proof, source.size = dict(data.get("digest") or {}), str(data.get("proof", "")), int(data.get("bytes", 0))
            source.type = str(data.get("type", ""))
        elif event == "stage.discarded":
            source.equal = None
    elif event in ("cutover.intent", "cutover.done"):
        source.cutover = event.rpartition(".")[2]
    elif event in ("rollback.source.intent", "rollback.source.done"):
        source.undo = event.rpartition(".")[2]
    elif event in ("commit.source.intent", "commit.source.done"):
        source.commit = event.rpartition(".")[2]
    if data.get("facts"):
        source.facts = {**source.facts, **data["facts"]}


def find(restores: list[Restore], which: str, service: str) -> Restore | None:
    """The restore that ``last`` or a run id means: one that replaced live data. None: ``last`` and there was none.

    Raises TargetError for a run that is not in this ledger.
    """
    if which != "last":
        mine = [restore for restore in restores if which in restore.runs]
        if mine:
            return next((restore for restore in reversed(mine) if restore.cut), mine[-1])
        known = ", ".join(restore.id for restore in restores if restore.cut) or "none"
        raise TargetError(f"No restore of that run on service {service}", which, f"known here: {known}")
    swapped = [restore for restore in restores if restore.cut]
    return swapped[-1] if swapped else None


def held_bytes(source: SourceState) -> int | None:
    """The disk that the displaced or set-aside data of a source takes; None when only its store can tell."""
    if "displaced_bytes" in source.facts:
        return int(source.facts["displaced_bytes"])
    path = source.facts.get("set_aside") if source.undo == "done" else source.record.get("displaced")
    if not isinstance(path, str) or not os.path.isabs(path) or not os.path.lexists(path):
        return None
    total = os.lstat(path).st_blocks * 512
    seen: set[tuple[int, int]] = set()
    for parent, directories, files in os.walk(path):
        for name in directories + files:
            try:
                info = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            if info.st_nlink > 1 and (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            total += info.st_blocks * 512
    return total
