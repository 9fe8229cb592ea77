# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows into PostgreSQL by COPY, as a stream: memory stays bounded whatever the amount."""

from __future__ import annotations

import contextlib
import json
from datetime import date, datetime
from typing import Any, Iterable, Iterator, Protocol

from .. import stores
from ..layout import Home

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class Loader:
    """One database being filled. ``bytes`` counts what was sent."""

    def __init__(self, connection: Any, database: str) -> None:
        self.bytes = 0
        self.rows = 0
        self._connection = connection
        self._cursor = connection.cursor()
        # What is loaded is true by construction; triggers would only make it slow and note it twice.
        self.execute("SET session_replication_role = replica")
        self.execute("SET search_path = public")
        self.execute("SET synchronous_commit = off")
        self.execute("SET statement_timeout = 0")
        self.database = database

    def execute(self, statement: str, values: Any = None) -> None:
        self._cursor.execute(statement, values)

    def copy(self, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Send rows to a table; columns as in SQL, without parentheses."""
        self._cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN", _Stream(self, rows), 1 << 18)

    def commit(self) -> None:
        self._connection.commit()


@contextlib.contextmanager
def loading(home: Home, database: str) -> Iterator[Loader]:
    """A loader whose work is committed at the end."""
    with contextlib.closing(stores.connect(home, database)) as connection:
        loader = Loader(connection, database)
        yield loader
        loader.commit()
        connection.autocommit = True
        loader.execute("ANALYZE")


class _Counts(Protocol):
    """What was sent so far."""

    rows: int
    bytes: int


class _Stream:
    """What COPY reads from."""

    def __init__(self, loader: _Counts, rows: Iterable[tuple[Any, ...]]) -> None:
        self._loader = loader
        self._rows = iter(rows)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        # COPY reads in pieces of the buffer size that copy_expert was given; a piece may be smaller, never larger.
        parts, held = [self._rest], len(self._rest)
        while held < size:
            row = next(self._rows, None)
            if row is None:
                break
            line = ("\t".join(map(_field, row)) + "\n").encode()
            self._loader.rows += 1
            # Binary values travel as hexadecimal digits, twice as long as they are.
            self._loader.bytes += len(line) - sum(len(value) for value in row if isinstance(value, bytes))
            parts.append(line)
            held += len(line)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def _field(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, list):
        return array(value).translate(_ESCAPES)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False).translate(_ESCAPES)
    return str(value)


def array(values: list[Any]) -> str:
    """A PostgreSQL array or row of quoted elements."""
    return "{" + ",".join("NULL" if value is None else _quoted(str(value)) for value in values) + "}"


def record(values: list[Any]) -> str:
    """A PostgreSQL row value."""
    return "(" + ",".join("" if value is None else _quoted(str(value)) for value in values) + ")"


def hstore(values: dict[str, str | None]) -> str:
    """A hstore value."""
    return ", ".join(f"{_quoted(key)}=>{'NULL' if value is None else _quoted(value)}" for key, value in values.items())


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
