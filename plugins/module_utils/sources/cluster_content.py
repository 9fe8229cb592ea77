# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a running cluster holds, as one digest per table: two states of the same physical cluster are compared by it.

The server hashes its rows itself, with a seed that is a secret of the service. It tells an unwanted change, not a forged
one: the snapshot's own proof is the marks of its pages. Rows of unlogged and temporary tables do not count, and neither do
the statistics of the catalogs, which the server changes by itself.
"""

from __future__ import annotations

import hashlib
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

from .contract import Comparison
from .postgresql_client import Client, quote

#: Most differences a comparison lists; the rest is counted.
_LISTED = 20
#: Catalogs whose rows change only when somebody changes them; those with columns have others that change by themselves.
_CATALOGS: dict[str, str] = {
    "pg_aggregate": "", "pg_am": "", "pg_amop": "", "pg_amproc": "", "pg_attrdef": "", "pg_cast": "", "pg_collation": "", "pg_constraint": "",
    "pg_conversion": "", "pg_default_acl": "", "pg_description": "", "pg_enum": "", "pg_event_trigger": "", "pg_extension": "",
    "pg_foreign_data_wrapper": "", "pg_foreign_server": "", "pg_foreign_table": "", "pg_inherits": "", "pg_language": "",
    "pg_largeobject": "", "pg_largeobject_metadata": "", "pg_namespace": "", "pg_opclass": "", "pg_operator": "", "pg_opfamily": "",
    "pg_partitioned_table": "", "pg_policy": "", "pg_proc": "", "pg_publication": "", "pg_publication_rel": "", "pg_range": "",
    "pg_rewrite": "", "pg_seclabel": "", "pg_statistic_ext": "", "pg_transform": "", "pg_trigger": "", "pg_ts_config": "",
    "pg_ts_dict": "", "pg_type": "", "pg_user_mapping": "",
    "pg_attribute": "",
    "pg_class": "oid, relname, relnamespace, reltype, relowner, relam, reltablespace, relpersistence, relkind, relacl, reloptions",
    "pg_index": "indexrelid, indrelid, indisunique, indisprimary, indisvalid, indkey, indclass, indexprs, indpred",
}
_SHARED: dict[str, str] = {
    "pg_auth_members": "", "pg_authid": "", "pg_db_role_setting": "", "pg_shdescription": "", "pg_shseclabel": "", "pg_tablespace": "",
    "pg_database": "oid, datname, datdba, encoding, datcollate, datctype, datistemplate, datallowconn, datconnlimit, dattablespace, datacl",
}
_TABLES = """
    SELECT n.nspname, c.relname, pg_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY 3 DESC, 1, 2"""
_SEQUENCES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence = 'p' ORDER BY 1, 2"""

#: item -> [count, hash]
Content = Dict[str, List[Any]]


def seed_of(key: bytes) -> int:
    """The seed of the row hashes, a signed 64-bit number."""
    return int.from_bytes(hashlib.blake2b(b"cluster content", key=key, digest_size=8).digest(), "little", signed=True)


def measure(client: Client, key: bytes, workers: int, progress: Callable[[int], None]) -> Content:
    """{"database/kind name": [count, hash]} of every database that takes connections. Raises SourceError."""
    seed = seed_of(key)
    content: Content = {}
    connection = client.connect(client.database)
    try:
        names = [row[0] for row in client.rows(connection, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")]
        for catalog, columns in _SHARED.items():
            content[f"cluster/{catalog}"] = _hash(client, connection, f"pg_catalog.{quote(catalog)}", columns, seed)
        prepared = client.rows(connection, "SELECT gid, database FROM pg_prepared_xacts ORDER BY 1")
        content["cluster/prepared transactions"] = [len(prepared), hashlib.blake2b(repr(prepared).encode(), digest_size=8).hexdigest()]
    finally:
        connection.close()
    for name in names:
        _database(client, name, seed, workers, progress, content)
    return content


def _database(client: Client, name: str, seed: int, workers: int, progress: Callable[[int], None], content: Content) -> None:
    connection = client.connect(name)
    try:
        tables = client.rows(connection, _TABLES)
        for catalog, columns in _CATALOGS.items():
            content[f"{name}/{catalog}"] = _hash(client, connection, f"pg_catalog.{quote(catalog)}", columns, seed)
        sequences = client.rows(connection, _SEQUENCES)
        for start in range(0, len(sequences), 200):
            part = sequences[start:start + 200]
            statement = " UNION ALL ".join(
                f"SELECT {number}, last_value, is_called FROM {quote(schema)}.{quote(sequence)}" for number, (schema, sequence) in enumerate(part)
            )
            for number, last, called in client.rows(connection, statement):
                content[f"{name}/sequence {part[number][0]}.{part[number][1]}"] = [1, f"{last} {called}"]
    finally:
        connection.close()
    work: queue.SimpleQueue[tuple[str, str, int]] = queue.SimpleQueue()
    for table in tables:
        work.put(table)

    def worker() -> None:
        session = client.connect(name, {"max_parallel_workers_per_gather": "0"})
        try:
            while True:
                try:
                    schema, table, size = work.get_nowait()
                except queue.Empty:
                    return
                content[f"{name}/table {schema}.{table}"] = _hash(client, session, f"{quote(schema)}.{quote(table)}", "", seed)
                progress(size)
        finally:
            session.close()

    count = max(1, min(workers, len(tables)))
    with ThreadPoolExecutor(count, thread_name_prefix="digest") as threads:
        for future in [threads.submit(worker) for _number in range(count)] if tables else []:
            future.result()


def _hash(client: Client, connection: Any, relation: str, columns: str, seed: int) -> list[Any]:
    subject = f"(SELECT {columns} FROM ONLY {relation})" if columns else f"ONLY {relation}"
    row = client.rows(connection, f"""
        SELECT count(*), sum(hashtextextended("lifeboat row"::text, {seed})::numeric)::text FROM {subject} AS "lifeboat row" """)[0]
    return [int(row[0]), str(row[1] or "0")]


def compare(expected: Content, found: Content) -> Comparison:
    """Hold two states against each other; differences name the database and the table."""
    differences: list[str] = []
    count = 0
    for name in sorted(expected.keys() | found.keys()):
        want, have = expected.get(name), found.get(name)
        if want == have:
            continue
        count += 1
        if len(differences) >= _LISTED:
            continue
        if want is None or have is None:
            differences.append(f"{name} is {'new' if want is None else 'missing'}")
        elif want[0] != have[0]:
            differences.append(f"{name}: {want[0]} rows expected, {have[0]} found")
        else:
            differences.append(f"{name}: the content of rows differs" if "sequence" not in name else f"{name}: {want[1]} expected, {have[1]} found")
    if count > len(differences):
        differences.append(f"and {count - len(differences)} more")
    return Comparison(not differences, differences, len(expected))
