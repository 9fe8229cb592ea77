# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a catalog entry says of its source's log, and where the log's state lives on the host."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass
from typing import Any

from .. import state
from ..errors import ConfigError
from ..sources import registry
from ..sources.cluster_slot import slot_name
from ..sources.postgresql_client import Client
from ..spec import Spec

#: Source types that have a log.
TYPES = ("postgresql",)
#: Bytes the spool may hold, unless the catalog says otherwise.
SPOOL_LIMIT = 4 << 30
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass
class LogConfig:
    """One source's log. directory: private state on the host; spool: private directory of what was received and is not proven yet.

    spool_limit: bytes. interval: seconds between two looks at what was received.
    """

    service: str
    source: str
    entry: dict[str, Any]
    directory: str
    spool: str
    spool_limit: int
    interval: float
    slot: str

    @property
    def where(self) -> str:
        return f"log of {self.service}.{self.source}"

    def client(self) -> Client:
        """The way to the server; any database will do."""
        return Client({**self.entry, "database": str(self.entry.get("database") or "postgres")}, self.where)


def names(spec: Spec) -> list[str]:
    """The sources of a service that have a log."""
    return [name for name, source in (spec.entry.get("sources") or {}).items() if source.get("type") in TYPES and source.get("log") is not None]


def read(spec: Spec, source: str) -> LogConfig:
    """The log of one source. Raises ConfigError."""
    entry = (spec.entry.get("sources") or {}).get(source)
    where = f"source {source} of service {spec.service}"
    if entry is None:
        raise ConfigError("no such source", where, f"known: {', '.join(spec.source_names) or 'none'}")
    if entry.get("type") not in TYPES:
        raise ConfigError(f"a source of type {entry.get('type')} has no log", where, f"types with a log: {', '.join(TYPES)}")
    options = entry.get("log") or {}
    known = registry.get(str(entry["type"])).options["log"]["options"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r} of a log", where, f"known: {', '.join(sorted(known))}")
    directory = os.path.join(spec.service_dir, "log", source)
    spool = str(options.get("spool") or os.path.join(directory, "spool"))
    if not os.path.isabs(spool):
        raise ConfigError("the spool must be an absolute path", f"{spool}, {where}", "correct log.spool in the catalog")
    interval = options.get("interval", 1)
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0.1 <= interval <= 60:
        raise ConfigError("the interval of a log must be 0.1 to 60 seconds", f"{interval!r}, {where}", "correct log.interval in the catalog")
    slot = slot_name(spec.service, source, entry)
    if not re.fullmatch(r"[a-z0-9_]{1,63}", slot):
        raise ConfigError("not a name for a replication slot", f"{slot!r}, {where}", "use lower-case letters, digits and _, 63 at most")
    return LogConfig(spec.service, source, dict(entry), directory, spool, _bytes(options.get("spool_limit"), where), float(interval), slot)


def _bytes(value: Any, where: str) -> int:
    if value is None:
        return SPOOL_LIMIT
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", str(value).strip()) if not isinstance(value, bool) else None
    limit = int(found.group(1)) * _UNITS[found.group(2)] if found else 0
    if limit < 64 << 20:
        raise ConfigError("the limit of a spool must be 64 MiB or more", f"{value!r}, {where}", "write a number of bytes, or one with K, M, G or T")
    return limit


def restored_at(spec: Spec, source: str) -> int | None:
    """When (ns) what is live here was restored; None where it was not."""
    origin = state.read_json(spec.path("origin.json")) or {}
    try:
        if source in origin["snapshots"]:
            moment = datetime.datetime.fromisoformat(str(origin["live_since"]).replace("Z", "+00:00"))
            return int(moment.timestamp() * 1e9)
    except (KeyError, TypeError, ValueError):
        pass
    return None


def prepare(config: LogConfig, spec: Spec) -> None:
    """Make the private directories."""
    state.ensure_private(spec.service_dir)
    state.ensure_private(config.directory)
    state.ensure_private(config.spool)
    state.ensure_private(os.path.join(config.spool, "wal"))
