# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A repository opened, and one service's part of it."""

from __future__ import annotations

import uuid
from typing import Any, Sequence

from ..errors import ConfigError, ConflictError, KeyAccessError, StorageError
from ..keys.provider import KeyProvider
from ..meter import Meter
from . import checked, layout, tombstone
from .backend import Backend
from .fallback import FallbackBackend
from .log_reader import open_log
from .manifest import Chain, StoredManifest, chains, read
from .reader import SnapshotReader
from .registry import backend_for
from .seal import derive
from .tree import StoredTree

_DESCRIPTOR_LIMIT = 1 << 16


class NoRepository(StorageError):
    """Nothing is at that place yet."""


class Repository:
    """Where snapshots live. open() refuses what is not a repository or of a newer format."""

    def __init__(self, backend: Backend, url: str, repository_id: str) -> None:
        self.backend = backend
        self.url = url
        self.id = repository_id

    @classmethod
    def create(cls, config: dict[str, Any], check: bool = False) -> tuple[Repository | None, bool]:
        """Open, or make, a repository; (repository, changed). With ``check`` nothing is made and it may be None."""
        backend = backend_for(config)
        try:
            backend.size(layout.DESCRIPTOR)
        except FileNotFoundError:
            _refuse_headless(backend, str(config.get("url", "")))
            if check:
                return None, True
            backend.prepare()
            backend.probe()
            document = {"format": layout.FORMAT, "id": cls._identity(config), "kind": "lifeboat repository"}
            try:
                backend.create(layout.DESCRIPTOR, checked.dump(document), "repository")
            except ConflictError:
                pass  # another host made it a moment ago: theirs is as good
            return cls.open(config), True
        repository = cls.open(config)
        if not check:
            backend.probe()
        return repository, False

    @classmethod
    def _identity(cls, config: dict[str, Any]) -> str:
        """The id of a repository to be made: that of its copies when there are any, so that they stay its copies; else a new one."""
        for copy in config.get("copies") or []:
            try:
                return cls.open(copy).id
            except NoRepository:
                continue
        return str(uuid.uuid4())

    @classmethod
    def open(cls, config: dict[str, Any], older: bool = False) -> Repository:
        """ConfigError or StorageError says why a place is not usable. older: a descriptor that was deleted may come from a bucket's versions."""
        url = str(config.get("url", ""))
        backend = backend_for(config)
        try:
            raw = _descriptor(backend, older)
        except FileNotFoundError as error:
            _refuse_headless(backend, url)
            raise NoRepository("no repository there", url, "create it with the bootstrap playbook, or mount it", "unreachable") from error
        try:
            document = checked.load(raw)
            version, repository_id = int(document["format"]), str(document["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError("repository descriptor is damaged", f"{url}, object {layout.DESCRIPTOR}",
                               "put the object back from a copy of the repository") from error
        if version > layout.FORMAT:
            raise ConfigError(f"repository has format {version}, this version reads up to {layout.FORMAT}", url,
                              "update lifeboat.recovery on this host")
        return cls(backend, url, repository_id)

    @classmethod
    def open_any(cls, config: dict[str, Any]) -> Repository:
        """As open, for reading: what it lacks or holds damaged comes from its copies (config["copies"]), all of it when it does not answer."""
        copies = config.get("copies") or []
        if not copies and str(config.get("url", "")).startswith("file:"):
            return cls.open(config)
        return cls.open_all([config, *copies])

    @classmethod
    def open_all(cls, configs: Sequence[dict[str, Any]]) -> Repository:
        """The first of these places that answers, for reading; the others, and older versions in buckets, stand in for what it lacks."""
        def opener(one: dict[str, Any]) -> tuple[Backend, str]:
            repository = cls.open(one, older=True)
            return repository.backend, repository.id

        backend = FallbackBackend(configs, opener)
        return cls(backend, str(configs[0].get("url", "")), backend.repository_id)

    @classmethod
    def is_new(cls, config: dict[str, Any]) -> bool:
        """Whether nothing is at a place yet."""
        try:
            cls.open(config)
        except NoRepository:
            return True
        return False

    @classmethod
    def open_copy(cls, original: Repository, config: dict[str, Any]) -> Repository:
        """Another place of a repository, made when there is nothing yet; StorageError when another repository is there."""
        try:
            copy = cls.open(config)
        except NoRepository:
            backend = backend_for(config)
            backend.prepare()
            backend.probe()
            try:
                backend.create(layout.DESCRIPTOR, original.backend.read(layout.DESCRIPTOR, _DESCRIPTOR_LIMIT), "repository")
            except ConflictError:
                pass  # another host made it a moment ago
            copy = cls.open(config)
        if copy.id != original.id:
            raise StorageError("another repository is there, with another id", copy.url, f"a copy of {original.url} needs a place of its own")
        return copy


def _descriptor(backend: Backend, older: bool) -> bytes:
    try:
        return backend.read(layout.DESCRIPTOR, _DESCRIPTOR_LIMIT)
    except FileNotFoundError:
        versions = backend.older() if older else None
        if versions is None:
            raise
        return versions.read(layout.DESCRIPTOR, _DESCRIPTOR_LIMIT)


def _refuse_headless(backend: Backend, url: str) -> None:
    """A place with snapshots and no descriptor must not become a new repository: the snapshots are bound to the old one's id."""
    for _object in backend.list("services/"):
        raise StorageError("repository descriptor is missing but snapshots are there", f"{url}, object {layout.DESCRIPTOR}",
                           "put the object back from a copy of the repository")


class ServiceStore:
    """One service's snapshots and keys in a repository."""

    def __init__(self, repository: Repository, service: str, provider: KeyProvider, workers: int = 2) -> None:
        self.repository = repository
        self.backend = repository.backend
        self.service = service
        self.provider = provider
        self.workers = workers
        #: Measures what readers of snapshots and logs do.
        self.meter = Meter()
        self._index_key: bytes | None = None

    @property
    def index_key(self) -> bytes:
        if self._index_key is None:
            try:
                self._index_key = self.provider.index_key()
            except KeyAccessError as error:
                self.refuse_shredded(error)
                raise
        return self._index_key

    def refuse_shredded(self, why: Exception | None = None) -> None:
        """ShreddedError when this service was shredded."""
        tombstone.refuse(self.backend, self.provider, self.repository.id, self.service, why)

    @property
    def chunk_key(self) -> bytes:
        """Keys chunk ids and content digests."""
        return derive(self.index_key, self.repository.id.encode(), "lifeboat/chunk-id/1")

    def chains(self) -> list[Chain]:
        return chains(self.backend, self.provider, self.repository.id, self.service)

    def manifest(self, source: str, sequence: int) -> StoredManifest:
        return read(self.backend, self.provider, self.repository.id, layout.manifest(self.service, source, sequence))

    def tree(self, manifest: StoredManifest) -> StoredTree:
        """The entries of a snapshot: needs the index key only."""
        return StoredTree(self.backend, self.service, self.index_key, manifest.id, manifest.data["tree"], self.meter)

    def reader(self, manifest: StoredManifest) -> SnapshotReader:
        """A snapshot with its contents, and the log of its cluster: needs the data keys when the first chunk is read."""
        reader = SnapshotReader(self.backend, self.service, self.repository.id, self.provider, manifest, self.tree(manifest),
                                self.chunk_key, self.workers, self.meter)
        reader.log = open_log(self, str(manifest.data["source"]), manifest.data["facts"].get("system_identifier"))
        return reader
