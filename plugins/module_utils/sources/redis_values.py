# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One canonical keyed hash per Redis key, whatever its encoding: members of sets and hashes in no order, all else in order."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any, Iterator, Union

from ..errors import SourceError
from .redis_client import Link

#: Elements of one collection per round trip.
_PIECE = 1000
#: Bytes of a string asked for with those of other keys, and then alone; the second is a multiple of the first.
_STRING_FIRST = 64 << 10
_STRING_PIECE = 8 << 20
#: Estimated bytes of keys whose first pieces are asked for together.
_GROUP_BYTES = 16 << 20
#: What is asked first about a key of each type (the key comes behind the verb).
_FIRST: dict[str, tuple[str | int, ...]] = {
    "string": ("GETRANGE", 0, _STRING_FIRST - 1),
    "list": ("LRANGE", 0, _PIECE - 1),
    "zset": ("ZRANGE", 0, _PIECE - 1, "WITHSCORES"),
    "set": ("SSCAN", 0, "COUNT", _PIECE),
    "hash": ("HSCAN", 0, "COUNT", _PIECE),
    "stream": (),
}
_MODULUS = 1 << 256

#: (hash of a permanent key as a number) or ((16 bytes of hash), expiry in Unix ms)
Value = Union[int, tuple[bytes, int]]


def frame(*parts: bytes | int) -> bytes:
    """Length-prefixed parts: no two lists of parts give the same bytes."""
    made = []
    for part in parts:
        data = b"%d" % part if isinstance(part, int) else part
        made.append(b"%d:" % len(data))
        made.append(data)
    return b"".join(made)


class Values:
    """Reads keys over a link, in round trips for many keys at once."""

    def __init__(self, link: Link, key: bytes) -> None:
        self._link = link
        self._new = hashlib.blake2b(b"", key=key, digest_size=32).copy
        self._field_expiry = bool(link.call("COMMAND", "INFO", "HPEXPIRETIME")[0])

    def mark(self, name: bytes) -> bytes:
        """16 bytes that stand for a name."""
        return self._hash(name)[:16]

    def functions(self) -> list[int]:
        """One number per function library."""
        return [self._number(frame(*_flat(library))) for library in self._link.call("FUNCTION", "LIST", "WITHCODE")]

    def read(self, database: int, names: list[bytes]) -> Iterator[tuple[str, Value]]:
        """(type, value) of keys of the selected database; a key that went away meanwhile gives nothing.

        Hash fields with an expiry of their own come as values of their own.
        """
        if not names:
            return
        about = self._link.many([command for name in names for command in (("TYPE", name), ("PEXPIRETIME", name))])
        here = [(name, kind.decode(), int(expiry)) for name, kind, expiry in zip(names, about[::2], about[1::2]) if kind != b"none" and int(expiry) != -2]
        simple = [key for key in here if key[1] in ("string", "stream")]
        yield from self._group(database, simple)
        others = [key for key in here if key[1] not in ("string", "stream")]
        group: list[tuple[bytes, str, int]] = []
        size = 0
        for key, usage in zip(others, self._link.many([("MEMORY", "USAGE", name, "SAMPLES", 1) for name, _kind, _expiry in others]) if others else []):
            group.append(key)
            size += int(usage or 0)
            if size > _GROUP_BYTES:
                yield from self._group(database, group)
                group, size = [], 0
        yield from self._group(database, group)

    def _group(self, database: int, group: list[tuple[bytes, str, int]]) -> Iterator[tuple[str, Value]]:
        """Keys that are small together: the first piece of each in one round trip."""
        commands: list[tuple[str | bytes | int, ...]] = []
        for name, kind, _expiry in group:
            if kind not in _FIRST:
                raise SourceError(f"keys of type {kind!r} cannot be compared", self._link.place, "data of modules is not supported: keep it elsewhere")
            first = _FIRST[kind]
            if first:
                commands.append((str(first[0]), name, *first[1:]))
        replies = deque(self._link.many(commands) if commands else ())
        for name, kind, expiry in group:
            extra: list[tuple[bytes, int]] = []
            if kind == "string":
                content = self._string(name, replies.popleft())
            elif kind == "list":
                content = self._ordered(name, replies.popleft(), "LRANGE", ())
            elif kind == "zset":
                content = self._ordered(name, replies.popleft(), "ZRANGE", ("WITHSCORES",))
            elif kind == "set":
                content = self._set(name, replies.popleft())
            elif kind == "hash":
                content, extra = self._fields(database, name, replies.popleft())
            else:
                content = self._stream(name)
            if not content:
                continue
            digest = self._hash(frame(database, name, kind.encode(), content))
            yield kind, (digest[:16], expiry) if expiry >= 0 else int.from_bytes(digest, "little")
            for item in extra:
                yield kind, item

    def _hash(self, data: bytes) -> bytes:
        digest = self._new()
        digest.update(data)
        return digest.digest()

    def _number(self, data: bytes) -> int:
        return int.from_bytes(self._hash(data), "little")

    def _string(self, name: bytes, part: bytes) -> bytes:
        if not part:
            # An empty string is a value; a key that expired a moment ago reads the same and is told apart here.
            return self._hash(b"") if self._link.call("EXISTS", name) else b""
        digest, start = self._new(), len(part)
        digest.update(part)
        while start % _STRING_FIRST == 0:
            part = self._link.call("GETRANGE", name, start, start + _STRING_PIECE - 1)
            if not part:
                break
            digest.update(part)
            start += len(part)
        return digest.digest()

    def _ordered(self, name: bytes, part: list[bytes], verb: str, words: tuple[str, ...]) -> bytes:
        """A list, or a sorted set with its scores."""
        digest, start = self._new(), 0
        full = _PIECE * (1 + len(words))
        while True:
            digest.update(frame(*part))
            if len(part) < full:
                return digest.digest()
            start += _PIECE
            part = self._link.call(verb, name, start, start + _PIECE - 1, *words)

    def _set(self, name: bytes, first: list[Any]) -> bytes:
        cursor, part = first
        total, count, whole = 0, 0, cursor == b"0"
        while True:
            total += sum(self._number(member) for member in part)
            count += len(part)
            if cursor == b"0":
                break
            cursor, part = self._link.call("SSCAN", name, cursor, "COUNT", _PIECE)
        if not whole and count != self._link.call("SCARD", name):
            members = self._link.call("SMEMBERS", name)  # a table that was being resized gave members twice
            total = sum(self._number(member) for member in members)
        return b"%x" % (total % _MODULUS)

    def _fields(self, database: int, name: bytes, first: list[Any]) -> tuple[bytes, list[tuple[bytes, int]]]:
        cursor, part = first
        found: list[bytes] = []
        total, count, whole = 0, 0, cursor == b"0"
        extra: list[tuple[bytes, int]] = []
        while True:
            if self._field_expiry:
                found += part
            else:
                total += sum(self._number(frame(field, value)) for field, value in zip(part[::2], part[1::2]))
            count += len(part) // 2
            if cursor == b"0":
                break
            cursor, part = self._link.call("HSCAN", name, cursor, "COUNT", _PIECE)
        if not whole and count != self._link.call("HLEN", name):
            found = self._link.call("HGETALL", name)
            total = 0 if self._field_expiry else sum(self._number(frame(field, value)) for field, value in zip(found[::2], found[1::2]))
        if self._field_expiry:
            fields = list(dict(zip(found[::2], found[1::2])).items())
            for start in range(0, len(fields), _PIECE):
                some = fields[start:start + _PIECE]
                times = self._link.call("HPEXPIRETIME", name, "FIELDS", len(some), *(field for field, _value in some))
                for (field, value), expiry in zip(some, times or [-1] * len(some)):
                    if int(expiry) >= 0:
                        extra.append((self._hash(frame(database, name, b"field", field, value))[:16], int(expiry)))
                    elif int(expiry) == -1:
                        total += self._number(frame(field, value))
        return b"%x" % (total % _MODULUS), extra

    def _stream(self, name: bytes) -> bytes:
        digest, start = self._new(), b"-"
        while True:
            part = self._link.call("XRANGE", name, start, "+", "COUNT", _PIECE)
            for identity, fields in part:
                digest.update(frame(identity, *(fields or [])))
            if len(part) < _PIECE:
                break
            start = b"(" + part[-1][0]
        facts = _pairs(self._link.call("XINFO", "STREAM", name))
        digest.update(frame(*(facts.get(key, b"") for key in ("last-generated-id", "max-deleted-entry-id", "entries-added"))))
        for group in sorted(self._link.call("XINFO", "GROUPS", name), key=lambda reply: bytes(_pairs(reply)["name"])):
            about = _pairs(group)
            read = about.get("entries-read")
            digest.update(frame(b"group", about["name"], about["last-delivered-id"], b"" if read is None else read))
            for consumer in sorted(bytes(_pairs(reply)["name"]) for reply in self._link.call("XINFO", "CONSUMERS", name, about["name"])):
                digest.update(frame(b"consumer", consumer))
            start = b"-"
            while True:
                pending = self._link.call("XPENDING", name, about["name"], start, "+", _PIECE)
                for identity, consumer, _idle, deliveries in pending:
                    digest.update(frame(b"pending", identity, consumer, deliveries))
                if len(pending) < _PIECE:
                    break
                start = b"(" + pending[-1][0]
        return digest.digest()


def _pairs(reply: Any) -> dict[str, Any]:
    return {key.decode(): value for key, value in zip(reply[::2], reply[1::2])}


def _flat(reply: Any) -> Iterator[bytes | int]:
    if isinstance(reply, list):
        yield len(reply)
        for part in reply:
            yield from _flat(part)
    else:
        yield b"" if reply is None else reply
