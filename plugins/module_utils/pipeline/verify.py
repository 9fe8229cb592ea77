# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Verify stored snapshots at three depths: exists, hash, decode (through the very decoder that a restore uses)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Iterable

from ..errors import ConfigError, DamageError, LifeboatError
from ..progress import Progress
from ..repository import layout
from ..repository.datakeys import read_key
from ..repository.index import read_index
from ..repository.manifest import StoredManifest
from ..repository.pack import read_footer
from ..repository.seal import object_digest
from .inspect import missing_tail, points, read_marks, resolve_target

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore
    from ..spec import Spec

DEPTHS = ("exists", "hash", "decode")


class _Verifier:
    """Checks objects once, however many snapshots need them, and remembers which snapshots they hurt."""

    def __init__(self, store: ServiceStore, depth: str, progress: Progress) -> None:
        self.store = store
        self.depth = depth
        self.progress = progress
        self.packs: dict[str, tuple[int, str]] = {}
        self.needed_by: dict[str, list[str]] = {}
        self.findings: list[dict[str, Any]] = []
        self.objects = 0
        self.bytes = 0

    def find(self, error: LifeboatError, snapshots: Iterable[str], needed: bool) -> None:
        self.findings.append({"level": "error" if needed else "warning", "snapshots": sorted(set(snapshots)), **error.as_dict()})

    def object(self, name: str, size: int, digest: str, what: str) -> DamageError | None:
        """Existence and size; from depth "hash" on also the content of the object as it was written."""
        remedy = "restore from a point that does not need it, or put the object back from a copy of the repository"
        self.objects += 1
        try:
            have = self.store.backend.size(name)
        except FileNotFoundError:
            return DamageError(f"{what} is missing", name, remedy)
        if have != size:
            return DamageError(f"{what} has {have} bytes instead of {size}", name, remedy)
        if self.depth == "exists" or not digest:
            return None
        self.bytes += size
        self.progress.add(size, 1)
        if object_digest(self.store.backend, name, size) != digest:
            return DamageError(f"{what} is damaged: its hash is not the recorded one", name, remedy)
        return None

    def snapshot(self, manifest: StoredManifest) -> None:
        data = manifest.data
        tree = data["tree"]
        error = self.object(layout.tree(self.store.service, tree["id"]), tree["size"], tree["digest"], "tree")
        if error is not None:
            self.find(error, [manifest.id], True)
        for key_id in data["keys"]:
            self.objects += 1
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
            for error in threads.map(check, range(start, min(count, start + step))):
                if error is not None:
                    self.find(error, [manifest.id], True)

    def unneeded(self) -> None:
        """Objects that the checked snapshots do not need: indexes, and packs without a snapshot. Damage there is a warning."""
        service, backend, key = self.store.service, self.store.backend, self.store.index_key
        for name, _size in backend.list(layout.indexes(service)):
            self.objects += 1
            try:
                read_index(backend, service, key, name)
            except DamageError as error:
                self.find(error, [], False)
        for name, size in backend.list(layout.packs(service)):
            pack = name.rsplit("/", 1)[1].split(".")[0]
            if pack in self.packs:
                continue
            self.objects += 1
            try:
                read_footer(backend, service, name, size, key)
            except (DamageError, FileNotFoundError) as error:
                self.find(error if isinstance(error, LifeboatError) else DamageError("pack is missing", name), [], False)


def verify_service(spec: Spec, target: str = "all", depth: str = "decode", progress: Progress | None = None) -> dict[str, Any]:
    """Check the stored snapshots of a service. target: all | what resolve_target takes.

    Returns {"ok": no error-level finding, "findings": [{"level", "snapshots", what, where, remedy}], "depth", "mark": bool,
    "checked": {"snapshots", "objects", "bytes"}}. Depth "decode" needs the restore keys.
    """
    if depth not in DEPTHS:
        raise ConfigError(f"unknown depth {depth!r}", f"verify of {spec.service}", f"use one of: {', '.join(DEPTHS)}")
    progress = progress or Progress(spec.service, "verify")
    checked = {"snapshots": 0, "objects": 0, "bytes": 0}
    if not spec.source_names:
        return {"ok": True, "findings": [], "depth": depth, "mark": True, "checked": checked}
    store = spec.store()
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
    verifier.unneeded()
    checked.update(snapshots=len(wanted), objects=verifier.objects, bytes=verifier.bytes)
    findings = sorted(verifier.findings, key=lambda f: (f["level"], f["where"], f["what"]))
    return {"ok": not any(f["level"] == "error" for f in findings), "findings": findings, "depth": depth, "mark": marks is not None,
            "checked": checked}
