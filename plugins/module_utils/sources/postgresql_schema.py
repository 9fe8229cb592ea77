# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The digest of a schema: pg_dump's own text, object by object.

Each object has two keyed hashes. The strict one is of its text. The loose one is of the text without white space,
parentheses and casts: the server words some expressions differently once they have been dumped and loaded (a CHECK with
IN over varchar is the common case), and that is not damage.
"""

from __future__ import annotations

import hashlib
import re

_NAME = re.compile(rb"-- Name: (.*); Type: (.*); Schema: (.*?); Owner: (.*)")
#: Lines that depend on the tools, on the order of objects, or on nothing at all.
_NOISE = re.compile(
    rb"^(?:--|-- PostgreSQL database dump.*|-- Dumped (?:from|by) .*|\\(?:un)?restrict .*|SET default_tablespace .*|SET default_table_access_method .*|"
    rb"SET default_with_oids .*|)$"
)
_WORD = rb'(?:"(?:[^"]|"")+"|\w+)'
_TYPE = rb"(?:character varying|time(?:stamp)? with(?:out)? time zone|double precision|bit varying|" + _WORD + rb"(?:\." + _WORD + rb")*)"
_CAST = re.compile(rb"::\s*" + _TYPE + rb"(?:\(\d+(?:,\s*-?\d+)?\))?(?:\[\])*")
_LOOSE = re.compile(rb"[\s()]+")
_MODULUS = 1 << 256


def _loose(text: bytes) -> bytes:
    return _LOOSE.sub(b"", _CAST.sub(b"", text))


class SchemaHash:
    """Takes the pre-data and post-data sections; one instance for both. objects: name -> (strict, loose) hex."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(b"postgresql schema object", key=key, digest_size=32).digest()
        self._sums: dict[str, list[int]] = {}
        self._rest = b""
        self._block: list[bytes] = []
        self._name: str | None = None
        self.ended = False

    def update(self, data: bytes | memoryview) -> None:
        """Text of a section, in any pieces."""
        lines = (self._rest + bytes(data)).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._line(line)

    def end_section(self) -> bool:
        """After the last piece of a section; False if the text does not end as pg_dump ends it."""
        self._line(self._rest)
        self._rest = b""
        self._flush()
        ended, self.ended = self.ended, False
        return ended

    @property
    def objects(self) -> dict[str, tuple[str, str]]:
        """name -> (strict, loose), sorted by name."""
        return {name: (f"{sums[0]:064x}", f"{sums[1]:064x}") for name, sums in sorted(self._sums.items())}

    def _line(self, line: bytes) -> None:
        if line.startswith(b"-- Name: "):
            found = _NAME.fullmatch(line)
            if found:
                self._flush()
                name, kind, schema, _owner = (part.decode("utf-8", "replace") for part in found.groups())
                skip = kind.startswith("BLOB") or name.startswith("LARGE OBJECT")  # large objects have a digest of their own
                self._name = None if skip else f"{kind} {name}" if schema == "-" else f"{kind} {schema}.{name}"
                self._block = [line]
                return
        elif line.startswith(b"-- PostgreSQL database dump complete"):
            self.ended = True
        if not _NOISE.match(line):
            self._block.append(line)

    def _flush(self) -> None:
        if self._name is not None:
            text = b"\n".join(self._block)
            sums = self._sums.setdefault(self._name, [0, 0])
            for index, form in enumerate((text, _loose(text))):
                digest = hashlib.blake2b(form, key=self._key, digest_size=32).digest()
                sums[index] = (sums[index] + int.from_bytes(digest, "little")) % _MODULUS
        self._name, self._block = None, []
