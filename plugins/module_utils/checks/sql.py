# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""SQL probe: {sql: a statement whose first value counts, source: name, database: name}: asked of the source's own server, read-only.

A source class that answers SQL itself has ``query(config, statement, timeout=seconds)``, which returns the first value of the
first row (None without rows); ADAPTERS does it for types that do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..sources.contract import Source
    from ..spec import Spec

_Answer = Callable[["dict[str, Any]", Any, float], Any]


def probe(spec: Spec, entry: dict[str, Any], timeout: float) -> Any:
    """The one value."""
    name, source, config = answering(spec, entry, "query", ADAPTERS)
    if entry.get("database"):
        if source.type == "postgresql_database" and entry["database"] != config["database"]:
            raise ConfigError("a check names another database than its source is", f"{spec.service}.{name}: {entry['database']}",
                              f"remove database, or write {config['database']}")
        config = {**config, "database": str(entry["database"])}
    if hasattr(source, "query"):
        return source.query(config, str(entry["sql"]), timeout=timeout)
    return ADAPTERS[source.type](config, (f"{spec.service}.{name}", str(entry["sql"])), timeout)


def _postgresql(config: dict[str, Any], asked: tuple[str, str], timeout: float) -> Any:
    from ..sources.postgresql_client import Client

    where, statement = asked
    client = Client(config, where)
    connection = client.connect(client.database, {
        "search_path": '"$user",public', "statement_timeout": str(max(1, int(timeout * 1000))), "default_transaction_read_only": "on",
    })
    try:
        rows = client.rows(connection, statement)
    finally:
        connection.close()
    return rows[0][0] if rows and rows[0] else None


def _cluster(config: dict[str, Any], asked: tuple[str, str], timeout: float) -> Any:
    return _postgresql({"database": "postgres", **config}, asked, timeout)


ADAPTERS: dict[str, _Answer] = {"postgresql_database": _postgresql, "postgresql": _cluster}


def answering(spec: Spec, entry: dict[str, Any], ability: str, adapters: dict[str, _Answer]) -> tuple[str, Source, dict[str, Any]]:
    """(name, source, config) of the named source, or of the only one that can answer. Raises ConfigError."""
    name = entry.get("source")
    if name:
        source, config = spec.source(str(name))
        if not hasattr(source, ability) and source.type not in adapters:
            raise ConfigError(f"a source of type {source.type} cannot answer this check", f"source {name} of {spec.service}", "name another source")
        return str(name), source, config
    able = {name: found for name, found in spec.sources().items() if hasattr(found[0], ability) or found[0].type in adapters}
    if len(able) != 1:
        raise ConfigError(
            "a check must name its source" if able else "no source of the service can answer this check",
            f"{spec.service}: {entry.get('name') or ''}", f"add source: {' or '.join(able)}" if able else "declare a source of a fitting type",
        )
    only, (source, config) = next(iter(able.items()))
    return only, source, config
