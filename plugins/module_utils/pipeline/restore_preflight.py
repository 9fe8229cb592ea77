# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Preflight of a restore: everything that would keep it from working, all at once. Changes nothing anywhere."""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import Any
from urllib.parse import urlsplit

from .. import checks, lease
from ..errors import ConflictError, LifeboatError, StorageError, TargetError
from .inspect import Point
from .restore_job import Job
from .restore_stage import check_point, choose, data_current
from .restore_state import Restore
from .verify import verify_service

_SEQUENCE = re.compile(r"/([^/]+)/(\d+)\.json$")


def look(job: Job, target: str, depth: str, force: bool) -> dict[str, Any]:
    """{"ok", "findings", "warnings", "point", "resumes": restore id or None, "data_current", "changed": prediction}.

    A finding is {"level": "error"|"warning", "source": name or None, code, what, where, remedy}.
    """
    findings: list[dict[str, Any]] = []

    def find(error: LifeboatError, source: str | None = None, level: str = "error") -> None:
        findings.append({"level": level, "source": source, **error.as_dict()})

    _check_host(job, find)
    _check_ports(job, find)
    told: dict[str, Any] = {"point": None, "resumes": None, "data_current": False, "changed": True, "findings": findings, "warnings": []}
    if not job.spec.source_names:
        told.update(data_current=True, changed=False)
    else:
        try:
            restore, point, told["warnings"], problems = choose(job, target, force)
            told["point"], told["resumes"] = point.as_dict(), restore.id if restore else None
            # a plan may have resolved ``latest`` already; what was asked for stands in the run
            latest = restore is None and (job.run.get("target") or target) == "latest"
            for problem in problems:
                if latest and _newer(problem, point):
                    find(TargetError(
                        f"the latest point cannot be told: {problem.what}", problem.where,
                        f"find out what removed or damaged it; to accept point {point.id} instead, ask for it by this name",
                    ))
                else:
                    find(problem, None, "warning")
            check_point(job, point)
            _check_snapshots(job, point, depth, findings)
            _check_sources(job, restore, point, find)
            told.update(_predict(job, restore, point, force))
        except LifeboatError as error:
            find(error)
    findings += [{"level": "warning", "source": None, **_short(one)} for one in job.fallbacks()]
    told["findings"] = _unique(findings)
    told["ok"] = not any(finding["level"] == "error" for finding in findings)
    return told


def _short(warning: dict[str, Any]) -> dict[str, Any]:
    return {key: warning[key] for key in ("code", "what", "where", "remedy")}


def _check_host(job: Job, find: Any) -> None:
    spec = job.spec
    try:
        held = lease.read(spec)
        if held is not None and held["alive"] and held.get("run") not in (job.run["id"], *(job.run.get("gone") or ())):
            find(ConflictError(f"Service {spec.service} is in use", lease.describe(held), "wait for it to end, or ask its operator"))
        job.ledger.verify()
    except LifeboatError as error:
        find(error)
    path = spec.service_dir
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    if not os.access(path, os.W_OK | os.X_OK):
        find(StorageError("the state directory cannot be written", path, "fix its permissions, or set state_dir in the catalog"))


def _check_ports(job: Job, find: Any) -> None:
    """A service that is down cannot start where somebody else listens: better known before its data is switched.

    A tcp probe names the service's own port. An http probe may go through a proxy that rightly listens, so it is only a warning.
    """
    own, asked = [], []
    for probe in job.spec.entry.get("health") or []:
        if "tcp" in probe:
            own.append(str(probe["tcp"]))
        elif "http" in probe:
            url = urlsplit(str(probe["http"]))
            asked.append(url.netloc.rpartition("@")[2] if ":" in url.netloc else f"{url.netloc}:{443 if url.scheme == 'https' else 80}")
    taken = [place for place in dict.fromkeys([*own, *asked]) if _taken(place)]
    if not taken or not checks.is_down(job.spec):
        return
    for place in taken:
        remedy = "find it with `ss -ltnp` and end it, or correct the port in the catalog"
        if place in own:
            find(ConflictError("port in use: the service is down and something else listens on its port", place, remedy))
        else:
            find(ConflictError("something listens where the service is asked for its health, although it is down", place, remedy), None, "warning")


def _taken(place: str) -> bool:
    """Whether somebody listens on an address of this machine; False for an address that is not ours."""
    host, _colon, port = place.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return False  # the health check will say what is wrong with it
    for family, kind, protocol, _name, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def _newer(problem: LifeboatError, point: Point) -> bool:
    """Is this about a manifest newer than the point's? Then ``latest`` would silently mean an older state than it should."""
    place = _SEQUENCE.search(problem.where)
    if place is None:
        return False
    manifest = point.snapshots.get(place.group(1))
    return manifest is not None and int(place.group(2)) > int(manifest.data["sequence"])


def _check_snapshots(job: Job, point: Point, depth: str, findings: list[dict[str, Any]]) -> None:
    """Objects exist in the right size (or deeper), the tree reads, the data keys open."""
    mine = {manifest.id: name for name, manifest in point.snapshots.items()}
    for finding in verify_service(job.spec, point.id, depth, job.progress, job.store)["findings"]:
        hurt = [mine[snapshot] for snapshot in finding["snapshots"] if snapshot in mine]
        error = {key: finding[key] for key in ("code", "what", "where", "remedy")}
        if hurt:
            error["where"] = f"{error['where']}, needed by snapshot {', '.join(s for s in finding['snapshots'] if s in mine)}"
        findings.append({"level": finding["level"] if hurt else "warning", "source": hurt[0] if hurt else None, **error})

    def read(name: str) -> None:
        reader = job.store.reader(point.snapshots[name])
        reader.open_keys()
        for _entry in reader.entries():
            pass

    for name in point.snapshots:
        try:
            read(name)
        except LifeboatError as error:
            findings.append({"level": "error", "source": name, **error.as_dict()})


def _check_sources(job: Job, restore: Restore | None, point: Point, find: Any) -> None:
    """What each source itself has to say, unless its copy is staged or live already."""
    def ask(name: str) -> None:
        done = restore.sources[name] if restore else None
        try:
            source, context = job.source(name)
            if done is not None and (done.cutover or done.stage in ("verified", "current")):
                return
            for finding in source.preflight_restore(context, point.snapshots[name].data):
                find(finding.error, name, finding.level)
        except LifeboatError as error:
            find(error, name)

    job.parallel(point.snapshots, ask)


def _predict(job: Job, restore: Restore | None, point: Point, force: bool) -> dict[str, Any]:
    if restore is not None:
        rest = [source for source in restore.sources.values() if source.cutover != "done"]
        current = bool(rest) and all(source.stage == "current" for source in rest) and not force and data_current(job, point)
        return {"data_current": current, "changed": bool(rest) and not current}
    current = not force and data_current(job, point)
    return {"data_current": current, "changed": not current}


def _unique(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors first; what two checks found alike is told once."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for finding in sorted(findings, key=lambda finding: (finding["level"] != "error", finding["source"] or "")):
        key = (finding["what"], finding["where"].split(", needed by")[0])
        if key not in seen:
            seen.add(key)
            kept.append(finding)
    return kept
