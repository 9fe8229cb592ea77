# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles, databases and schemas of the clusters, and the first keys of Redis: what setup makes once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from . import stores
from .layout import CLUSTERS, Home

#: CREATE DATABASE options; the databases differ on purpose.
_DATABASE_OPTIONS = {
    "identity": "",
    "inventory": " LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
    "orders": "",
    "payments": "",
}


def create(home: Home, cluster: str) -> None:
    """Roles, settings, databases and tables of one cluster. Needs a cluster just made."""
    with contextlib.closing(stores.connect(home, f"postgres:{cluster}")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for database in CLUSTERS[cluster]:
                cursor.execute(f"CREATE ROLE {database}_owner NOLOGIN")
                _login(cursor, f"{database}_app", home.credentials[f"{database}_app"], "CONNECTION LIMIT 40")
            cursor.execute("CREATE ROLE shop_readonly NOLOGIN")
            _login(cursor, "shop_reporting", home.credentials["shop_reporting"], "VALID UNTIL '2099-12-31'")
            cursor.execute("GRANT shop_readonly TO shop_reporting WITH ADMIN OPTION")
            cursor.execute("GRANT pg_read_all_stats TO shop_reporting")
            cursor.execute("ALTER ROLE shop_reporting SET statement_timeout = '30s'")
            cursor.execute("ALTER ROLE shop_reporting SET default_transaction_read_only = on")
            cursor.execute("COMMENT ON ROLE shop_reporting IS 'reads, never writes'")
            if cluster == "pg-orders":
                cursor.execute("ALTER SYSTEM SET work_mem = '5MB'")
                cursor.execute("ALTER SYSTEM SET log_min_duration_statement = '3s'")
                cursor.execute("ALTER SYSTEM SET default_statistics_target = 150")
                cursor.execute("SELECT pg_reload_conf()")
            for database in CLUSTERS[cluster]:
                cursor.execute(f"CREATE DATABASE {database} OWNER {database}_owner TEMPLATE template0{_DATABASE_OPTIONS[database]}")
    for database in CLUSTERS[cluster]:
        with contextlib.closing(stores.connect(home, database)) as connection:
            with connection, connection.cursor() as cursor:
                cursor.execute((Path(__file__).parent / "schema" / f"{database}.sql").read_text(encoding="utf-8"))


def _login(cursor: Any, role: str, password: str, options: str) -> None:
    cursor.execute(f"CREATE ROLE {role} LOGIN {options} PASSWORD %s", [password])


def create_invoices(home: Home) -> None:
    """The empty invoice tree."""
    home.invoices.mkdir(mode=0o750, exist_ok=True)
    home.account.own(home.invoices)


def create_redis(home: Home) -> None:
    """The keys the sessions service expects to be there: its format and its counters."""
    client = stores.redis_client(home)
    client.mset({"sessions:format": "2", "sessions:created": "0", "sessions:ended": "0"})
