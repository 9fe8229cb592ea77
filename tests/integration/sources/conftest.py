# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL cluster with a database of its own for each test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.bench import Bench
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server.init().start()
    finally:
        server.destroy()


@pytest.fixture
def database(cluster: Postgres) -> Iterator[str]:
    """A new database 'shop' with nothing of the last test left in the cluster."""
    cluster.sql("CREATE DATABASE shop")
    yield "shop"
    for (name,) in cluster.sql("SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')"):
        cluster.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    for (name,) in cluster.sql("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'"):
        cluster.sql(f'DROP ROLE "{name}"')


def database_config(cluster: Postgres, **options: Any) -> dict[str, Any]:
    """The source in a catalog: the database 'shop' of this cluster, unless ``options`` say otherwise."""
    return {
        "type": "postgresql_database", "database": "shop", "port": cluster.port, "password_file": cluster.password_file,
        "data_directory": cluster.data, "provision": cluster.provision_argv(),
        "server": {"start": cluster.start_argv(), "stop": cluster.stop_argv(), "status": cluster.status_argv()}, **options,
    }


@pytest.fixture
def bench(cluster: Postgres, database: str, tmp_path: Path) -> Bench:
    return Bench(database_config(cluster), tmp_path)
