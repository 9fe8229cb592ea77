# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Who is connected to declared databases, asked of the servers themselves with the login of the catalog's source."""

from __future__ import annotations

from typing import Any

from ..errors import LifeboatError
from ..sources import registry
from ..spec import source_config
from .sockets import plain

#: Seconds that a server may take to answer; discovery has no time for a slow one.
_LIMIT = 10
_STATEMENT = (
    "select datname::text, usename::text, application_name, pid, host(client_addr), client_port from pg_stat_activity"
    " where backend_type in ('client backend', 'walsender') and pid <> pg_backend_pid() and application_name <> 'lifeboat'"
)


def clients(service: str, source: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The clients of one source: {"service", "source", "kind", "database", "user", "application", "address", "port", "server_pid"}.

    address "": through the server's own socket; server_pid then names the server's end of it, 0 where it does not say. Raises LifeboatError.
    """
    kind = str(entry.get("type"))
    if kind not in ("postgresql", "postgresql_database", "redis"):
        return []
    config = source_config(service, source, entry, registry.get(kind).options)
    found = _redis(service, source, config) if kind == "redis" else _postgresql(service, source, config)
    return [{"service": service, "source": source, "kind": "redis" if kind == "redis" else "postgresql", **one} for one in found]


def _postgresql(service: str, source: str, config: dict[str, Any]) -> list[dict[str, Any]]:
    from ..sources.postgresql_client import Client

    one = config.get("database")
    client = Client({**config, "database": one or "template1"}, f"{service}.{source}")
    connection = client.connect(client.maintenance(), {"statement_timeout": f"{_LIMIT}s"})
    try:
        rows = client.rows(connection, _STATEMENT)
    finally:
        connection.close()
    return [
        {"database": database or "", "user": user or "", "application": application or "", "address": plain(address) if address else "",
         "port": max(0, int(port or 0)), "server_pid": int(pid)}
        for database, user, application, pid, address, port in rows if one in (None, database)
    ]


def _redis(service: str, source: str, config: dict[str, Any]) -> list[dict[str, Any]]:
    from ..sources.redis_client import Client

    link = Client({**config, "timeout": _LIMIT}, f"{service}.{source}").open()
    try:
        own, told = link.many([("CLIENT", "ID"), ("CLIENT", "LIST")])
    finally:
        link.close()
    found = []
    for line in told.decode("utf-8", "replace").splitlines():
        words = dict(word.partition("=")[::2] for word in line.split(" "))
        if not words.get("id") or int(words["id"]) == own:
            continue
        address, _colon, port = words.get("addr", "").rpartition(":")
        local = "/" in address or not port.isdigit() or port == "0"
        found.append({
            "database": words.get("db", ""), "user": words.get("user", ""), "application": words.get("name", ""),
            "address": "" if local else plain(address.strip("[]")), "port": 0 if local else int(port), "server_pid": 0,
        })
    return found


def asked(services: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """(the clients of all declared databases, why some could not be asked)."""
    found: list[dict[str, Any]] = []
    notes = []
    for service, words in sorted(services.items()):
        for source, entry in sorted((words.get("databases") or {}).items()):
            try:
                found += clients(service, source, entry)
            except LifeboatError as error:
                notes.append(str(error))
    return found, notes
