# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Names of tables as people write them, and new names that a server will take."""

from __future__ import annotations

import re
from typing import Iterable

from ..errors import ConfigError

#: Bytes of a name.
LIMIT = 63
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".,\s][^".,]*)')


def tables(given: Iterable[str]) -> list[tuple[str, str]]:
    """(schema, name) of each ``schema.name``, each once; a list may hold several behind commas.

    A part in double quotes is taken as it is ("" is a quote in it); one without is taken as it is too, upper case and all,
    and may hold no dot, comma or quote. Raises ConfigError.
    """
    text = ",".join(given)
    found: list[tuple[str, str]] = []
    position = 0
    while text.strip():
        parts = []
        for ending in (".", ","):
            while position < len(text) and text[position].isspace():
                position += 1
            part = _PART.match(text, position)
            if part is None:
                raise _unreadable(text, position)
            parts.append(part.group(1).replace('""', '"') if part.group(1) is not None else part.group(2).rstrip())
            position = part.end()
            while position < len(text) and text[position].isspace():
                position += 1
            if position < len(text) and text[position] != ending or (ending == "." and position == len(text)):
                raise _unreadable(text, position)
            position += 1
        for part_name in parts:
            check("table", part_name)
        found.append((parts[0], parts[1]))
        if position >= len(text):
            break
    return list(dict.fromkeys(found))


def _unreadable(text: str, position: int) -> ConfigError:
    return ConfigError(f"a table's name cannot be read at character {position + 1}", repr(text[:200]),
                       'write schema.table, with double quotes around a part that holds a dot, a comma or a quote: public."Odd.name"')


def check(kind: str, name: str) -> str:
    """A name that a server can hold; ConfigError otherwise."""
    if not name or "\0" in name or len(name.encode("utf-8", "surrogateescape")) > LIMIT:
        raise ConfigError(f"no name for a {kind}", repr(name[:100]), f"use 1 to {LIMIT} bytes")
    return name


def new_name(kind: str, name: str) -> str:
    """A new name for a database or schema: also without control characters, and none that the server keeps for itself."""
    check(kind, name)
    if not name.isprintable() or name != name.strip():
        raise ConfigError(f"the new name of a {kind} holds characters that nobody can type", repr(name), "choose another name")
    if name.lower().startswith("pg_"):
        raise ConfigError(f"names that begin with pg_ are the server's own, not for a new {kind}", repr(name), "choose another name")
    return name


def joined(base: str, suffix: str) -> str:
    """``base_suffix`` within the limit; the base is cut where it must be."""
    room = LIMIT - len(suffix.encode()) - 1
    return f"{base.encode()[:room].decode('utf-8', 'ignore')}_{suffix}"


def shown(text: str) -> str:
    """A name or a text of the snapshot in one line of a message: what cannot be printed is escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
