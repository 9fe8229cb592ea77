# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a database, or one schema of it, holds: the same on both sides of a move, whatever the order of rows and columns.

The servers hash their rows themselves, column by column in the order of the names, with a seed that is a secret of the service.
"""

from __future__ import annotations

import hashlib
import json
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from . import postgresql_catalog as catalog
from .cluster_content import Content, seed_of
from .postgresql_client import Client, quote

#: Zeros at the end of a page of a large object read the same as no bytes there.
_PAGES = """
    SELECT count(*), sum(hashtextextended(concat(loid, '/', pageno, '/', digits), {seed}))::text
    FROM (SELECT loid, pageno, regexp_replace(encode(data, 'hex'), '(00)+$', '') AS digits FROM pg_largeobject) p WHERE digits <> ''"""
_OBJECTS = "SELECT count(*), sum(hashtextextended(oid::text, {seed}))::text FROM pg_largeobject_metadata"


def listed(client: Client, connection: Any, schema: str | None) -> list[catalog.Table]:
    """The relations whose rows are held against each other; materialized views are made anew on the other side."""
    return [table for table in catalog.tables(client, connection) if table.kind == "r" and schema in (None, table.schema)]


def measure(client: Client, database: str, schema: str | None, key: bytes, workers: int, progress: Callable[[int], None]) -> Content:
    """{item: [count, hash]} of tables, sequences and, without a schema, large objects. Items of one schema are named without it."""
    seed = seed_of(key)
    content: Content = {}
    connection = client.connect(database)
    try:
        found = listed(client, connection, schema)
        wanted = [name for name in catalog.sequences(client, connection) if schema in (None, name[0])]
        for name, (last, called) in catalog.sequence_values(client, connection, wanted).items():
            content[f"sequence {_item(name[0], name[1], schema)}"] = [1, f"{last} {called}"]
        if schema is None:
            for item, statement in (("large objects", _OBJECTS), ("pages of large objects", _PAGES)):
                content[item] = _row(client.rows(connection, statement.format(seed=seed)))
    finally:
        connection.close()
    work: queue.SimpleQueue[catalog.Table] = queue.SimpleQueue()
    for table in found:  # largest first
        work.put(table)

    def worker() -> list[tuple[str, list[Any]]]:
        done: list[tuple[str, list[Any]]] = []
        session = client.connect(database)
        try:
            while True:
                try:
                    table = work.get_nowait()
                except queue.Empty:
                    return done
                names = ", ".join(quote(column) for column in table.columns)
                rows = client.rows(session, f"""
                    SELECT count(*), sum(hashtextextended("lifeboat row"::text, {seed}))::text
                    FROM (SELECT {names} FROM ONLY {table.sql} {table.condition}) AS "lifeboat row" """)
                done.append((f"table {_item(table.schema, table.name, schema)}", _row(rows)))
                progress(table.bytes)
        finally:
            session.close()

    with ThreadPoolExecutor(max(1, min(workers, len(found))), thread_name_prefix="digest") as threads:
        for future in [threads.submit(worker) for _number in range(max(1, min(workers, len(found))))] if found else []:
            content.update(future.result())
    return content


def _item(schema: str, name: str, only: str | None) -> str:
    return name if only is not None else f"{schema}.{name}"


def _row(rows: list[tuple[Any, ...]]) -> list[Any]:
    return [int(rows[0][0]), str(rows[0][1] or "0")]


def digest(content: Content, key: bytes) -> str:
    """One keyed value over all of it."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), key=key, digest_size=32).hexdigest()
