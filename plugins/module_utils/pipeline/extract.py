# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A part of a snapshot, moved into the live store under a new name while the service runs on. Its only memory is the ledger:

 extract.intent (the record: every name) -> extract.staged -> extract.loaded -> extract.verified (the digest) -> extract.done,
 or extract.undone. What an earlier, killed call left is found by an intent without an end, and removed first.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import faults
from ..errors import ConfigError, ConflictError, LifeboatError, TargetError
from ..progress import Progress
from ..sources.contract import Extraction, Wanted
from .capture import default_workers
from .escrowed import escrow_used
from .inspect import Point, log_ranges
from .restore_job import Job
from .restore_state import short_digest
from .targets import parse_time
from .verify import verify_service

if TYPE_CHECKING:
    from ..spec import Spec


@dataclass(frozen=True)
class Request:
    """What is asked for. source and name may be empty: the only source that can, and ``<database>_<target>``."""

    target: str
    database: str
    tables: tuple[str, ...] = ()
    source: str = ""
    name: str = ""


def suffix(point: Point, source: str, end: str) -> str:
    """What tells a target in a name: a time, a position, a transaction or a word; lower case letters, digits and _.

    end: until when the log was captured, for a target at its end.
    """
    position = point.positions.get(source)
    if position is None or position.kind == "immediate":
        text = _stamp(point.time)
    elif position.kind in ("time", "latest"):
        text = _stamp(position.value or end)
    else:
        text = f"{'at' if position.kind == 'name' else position.kind}_{position.value.lower()}"
    text = re.sub(r"[^a-z0-9]+", "_", text).strip("_")[:40]
    return f"{text}_t{position.timeline}" if position is not None and position.timeline else text


def _stamp(time: str) -> str:
    return parse_time(time).astimezone(datetime.timezone.utc).strftime("%Y%m%dt%H%M%Sz")


#: What an extraction tells of its result; the ledger keeps it with the end of the run.
_TOLD = ("digest", "extracted", "of", "rows", "left_out", "roles_missing", "bytes", "reached", "sequences", "large_objects")
#: A ledger entry holds no more tables, and no more lines about what was left out.
_LISTED = 200


def _kept(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as a ledger entry holds them: "tables" is what was asked for there."""
    kept = dict(facts)
    if "tables" in kept:
        kept["tables_done"] = kept.pop("tables")[:_LISTED]
    if "left_out" in kept:
        kept["left_out"] = kept["left_out"][:_LISTED]
    return kept


def extract_service(spec: Spec, run: dict[str, Any], request: Request, progress: Progress | None = None) -> dict[str, Any]:
    """Extract, under the lease of the caller. {"changed", "kind", "name", "point", "tables", "left_out", "sources", ...}.

    changed is False when what has the new name is what would be extracted. Raises ConflictError when the name is taken by anything
    else, before anything is built; on any failure what was built is removed again.
    """
    work = _Work(spec, run, request, "extract", progress)
    work.remove_leftovers()
    work.resolve()
    taken = work.taken()
    if taken is not None:
        return work.result(False, taken)
    errors = [finding for finding in work.findings() if finding["level"] == "error"]
    if errors:
        raise _as_error(errors)
    return work.result(True, work.extract())


def preview(spec: Spec, run: dict[str, Any], request: Request) -> dict[str, Any]:
    """What extract_service would do, changing nothing: the same names, "findings" and "leftovers" (what it would remove first)."""
    work = _Work(spec, run, request, "preflight", None)
    findings: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    changed = True
    try:
        work.resolve()
        told = work.about()
        changed = work.taken() is None
        findings = work.findings() if changed else []
    except LifeboatError as error:
        findings.append({"level": "error", "source": work.name or None, **error.as_dict()})
    left = [str(data["record"]["working"]) for data in work.unfinished()]
    ok = not any(finding["level"] == "error" for finding in findings)
    return {**told, "changed": changed, "findings": findings, "ok": ok, "leftovers": left, "warnings": work.warnings}


def _as_error(findings: list[dict[str, Any]]) -> LifeboatError:
    first = findings[0]
    others = "".join(f"; also: {finding['what']}: {finding['where']}" for finding in findings[1:])
    error = LifeboatError(str(first["what"]), str(first["where"]), str(first["remedy"]) + others, str(first.get("reason", "")))
    error.code = str(first["code"])
    return error


class _Work:
    """One call. resolve() first, but for what needs the ledger alone."""

    def __init__(self, spec: Spec, run: dict[str, Any], request: Request, phase: str, progress: Progress | None) -> None:
        self.job = Job(spec, run, phase, progress)
        self.job.workers = default_workers()  # one source is worked on
        self.request = request
        self.name = request.source
        self.warnings: list[str] = []
        self.id = str(run["id"])
        self.point: Point
        self.extraction: Extraction
        self.manifest: dict[str, Any]
        self.record: dict[str, Any]
        self._end = ""

    def resolve(self) -> None:
        """What target, source and names mean. Raises ConfigError or TargetError."""
        self.name = self._choose()
        point, problems = self.job.point(self.request.target)
        self.warnings = [str(problem) for problem in problems]
        if self.name not in point.snapshots:
            raise TargetError(f"the point has no snapshot of {self.name}", f"point {point.id} of {self.job.spec.service}", "choose another point")
        self.point, self.manifest = point, point.snapshots[self.name].data
        self.extraction = self._extraction(self.name, point)
        covered = log_ranges(self.job.spec, self.job.store, point).get(self.name)
        position = point.positions.get(self.name)
        if position is not None and position.kind == "latest" and covered is not None:
            self._end = f"{covered.timeline}/{covered.end}"
        ending = suffix(point, self.name, covered.until if covered else point.time)
        wanted = Wanted(self.request.database, self.request.tables, self.request.name, ending)
        taken = sum(1 for entry in self.job.ledger.entries(self.id) if entry["event"] == "extract.intent")
        digest = hashlib.sha256(f"{self.id}/{taken}".encode()).hexdigest()[:8]
        stamp = re.match(r"(\d{8})T(\d{6})", self.id)
        self.record = self.extraction.plan(self.manifest, wanted, f"{stamp.group(1)}_{stamp.group(2)}_{digest}" if stamp else digest)

    def _choose(self) -> str:
        spec, asked = self.job.spec, self.request.source
        able = [name for name in spec.source_names if self._able(name)] if not asked else [asked]
        if asked and not self._able(asked):
            raise ConfigError(f"source {asked} is restored as a whole only", f"service {spec.service}", "extract from a source of type postgresql")
        if len(able) != 1:
            raise ConfigError(f"{len(able) or 'no'} sources of which a part can be extracted", f"service {spec.service}",
                              f"name one of them: {', '.join(able)}" if able else "this needs a source of type postgresql")
        return able[0]

    def _able(self, name: str) -> bool:
        source, context = self.job.source(name, digests=False)
        return source.extraction(context) is not None

    def _extraction(self, name: str, point: Point | None = None) -> Extraction:
        source, context = self.job.source(name)
        position = point.positions.get(name) if point else None
        context.target = position.as_dict() if position else None
        found = source.extraction(context)
        if found is None:
            raise ConfigError(f"source {name} is restored as a whole only", f"service {self.job.spec.service}", "restore it instead")
        return found

    # -- what the ledger knows

    def unfinished(self) -> list[dict[str, Any]]:
        """Intents without an end, oldest first; those that came so far hold as "verified" what was found then."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.job.ledger.entries():
            data = entry["data"]
            if entry["event"] == "extract.intent":
                found[str(data["record"]["stage_id"])] = dict(data)
            elif entry["event"] == "extract.verified" and data["stage_id"] in found:
                found[data["stage_id"]]["verified"] = {key: data[key] for key in (*_TOLD, "tables_done") if key in data}
            elif entry["event"] in ("extract.done", "extract.undone"):
                found.pop(data["stage_id"], None)
        return list(found.values())

    def remove_leftovers(self) -> None:
        """Of calls that were killed: a result that has its name already is finished, anything else is removed."""
        for data in self.unfinished():
            record = data["record"]
            if data["source"] not in self.job.spec.source_names:
                self.warnings.append(f"what a killed extraction of {data['source']} left cannot be removed: the catalog no longer declares this source")
                continue
            self.job.progress.say("removing what a killed extraction left")
            self.job.spec.prepare_work_dir(str(data["source"]))
            extraction = self._extraction(str(data["source"]))
            published = bool(data.get("verified")) and extraction.published(record)
            extraction.clean(record)
            if published:
                self._log("done", record, **self._asked(data), **data["verified"])
            else:
                self._log("undone", record, reason="it was killed")

    @staticmethod
    def _asked(data: dict[str, Any]) -> dict[str, Any]:
        return {key: data[key] for key in ("source", "snapshot", "point", "end")}

    def _log(self, event: str, names: dict[str, Any], **data: Any) -> None:
        about = {"stage_id": names["stage_id"], **{key: names[key] for key in ("kind", "name", "database", "tables")}}
        self.job.ledger.append(self.job.run, self.job.phase, f"extract.{event}", {**about, **data})

    def taken(self) -> dict[str, Any] | None:
        """What is there under the new name already, when it is what is asked for; None when nothing is. Raises ConflictError."""
        drop = self.extraction.present(self.record)
        if not drop:
            return None
        asked = {**self.about_target(), **{key: self.record[key] for key in ("kind", "name", "database", "tables")}}
        last = None
        for entry in self.job.ledger.entries():
            if entry["event"] == "extract.done" and all(entry["data"].get(key) == asked[key] for key in ("source", "kind", "name", "database")):
                last = entry["data"]
        if last is not None and all(last.get(key) == value for key, value in asked.items()):
            if self.extraction.digest(self.record) == last["digest"]:
                return dict(last)
            why = "it was extracted from this target and was written to since"
        else:
            why = "it was not made by an extraction of this service" if last is None else f"it was extracted from {last['point']}" + (
                ", when the log ended earlier" if last["end"] != self._end else "")
        raise ConflictError(f"{self.record['kind']} {self.record['name']!r} exists already", f"{self.job.spec.service}.{self.name} ({why})",
                            "nothing was touched; choose another name" + (f", or drop it: {drop}" if last is not None else ""))

    # -- acting

    def about_target(self) -> dict[str, Any]:
        return {"source": self.name, "snapshot": self.point.snapshots[self.name].id, "point": self.point.id, "end": self._end}

    def about(self) -> dict[str, Any]:
        """The names and the target, for people and programs."""
        about = {key: self.record[key] for key in ("kind", "name", "database")}
        return {**about, "source": self.name, "snapshot": self.point.snapshots[self.name].id, "point": self.point.as_dict(),
                "wanted": [".".join(table) for table in self.record["tables"]]}

    def findings(self) -> list[dict[str, Any]]:
        """Objects of the snapshot that are missing, and what the source has to say."""
        mine = self.point.snapshots[self.name].id
        found = [{**finding, "source": self.name} for finding in verify_service(self.job.spec, mine, "exists", self.job.progress)["findings"]
                 if mine in finding["snapshots"]]
        try:
            self.job.store.reader(self.point.snapshots[self.name]).open_keys()
        except LifeboatError as error:
            found.append({"level": "error", "source": self.name, **error.as_dict()})
        return found + [{**finding.as_dict(), "source": self.name} for finding in self.extraction.preflight(self.manifest, self.record)]

    def extract(self) -> dict[str, Any]:
        """Do it; on failure remove what was built and tell the first error."""
        record = self.record
        self.job.spec.prepare_work_dir(self.name)
        self.warnings += escrow_used(self.job.spec, self.job.store, self.job.ledger, self.job.run)
        self._log("intent", record, **{"record": record, **self.about_target()})
        faults.point("extract.begin")
        try:
            told = self.extraction.extract(self.job.reader(self.point, self.name), record, lambda step, **facts: self._log(step, record, **_kept(facts)))
            self.extraction.clean(record)
        except (LifeboatError, OSError) as error:
            try:
                self.extraction.clean(record)
                if not self.extraction.published(record):  # else the next call writes down that it is done
                    self._log("undone", record, reason=str(error)[:1000])
            except (LifeboatError, OSError) as second:
                self.warnings.append(str(second))  # the intent stays open: the next call removes what is left
            raise
        self._log("done", record, **self.about_target(), **_kept(told))
        faults.point("extract.done")
        return told

    def result(self, changed: bool, told: dict[str, Any]) -> dict[str, Any]:
        """What is told of an extraction that was done, now or before."""
        known = {key: told.get(key) for key in _TOLD}
        tables = told.get("tables") if changed else told.get("tables_done")
        where = f"{self.record['kind']} {self.record['name']}" + ("" if self.record["kind"] == "database" else f" of database {self.record['database']}")
        counted = f"extracted {known['extracted']} of {known['of']} tables, {known['rows']} rows"
        digest = {"algorithm": "keyed rows", "value": known["digest"]}
        return {
            **self.about(), **known, "changed": changed, "noop": not changed, "tables": tables or [], "proof": "content", "findings": [],
            "left_out": known["left_out"] or [], "roles_missing": known["roles_missing"] or [],
            "message": f"{counted}, as {where}" + ("" if changed else "; it was there already and is equal"),
            "sources": {self.name: {
                "state": "extracted", "snapshot": self.point.snapshots[self.name].id, "type": self.manifest["type"], "proof": "content", "equal": True,
                "captured": short_digest(digest), "found": short_digest(digest), "bytes": known["bytes"],
            }},
            "warnings": self.warnings, "ledger": self.job.ledger.appended,
        }
