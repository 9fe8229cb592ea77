# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The kinds of values a catalog may hold. Each takes a node and returns the normalised value, or WRONG after a fault."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence
from urllib.parse import urlsplit

from .problems import Faults, nearest, shown
from .reader import Node

#: Returned instead of a value once a fault was recorded; callers drop it.
WRONG: Any = object()

_DURATION = re.compile(r"(?:[0-9]+(?:ms|[smhdw]))+\Z")
_DURATION_PART = re.compile(r"([0-9]+)(ms|[smhdw])")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
_SIZE = re.compile(r"\s*([0-9]{1,18})\s*([KMGT]?)(?:i?B)?\s*\Z")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")


@dataclass
class At:
    """Where a value stands in words (``services.orders.host``) and where faults go."""

    label: str
    faults: Faults

    def key(self, name: str) -> At:
        return At(f"{self.label}.{name}" if self.label else name, self.faults)

    def item(self, index: int) -> At:
        return At(f"{self.label}[{index}]", self.faults)

    def wrong(self, node: Node, what: str, remedy: str) -> Any:
        """Record ``<label> what`` and return WRONG."""
        if node.broken:
            return WRONG
        self.faults.add(f"{self.label} {what}".strip(), node.file, node.line, remedy)
        return WRONG


Kind = Callable[[Node, At], Any]


def duration_seconds(value: object) -> float | int | None:
    """Seconds of 90, "90", "5m", "1h30m", "250ms", "7d"; None if it is no duration."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return value if value >= 0 else None
    text = str(value)
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    if len(text) > 40 or not _DURATION.match(text):
        return None
    total = sum(int(count) * _UNITS[unit] for count, unit in _DURATION_PART.findall(text))
    return int(total) if total == int(total) else round(total, 3)


def _is(node: Node) -> str:
    """What a node is, in the words of an error."""
    value = node.value
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return f'the text "{shown(value)}"'


def text(node: Node, at: At) -> Any:
    """One line or block of text. A number is refused: quotes say that it is meant as text."""
    if isinstance(node.value, str) and node.value.strip():
        if "\0" in node.value:
            return at.wrong(node, "holds a NUL character", "remove it")
        return node.value
    if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return at.wrong(node, f"must be text, is {_is(node)}", "put it in quotes")
    return at.wrong(node, f"must be text, is {_is(node)}", "write some text")


def name(node: Node, at: At) -> Any:
    """A word that is safe in paths, group names and SQL comments: [a-z0-9][a-z0-9_-]*, at most 63."""
    value = text(node, at)
    if value is WRONG or _NAME.match(value):
        return value
    return at.wrong(node, f'is not a safe name ("{shown(value)}")', "use small letters, digits, - and _, at most 63, not beginning with - or _")


def host(node: Node, at: At) -> Any:
    """The name of an inventory host."""
    value = text(node, at)
    if value is WRONG or (_HOST.match(value) and ".." not in value):
        return value
    return at.wrong(node, f'is not a host name ("{shown(value)}")', "give the name of one inventory host")


def integer(minimum: int | None = None, maximum: int | None = None) -> Kind:
    def kind(node: Node, at: At) -> Any:
        value = node.value
        if node.computed and isinstance(value, str) and _INTEGER.match(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return at.wrong(node, f"must be a whole number, is {_is(node)}", "write digits without quotes")
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            low, high = ("-" if bound is None else str(bound) for bound in (minimum, maximum))
            return at.wrong(node, f"is out of range ({value})", f"choose from {low} to {high}")
        return value
    return kind


def number(node: Node, at: At) -> Any:
    value = node.value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return at.wrong(node, f"must be a number, is {_is(node)}", "write it without quotes")


def size(node: Node, at: At) -> Any:
    """Bytes: a whole number, or one with K, M, G or T."""
    found = _SIZE.match(str(node.value)) if node.kind == "scalar" and not isinstance(node.value, bool) else None
    if found is None:
        return at.wrong(node, f"must be a size, is {_is(node)}", 'write bytes, or a number with K, M, G or T, as "4G"')
    return int(found[1]) << 10 * " KMGT".index(found[2] or " ")


def bounded(kind: Kind, least: float | None, most: float | None) -> Kind:
    """A number that is neither too small nor too large."""
    def take(node: Node, at: At) -> Any:
        value = kind(node, at)
        if value is WRONG or ((least is None or value >= least) and (most is None or value <= most)):
            return value
        bounds = " to ".join(str(bound) for bound in (least, most) if bound is not None)
        return at.wrong(node, f"is out of range ({shown(node.plainly())})", f"choose {bounds}{' or more' if most is None else ''}")
    return take


def boolean(node: Node, at: At) -> Any:
    if isinstance(node.value, bool):
        return node.value
    if isinstance(node.value, str) and node.value.lower() in ("yes", "on", "no", "off", "true", "false") and (node.plain or node.computed):
        return node.value.lower() in ("yes", "on", "true")
    return at.wrong(node, f"must be true or false, is {_is(node)}", "write true or false")


def duration(node: Node, at: At) -> Any:
    """Seconds as a number."""
    value = duration_seconds(node.value) if node.kind == "scalar" else None
    if value is None:
        return at.wrong(node, f"must be a duration, is {_is(node)}", 'write seconds, or a number with ms, s, m, h, d or w, as "5m"')
    return value


def positive_duration(node: Node, at: At) -> Any:
    value = duration(node, at)
    if value is WRONG or value > 0:
        return value
    return at.wrong(node, "must be longer than nothing", 'write for example "60s"')


def path(node: Node, at: At) -> Any:
    """Absolute, already in its shortest form, below the root directory: nothing can lead out of where it points."""
    value = text(node, at)
    if value is WRONG:
        return WRONG
    return checked_path(value, node, at)


def checked_path(value: str, node: Node, at: At) -> Any:
    if any(ord(character) < 32 for character in value):
        return at.wrong(node, "holds a control character", "remove it")
    if not value.startswith("/"):
        return at.wrong(node, f'is not an absolute path ("{shown(value)}")', "begin it with /")
    if ".." in value.split("/"):
        return at.wrong(node, f'leaves its root ("{shown(value)}")', "write the path without ..")
    normal = posixpath.normpath(value)
    if value.startswith("//"):
        normal = normal.lstrip("/") and "/" + normal.lstrip("/")
    if normal in ("/", ""):
        return at.wrong(node, "is the root directory", "name a directory below it")
    if value.rstrip("/") != normal:
        return at.wrong(node, f'is not in its shortest form ("{shown(value)}")', f"write {shown(normal)}")
    return normal


def home_path(node: Node, at: At) -> Any:
    """As path, or below the user's home on the host: ~/…"""
    value = text(node, at)
    if value is WRONG:
        return WRONG
    if value.startswith("~/"):
        rest = checked_path(value[1:], node, at)
        return rest if rest is WRONG else "~" + rest
    return checked_path(value, node, at)


def inner_path(node: Node, at: At) -> Any:
    """A path below the catalog's own directory, written relative to it."""
    value = text(node, at)
    if value is WRONG:
        return WRONG
    parts = value.split("/")
    if value.startswith(("/", "~")) or ".." in parts:
        return at.wrong(node, f'leaves the directory of the catalog ("{shown(value)}")', "give a path below that directory, without ..")
    normal = posixpath.normpath(value)
    return value if normal == value and normal != "." else at.wrong(node, f'is not in its shortest form ("{shown(value)}")', f"write {shown(normal)}")


def choice(*known: str) -> Kind:
    def kind(node: Node, at: At) -> Any:
        if isinstance(node.value, str) and node.value in known:
            return node.value
        if isinstance(node.value, str):
            return at.wrong(node, f'is unknown ("{shown(node.value)}")', nearest(node.value, known))
        return at.wrong(node, f"must be one word, is {_is(node)}", f"known are {', '.join(sorted(known))}")
    return kind


def scalar(node: Node, at: At) -> Any:
    """Text, number, boolean or null, as written: what a check compares with."""
    if node.kind == "scalar":
        return node.value
    return at.wrong(node, f"must be one value, is {_is(node)}", "write text, a number, true, false or null")


def anything(node: Node, at: At) -> Any:
    """Any JSON value, as written."""
    return node.plainly()


def argv(node: Node, at: At) -> Any:
    """A command as a list of words; no shell ever reads it."""
    if node.kind != "list":
        return at.wrong(node, f"must be a list of words, is {_is(node)}", 'write the command as a list, as ["systemctl", "start", "orders"]; no shell reads it')
    words = []
    for index, item in enumerate(node.value):
        value = item.value
        if isinstance(value, bool) or value is None or not isinstance(value, (str, int, float)):
            at.item(index).wrong(item, f"must be a word, is {_is(item)}", "put it in quotes")
            continue
        if "\0" in str(value):
            at.item(index).wrong(item, "holds a NUL character", "remove it")
            continue
        words.append(str(value))
    if not node.value or (words and not words[0]):
        return at.wrong(node, "is an empty command", "name the program to run")
    return words if len(words) == len(node.value) else WRONG


def url(*schemes: str) -> Kind:
    def kind(node: Node, at: At) -> Any:
        value = text(node, at)
        if value is WRONG:
            return WRONG
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            return at.wrong(node, f'is not a URL ("{shown(value)}")', f"write {schemes[0]}://…")
        if parts.scheme not in schemes:
            return at.wrong(node, f'has an unknown scheme ("{shown(value)}")', f"begin it with {' or '.join(scheme + '://' for scheme in schemes)}")
        if parts.username or parts.password:
            return at.wrong(node, "holds a user or password", "remove it; catalogs hold no secrets")
        if any(character.isspace() or ord(character) < 32 for character in value):
            return at.wrong(node, "holds white space", "remove or encode it")
        if parts.scheme == "file":
            if parts.netloc:
                return at.wrong(node, f'is not a local path ("{shown(value)}")', "write file:///absolute/path")
            inner = checked_path(parts.path, node, at)
            return inner if inner is WRONG else f"file://{inner}"
        if parts.scheme not in ("http", "https", "s3"):
            return value if parts.netloc or parts.path else at.wrong(node, f'names no place ("{shown(value)}")', f"write {parts.scheme}://…")
        if not parts.hostname or port == 0:
            return at.wrong(node, f'names no host ("{shown(value)}")', f"write {parts.scheme}://host/…")
        if parts.scheme == "s3" and ".." in parts.path.split("/"):
            return at.wrong(node, f'leaves its root ("{shown(value)}")', "write the prefix without ..")
        return value
    return kind


def address(node: Node, at: At) -> Any:
    """host:port, with [] around an IPv6 address."""
    value = text(node, at)
    if value is WRONG:
        return WRONG
    where, _colon, port = value.rpartition(":")
    if where and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536 and (":" not in where or (where[0], where[-1]) == ("[", "]")):
        return value
    return at.wrong(node, f'is not host:port ("{shown(value)}")', 'write for example "127.0.0.1:8081"')


def sequence(kind: Kind, single: bool = False, minimum: int = 0) -> Kind:
    """A list of one kind. ``single`` lets a lone value stand for a list of one."""
    def take(node: Node, at: At) -> Any:
        if node.kind != "list":
            if single and node.value is not None:
                value = kind(node, at)
                return WRONG if value is WRONG else [value]
            return at.wrong(node, f"must be a list, is {_is(node)}", "write a list: [..] or lines that begin with -")
        if len(node.value) < minimum:
            return at.wrong(node, "is an empty list", f"name at least {minimum}")
        values = [kind(item, at.item(index)) for index, item in enumerate(node.value)]
        return [value for value in values if value is not WRONG]
    return take


def mapping_of(kind: Kind, key_kind: Kind = name, what: str = "name") -> Kind:
    """A mapping whose keys are names chosen by the user."""
    def take(node: Node, at: At) -> Any:
        if node.kind != "map":
            return at.wrong(node, f"must be a mapping, is {_is(node)}", f"write {what}: value pairs")
        result = {}
        for key, value_node in node.value.items():
            key_node = Node(key, node.file, node.key_lines.get(key, node.line))
            good = key_kind(key_node, at.key(shown(key)))
            value = kind(value_node, at.key(shown(key)))
            if good is not WRONG and value is not WRONG:
                result[key] = value
        return result
    return take


@dataclass(frozen=True)
class Field:
    """One key of a closed mapping; ``default`` None leaves the key out."""

    kind: Kind
    required: bool = False
    default: Any = None


def closed(fields: Mapping[str, Field], after: Callable[[dict[str, Any], Node, At], Any] | None = None,
           short: Callable[[Node, At], Any] | None = None, what: str = "keys") -> Kind:
    """A mapping with known keys only. ``after`` checks and completes the whole; ``short`` reads a shorter spelling."""
    def take(node: Node, at: At) -> Any:
        if node.kind != "map":
            if short is not None and node.value is not None:
                return short(node, at)
            return at.wrong(node, f"must be a mapping, is {_is(node)}", f"known {what} are {', '.join(fields)}")
        return take_fields(node, at, fields, after)
    return take


def take_fields(node: Node, at: At, fields: Mapping[str, Field],
                after: Callable[[dict[str, Any], Node, At], Any] | None = None, partial: bool = False) -> Any:
    """The normalised mapping; WRONG after a fault, or what is right of it when ``partial``."""
    result: dict[str, Any] = {}
    for key in node.value:
        if key not in fields:
            inside = f" in {at.label}" if at.label else ""
            at.faults.add(f'unknown key "{shown(key)}"{inside}', node.file, node.key_lines.get(key, node.line), nearest(key, fields))
    complete = True
    for key, spec in fields.items():
        if key in node.value:
            child = node.value[key]
            if child.value is None and not spec.required and spec.kind is not scalar and spec.kind is not anything:
                value = None  # "key:" with nothing behind it is the same as leaving it out
            else:
                value = spec.kind(child, at.key(key))
            if value is WRONG:
                complete = False
            elif value is not None or spec.kind in (scalar, anything):
                result[key] = value
                continue
        elif spec.required:
            inside = f" in {at.label}" if at.label else ""
            at.faults.add(f"missing key {key}{inside}", node.file, node.line, f"add {key}:")
            complete = False
        if spec.default is not None and key not in result:
            default = spec.default
            result[key] = list(default) if isinstance(default, (list, tuple)) else dict(default) if isinstance(default, dict) else default
    if not complete and not partial:
        return WRONG
    return after(result, node, at) if after is not None else result


def exactly_one(result: Mapping[str, Any], names: Sequence[str], node: Node, at: At) -> bool:
    """Record a fault unless exactly one of ``names`` is given."""
    given = [key for key in names if key in result]
    if len(given) == 1:
        return True
    what = f"has {' and '.join(given)} together" if given else "does nothing"
    at.wrong(node, what, f"give exactly one of {', '.join(names)}")
    return False
