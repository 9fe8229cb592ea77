# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Manifests: the signed, last-written document that makes a snapshot exist (docs/repository-format.md, "Manifest")."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ..errors import DamageError, LifeboatError
from ..keys.provider import KeyProvider
from . import layout, signed
from .backend import Backend, soundly

#: The largest manifest a reader accepts, in bytes.
MANIFEST_LIMIT = 64 << 20

_FIELDS = {
    "format": int, "kind": str, "repository": str, "id": str, "service": str, "source": str, "type": str, "sequence": int,
    "point": dict, "started": str, "finished": str, "mode": str, "tree": dict, "packs": list, "keys": list,
    "digest": dict, "proof": str, "facts": dict, "bytes": dict, "catalog": dict,
}


@dataclass
class StoredManifest:
    """A manifest that was read, its signature checked: ``data`` is the document, ``digest`` its SHA-256 (hex)."""

    name: str
    data: dict[str, Any]
    digest: str
    signature: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.data["id"])


@dataclass
class Chain:
    """The snapshots of one source, oldest first, and what is wrong with them."""

    source: str
    manifests: list[StoredManifest] = field(default_factory=list)
    problems: list[LifeboatError] = field(default_factory=list)
    #: Sequence numbers that are missing or unusable.
    lost: list[int] = field(default_factory=list)


def publish(backend: Backend, provider: KeyProvider, manifest: dict[str, Any]) -> StoredManifest:
    """Sign and write a manifest under its sequence number; ConflictError when another capture claimed the number."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    signature = provider.sign(text.encode())
    provider.verify(text.encode(), signature)
    name = layout.manifest(manifest["service"], manifest["source"], manifest["sequence"])
    document = json.dumps({"manifest": text, "signature": signature}, separators=(",", ":")).encode()
    backend.create(name, document, "manifest")
    if backend.read(name, MANIFEST_LIMIT) != document:
        raise DamageError("manifest reads back different", name, "check the repository's disk")
    return StoredManifest(name, manifest, hashlib.sha256(text.encode()).hexdigest(), signature)


def read(backend: Backend, provider: KeyProvider, repository_id: str, name: str) -> StoredManifest:
    """Read one manifest and check signature, owner and place; DamageError names it."""
    return soundly(backend, name, lambda: _read(backend, provider, repository_id, name))


def _read(backend: Backend, provider: KeyProvider, repository_id: str, name: str) -> StoredManifest:
    def damaged(what: str) -> DamageError:
        return DamageError(f"manifest {what}", name, "this snapshot cannot be used; choose another one (points playbook)")

    try:
        raw = backend.read(name, MANIFEST_LIMIT)
    except FileNotFoundError as error:
        raise damaged("is missing") from error
    data, text = signed.load(raw, "manifest", provider, damaged)
    if data.get("format") != layout.FORMAT:
        raise damaged(f"has format {data.get('format')!r}, this version reads {layout.FORMAT}")
    for key, kind in _FIELDS.items():
        if not isinstance(data.get(key), kind):
            raise damaged(f"lacks a valid {key}")
    if layout.manifest(data["service"], data["source"], data["sequence"]) != name or data["repository"] != repository_id:
        raise damaged("belongs to another place (moved or replayed)")
    return StoredManifest(name, data, hashlib.sha256(text.encode()).hexdigest(), json.loads(raw)["signature"])


def complete(backend: Backend, service: str, source: str, listed: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """A listing may be incomplete, so what it leaves out between its numbers and after them is asked for by name."""
    found = dict(listed)
    number, newest = min(found), max(found)
    while number <= newest:
        number += 1
        if number not in found:
            name = layout.manifest(service, source, number)
            try:
                backend.size(name)
            except FileNotFoundError:
                continue
            found[number] = name
            newest = max(newest, number)
    return list(found.items())


def chains(backend: Backend, provider: KeyProvider, repository_id: str, service: str) -> list[Chain]:
    """Every source's snapshots. A damaged or missing manifest is a problem of its chain, never an exception."""
    names: dict[str, list[tuple[int, str]]] = {}
    prefix = layout.snapshots(service)
    for name, _size in backend.list(prefix):
        source, _slash, last = name[len(prefix):].partition("/")
        if last.endswith(".json") and last[:-5].isdigit():
            names.setdefault(source, []).append((int(last[:-5]), name))
    result = []
    for source, listed in sorted(names.items()):
        found = complete(backend, service, source, listed)
        chain = Chain(source)
        previous: tuple[int, str | None] = (0, None)
        for sequence, name in sorted(found):
            if sequence != previous[0] + 1:
                lost = f"{previous[0] + 1}" if sequence == previous[0] + 2 else f"{previous[0] + 1} to {sequence - 1}"
                chain.problems.append(DamageError(
                    f"manifest number {lost} of {service}.{source} is missing", layout.manifest(service, source, sequence - 1),
                    "someone or something removed it; other snapshots are not affected"))
                chain.lost += range(previous[0] + 1, sequence)
                previous = (sequence - 1, None)
            try:
                manifest = read(backend, provider, repository_id, name)
            except DamageError as error:
                chain.problems.append(error)
                chain.lost.append(sequence)
                previous = (sequence, None)
                continue
            if previous[1] is not None and manifest.data.get("previous") != previous[1]:
                chain.problems.append(DamageError(
                    "manifest does not follow its predecessor", name, "one of the two was replaced; verify both snapshots"))
            chain.manifests.append(manifest)
            previous = (sequence, manifest.digest)
        result.append(chain)
    return result
