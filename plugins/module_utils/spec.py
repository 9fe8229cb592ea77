# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The typed first argument of every engine operation: one service, where its snapshots and its state live."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import redact, state
from .errors import ConfigError

if TYPE_CHECKING:
    from .keys.provider import KeyProvider
    from .progress import Progress
    from .repository.repository import Repository, ServiceStore
    from .sources.contract import Context, Source

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")

#: Catalog options every source may have; the others are the source type's own.
COMMON_SOURCE_OPTIONS = ("type", "host", "server", "provision", "compression")
#: What the engine itself adds: the other servers of a cluster, and of which one this is to be a standby (sources/cluster_members.py).
_OURS = ("members", "standby")
_COMPRESSION = {"type": "int", "choices": list(range(1, 20))}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str, "path": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict,
}


def check_name(kind: str, name: object) -> str:
    """A service or source name that is safe in paths; ConfigError otherwise."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise ConfigError(f"Not a {kind} name", repr(name), "use letters, digits, - and _, beginning with a letter or digit, 63 at most")
    return name


def source_config(service: str, name: str, entry: dict[str, Any], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A source's entry held against its type's options, defaults filled in. Raises ConfigError."""
    where = f"source {name} of service {service}"
    config: dict[str, Any] = {}
    for key, value in entry.items():
        if key in COMMON_SOURCE_OPTIONS or key in _OURS:
            config[key] = _convert(key, value, _COMPRESSION, where) if key == "compression" and value is not None else value
            continue
        if key not in options:
            near = difflib.get_close_matches(key, [*options, *COMMON_SOURCE_OPTIONS], 1)
            raise ConfigError(f"Unknown option {key!r}", where, f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(options))}")
        config[key] = value
    for key, option in options.items():
        if config.get(key) is None:
            if option.get("required"):
                raise ConfigError(f"Option {key!r} is missing", where, str(option.get("help", "")))
            config[key] = option.get("default")
            continue
        config[key] = _convert(key, config[key], option, where)
    return config


def _convert(key: str, value: Any, option: dict[str, Any], where: str) -> Any:
    wanted = str(option.get("type", "str"))
    if wanted == "int" and isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        value = int(value)
    if wanted in ("str", "path") and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if wanted == "bool" and isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
        value = value.lower() in ("true", "yes")
    if not isinstance(value, _TYPES.get(wanted, object)) or (wanted in ("int", "float") and isinstance(value, bool)):
        raise ConfigError(f"Option {key!r} must be {wanted}, not {type(value).__name__}", where, str(option.get("help", "")))
    if wanted == "path":
        value = os.path.expanduser(str(value))
        if not os.path.isabs(value):
            raise ConfigError(f"Option {key!r} must be an absolute path", f"{value!r}, {where}", "")
    choices = option.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"Option {key!r} must be one of {', '.join(map(str, choices))}", f"{value!r}, {where}", "")
    return value


@dataclass
class Spec:
    """One service as the engine sees it.

    service: its name. entry: its normalised catalog entry. repository: {"name", "url", ...}. keys: {"provider", ...}.
    state_dir: absolute. catalog: {"digest", "ecosystem", "document": whole normalised catalog or None}.
    """

    service: str
    entry: dict[str, Any]
    repository: dict[str, Any]
    keys: dict[str, Any]
    state_dir: str
    catalog: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Spec:
        """Check the outer shape (names, mappings) and resolve the state directory. Raises ConfigError."""
        service = check_name("service", data.get("service"))
        for key in ("entry", "repository", "keys"):
            if not isinstance(data.get(key), dict):
                raise ConfigError(f"{key!r} must be a mapping", f"service {service}", "give what the catalog inventory puts into lifeboat_" + key)
        sources = data["entry"].get("sources") or {}
        if not isinstance(sources, dict):
            raise ConfigError("'sources' must be a mapping of names", f"service {service}", "")
        for name, source in sources.items():
            check_name("source", name)
            if not isinstance(source, dict) or not source.get("type"):
                raise ConfigError("A source needs a 'type'", f"source {name} of service {service}", "")
        if not data["repository"].get("url"):
            raise ConfigError("The repository has no 'url'", f"service {service}", "set repositories.<name>.url in the catalog")
        return cls(
            service=service,
            entry=dict(data["entry"]),
            repository=dict(data["repository"]),
            keys=dict(data["keys"]),
            state_dir=state.resolve_state_dir(str(data.get("state_dir") or "")),
            catalog=dict(data.get("catalog") or {}),
        )

    @property
    def source_names(self) -> list[str]:
        """The names of the sources, in the catalog's order."""
        return list(self.entry.get("sources") or {})

    @property
    def service_dir(self) -> str:
        """``<state_dir>/services/<service>``; not created here."""
        return state.service_dir(self.state_dir, self.service)

    def path(self, name: str) -> str:
        """A file in the service's state directory."""
        return os.path.join(self.service_dir, name)

    def work_dir(self, source: str) -> str:
        """The private directory of one source; not created here."""
        return os.path.join(self.service_dir, "work", check_name("source", source))

    def sources(self) -> dict[str, tuple[Source, dict[str, Any]]]:
        """name -> (source, validated config with defaults), in the catalog's order. Raises ConfigError."""
        return {name: self.source(name) for name in self.source_names}

    def source(self, name: str) -> tuple[Source, dict[str, Any]]:
        """One source and its validated config. Raises ConfigError."""
        from .sources import registry

        entry = (self.entry.get("sources") or {}).get(name)
        if entry is None:
            raise ConfigError("No such source", f"{name} of service {self.service}", f"known: {', '.join(self.source_names) or 'none'}")
        kind = registry.get(str(entry["type"]))
        config = source_config(self.service, name, entry, kind.options)
        others = (self.entry.get("members") or {}).get(name)
        return kind(), {**config, "members": others} if others else config

    def catalog_document(self) -> dict[str, Any] | None:
        """The catalog as it may be kept beside data and on hosts: without secrets, and without the place of what opens snapshots."""
        document = self.catalog.get("document")
        if not isinstance(document, dict) or not document:
            return None
        keys = {key: value for key, value in (document.get("keys") or {}).items() if key != "private_path"}
        return dict(redact.without_secrets({**document, "keys": keys} if keys else document))

    def places(self) -> dict[str, dict[str, Any]]:
        """Name -> what the catalog says of the repository and of its copies, the repository first."""
        first = {key: value for key, value in self.repository.items() if key != "copies"}
        name = str(first.get("name") or "repository")
        copies = {str(copy["name"]): {**copy, "copy_of": name} for copy in self.repository.get("copies") or []}
        return {name: first, **copies}

    def at(self, name: str) -> Spec:
        """The same service at one of its places alone; "" for the repository itself. Raises ConfigError."""
        known = self.places()
        if name and name not in known:
            raise ConfigError(f"{name!r} is no repository of this service", f"service {self.service}", f"it has: {', '.join(known)}")
        return dataclasses.replace(self, repository=known[name or next(iter(known))])

    def provider(self) -> KeyProvider:
        """The key provider of this service; the escrow key instead where ``keys`` names the file of its private half."""
        from .keys.registry import provider_for

        provider = provider_for(self.keys, self.service)
        if not self.keys.get("escrow_key"):
            return provider
        from .keys.escrow import EscrowProvider, Record
        from .repository import escrow_record
        from .repository.repository import Repository

        def record(recipient: str, known: dict[tuple[str, int], bytes]) -> Record:
            repository = Repository.open_any(self.repository)
            return escrow_record.read(repository.backend, repository.id, self.service, recipient, known)

        return EscrowProvider(provider, self.service, str(self.keys["escrow_key"]), record)

    def store(self, workers: int = 2) -> ServiceStore:
        """This service's part of its repository, opened; for whoever writes there, or judges this one place."""
        from .repository.repository import Repository

        return self._opened(Repository.open(self.repository), workers)

    def reading_store(self, workers: int = 2) -> ServiceStore:
        """As store, for whoever reads: what the repository lacks or holds damaged comes from its copies."""
        from .repository.repository import Repository

        return self._opened(Repository.open_any(self.repository), workers)

    def _opened(self, repository: Repository, workers: int) -> ServiceStore:
        from .repository.repository import ServiceStore

        store = ServiceStore(repository, self.service, self.provider(), workers)
        if self.keys.get("escrow_key"):
            store.refuse_shredded()  # the escrow key would still open it
        return store

    def context(self, source: str, config: dict[str, Any], progress: Progress, digest_key: bytes, workers: int = 2) -> Context:
        """What one source is given; its work directory is named, not created (see prepare_work_dir)."""
        from .sources.contract import Context

        return Context(self.service, source, config, self.work_dir(source), progress, digest_key, workers)

    def prepare_work_dir(self, source: str) -> str:
        """Create the private directory of one source and return it. Raises StorageError."""
        path = self.work_dir(source)
        state.ensure_private(self.service_dir)
        state.ensure_private(path)
        return path
