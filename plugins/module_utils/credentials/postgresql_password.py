# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The password of the role with which a PostgreSQL source connects. The server is given its SCRAM verifier only: no log holds the password."""

from __future__ import annotations

import secrets
from typing import Any

from ..errors import ConfigError, LifeboatError, SourceError
from ..libraries import need
from ..sources.postgresql_client import Client, quote
from .exchange import Exchange

_BYTES = 32


def exchange(config: dict[str, Any], where: str) -> Exchange:
    """config: the source's validated options."""
    path = config.get("password_file")
    if not path:
        raise ConfigError("the source has no password_file", where, "without one ~/.pgpass or a peer login is used, which is not ours to change")
    client = Client({"database": "postgres", **config}, where)

    def prove(password: str) -> None:
        client.connect(client.database, password=password).close()

    def install(current: str, new: str) -> None:
        connection = client.connect(client.database, password=current)
        try:
            _set(connection, client.user, new)
            try:
                prove(new)
            except LifeboatError:
                _set(connection, client.user, current)
                raise
        finally:
            connection.close()

    return Exchange(str(path), lambda: secrets.token_urlsafe(_BYTES), prove, install=install)


def _set(connection: Any, user: str, password: str) -> None:
    psycopg2, extensions = need("psycopg2"), need("psycopg2.extensions")
    verifier = extensions.encrypt_password(password, user, scope=connection, algorithm="scram-sha-256")
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER ROLE {quote(user)} PASSWORD %s", (verifier,))
    except psycopg2.Error as error:
        raise SourceError(
            f"the server did not take a new password ({type(error).__name__})", f"role {user}", "may the role change its own password? see the server's log",
        ) from None
