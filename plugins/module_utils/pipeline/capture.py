# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Capture one service: all its sources at once, one point, manifests last."""

from __future__ import annotations

import datetime
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .. import faults, identity, redact, state
from ..errors import LifeboatError, SourceError
from ..ledger import Ledger
from ..progress import Progress
from ..repository import layout
from ..repository.catalogs import store_catalog
from ..repository.manifest import Chain, StoredManifest
from ..repository.session import CaptureSession
from ..sources.contract import Captured, Context, Source, Writer
from . import controls
from .inspect import missing_tail, read_marks, summary
from .taken import taken

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore
    from ..spec import Spec


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def default_workers() -> int:
    """Threads of one capture or restore."""
    return max(2, min(8, os.cpu_count() or 2))


def preflight_capture(spec: Spec) -> list[dict[str, str]]:
    """Everything that would keep a capture from working, all at once, changing nothing."""
    findings: list[dict[str, str]] = []
    try:
        store = spec.store()
        digest_key = store.chunk_key
    except LifeboatError as error:
        findings.append({"level": "error", **error.as_dict()})
        digest_key = bytes(32)
    progress = Progress(spec.service, "preflight")
    for name in spec.source_names:
        try:
            source, config = spec.source(name)
            context = spec.context(name, config, progress, digest_key)
            findings += [{**finding.as_dict(), "source": name} for finding in source.preflight_capture(context)]
        except LifeboatError as error:
            findings.append({"level": "error", "source": name, **error.as_dict()})
    return findings


def capture_service(spec: Spec, run: dict[str, Any], mode: str = "auto", progress: Progress | None = None) -> dict[str, Any]:
    """Take one snapshot of every source of a service under the point id run["id"].

    mode: auto (incremental where a readable parent exists), incremental (the same), full (re-read everything; still
    stores no content twice). Returns {"changed", "snapshots": [Summary], "warnings": [error dicts], "controls": as observed(), "ledger": [entries]}.
    When one source fails nothing is published: a point is whole or absent. The same run again is a no-op.
    """
    progress = progress or Progress(spec.service, "capture")
    ledger = Ledger.for_spec(spec)
    if not spec.source_names:
        return {"changed": False, "snapshots": [], "warnings": [], "ledger": ledger.appended}
    store = spec.store(default_workers())
    chains = {chain.source: chain for chain in store.chains()}
    mine = {name: _of_point(chains.get(name), run["id"]) for name in spec.source_names}
    if all(mine.values()):
        return {"changed": False, "snapshots": [summary(manifest) for manifest in mine.values() if manifest], "warnings": [],
                "controls": controls.observed(store, [manifest for manifest in mine.values() if manifest]), "ledger": ledger.appended}
    warnings = [problem for chain in chains.values() for problem in chain.problems]
    marks = read_marks(spec, store.repository.id)
    warnings += missing_tail(list(chains.values()), marks)
    ledger.append(run, "capture", "capture.begin", {"sources": spec.source_names, "mode": mode, "repository": store.repository.id})
    faults.point("capture.begin")
    try:
        _refuse(spec, store, progress)
    except LifeboatError as error:
        ledger.append(run, "capture", "capture.failed", error.as_dict())
        raise
    session = CaptureSession(store, spec.path("cache"), progress)
    warnings += session.damaged
    try:
        published = _capture(spec, run, mode, store, session, chains, marks, progress, ledger)
    except BaseException as error:
        session.abort()
        if isinstance(error, LifeboatError):
            ledger.append(run, "capture", "capture.failed", error.as_dict())
        raise
    session.close()
    _write_marks(spec, store.repository.id, published)
    found = controls.observed(store, published)
    ledger.append(run, "capture", "capture.end", {"snapshots": {m.data["source"]: m.id for m in published},
                                                  "digests": {m.data["source"]: m.digest for m in published}, "controls": found})
    faults.point("capture.end")
    return {"changed": True, "snapshots": [summary(manifest) for manifest in published],
            "warnings": [problem.as_dict() for problem in warnings], "controls": found, "ledger": ledger.appended}


def _refuse(spec: Spec, store: ServiceStore, progress: Progress) -> None:
    """Raise what keeps a source from being captured before anything is written into the repository."""
    for name, (source, config) in spec.sources().items():
        for finding in source.preflight_capture(spec.context(name, config, progress, store.chunk_key)):
            if finding.level == "error":
                raise finding.error


def _of_point(chain: Chain | None, point: str) -> StoredManifest | None:
    found = [manifest for manifest in (chain.manifests if chain else []) if manifest.data["point"].get("id") == point]
    return found[-1] if found else None


def _capture(
    spec: Spec, run: dict[str, Any], mode: str, store: ServiceStore, session: CaptureSession, chains: dict[str, Chain],
    marks: dict[str, dict[str, Any]] | None, progress: Progress, ledger: Ledger,
) -> list[StoredManifest]:
    document = spec.catalog_document() or redact.without_secrets({"service": spec.service, "entry": spec.entry})
    catalog = store_catalog(store.backend, store.provider, spec.service, document)
    sources = spec.sources()
    parents = {name: chains[name].manifests[-1] if mode != "full" and name in chains and chains[name].manifests else None for name in sources}
    writers = {name: session.writer(parents[name], int(config.get("compression") or source.compression)) for name, (source, config) in sources.items()}

    def capture(name: str) -> tuple[Captured, str, str, float]:
        source, config = sources[name]
        context = spec.context(name, config, progress, store.chunk_key, store.workers)
        spec.prepare_work_dir(name)
        started, begin = _now(), time.monotonic()
        captured = _run_source(source, context, writers[name])
        faults.point("capture.source.done")
        return captured, started, _now(), time.monotonic() - begin

    with ThreadPoolExecutor(max(1, len(sources)), thread_name_prefix="capture") as threads:
        futures = {name: threads.submit(capture, name) for name in sources}
        results = {}
        failures = []
        for name, future in futures.items():
            try:
                results[name] = future.result()
            except LifeboatError as error:
                failures.append((name, error))
    if failures:
        raise failures[0][1]
    parts = session.seal()
    published = []
    for (name, writer), part in zip(writers.items(), parts):
        captured, started, finished, seconds = results[name]
        parent = parents[name]
        chain = chains.get(name)
        newest = (chain.manifests[-1].data["sequence"], chain.manifests[-1].digest) if chain and chain.manifests else (0, None)
        mark = (marks or {}).get(name)
        if mark and int(mark["sequence"]) > newest[0]:
            newest = (int(mark["sequence"]), str(mark["digest"]))
        source, config = sources[name]
        manifest = {
            "format": layout.FORMAT, "kind": "snapshot", "repository": store.repository.id, "service": spec.service, "source": name,
            "type": str(config["type"]), "point": {"id": run["id"], "sources": sorted(sources)}, "started": started, "finished": finished,
            "mode": "incremental" if parent else "full", "parent": parent.id if parent else None, **part,
            "digest": captured.digest, "proof": captured.proof, "facts": captured.facts, "catalog": catalog,
            "taken": taken(spec.catalog, _live(spec, name, captured, progress, store)),
            "bytes": {"source": captured.facts.get("bytes", writer.bytes_source), "read": writer.bytes_source, "stored": writer.bytes_stored,
                      "chunks_new": writer.chunks_new, "chunks_reused": writer.chunks_reused, "seconds": round(seconds, 3)},
        }
        published.append(session.publish(manifest, newest))
    return published


def _live(spec: Spec, name: str, captured: Captured, progress: Progress, store: ServiceStore) -> str:
    """The captured data in one word (Footprint.live); "" where the source has none."""
    source, config = spec.source(name)
    try:
        footprint = source.footprint(spec.context(name, config, progress, store.chunk_key), {"facts": captured.facts})
    except LifeboatError:
        return ""
    return footprint.live if footprint else ""


def _run_source(source: Source, context: Context, writer: Writer) -> Captured:
    try:
        return source.capture(context, writer)
    except OSError as error:
        raise SourceError(f"cannot read ({error.strerror})", f"{context.service}.{context.source}: {error.filename or ''}",
                          "check permissions and the disk, then run the same command again") from error


def _write_marks(spec: Spec, repository_id: str, published: list[StoredManifest]) -> None:
    marks = state.read_json(spec.path("marks.json")) or {}
    mine = marks.setdefault(repository_id, {})
    for manifest in published:
        mine[manifest.data["source"]] = {
            "sequence": manifest.data["sequence"], "digest": manifest.digest, "name": manifest.name, "host": identity.host_id(),
        }
    state.write_json(spec.path("marks.json"), marks, "mark")
