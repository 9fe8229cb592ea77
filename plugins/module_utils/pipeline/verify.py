# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Verify stored snapshots at three depths: exists, hash, decode (through the very decoder that a restore uses)."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Iterable

from ..errors import ConfigError, DamageError, LifeboatError
from ..progress import Progress
from ..repository import escrow_record, journals, layout, ledgers, tombstone
from ..repository.backend import Backend, soundly
from ..repository.catalogs import read_catalog
from ..repository.datakeys import read_generation, read_key
from ..repository.holds import read as read_hold
from ..repository.index import read_index
from ..repository.manifest import StoredManifest
from ..repository.pack import read_footer
from ..repository.seal import object_digest
from ..repository.tree import StoredTree
from .history import mark_of
from .inspect import missing_tail, points, read_log_marks, read_marks
from .resolve import resolve_target
from .verify_log import LogVerifier

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore
    from ..spec import Spec

DEPTHS = ("exists", "hash", "decode")
_BUDGET = 256 << 20


class _Verifier:
    """Checks objects once, however many snapshots need them, and remembers which snapshots they hurt."""

    def __init__(self, store: ServiceStore, depth: str, progress: Progress) -> None:
        self.store = store
        self.depth = depth
        self.progress = progress
        self.packs: dict[str, tuple[int, str]] = {}
        self.needed_by: dict[str, list[str]] = {}
        self.keys: set[str] = set()
        self.trees: set[str] = set()
        #: Bytes that are read even at depth "exists": a small repository is always looked at whole.
        self.budget = _BUDGET
        self.lock = threading.Lock()
        self.findings: list[dict[str, Any]] = []
        self.objects = 0
        self.bytes = 0

    def find(self, error: LifeboatError, snapshots: Iterable[str], needed: bool) -> None:
        self.findings.append({"level": "error" if needed else "warning", "kind": error.kind, "snapshots": sorted(set(snapshots)), **error.as_dict()})

    def object(self, name: str, size: int, digest: str, what: str) -> DamageError | None:
        """Existence and size; content too from depth "hash" on, and at depth "exists" while the budget lasts."""
        try:
            soundly(self.store.backend, name, lambda: self._object(name, size, digest, what))
        except DamageError as error:
            return error
        return None

    def _object(self, name: str, size: int, digest: str, what: str) -> None:
        remedy = "restore from a point that does not need it, or put the object back from a copy of the repository"
        self.objects += 1
        try:
            have = self.store.backend.size(name)
        except FileNotFoundError:
            raise DamageError(f"{what} is missing", name, remedy) from None
        if have != size:
            raise DamageError(f"{what} has {have} bytes instead of {size}", name, remedy)
        if not digest or not self._afford(size):
            return
        self.bytes += size
        self.progress.add(size, 1)
        if object_digest(self.store.backend, name, size) != digest:
            raise DamageError(f"{what} is damaged: its hash is not the recorded one", name, remedy)

    def _afford(self, size: int) -> bool:
        if self.depth != "exists":
            return True
        with self.lock:
            self.budget -= size
            return self.budget >= 0

    def snapshot(self, manifest: StoredManifest) -> None:
        data = manifest.data
        tree = data["tree"]
        self.trees.add(tree["id"])
        error = self.object(layout.tree(self.store.service, tree["id"]), tree["size"], tree["digest"], "tree")
        if error is not None:
            self.find(error, [manifest.id], True)
        for key_id in data["keys"]:
            self.objects += 1
            self.keys.add(key_id)
            try:
                read_key(self.store.backend, self.store.service, key_id, manifest.id)
            except LifeboatError as problem:
                self.find(problem, [manifest.id], True)
        for pack, size, digest in data["packs"]:
            self.packs[pack] = (size, digest)
            self.needed_by.setdefault(pack, []).append(manifest.id)

    def check_packs(self, threads: ThreadPoolExecutor) -> None:
        def check(pack: str) -> None:
            size, digest = self.packs[pack]
            error = self.object(layout.pack(self.store.service, bytes.fromhex(pack)), size, digest, "pack")
            if error is not None:
                self.find(error, self.needed_by[pack], True)

        list(threads.map(check, sorted(self.packs)))

    def decode(self, manifest: StoredManifest, threads: ThreadPoolExecutor) -> None:
        """Open every chunk as a restore would."""
        try:
            reader = self.store.reader(manifest)
            reader.open_keys()
            for _entry in reader.entries():
                pass
        except LifeboatError as error:
            self.find(error, [manifest.id], True)
            return

        def check(number: int) -> LifeboatError | None:
            try:
                size = len(reader.chunk(number))
            except LifeboatError as error:
                return error
            self.progress.add(size)
            self.bytes += size
            return None

        count, step = reader.count(), 1024
        for start in range(0, count, step):
            for problem in threads.map(check, range(start, min(count, start + step))):
                if problem is not None:
                    self.find(problem, [manifest.id], True)

    def logs(self, spec: Spec, threads: ThreadPoolExecutor) -> None:
        """The logs of all sources: a target inside one needs every piece between it and its snapshot."""
        logs = LogVerifier(self.store, self.depth, self._afford, lambda error, needed: self.find(error, [], needed))
        logs.run(threads, read_log_marks(spec, self.store.repository.id))
        self.keys |= logs.keys
        self.objects += logs.objects
        self.bytes += logs.bytes

    def others(self, manifests: list[StoredManifest]) -> None:
        """Whatever the checked snapshots do not need. Damage there is a warning: it does not keep these from being restored."""
        service, backend = self.store.service, self.store.backend
        packs: dict[str, tuple[int, str, list[str]]] = {}
        for manifest in manifests:
            tree = manifest.data["tree"]
            self.trees.add(tree["id"])
            self._other(layout.tree(service, tree["id"]), tree["size"], tree["digest"], "tree", [manifest.id])
            self._other_keys(manifest)
            for pack, size, digest in manifest.data["packs"]:
                packs.setdefault(pack, (size, digest, []))[2].append(manifest.id)
        for pack, (size, digest, snapshots) in sorted(packs.items()):
            if pack not in self.packs:
                self._other(layout.pack(service, bytes.fromhex(pack)), size, digest, "pack", snapshots)
        self._orphans(set(packs) | set(self.packs), service, backend)

    def _other(self, name: str, size: int, digest: str, what: str, snapshots: list[str]) -> None:
        error = self.object(name, size, digest, what)
        if error is not None:
            self.find(error, snapshots, False)

    def _other_keys(self, manifest: StoredManifest) -> None:
        for key_id in manifest.data["keys"]:
            if key_id not in self.keys:
                try:
                    read_key(self.store.backend, self.store.service, key_id, manifest.id)
                except LifeboatError as error:
                    self.find(error, [manifest.id], False)
                self.keys.add(key_id)

    def _orphans(self, packs: set[str], service: str, backend: Backend) -> None:
        """Indexes, catalogs, and what unfinished captures left."""
        def look(prefix: str, check: Callable[[str, int], object]) -> None:
            for name, size in backend.list(prefix):
                self.objects += 1
                try:
                    check(name, size)
                except LifeboatError as error:
                    self.find(error, [], False)
                except FileNotFoundError:
                    continue

        def pack(name: str, size: int) -> None:
            if _stem(name) not in packs:
                read_footer(backend, service, name, size, self.store.index_key)

        def key(name: str, _size: int) -> None:
            # the newest generation of a key that something needs was looked at where it is needed
            key_id, generation = _generation(name, "data key")
            if key_id not in self.keys or generation < newest[key_id]:
                read_generation(backend, service, key_id, generation, "(none)")

        def record(name: str, _size: int) -> None:
            escrow_record.check(backend, self.store.provider, self.store.repository.id, service, *_generation(name, "escrow record"))

        def tree(name: str, size: int) -> None:
            if _stem(name) not in self.trees:
                found = {"id": _stem(name), "size": size}
                for _entry in StoredTree(backend, service, self.store.index_key, "(none)", found).entries():
                    pass

        newest: dict[str, int] = {}
        for name, _size in backend.list(layout.keys(service)):
            with contextlib.suppress(ValueError):
                key_id, generation = layout.generation_of(name)
                newest[key_id] = max(generation, newest.get(key_id, 0))
        look(layout.escrows(service), record)
        try:
            tombstone.read(backend, self.store.provider, self.store.repository.id, service)
        except DamageError as error:
            self.find(error, [], False)
        look(layout.indexes(service), lambda name, _size: read_index(backend, service, self.store.index_key, name))
        look(layout.packs(service), pack)
        look(layout.keys(service), key)
        look(layout.trees(service), tree)
        look(layout.holds(service), lambda name, _size: read_hold(backend, self.store.provider, self.store.repository.id, name))
        look(layout.catalogs(service), lambda name, _size: read_catalog(backend, self.store.provider, name))

    def history(self, spec: Spec) -> None:
        """The copies of the hosts' ledgers, and the runs' journals. Nothing is restored from them, so what is wrong there is a warning."""
        problems: list[DamageError] = []
        repository = self.store.repository.id
        for _segment in ledgers.segments(self.store.backend, self.store.provider, repository, self.store.service, problems, mark_of(spec, repository)):
            self.objects += 1
        for name, _size in self.store.backend.list(layout.journals(self.store.service)):
            self.objects += 1
            try:
                journals.read(self.store.backend, self.store.provider, name)
            except DamageError as error:
                problems.append(error)
        for problem in problems:
            self.find(problem, [], False)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[1].split(".")[0]


def _generation(name: str, what: str) -> tuple[str, int]:
    try:
        return layout.generation_of(name)
    except ValueError as error:
        raise DamageError(f"{what} has a name that none has", name, "look at who put it there; it is not used") from error


def _name_older(backend: Backend, spec: Spec, findings: list[dict[str, Any]]) -> None:
    """Say of what was deleted or overwritten in a bucket that an older version of it is still there."""
    damaged = [finding for finding in findings if finding["code"] == DamageError.code]
    older = backend.older() if damaged else None
    for finding in damaged if older is not None else ():
        name = str(finding["where"]).rpartition("object ")[2].split(" at byte ")[0]
        try:
            if older is not None and older.size(name):
                finding["remedy"] = ("the bucket keeps an older version of it, which a restore uses; bring it back: "
                                     f"lifeboat copy {spec.service} --repair --to {spec.repository.get('name')}")
        except (FileNotFoundError, LifeboatError):
            continue


def verify_service(
    spec: Spec, target: str = "all", depth: str = "decode", progress: Progress | None = None, store: ServiceStore | None = None,
) -> dict[str, Any]:
    """Check the stored snapshots of a service. target: all | what resolve_target takes. store: of a restore, which may read from copies.

    Returns {"ok": no error-level finding, "findings": [{"level", "snapshots", what, where, remedy}], "depth", "mark": bool,
    "checked": {"snapshots", "objects", "bytes"}}. Depth "decode" needs the restore keys.
    """
    if depth not in DEPTHS:
        raise ConfigError(f"unknown depth {depth!r}", f"verify of {spec.service}", f"use one of: {', '.join(DEPTHS)}")
    progress = progress or Progress(spec.service, "verify")
    checked = {"snapshots": 0, "objects": 0, "bytes": 0}
    if not spec.source_names:
        return {"ok": True, "findings": [], "depth": depth, "mark": True, "checked": checked}
    store = store or spec.store()
    verifier = _Verifier(store, depth, progress)
    chains = store.chains()
    marks = read_marks(spec, store.repository.id)
    for problem in [p for chain in chains for p in chain.problems] + missing_tail(chains, marks):
        verifier.find(problem, [], True)
    if target == "all":
        wanted = [manifest for chain in chains for manifest in chain.manifests]
        for point in points(chains, spec.service):
            if not point.complete:
                verifier.find(DamageError(f"point {point.id} is torn, it lacks {', '.join(point.missing)}", f"service {spec.service}",
                                          "choose another point"), [m.id for m in point.snapshots.values()], False)
    else:
        point, _problems = resolve_target(spec, store, target)
        wanted = list(point.snapshots.values())
    for manifest in wanted:
        verifier.snapshot(manifest)
    progress.expect(sum(size for size, _digest in verifier.packs.values()) if depth != "exists" else 0)
    with ThreadPoolExecutor(store.workers, thread_name_prefix="verify") as threads:
        verifier.check_packs(threads)
        if depth == "decode":
            for manifest in wanted:
                verifier.decode(manifest, threads)
        verifier.logs(spec, threads)
    chosen = {manifest.id for manifest in wanted}
    verifier.others([manifest for chain in chains for manifest in chain.manifests if manifest.id not in chosen])
    verifier.history(spec)
    checked.update(snapshots=len(wanted), objects=verifier.objects, bytes=verifier.bytes)
    _name_older(store.backend, spec, verifier.findings)
    findings = sorted(verifier.findings, key=lambda f: (f["level"], f["where"], f["what"]))
    return {"ok": not any(f["level"] == "error" for f in findings), "findings": findings, "depth": depth, "mark": marks is not None,
            "checked": checked}
