# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which blocks a cluster's server had in its buffers: noted by a capture, read by whoever warms a restored copy up.

The note is ``autoprewarm.blocks`` in the data directory, in the format of pg_prewarm: a server that preloads pg_prewarm keeps it there itself, and reads
it when it starts. Where it does not, and pg_buffercache is installed in one of the databases, a capture asks that and adds the file.
"""

from __future__ import annotations

import os
from typing import Any, Iterator

from ..errors import LifeboatError
from .postgresql_client import Client

NAME = "autoprewarm.blocks"
#: The server's most used blocks that are noted: 4 GiB of buffers, 13 MiB of text at most.
_BLOCKS = 524288
_BLOCK = 8192
#: Databases that are looked into for the extension.
_DATABASES = 32
_FORKS = ("", "_fsm", "_vm", "_init")
_SHARED_SPACE, _DEFAULT_SPACE = 1664, 1663


def held(client: Client) -> bytes | None:
    """The note as the server itself would write it; None when no database has pg_buffercache. A courtesy: never an error."""
    try:
        connection = client.connect(client.maintenance())
        try:
            names = [str(row[0]) for row in client.rows(connection, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY oid LIMIT %s", (_DATABASES,))]
        finally:
            connection.close()
        for name in names:
            found = _ask(client, name)
            if found is not None:
                return found
    except LifeboatError:
        pass  # the snapshot is as good without it
    return None


def _ask(client: Client, database: str) -> bytes | None:
    connection: Any = client.connect(database, {"statement_timeout": "30000"})
    try:
        place = client.rows(connection, "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace "
                                        "WHERE extname = 'pg_buffercache'")
        if not place:
            return None
        count, text = client.rows(
            connection, "SELECT count(*), string_agg(concat_ws(',', reldatabase, reltablespace, relfilenode, relforknumber, relblocknumber), E'\\n') "
                        f"FROM (SELECT * FROM {place[0][0]}.pg_buffercache WHERE relfilenode IS NOT NULL ORDER BY usagecount DESC LIMIT {_BLOCKS}) b")[0]
        return f"<<{count}>>\n{text}\n".encode() if count else None
    finally:
        connection.close()


def ranges(directory: str, segment: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """(file, [(offset, length)] in order, neighbours joined) of the blocks that a data directory's note names; segment: bytes of a full relation file."""
    blocks: dict[str, list[int]] = {}
    versions: dict[str, str] = {}
    with open(os.path.join(directory, NAME), encoding="ascii") as handle:
        for line in handle:
            words = line.strip().split(",")
            if len(words) != 5 or not all(word.isdigit() and len(word) < 11 for word in words) or int(words[3]) >= len(_FORKS):
                continue
            database, space, filenode, fork, block = (int(word) for word in words)
            number, at = divmod(block * _BLOCK, segment)
            name = f"{filenode}{_FORKS[fork]}" + (f".{number}" if number else "")
            blocks.setdefault(os.path.join(_folder(directory, database, space, versions), name), []).append(at)
    for path in sorted(blocks):
        found: list[tuple[int, int]] = []
        for at in sorted(set(blocks[path])):
            if found and sum(found[-1]) == at:
                found[-1] = (found[-1][0], found[-1][1] + _BLOCK)
            else:
                found.append((at, _BLOCK))
        yield path, found


def _folder(directory: str, database: int, space: int, versions: dict[str, str]) -> str:
    if space == _SHARED_SPACE:
        return os.path.join(directory, "global")
    if space == _DEFAULT_SPACE:
        return os.path.join(directory, "base", str(database))
    location = os.path.join(directory, "pg_tblspc", str(space))
    if location not in versions:
        try:
            versions[location] = next((name for name in sorted(os.listdir(location)) if name.startswith("PG_")), "")
        except OSError:
            versions[location] = ""
    return os.path.join(location, versions[location], str(database))
