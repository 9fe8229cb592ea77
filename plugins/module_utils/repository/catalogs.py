# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The signed catalog that stood when a snapshot was taken, kept next to the data."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..errors import ConflictError, DamageError
from ..keys.provider import KeyProvider
from . import layout
from .backend import Backend

CATALOG_LIMIT = 64 << 20


def store_catalog(backend: Backend, provider: KeyProvider, service: str, document: dict[str, Any]) -> dict[str, str]:
    """Keep a catalog under its digest, once: {"digest", "object"}."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    name = layout.catalog(service, digest)
    try:
        backend.size(name)
    except FileNotFoundError:
        body = json.dumps({"catalog": text, "signature": provider.sign(text.encode())}, separators=(",", ":"))
        try:
            backend.create(name, body.encode(), "manifest")
        except ConflictError:
            pass  # another capture of this service stored the same catalog meanwhile
    return {"digest": digest, "object": name}


def read_catalog(backend: Backend, provider: KeyProvider, name: str) -> dict[str, Any]:
    """A stored catalog; DamageError names the object when its signature or its name does not fit."""
    remedy = "snapshots are not affected; the next backup stores the catalog again when it changes"
    try:
        outer = json.loads(backend.read(name, CATALOG_LIMIT))
        text = outer["catalog"]
        provider.verify(text.encode(), outer["signature"])
        if hashlib.sha256(text.encode()).hexdigest() != name.rsplit("/", 1)[1].split(".")[0]:
            raise ValueError("another catalog")
        document: dict[str, Any] = json.loads(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError("stored catalog is damaged", name, remedy) from error
    except DamageError as error:
        raise DamageError(f"stored catalog is damaged ({error.what})", name, remedy) from error
    return document
