# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The content digest of one database: rows, sequences, large objects, schema and the database's own properties.

It is kept in the sealed tree item by item, so that a comparison names the table and the counts that differ; the
manifest holds one keyed value over all of it.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator

from ..errors import DamageError
from ..libraries import need
from . import postgresql_catalog as catalog
from .contract import Comparison, Digest, Entry
from .postgresql_client import Client, quote, version_of
from .postgresql_rows import RowSession, RowSum

ALGORITHM = "lifeboat-postgresql-1"
#: Most differences a comparison lists; the rest is counted.
_LISTED = 20

_PAGES = "SELECT loid, pageno, data FROM pg_catalog.pg_largeobject"
_OBJECTS = """
    SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner),
           (SELECT pg_catalog.string_agg(a::pg_catalog.text, ',' ORDER BY a::pg_catalog.text COLLATE "C") FROM pg_catalog.unnest(m.lomacl) a),
           pg_catalog.obj_description(m.oid, 'pg_largeobject'),
           coalesce((SELECT p.pageno::pg_catalog.int8 * {page} + pg_catalog.octet_length(p.data) FROM pg_catalog.pg_largeobject p
                     WHERE p.loid = m.oid ORDER BY p.pageno DESC LIMIT 1), 0)
    FROM pg_catalog.pg_largeobject_metadata m"""


def subkey(key: bytes, purpose: str) -> bytes:
    """A key for one purpose."""
    return hashlib.blake2b(purpose.encode(), key=key, digest_size=32).digest()


@dataclass
class Content:
    """Everything that makes two databases the same. Tables: "schema.name" -> item."""

    major: int = 0
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    matviews: dict[str, dict[str, Any]] = field(default_factory=dict)
    sequences: dict[tuple[str, str], tuple[int, bool]] = field(default_factory=dict)
    large_objects: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, tuple[str, str]] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(int(item["rows"]) for item in self.tables.values())

    @property
    def items(self) -> int:
        """How many things a comparison looks at: tables, sequences, large objects, schema objects."""
        return len(self.tables) + len(self.matviews) + len(self.sequences) + int(self.large_objects["count"]) + len(self.objects)

    def digest(self, key: bytes) -> Digest:
        """The clear part of the digest: a keyed value and counts."""
        whole = {
            "tables": self.tables, "sequences": sorted([*name, *value] for name, value in self.sequences.items()), "large_objects": self.large_objects,
            "objects": {name: loose for name, (_strict, loose) in self.objects.items()}, "properties": self.properties,
        }
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        value = hashlib.blake2b(text.encode(), key=subkey(key, "postgresql digest"), digest_size=32).hexdigest()
        return {
            "algorithm": ALGORITHM, "value": value, "tables": len(self.tables), "rows": self.rows, "sequences": len(self.sequences),
            "large_objects": int(self.large_objects["count"]), "objects": len(self.objects),
        }

    def entries(self) -> Iterator[Entry]:
        """The tree entries that keep the digest item by item."""
        yield {"type": "content", "algorithm": ALGORITHM, "major": self.major, "properties": self.properties, "large_objects": self.large_objects}
        for name, item in sorted(self.tables.items()):
            yield {"type": "table", "name": name, **item}
        for name, item in sorted(self.matviews.items()):
            yield {"type": "matview", "name": name, **item}
        for (schema, name), (last, called) in sorted(self.sequences.items()):
            yield {"type": "sequence", "schema": schema, "name": name, "last_value": last, "is_called": called}
        for name, (strict, loose) in self.objects.items():
            yield {"type": "object", "name": name, "strict": strict, "loose": loose}


def from_entries(entries: Iterable[Entry]) -> Content:
    """The captured content out of a tree. Raises DamageError when the tree holds none."""
    content: Content | None = None
    for entry in entries:
        kind = entry["type"]
        if kind == "content":
            if entry["algorithm"] != ALGORITHM:
                raise DamageError(f"unknown content digest {entry['algorithm']!r}", "postgresql_database snapshot", "use the version that took it")
            content = Content(int(entry["major"]), properties=entry["properties"], large_objects=entry["large_objects"])
        elif content is None:
            continue
        elif kind == "table":
            content.tables[entry["name"]] = {"rows": entry["rows"], "hash": entry["hash"]}
        elif kind == "matview":
            content.matviews[entry["name"]] = {"populated": entry["populated"], "rows": entry["rows"], "hash": entry["hash"]}
        elif kind == "sequence":
            content.sequences[(entry["schema"], entry["name"])] = (entry["last_value"], entry["is_called"])
        elif kind == "object":
            content.objects[entry["name"]] = (entry["strict"], entry["loose"])
    if content is None:
        raise DamageError("the snapshot holds no content digest", "postgresql_database snapshot", "choose another point")
    return content


def compare(expected: Content, found: Content) -> Comparison:
    """Hold a database against a captured one. Differences name the table and the counts."""
    differences: list[str] = []

    def note(text: str) -> None:
        if len(differences) < _LISTED:
            differences.append(text)
        elif len(differences) == _LISTED:
            differences.append("and more")

    for name in sorted(expected.tables.keys() | found.tables.keys()):
        want, have = expected.tables.get(name), found.tables.get(name)
        if want is None and have is not None:
            note(f"table {name} is new with {have['rows']} rows")
        elif have is None and want is not None:
            note(f"table {name} is missing: {want['rows']} rows expected")
        elif want is not None and have is not None and want != have:
            same = "the content of rows differs" if want["rows"] == have["rows"] else f"{have['rows']} found"
            note(f"table {name}: {want['rows']} rows expected, {same}")
    for name in sorted(expected.matviews.keys() | found.matviews.keys()):
        # Their rows are derived: loading refreshes them, and what was stale or volatile at capture is then fresh.
        if expected.matviews.get(name, {}).get("populated") != found.matviews.get(name, {}).get("populated"):
            note(f"materialized view {name} is missing, new or populated differently")
    for sequence in sorted(expected.sequences.keys() | found.sequences.keys()):
        if expected.sequences.get(sequence) != found.sequences.get(sequence):
            note(f"sequence {'.'.join(sequence)}: {_said(expected.sequences.get(sequence))} expected, {_said(found.sequences.get(sequence))} found")
    if expected.large_objects != found.large_objects:
        note(f"large objects: {expected.large_objects['count']} expected, {found.large_objects['count']} found, or their content, owner or grants differ")
    for name in sorted(expected.objects.keys() | found.objects.keys()):
        wanted, had = expected.objects.get(name), found.objects.get(name)
        if wanted is None or had is None:
            note(f"schema: {name} is {'new' if wanted is None else 'missing'}")
        elif wanted[0] != had[0] and wanted[1] != had[1] and expected.major == found.major:
            note(f"schema: {name} differs")
    for key in sorted(expected.properties.keys() | found.properties.keys()):
        if expected.properties.get(key) != found.properties.get(key):
            note(f"database property {key} differs")
    return Comparison(not differences, differences, expected.items)


def _said(value: tuple[int, bool] | None) -> str:
    return "none" if value is None else f"{value[0]}{'' if value[1] else ' (not called)'}"


def without_zeros(line: bytes) -> bytes | None:
    """A large object's page without the zeros at its end; None for a page of zeros (a hole reads the same)."""
    head, _tab, data = line.rpartition(b"\t")
    digits = data[3:].rstrip(b"0")  # behind \\x
    digits += b"0" * (len(digits) % 2)
    return head + b"\t" + digits if digits else None


def measure(
    client: Client, connection: Any, database: str, key: bytes, workers: int, snapshot: str | None,
    progress: Callable[[int], None], timeout: float, found_tables: list[catalog.Table] | None = None,
) -> Content:
    """Read tables, sequences, large objects and properties; the caller adds ``objects``.

    connection: to the same database; with ``snapshot`` it must be the exporting transaction. Raises SourceError.
    """
    server = version_of(connection)
    encoding = str(client.rows(connection, "SHOW server_encoding")[0][0])
    codec = str(need("psycopg2.extensions").encodings.get(encoding, "utf-8"))
    program = client.tool("psql", server)
    listed = catalog.tables(client, connection) if found_tables is None else found_tables
    content = Content(major=server // 10000)
    outside = client.connect(client.maintenance())
    try:
        content.properties = catalog.comparable(catalog.properties(client, outside, database))
    finally:
        outside.close()
    content.sequences = catalog.sequence_values(client, connection, catalog.sequences(client, connection))
    page = int(client.rows(connection, "SELECT current_setting('block_size')::int / 4")[0][0])
    rows_key = subkey(key, "postgresql rows")
    work: queue.SimpleQueue[Callable[[RowSession], None] | None] = queue.SimpleQueue()
    lock = threading.Lock()

    def one_table(table: catalog.Table) -> Callable[[RowSession], None]:
        def job(session: RowSession) -> None:
            total = RowSum(rows_key)
            if table.populated:
                names = ", ".join(quote(column) for column in table.columns)
                session.copy(f"SELECT {names} FROM ONLY {table.sql} {table.condition}", total, progress)
            with lock:
                if table.kind == "m":
                    content.matviews[f"{table.schema}.{table.name}"] = {"populated": table.populated, "rows": total.rows, "hash": total.hex}
                else:
                    content.tables[f"{table.schema}.{table.name}"] = {"rows": total.rows, "hash": total.hex}
        return job

    def large_objects(session: RowSession) -> None:
        pages, objects = RowSum(subkey(key, "postgresql large object pages")), RowSum(subkey(key, "postgresql large objects"))
        session.copy_lines(_PAGES, pages, without_zeros, progress)
        session.copy(_OBJECTS.format(page=page), objects, progress)
        content.large_objects = {"count": objects.rows, "hash": objects.hex, "pages": pages.hex}

    def worker() -> None:
        session = RowSession(client, program, database, encoding, codec, snapshot, timeout)
        try:
            while True:
                job = work.get()
                if job is None:
                    return
                job(session)
        finally:
            session.close()

    count = max(1, min(workers, len(listed) + 1))
    for table in listed:  # largest first
        work.put(one_table(table))
    work.put(large_objects)
    for _number in range(count):
        work.put(None)
    with ThreadPoolExecutor(count, thread_name_prefix="digest") as threads:
        futures = [threads.submit(worker) for _number in range(count)]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise errors[0]
    return content
