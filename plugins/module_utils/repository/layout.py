# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Names of the objects in a repository (docs/repository-format.md, "Names")."""

from __future__ import annotations

import re

FORMAT = 1
DESCRIPTOR = "lifeboat.json"

_GENERATION = re.compile(r"/([A-Za-z0-9][A-Za-z0-9_-]{0,126})\.(\d{6})\.json\Z")
_SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,126}$")


def _safe(name: str) -> str:
    if not _SAFE.match(name) or ".." in name:
        raise ValueError(f"unsafe name {name!r}")
    return name


def service_prefix(service: str) -> str:
    return f"services/{_safe(service)}/"


def packs(service: str) -> str:
    return service_prefix(service) + "packs/"


def pack(service: str, pack_id: bytes) -> str:
    text = pack_id.hex()
    return f"{packs(service)}{text[:2]}/{text}.pack"


def keys(service: str) -> str:
    return service_prefix(service) + "keys/"


def key(service: str, key_id: str, generation: int = 0) -> str:
    return f"{keys(service)}{_safe(key_id)}.{generation:06d}.json"


def generation_of(name: str) -> tuple[str, int]:
    """(id, generation) of a data key's or an escrow record's object; ValueError for a name that neither has."""
    match = _GENERATION.search(name)
    if match is None:
        raise ValueError(f"not a generation: {name!r}")
    return match[1], int(match[2])


def tombstone(service: str) -> str:
    return service_prefix(service) + "shredded.json"


def escrows(service: str) -> str:
    return service_prefix(service) + "escrow/"


def escrow(service: str, recipient: str, generation: int = 0) -> str:
    return f"{escrows(service)}{_safe(recipient)}.{generation:06d}.json"


def trees(service: str) -> str:
    return service_prefix(service) + "trees/"


def tree(service: str, tree_id: str) -> str:
    return f"{trees(service)}{_safe(tree_id)}.tree"


def indexes(service: str) -> str:
    return service_prefix(service) + "indexes/"


def index(service: str, index_id: str) -> str:
    return f"{indexes(service)}{_safe(index_id)}.index"


def catalogs(service: str) -> str:
    return service_prefix(service) + "catalogs/"


def catalog(service: str, digest: str) -> str:
    return f"{catalogs(service)}{_safe(digest)}.json"


def ledgers(service: str, host: str = "") -> str:
    prefix = service_prefix(service) + "ledgers/"
    return f"{prefix}{_safe(host)}/" if host else prefix


def ledger(service: str, host: str, first: int, last: int) -> str:
    return f"{ledgers(service, host)}{first:012d}-{last:012d}.json"


def journals(service: str) -> str:
    return service_prefix(service) + "journals/"


def journal(service: str, run: str) -> str:
    """The sealed journal of a run that worked on the service."""
    return f"{journals(service)}{_safe(run)}.jsonl"


def snapshots(service: str, source: str = "") -> str:
    prefix = service_prefix(service) + "snapshots/"
    return f"{prefix}{_safe(source)}/" if source else prefix


def manifest(service: str, source: str, sequence: int) -> str:
    return f"{snapshots(service, source)}{sequence:012d}.json"


def holds(service: str) -> str:
    return service_prefix(service) + "holds/"


def hold(service: str, snapshot: str, number: int) -> str:
    return f"{holds(service)}{_safe(snapshot)}.{number:06d}.json"


def logs(service: str, source: str = "") -> str:
    prefix = service_prefix(service) + "logs/"
    return f"{prefix}{_safe(source)}/" if source else prefix


def log_epoch(service: str, source: str, epoch: int) -> str:
    """The directory of an epoch."""
    return f"{logs(service, source)}{epoch:012d}/"


def log_record(service: str, source: str, epoch: int) -> str:
    return log_epoch(service, source, epoch) + "epoch.json"


def log_piece(service: str, source: str, epoch: int, timeline: int, start: int, end: int) -> str:
    return f"{log_epoch(service, source, epoch)}{timeline:08X}-{start:016X}-{end:016X}.log"


def log_history(service: str, source: str, epoch: int, timeline: int) -> str:
    return f"{log_epoch(service, source, epoch)}{timeline:08X}.history"
