# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of Redis: every key of every database with type, value and absolute expiry."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .. import stores
from ..layout import Home

_BATCH = 500
_DATABASES = 16

#: What XINFO says that is no content: how long ago somebody asked, and how the entries are laid out in memory.
_CHANGES_BY_ITSELF = ("seen-time", "active-time", "idle", "inactive", "radix-tree-keys", "radix-tree-nodes", "entries")


def keys(home: Home) -> dict[str, Any]:
    """{"databases": {number: {key as ASCII with escapes: [type, digest of the value, expiry in ms or -1]}}, "taken_ms": server's clock}."""
    if not stores.running(home, "redis"):
        return {"absent": "redis is not running"}
    databases: dict[str, Any] = {}
    for number in range(_DATABASES):
        found = _database(stores.redis_client(home, database=number))
        if found:
            databases[str(number)] = found
    seconds, micros = stores.redis_client(home).time()
    return {"databases": databases, "taken_ms": seconds * 1000 + micros // 1000}


def _database(client: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    cursor = 0
    while True:
        cursor, names = client.scan(cursor, count=_BATCH)
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.type(name)
            pipe.execute_command("PEXPIRETIME", name)
        answers = pipe.execute()
        kinds = answers[::2]
        pipe = client.pipeline(transaction=False)
        for name, kind in zip(names, kinds):
            _ask(pipe, name, kind.decode())
        for name, kind, expiry, value in zip(names, kinds, answers[1::2], pipe.execute()):
            if kind == b"none":
                continue
            shown = name.decode("latin-1").encode("unicode_escape").decode("ascii")
            if kind == b"stream":
                value = [value, _stream(client, name)]
            result[shown] = [kind.decode(), _digest(kind.decode(), value), expiry]
        if cursor == 0:
            return result


def _ask(pipe: Any, name: bytes, kind: str) -> None:
    commands: dict[str, tuple[Any, ...]] = {
        "string": ("GET", name), "list": ("LRANGE", name, 0, -1), "set": ("SMEMBERS", name), "zset": ("ZRANGE", name, 0, -1, "WITHSCORES"),
        "hash": ("HGETALL", name), "stream": ("XRANGE", name, "-", "+"), "none": ("EXISTS", name),
    }
    pipe.execute_command(*commands[kind])


def _stream(client: Any, name: bytes) -> Any:
    """Ids, groups, consumers and what was delivered and not acknowledged, without what changes by mere waiting."""
    facts = client.execute_command("XINFO", "STREAM", name, "FULL", "COUNT", "0")
    return _without_clocks(facts)


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(key): _without_clocks(item) for key, item in value.items() if _text(key) not in _CHANGES_BY_ITSELF}
    if isinstance(value, (list, tuple)):
        return [_without_clocks(item) for item in value]
    return value


def _digest(kind: str, value: Any) -> str:
    plain = _plain(value)
    if kind == "set":
        plain = sorted(plain)
    elif kind == "hash":
        plain = sorted(plain.items()) if isinstance(plain, dict) else sorted(zip(plain[::2], plain[1::2]))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Something JSON can hold, the same for the same value."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {_plain(key) if isinstance(key, bytes) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return repr(value) if isinstance(value, float) else value


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)
