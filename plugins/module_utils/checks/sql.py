# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""SQL probe: {sql: select one value, source: name}: asked of the source itself, in a read-only transaction.

A source type that can answer offers ``query(config, sql, timeout=seconds)`` and returns the first column of the first row
(None without rows).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..sources.contract import Source
    from ..spec import Spec


def probe(spec: Spec, entry: dict[str, Any], timeout: float) -> Any:
    """The one value."""
    source, config = answering(spec, entry, "query")
    return source.query(config, str(entry["sql"]), timeout=timeout)  # type: ignore[attr-defined]


def answering(spec: Spec, entry: dict[str, Any], ability: str) -> tuple[Source, dict[str, Any]]:
    """The named source, or the only one that has the ability. Raises ConfigError."""
    name = entry.get("source")
    if name:
        source, config = spec.source(str(name))
        if not hasattr(source, ability):
            raise ConfigError(f"a source of type {source.type} cannot answer this check", f"source {name} of {spec.service}", "name another source")
        return source, config
    able = {name: found for name, found in spec.sources().items() if hasattr(found[0], ability)}
    if len(able) != 1:
        raise ConfigError(
            "a check must name its source" if able else "no source of the service can answer this check",
            f"{spec.service}: {entry.get('name') or ''}", f"add source: {' or '.join(able)}" if able else "declare a source of a fitting type",
        )
    return next(iter(able.values()))
