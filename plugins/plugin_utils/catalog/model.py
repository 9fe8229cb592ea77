# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A catalog, read and trusted: the normalised document that inventory, plan and engine share."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Mapping

from . import clusters, copies, kinds, schema
from .problems import CatalogError, Faults, Problem, display_path
from .reader import Node, parse, read_text
from .validation import Context, validate
from .variables import Variables

SUFFIXES = (".catalog.yml", ".catalog.yaml")


@dataclass(frozen=True)
class Catalog:
    """document: the normalised catalog, plain JSON (below). digest: sha256 hex of its canonical JSON.

    document = {"ecosystem", "production", "state_dir", "repositories": {name: {name, url, …}}, "default_repository",
    "keys", "approvals" or None, "audit", "tiers": {name: {rto, rpo, schedule, …} in seconds}, "consistency_groups", "services": {name: entry},
    "reconcile": [rule]}; an entry is what hostvars carry as lifeboat_entry, with "repository" as a name.
    """

    path: str
    document: dict[str, Any]
    digest: str
    warnings: tuple[str, ...] = ()

    @property
    def ecosystem(self) -> str:
        return str(self.document["ecosystem"])

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        services: dict[str, dict[str, Any]] = self.document["services"]
        return services

    def repository_of(self, service: str) -> dict[str, Any]:
        """The repository of a service as the engine takes it: where it has copies, with them as "copies"."""
        known: dict[str, dict[str, Any]] = self.document["repositories"]
        entry = self.services[service]
        found = [known[name] for name in copies.of(known, entry["repository"], entry.get("copies"))]
        return {**known[entry["repository"]], **({"copies": found} if found else {})}

    @functools.cached_property
    def _beside(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for service, entry in self.services.items():
            found.setdefault(clusters.data_host(entry), []).append(service)
        return found

    def hostvars(self, service: str) -> dict[str, Any]:
        """What the inventory host of a service carries."""
        return {
            "lifeboat_service": service,
            "lifeboat_ecosystem": self.ecosystem,
            "lifeboat_production": self.document["production"],
            "lifeboat_entry": self.services[service],
            "lifeboat_repository": self.repository_of(service),
            "lifeboat_keys": self.document["keys"],
            "lifeboat_state_dir": self.document["state_dir"],
            "lifeboat_catalog_digest": self.digest,
            "lifeboat_data_host": clusters.data_host(self.services[service]),
            # all whose data is there too, itself among them
            "lifeboat_beside": self._beside[clusters.data_host(self.services[service])],
            # where its runtime is, when that is not where its data is
            **({"lifeboat_host": self.services[service]["host"]} if clusters.data_host(self.services[service]) != self.services[service]["host"] else {}),
        }


def canonical(document: Any) -> bytes:
    """The one byte form of a JSON document, for digests and signatures."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(document: Any) -> str:
    return hashlib.sha256(canonical(document)).hexdigest()


def load(path: str, environment: Mapping[str, str] | None = None) -> Catalog:
    """Read a catalog file; CatalogError with every fault found."""
    return loads(read_text(path, display_path(path)), path, environment)


def loads(text: str, path: str, environment: Mapping[str, str] | None = None) -> Catalog:
    """As load, for text that stands (or would stand) at ``path``."""
    file = display_path(path)
    directory = os.path.dirname(os.path.abspath(path))
    faults = Faults()
    root, duplicates = parse(text, file)
    faults.problems.extend(duplicates)
    if root.kind != "map":
        raise CatalogError([Problem("a catalog that is not a mapping", file, root.line, "begin with plugin: lifeboat.recovery.catalog")])
    variables = Variables(faults, environment)
    variables.load(root.value.get("variables"), directory)
    for key, node in root.value.items():
        if key != "variables":
            variables.apply(node)
    values = kinds.take_fields(root, kinds.At("", faults), schema.CATALOG, partial=True)
    context = Context(root, values, faults, directory)
    validate(context)
    faults.raise_any()
    document = _document(values, path)
    return Catalog(os.path.abspath(path), document, digest_of(document), tuple(context.warnings))


def _document(values: dict[str, Any], path: str) -> dict[str, Any]:
    repositories = {name: {"name": name, **repository} for name, repository in values["repositories"].items()}
    default = copies.original(repositories)
    tiers = values["tiers"]
    return {
        "ecosystem": values.get("ecosystem") or _ecosystem(path),
        "production": values["production"],
        "state_dir": values.get("state_dir", ""),
        "repositories": repositories,
        "default_repository": default,
        "keys": values["keys"],
        "approvals": values.get("approvals"),
        "audit": values["audit"],
        "tiers": tiers,
        "consistency_groups": values.get("consistency_groups") or {},
        "services": {name: _entry(entry, tiers, default) for name, entry in values["services"].items()},
        "reconcile": values["reconcile"],
        **({"never_restore_into": values["never_restore_into"]} if values.get("never_restore_into") else {}),
    }


def _entry(entry: dict[str, Any], tiers: Mapping[str, Mapping[str, Any]], default: str) -> dict[str, Any]:
    result = {**dict.fromkeys(schema.SERVICE_NULLS), **entry}
    tier = tiers.get(result["tier"] or "", {})
    # A source's own entry speaks of one server; the others of its cluster stand beside it.
    sources = {name: dict(source) for name, source in result["sources"].items()}
    members = {name: source.pop("members") for name, source in sources.items() if "members" in source}
    result["sources"] = sources
    if members:
        result["members"] = members
    result["rto"] = tier.get("rto")
    result["rpo"] = tier.get("rpo")
    result["repository"] = result["repository"] or tier.get("repository") or default
    if "copies" not in result and "copies" in tier:
        result["copies"] = tier["copies"]
    return result


def _ecosystem(path: str) -> str:
    """The name of the file before its suffix, as far as it is a safe name."""
    name = os.path.basename(path)
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            name = name[: -len(suffix)]
    checked = kinds.name(Node(name, path, 1), kinds.At("ecosystem", Faults()))
    return "ecosystem" if checked is kinds.WRONG else str(checked)
