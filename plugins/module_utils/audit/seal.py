# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The seal: the last line of a finished journal, ``{"seal": TEXT, "signature": {...} or null}``.

TEXT is the JSON of {"format", "kind": "journal", "ecosystem", "run", "verb", "entries": number, "head": hash, "hashes": [of every entry, in order]}.
The hashes are all in it, although the head alone would vouch for them: only so can a reader name exactly which entries are not
those that were sealed, however many they are. The signature is over TEXT; null says that nobody at hand could sign.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..errors import DamageError
from ..ledger import Entry, canonical

FORMAT = 1
KIND = "journal"
#: The name of the controller's own key in signatures, before its fingerprint; a service's key has the service's name.
CONTROLLER = "audit"
_BEGINNING = b'{"seal":'


@dataclass
class Seal:
    """A seal that was read: its text as signed, what it says, and the signature as it stands there (not checked)."""

    text: str
    data: dict[str, Any]
    signature: Any

    @property
    def hashes(self) -> list[str]:
        return list(self.data["hashes"])


def text_of(entries: list[Entry], ecosystem: str) -> str:
    """TEXT for a whole journal, which is not empty and whose chain was checked."""
    return canonical({
        "format": FORMAT, "kind": KIND, "ecosystem": ecosystem, "run": entries[0]["run"], "verb": entries[0]["verb"], "entries": len(entries),
        "head": entries[-1]["hash"], "hashes": [entry["hash"] for entry in entries],
    }).decode()


def line_of(text: str, signature: dict[str, Any] | None) -> bytes:
    """The line, with its newline."""
    return canonical({"seal": text, "signature": signature}) + b"\n"


def is_line(raw: bytes) -> bool:
    """Does a line claim to be a seal?"""
    return raw.startswith(_BEGINNING)


def read(raw: bytes, where: str = "") -> Seal:
    """Decode a line (without its newline). DamageError when it is not as it was written."""
    try:
        envelope = json.loads(raw)
        text, signature = envelope["seal"], envelope["signature"]
        data = json.loads(text)
        if canonical(envelope) != raw or data["format"] != FORMAT or data["kind"] != KIND:
            raise ValueError("not a seal of this format")
        hashes = data["hashes"]
        if not hashes or len(hashes) != data["entries"] or hashes[-1] != data["head"] or len(set(hashes)) != len(hashes):
            raise ValueError("its numbers contradict each other")
        if not all(isinstance(data[key], str) for key in ("ecosystem", "run", "verb")) or not all(isinstance(one, str) for one in hashes):
            raise ValueError("a field is missing")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError("the seal does not decode: it was altered", where, "compare the journal with its other copies") from error
    return Seal(text, data, signature)
