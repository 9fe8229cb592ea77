# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Catalog word -> source class. A new source type is one file, one function and one line here.

The imports are written out because Ansible finds what to ship with a module by reading them; they stand inside
functions so that a run pays only for the types it uses.
"""

from __future__ import annotations

from typing import Callable

from ..errors import ConfigError
from .contract import Source


def _files() -> type[Source]:
    from .files import Files

    return Files


def _postgresql() -> type[Source]:
    from .postgresql import Postgresql

    return Postgresql


def _postgresql_database() -> type[Source]:
    from .postgresql_database import PostgresqlDatabase

    return PostgresqlDatabase


def _redis() -> type[Source]:
    from .redis import Redis

    return Redis


TYPES: dict[str, Callable[[], type[Source]]] = {
    "files": _files,
    "postgresql": _postgresql,
    "postgresql_database": _postgresql_database,
    "redis": _redis,
}


def types() -> list[str]:
    """The known catalog words, sorted."""
    return sorted(TYPES)


def get(name: str) -> type[Source]:
    """The class of a source type; imported only now. Raises ConfigError for an unknown word."""
    if name not in TYPES:
        import difflib

        near = difflib.get_close_matches(name, TYPES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(types())}"
        raise ConfigError(f"unknown source type {name!r}", "sources.<name>.type", hint)
    return TYPES[name]()
