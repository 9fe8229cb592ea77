# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Reading JSON objects that are signed: manifests, epochs of a log, copies of ledgers."""

from __future__ import annotations

import json
from typing import Any, Callable

from ..errors import DamageError
from ..keys.provider import KeyProvider


def load(raw: bytes, word: str, provider: KeyProvider | None, damaged: Callable[[str], DamageError]) -> tuple[dict[str, Any], str]:
    """(document, its text) of ``{word: TEXT, "signature": …}``; without a provider the signature is not checked.

    damaged: makes the error that names the object. It is raised for anything that is not as it was written.
    """
    try:
        envelope = json.loads(raw)
        text, signature = envelope[word], envelope["signature"]
        document = json.loads(text)
        if not isinstance(document, dict) or json.dumps(envelope, separators=(",", ":")).encode() != raw:
            raise ValueError("not as it was written")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged("cannot be decoded") from error
    if provider is not None:
        try:
            provider.verify(text.encode(), signature)
        except DamageError as error:
            raise damaged(f"has a signature that does not match ({error.what})") from error
    return document, text
