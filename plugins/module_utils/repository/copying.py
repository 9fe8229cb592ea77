# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Copy one service's objects from a repository to another place of the same repository.

Objects are written once, so what is there already is done, and a copy that was killed goes on where it was. A manifest is written
last, when everything it needs is at the far end and was read back there; what is damaged at the source is named and not copied,
and no manifest that needs it is written. The content keys are not needed.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Tuple

from ..errors import ConflictError, DamageError, LifeboatError, StorageError
from ..libraries import need
from ..progress import Progress
from . import checked, escrow_record, holds, journals, layout, ledgers, tombstone
from .backend import Backend, soundly
from .catalogs import CATALOG_LIMIT, read_catalog
from .datakeys import read_key
from .index import INDEX_LIMIT, read_index
from .log_index import RECORD_LIMIT, read_record, whole
from .log_piece import OBJECT_LIMIT, check
from .manifest import MANIFEST_LIMIT, StoredManifest, complete, read
from .seal import object_digest

if TYPE_CHECKING:
    from .repository import ServiceStore

#: An object's name, and how it is copied. A judge raises DamageError or ValueError for an object that is not as it was written.
_Job = Tuple[str, Callable[[], None]]
_Judge = Callable[[str, bytes], object]
#: Bytes on their way per object.
BLOCK = 8 << 20
_KEY_LIMIT = 1 << 20


@dataclass
class Report:
    """What a copy did: manifests: ids of the snapshots that are complete at the far end since now; problems: what was not copied, and why."""

    objects: int = 0
    bytes: int = 0
    manifests: list[str] = field(default_factory=list)
    problems: list[LifeboatError] = field(default_factory=list)
    #: source -> {"sequence", "digest", "name"} of the newest manifest at the far end.
    newest: dict[str, dict[str, object]] = field(default_factory=dict)


class Copier:
    """store: the source. target: a backend with the same repository's descriptor. names: how both are called in messages.

    repair: nothing at the target is trusted; what is damaged there is replaced by a sound copy, and nothing else is.
    """

    def __init__(self, store: ServiceStore, target: Backend, names: tuple[str, str], progress: Progress, workers: int, report: Report,
                 repair: bool = False) -> None:
        self._store = store
        self._from = store.backend
        self._to = target
        self._service = store.service
        self._names = names
        self._progress = progress
        self._workers = workers
        self._guard = threading.Lock()
        self._report = report
        self._repair = repair
        #: Objects that are at the far end, with the right content: written and read back now, or needed by a manifest that is there.
        self._sound: set[str] = set()
        self._failed: dict[str, LifeboatError] = {}
        self._stopped = False

    def run(self) -> None:
        """Copy what the target lacks, counting in ``report``. Raises StorageError where it cannot be read or written at all."""
        manifests = self.lacking()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="copy") as threads:
            self._parallel(threads, self._packs(manifests))
            self._parallel(threads, self._closure(manifests))
            self._parallel(threads, self._shredded())
            for prefix, judge, limit, subject in self._small():
                self._parallel(threads, self._listed(prefix, judge, limit, subject))
            self._logs(threads)
            for manifest in manifests:
                self._manifest(threads, manifest)

    # -- what is to be done

    def lacking(self) -> list[StoredManifest]:
        """The source's readable manifests that the target lacks, in order; and what the target's newest ones need is known to be there."""
        prefix = layout.snapshots(self._service)
        have = set() if self._repair else {name for name, _size in self._to.list(prefix)}
        wanted: list[StoredManifest] = []
        for source, numbers in sorted(self._numbered(prefix).items()):
            newest = ""
            for _number, name in sorted(complete(self._from, self._service, source, numbers)):
                if not self._repair and (name in have or self._size(self._to, name) is not None):
                    newest = name
                    continue
                try:
                    wanted.append(read(self._from, self._store.provider, self._store.repository.id, name))
                except DamageError as error:
                    self._fail(name, error)
            if newest and not self._trust(source, newest):
                wanted = [manifest for manifest in wanted if manifest.data["source"] != source]
        # as they were taken: a point's snapshots one after the other
        return sorted(wanted, key=lambda manifest: (str(manifest.data["started"]), manifest.name))

    def _numbered(self, prefix: str) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for name, _size in self._from.list(prefix):
            source, _slash, last = name[len(prefix):].partition("/")
            if last.endswith(".json") and last[:-5].isdigit():
                found.setdefault(source, []).append((int(last[:-5]), name))
        return found

    def _trust(self, source: str, name: str) -> bool:
        """What a manifest at the target needs was read back before that manifest was written. False when the two repositories have parted."""
        try:
            manifest = read(self._to, self._store.provider, self._store.repository.id, name)
        except DamageError as error:
            self._fail(name, DamageError(f"{error.what} in repository {self._names[1]}", error.where, f"verify {self._names[1]}"))
            return True
        try:
            if read(self._from, self._store.provider, self._store.repository.id, name).digest != manifest.digest:
                self._fail(name, DamageError(
                    f"another snapshot has this number in repository {self._names[1]}: both were written to", name,
                    f"nothing of this source was copied; bring {self._names[0]} and {self._names[1]} together by hand, or copy to a new place"))
                return False
        except DamageError as error:
            self._fail(name, self._damaged(error.what, name))
        self._sound.update(self._needed(manifest))
        self._report.newest[source] = {"sequence": manifest.data["sequence"], "digest": manifest.digest, "name": name}
        return True

    def _needed(self, manifest: StoredManifest) -> dict[str, int | None]:
        """Names of the objects that a snapshot needs, and their sizes where they are known; the key's newest wrapping is looked at apart."""
        data = manifest.data
        found: dict[str, int | None] = {layout.pack(self._service, bytes.fromhex(pack)): int(size) for pack, size, _digest in data["packs"]}
        found[layout.tree(self._service, data["tree"]["id"])] = int(data["tree"]["size"])
        return found

    def _packs(self, manifests: Iterable[StoredManifest]) -> Iterator[_Job]:
        wanted = {pack: (int(size), str(digest)) for manifest in manifests for pack, size, digest in manifest.data["packs"]}
        self._progress.expect(sum(size for size, _digest in wanted.values()))
        for pack, (size, digest) in sorted(wanted.items()):
            name = layout.pack(self._service, bytes.fromhex(pack))
            yield name, partial(self._large, name, size, digest, "pack")

    def _closure(self, manifests: Iterable[StoredManifest]) -> Iterator[_Job]:
        """Trees, and by name the keys that a list may have left out."""
        for manifest in manifests:
            tree = manifest.data["tree"]
            name = layout.tree(self._service, tree["id"])
            yield name, partial(self._large, name, int(tree["size"]), str(tree["digest"]), "tree")
        for key in sorted({key for manifest in manifests for key in manifest.data["keys"]}):
            name = layout.key(self._service, key)
            yield name, partial(self._one, name, _judge_key, _KEY_LIMIT, "key")

    def _shredded(self) -> Iterator[_Job]:
        """The word that the service is no more, wherever somebody might try to restore it."""
        store, name = self._store, layout.tombstone(self._service)
        yield name, partial(
            self._one, name, lambda _name, _raw: tombstone.read(self._from, store.provider, store.repository.id, self._service), _KEY_LIMIT, "key")

    def _small(self) -> list[tuple[str, _Judge, int, str]]:
        """Prefixes of small objects that are copied as they are listed: how one is judged, its largest size, its fault points."""
        store, service = self._store, self._service
        repository = store.repository.id
        return [
            (layout.keys(service), _judge_key, _KEY_LIMIT, "key"),
            (layout.indexes(service), lambda name, _raw: read_index(self._from, service, store.index_key, name), INDEX_LIMIT, "index"),
            (layout.catalogs(service), lambda name, _raw: read_catalog(self._from, store.provider, name), CATALOG_LIMIT, "manifest"),
            (layout.holds(service), lambda name, _raw: holds.read(self._from, store.provider, repository, name), holds.LIMIT, "manifest"),
            (layout.escrows(service), lambda name, _raw: escrow_record.check(self._from, store.provider, repository, service, *layout.generation_of(name)),
             _KEY_LIMIT, "key"),
            (layout.journals(service), lambda name, _raw: journals.read(self._from, store.provider, name), journals.LIMIT, "history"),
            (layout.ledgers(service), lambda name, _raw: ledgers.read(self._from, store.provider, repository, name), ledgers.LIMIT, "history"),
        ]

    def _listed(self, prefix: str, judge: _Judge, limit: int, subject: str) -> Iterator[_Job]:
        have = {} if self._repair else dict(self._to.list(prefix))
        for name, size in self._from.list(prefix):
            if have.get(name) != size:
                yield name, partial(self._one, name, judge, limit, subject)

    def _logs(self, threads: ThreadPoolExecutor) -> None:
        """Epoch by epoch, the record first: a log of a year has tens of millions of pieces, and they are never all in memory."""
        prefix = layout.logs(self._service)
        for epoch in sorted({name[:name.rindex("/") + 1] for name, _size in self._from.list(prefix)}):
            source, _slash, number = epoch[len(prefix):].rstrip("/").partition("/")
            record = epoch + "epoch.json"
            if not number.isdigit():
                continue  # verify names it
            have = {} if self._repair else dict(self._to.list(epoch))
            if record not in have:
                self._guarded((record, partial(self._one, record, partial(self._judge_record, source, int(number)), RECORD_LIMIT, "epoch")))
            if record not in self._failed:
                pieces = [(name, size) for name, size in self._from.list(epoch) if name != record]
                # what a whole segment superseded is not needed, unless that one turns out to be damaged
                for chosen in (whole(pieces), pieces):
                    jobs = [(name, partial(self._one, name, _judge_piece, OBJECT_LIMIT, "log")) for name, size in chosen if have.get(name) != size]
                    self._parallel(threads, jobs)
                    if not any(name in self._failed for name, _size in chosen):
                        break

    def _judge_record(self, source: str, number: int, _name: str, _raw: bytes) -> None:
        epoch = read_record(self._from, self._store.provider, self._store.repository.id, self._service, source, number)
        read_key(self._to, self._service, epoch.key_id, f"of log epoch {number}")  # copied before, or its pieces are of no use there

    # -- one object

    def _parallel(self, threads: ThreadPoolExecutor, jobs: Iterable[_Job]) -> None:
        for _done in threads.map(self._guarded, jobs):
            pass

    def _guarded(self, job: _Job) -> None:
        name, action = job
        if self._stopped or name in self._failed:
            return
        try:
            action()
        except DamageError as error:
            self._fail(name, error)
        except BaseException:
            self._stopped = True  # the others would meet the same
            raise

    def _fail(self, name: str, error: LifeboatError) -> None:
        with self._guard:
            self._failed[name] = error
            self._report.problems.append(error)

    def _damaged(self, what: str, name: str) -> DamageError:
        return DamageError(f"{what} in repository {self._names[0]}", name, f"it was not copied; verify {self._names[0]}")

    @staticmethod
    def _size(backend: Backend, name: str) -> int | None:
        try:
            return backend.size(name)
        except FileNotFoundError:
            return None

    def _large(self, name: str, size: int, digest: str, what: str) -> None:
        """A pack or tree of known hash, block by block. What is at the target and nobody vouches for is read back there."""
        if name in self._sound:
            self._progress.add(size, 0)
            return
        there = self._size(self._to, name)
        if there is None:
            there = soundly(self._from, name, partial(self._stream, name, size, digest, what, False))
        damaged = there is not None and (there != size or object_digest(self._to, name, size) != digest)
        if damaged and self._repair:
            soundly(self._from, name, partial(self._stream, name, size, digest, what, True))
        elif damaged:
            raise DamageError(f"{what} is damaged in repository {self._names[1]}", name,
                              f"snapshots that need it are not complete there; verify {self._names[1]}")
        with self._guard:
            self._sound.add(name)

    def _stream(self, name: str, size: int, digest: str, what: str, replace: bool) -> int | None:
        """Write the object; its size when somebody else has written it meanwhile."""
        hasher = need("blake3").blake3()
        new = self._to.replace(name, "repair") if replace else self._to.new(name, what)
        try:
            for offset in range(0, size, BLOCK):
                try:
                    data = self._from.read_range(name, offset, min(BLOCK, size - offset))
                except FileNotFoundError as error:
                    raise self._damaged(f"{what} is missing", name) from error
                if len(data) != min(BLOCK, size - offset):
                    raise self._damaged(f"{what} is cut short", name)
                hasher.update(data)
                new.write(data)
                self._progress.add(len(data), 0)
            if hasher.hexdigest() != digest or self._from.size(name) != size:
                raise self._damaged(f"{what} is damaged", name)
            new.commit()
        except ConflictError:
            new.abort()
            return self._to.size(name)
        except BaseException:
            new.abort()
            raise
        self._count(size)
        return None

    def _count(self, size: int) -> None:
        with self._guard:
            self._report.objects += 1
            self._report.bytes += size
        self._progress.add(0, 1)

    def _one(self, name: str, judge: _Judge, limit: int, subject: str) -> None:
        """A small object, judged at the source, read back at the target."""
        try:
            raw = soundly(self._from, name, partial(self._judged, name, judge, limit))
        except FileNotFoundError:
            return  # a key has more than one name; what a snapshot lacks in the end is told with the snapshot
        except DamageError as error:
            raise self._damaged(error.what, name) from error
        self._write(name, raw, subject)

    def _judged(self, name: str, judge: _Judge, limit: int) -> bytes:
        raw = self._from.read(name, limit)
        try:
            judge(name, raw)
        except ValueError as error:
            raise DamageError(f"object {error}", name, "") from error
        return raw

    def _write(self, name: str, raw: bytes, subject: str) -> None:
        new = False
        if self._size(self._to, name) is None:
            try:
                self._to.create(name, raw, subject)
                new = True
            except ConflictError:
                pass  # another copy was faster
        if self._repair and not self._holds(name, raw):
            replacement = self._to.replace(name, "repair")
            try:
                replacement.write(raw)
                replacement.commit()
            except BaseException:
                replacement.abort()
                raise
            new = True
        if not self._holds(name, raw):
            raise DamageError(f"another object has this name in repository {self._names[1]}", name,
                              f"it is damaged there, or both were written to; verify {self._names[0]} and {self._names[1]}")
        if new:
            self._count(len(raw))

    def _holds(self, name: str, raw: bytes) -> bool:
        return self._to.size(name) == len(raw) and self._to.read(name, len(raw) + 1) == raw

    # -- the end

    def _manifest(self, threads: ThreadPoolExecutor, manifest: StoredManifest) -> None:
        """Write a manifest when all that it needs is there."""
        needed = self._needed(manifest)
        lost = [name for name in needed if name in self._failed]
        for key in manifest.data["keys"]:
            try:
                read_key(self._to, self._service, key, manifest.id)
            except DamageError:
                lost.append(layout.key(self._service, key))
        if not lost:
            for name, size in threads.map(lambda one: (one, self._size(self._to, one)), needed):
                if size != needed[name]:
                    raise StorageError("an object that was copied is not there", f"{name} in repository {self._names[1]}",
                                       "find out what removes objects there, then run the same command again")
        if lost:
            self._fail(manifest.name, DamageError(
                f"snapshot {manifest.id} was not copied: {len(lost)} of its objects cannot be read, first {lost[0]}", manifest.name,
                f"it is not in {self._names[1]}; other snapshots are not affected"))
            return
        keys = [name for key in manifest.data["keys"] for name in [layout.key(self._service, key)] if self._size(self._to, name)]
        self._to.keep([*needed, *keys])
        self._write(manifest.name, self._from.read(manifest.name, MANIFEST_LIMIT), "manifest")
        if holds.held(self._store, manifest.id) is not None:
            self._to.hold([*needed, *keys, manifest.name], True)
        with self._guard:
            self._report.manifests.append(manifest.id)
            self._sound.update(needed)
        newest = self._report.newest.get(str(manifest.data["source"]))
        if newest is None or int(str(newest["sequence"])) < int(manifest.data["sequence"]):
            self._report.newest[str(manifest.data["source"])] = {
                "sequence": manifest.data["sequence"], "digest": manifest.digest, "name": manifest.name}


def _judge_key(name: str, raw: bytes) -> None:
    if checked.load(raw)["id"] != name.rsplit("/", 1)[1].split(".")[0]:
        raise ValueError("is another key")


def _judge_piece(_name: str, raw: bytes) -> None:
    check(raw)
