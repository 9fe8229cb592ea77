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
from .postgresql_client import Client, quote, version_of

#: Bytes of a large table that are read in one piece.
_PART = 128 << 20
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
    SELECT n.nspname, c.relname, pg_relation_size(c.oid), current_setting('block_size')::int FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
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
        version = version_of(connection)
        for catalog, columns in _CATALOGS.items():
            content[f"{name}/{catalog}"] = _hash(client, connection, f"pg_catalog.{quote(catalog)}", columns, seed)
        _sequences(client, connection, name, content)
    finally:
        connection.close()
    work: queue.SimpleQueue[tuple[str, str, str, int]] = queue.SimpleQueue()
    for schema, table, size, page in tables:
        # a large table is read in parts; the last one has no end, so that nothing is missed that is written meanwhile
        starts = list(range(0, max(1, size // page), _PART // page)) if version >= 140000 else [0]
        for start, end in zip(starts, [*starts[1:], None]):
            condition = f"WHERE ctid >= '({start},0)'" + (f" AND ctid < '({end},0)'" if end is not None else "") if len(starts) > 1 else ""
            work.put((schema, table, condition, size // len(starts)))

    def worker() -> list[tuple[str, int, int]]:
        done: list[tuple[str, int, int]] = []
        session = client.connect(name, {"max_parallel_workers_per_gather": "0"})
        try:
            while True:
                try:
                    schema, table, condition, size = work.get_nowait()
                except queue.Empty:
                    return done
                rows, total = _hash(client, session, f"{quote(schema)}.{quote(table)}", "", seed, condition)
                done.append((f"{name}/table {schema}.{table}", rows, int(total)))
                progress(size)
        finally:
            session.close()

    count = max(1, min(workers, work.qsize()))
    with ThreadPoolExecutor(count, thread_name_prefix="digest") as threads:
        for future in [threads.submit(worker) for _number in range(count)] if tables else []:
            for item, rows, total in future.result():
                before = content.get(item, [0, "0"])
                content[item] = [before[0] + rows, str(int(before[1]) + total)]


def _sequences(client: Client, connection: Any, name: str, content: Content) -> None:
    sequences = client.rows(connection, _SEQUENCES)
    for start in range(0, len(sequences), 200):
        part = sequences[start:start + 200]
        statement = " UNION ALL ".join(
            f"SELECT {number}, last_value, is_called FROM {quote(schema)}.{quote(sequence)}" for number, (schema, sequence) in enumerate(part)
        )
        for number, last, called in client.rows(connection, statement):
            content[f"{name}/sequence {part[number][0]}.{part[number][1]}"] = [1, f"{last} {called}"]


def evidence(client: Client, also: Callable[[str, Any], None] | None = None) -> dict[str, Any]:
    """What must change when anything does: {"system", "timeline", "transaction", "prepared", "sequences"}.

    Every change of rows, schema or roles takes a transaction number; a server that was stopped cleanly goes on with the same one.
    Sequences are asked themselves, because they may move without. also: called with each database and a connection to it.
    """
    sequences: Content = {}
    connection = client.connect(client.database)
    try:
        system, timeline, transaction = client.rows(connection, """
            SELECT system_identifier::text, timeline_id, pg_snapshot_xmax(pg_current_snapshot())::text FROM pg_control_system(), pg_control_checkpoint()""")[0]
        prepared = [row[0] for row in client.rows(connection, "SELECT transaction::text FROM pg_prepared_xacts ORDER BY transaction::text")]
        names = [row[0] for row in client.rows(connection, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")]
    finally:
        connection.close()
    for name in names:
        connection = client.connect(name)
        try:
            _sequences(client, connection, name, sequences)
            if also is not None:
                also(name, connection)
        finally:
            connection.close()
    return {"system": system, "timeline": timeline, "transaction": transaction, "prepared": prepared, "sequences": sequences}


def since(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, how two evidences differ."""
    words = []
    if (before["system"], before["timeline"]) != (now["system"], now["timeline"]):
        words.append(f"another cluster or timeline: {now['system']} on timeline {now['timeline']}, restored was {before['system']} on {before['timeline']}")
    elif before["transaction"] != now["transaction"]:
        words.append(f"{int(now['transaction']) - int(before['transaction'])} transactions took a number since it was restored")
    if before.get("prepared") != now["prepared"]:
        words.append("prepared transactions were ended or made since")
    moved = [name for name in before["sequences"].keys() | now["sequences"].keys() if before["sequences"].get(name) != now["sequences"].get(name)]
    return words + [f"{name} has moved" for name in sorted(moved)[:_LISTED]]


def _hash(client: Client, connection: Any, relation: str, columns: str, seed: int, condition: str = "") -> list[Any]:
    subject = f"(SELECT {columns} FROM ONLY {relation})" if columns else f"ONLY {relation}"
    row = client.rows(connection, f"""
        SELECT count(*), sum(hashtextextended("lifeboat row"::text, {seed}))::text FROM {subject} AS "lifeboat row" {condition}""")[0]
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
