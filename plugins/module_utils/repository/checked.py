# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Small JSON objects that carry their own SHA-256, so that damage shows to a reader who holds no key."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def dump(document: dict[str, Any]) -> bytes:
    """The stored form: {"document": canonical JSON text, "sha256": hex}."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return json.dumps({"document": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}, sort_keys=True, separators=(",", ":")).encode()


def load(data: bytes) -> dict[str, Any]:
    """The document; ValueError when anything of the stored form was altered."""
    try:
        outer = json.loads(data)
        text = outer["document"]
        document = json.loads(text)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a document") from error
    if not isinstance(document, dict) or dump(document) != data:
        raise ValueError("altered")
    return document
