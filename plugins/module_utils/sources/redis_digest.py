# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The content digest of a Redis: every key by database, type and value, independent of encodings and order.

Keys without expiry are summed up per database and type. Keys (and hash fields) that expire are kept one by one as
(hash, expiry), so that a comparison made later knows which of them must still be there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator

from ..errors import DamageError
from .contract import Comparison, Digest, Entry
from .redis_client import Link
from .redis_values import Values

ALGORITHM = "lifeboat-redis-1"
#: Keys per round trip.
_BATCH = 500
#: Expiring items per tree entry: 16 bytes of hash and 8 bytes of Unix milliseconds each.
_PACKED = 4096
_ITEM = 24
_MODULUS = 1 << 256


@dataclass
class Content:
    """permanent: (database, type) -> [count, sum]. volatile: (database, hash) -> expiry in Unix ms."""

    permanent: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    volatile: dict[tuple[int, bytes], int] = field(default_factory=dict)
    functions: list[int] = field(default_factory=lambda: [0, 0])
    #: Server time in ms when the reading began and ended.
    began: int = 0
    ended: int = 0

    @property
    def keys(self) -> int:
        return sum(count for count, _sum in self.permanent.values())

    def digest(self, key: bytes) -> Digest:
        """The clear part of the digest: a keyed value and counts."""
        text = json.dumps([
            sorted([*name, *value] for name, value in self.permanent.items()), self.functions,
            sorted([database, mark.hex(), expiry] for (database, mark), expiry in self.volatile.items()),
        ], separators=(",", ":"))
        value = hashlib.blake2b(text.encode(), key=hashlib.blake2b(b"redis digest", key=key, digest_size=32).digest(), digest_size=32).hexdigest()
        return {"algorithm": ALGORITHM, "value": value, "keys": self.keys, "volatile": len(self.volatile), "functions": self.functions[0]}

    def entries(self) -> Iterator[Entry]:
        """The tree entries that keep the digest item by item."""
        yield {"type": "content", "algorithm": ALGORITHM, "functions": [self.functions[0], f"{self.functions[1]:064x}"]}
        for (database, kind), (count, total) in sorted(self.permanent.items()):
            yield {"type": "keys", "database": database, "kind": kind, "count": count, "hash": f"{total:064x}"}
        items = sorted((database, mark + expiry.to_bytes(8, "big")) for (database, mark), expiry in self.volatile.items())
        for database in sorted({number for number, _item in items}):
            mine = [item for number, item in items if number == database]
            for start in range(0, len(mine), _PACKED):
                packed = base64.b64encode(b"".join(mine[start:start + _PACKED])).decode()
                yield {"type": "volatile", "database": database, "items": packed}


def from_entries(entries: Iterable[Entry]) -> Content:
    """The captured content out of a tree. Raises DamageError when the tree holds none."""
    content: Content | None = None
    for entry in entries:
        if entry["type"] == "content":
            if entry["algorithm"] != ALGORITHM:
                raise DamageError(f"unknown content digest {entry['algorithm']!r}", "redis snapshot", "use the version of the collection that took it")
            content = Content(functions=[int(entry["functions"][0]), int(entry["functions"][1], 16)])
        elif content is not None and entry["type"] == "keys":
            content.permanent[(int(entry["database"]), str(entry["kind"]))] = [int(entry["count"]), int(entry["hash"], 16)]
        elif content is not None and entry["type"] == "volatile":
            packed = base64.b64decode(entry["items"])
            for start in range(0, len(packed), _ITEM):
                item = packed[start:start + _ITEM]
                content.volatile[(int(entry["database"]), item[:16])] = int.from_bytes(item[16:], "big")
    if content is None:
        raise DamageError("the snapshot holds no content digest", "redis snapshot", "choose another point")
    return content


def compare(expected: Content, found: Content) -> Comparison:
    """Hold a server's content against a captured one.

    Permanent keys must be equal. An expiring key found must be a captured one with the same expiry; a captured one
    must be found if its time had not come when the reading ended.
    """
    differences = []
    for database, kind in sorted(expected.permanent.keys() | found.permanent.keys()):
        want, have = expected.permanent.get((database, kind), [0, 0]), found.permanent.get((database, kind), [0, 0])
        if want != have:
            same = "their names or values differ" if want[0] == have[0] else f"{have[0]} found"
            differences.append(f"database {database}: {want[0]} permanent keys of type {kind} expected, {same}")
    unknown: dict[int, int] = {}
    for name, expiry in found.volatile.items():
        if expected.volatile.get(name) != expiry:
            unknown[name[0]] = unknown.get(name[0], 0) + 1
    missing: dict[int, int] = {}
    due = 0
    for name, expiry in expected.volatile.items():
        if expiry > found.ended:
            due += 1
            if name not in found.volatile:
                missing[name[0]] = missing.get(name[0], 0) + 1
    for database, count in sorted(unknown.items()):
        differences.append(f"database {database}: {count} expiring keys are new, changed, or expire at another time")
    for database, count in sorted(missing.items()):
        differences.append(f"database {database}: {count} expiring keys are missing before their time")
    if expected.functions != found.functions:
        differences.append(f"functions: {expected.functions[0]} libraries expected, {found.functions[0]} found, or their code differs")
    return Comparison(not differences, differences, expected.keys + due + expected.functions[0])


def measure(link: Link, key: bytes, progress: Any = None) -> Content:
    """Read everything a server holds. Raises SourceError, also for types of modules, which have no canonical form."""
    values = Values(link, hashlib.blake2b(b"redis values", key=key, digest_size=32).digest())
    content = Content(began=_now(link))
    for code in sorted(values.functions()):
        content.functions = [content.functions[0] + 1, (content.functions[1] + code) % _MODULUS]
    for database in _databases(link):
        link.call("SELECT", database)
        _database(link, database, values, content, progress)
    content.ended = _now(link)
    return content


def _databases(link: Link) -> list[int]:
    return sorted(int(name[2:]) for name, value in link.info().items() if name.startswith("db") and name[2:].isdigit() and "keys=" in value)


def _now(link: Link) -> int:
    seconds, micro = link.call("TIME")
    return int(seconds) * 1000 + int(micro) // 1000


def _database(link: Link, database: int, values: Values, content: Content, progress: Any) -> None:
    # SCAN may return a key twice while a table is resized. Without expiring keys the count tells; otherwise, and
    # when it does not match, every key is remembered.
    totals: dict[str, list[int]] = {}
    remember = _expiring(link, database) > 0
    count = _pass(link, database, values, totals, content, remember, progress)
    if not remember and count != link.call("DBSIZE"):
        totals = {}
        _pass(link, database, values, totals, content, True, None)
    for kind, total in totals.items():
        content.permanent[(database, kind)] = total


def _expiring(link: Link, database: int) -> int:
    text = link.info().get(f"db{database}", "")
    return next((int(part[8:]) for part in text.split(",") if part.startswith("expires=")), 0)


def _pass(
    link: Link, database: int, values: Values, totals: dict[str, list[int]], content: Content, remember: bool, progress: Any,
) -> int:
    cursor, count = b"0", 0
    seen: set[bytes] = set()
    while True:
        cursor, names = link.call("SCAN", cursor, "COUNT", _BATCH)
        if remember:
            marks = {values.mark(name): name for name in names}
            names = [name for mark, name in marks.items() if mark not in seen]
            seen.update(marks)
        count += len(names)
        for kind, value in values.read(database, names):
            if isinstance(value, tuple):
                content.volatile[(database, value[0])] = value[1]
            else:
                total = totals.setdefault(kind, [0, 0])
                total[0] += 1
                total[1] = (total[1] + value) % _MODULUS
        if progress is not None:
            progress(len(names))
        if cursor == b"0":
            return count
