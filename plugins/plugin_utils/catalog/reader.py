# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""YAML to nodes that know their file and line. The input is hostile: bounded, no aliases, no tags, no templates.

Scalars follow the YAML 1.2 core schema (``on`` is a word, ``017`` is a word, ``1:30`` is a word), because a
catalog that silently turns a word into a number restores the wrong thing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Iterator, Union

import yaml

from .problems import CatalogError, Problem, shown

#: Bounds of one file; a catalog of a thousand services stays far below them.
MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 24
MAX_SCALAR = 64 * 1024

Scalar = Union[str, int, float, bool, None]

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]{1,3})\Z")
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}


@dataclass
class Node:
    """One place in a file. ``value`` is a scalar, a list of nodes, or a mapping of key to node.

    plain: an unquoted scalar. computed: the scalar came out of a substitution, so numbers arrive as text.
    broken: a fault of it is reported already, so others that follow from it are not. key_lines: for a mapping, where
    each key stands.
    """

    value: Any
    file: str
    line: int
    plain: bool = True
    computed: bool = False
    broken: bool = False
    key_lines: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """map, list or scalar."""
        if isinstance(self.value, dict):
            return "map"
        return "list" if isinstance(self.value, list) else "scalar"

    def plainly(self) -> Any:
        """The value without positions."""
        if isinstance(self.value, dict):
            return {key: node.plainly() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plainly() for node in self.value]
        return self.value

    def scalars(self) -> Iterator[Node]:
        """Every scalar node below (and including) this one."""
        if isinstance(self.value, dict):
            for node in self.value.values():
                yield from node.scalars()
        elif isinstance(self.value, list):
            for node in self.value:
                yield from node.scalars()
        else:
            yield self


def scalar_of(text: str) -> Scalar:
    """The value of a plain scalar, by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


class _Builder:
    """Turns the event stream into nodes without recursion, so that depth costs nothing."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.nodes = 0
        self.problems: list[Problem] = []
        self.documents: list[Node] = []
        self.stack: list[tuple[Node, str | None]] = []

    def fail(self, what: str, line: int, remedy: str) -> CatalogError:
        return CatalogError([*self.problems, Problem(what, self.file, line, remedy)])

    def feed(self, event: yaml.events.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.events.AliasEvent):
            raise self.fail(f"alias *{shown(event.anchor)}", line, "aliases are not read; write the value, or use variables")
        if isinstance(event, yaml.events.NodeEvent) and event.anchor is not None:
            raise self.fail(f"anchor &{shown(event.anchor)}", line, "anchors are not read; use variables for shared values")
        if isinstance(event, (yaml.events.ScalarEvent, yaml.events.CollectionStartEvent)):
            if event.tag is not None:
                raise self.fail(f"tag {shown(event.tag)}", line, "tags are not read; remove it")
            self.open(event, line)
        elif isinstance(event, yaml.events.CollectionEndEvent):
            self.stack.pop()

    def open(self, event: Any, line: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fail(f"more than {MAX_NODES} values", line, "split the catalog into one per ecosystem")
        if isinstance(event, yaml.events.ScalarEvent):
            if len(event.value) > MAX_SCALAR:
                raise self.fail(f"a value longer than {MAX_SCALAR} characters", line, "shorten it")
            plain = not event.style
            node = Node(scalar_of(event.value) if plain else event.value, self.file, line, plain)
        else:
            node = Node({} if isinstance(event, yaml.events.MappingStartEvent) else [], self.file, line)
        if self.attach(node, event, line) and node.kind != "scalar":
            if len(self.stack) >= MAX_DEPTH:
                raise self.fail(f"nested deeper than {MAX_DEPTH} levels", line, "no catalog key needs this depth; check the indentation")
            self.stack.append((node, None))

    def attach(self, node: Node, event: Any, line: int) -> bool:
        """Put a node where it belongs; False when it was the key of a mapping."""
        if not self.stack:
            self.documents.append(node)
            return True
        parent, key = self.stack[-1]
        if parent.kind == "list":
            parent.value.append(node)
            return True
        if key is None:
            self.key(parent, node, event, line)
            return False
        self.stack[-1] = (parent, None)
        parent.value[key] = node
        return True

    def key(self, parent: Node, node: Node, event: Any, line: int) -> None:
        if not isinstance(event, yaml.events.ScalarEvent):
            raise self.fail("a mapping key that is not a word", line, "write keys as plain words")
        name = event.value
        if name == "<<" and node.plain:
            raise self.fail("merge key <<", line, "merge keys are not read; write the keys out, or use variables")
        if name in parent.key_lines:
            what = f'service "{shown(name)}" is declared twice' if self.is_services(parent) else f'key "{shown(name)}" is given twice'
            self.problems.append(Problem(what, self.file, line, f"the first is at line {parent.key_lines[name]}; rename or remove one"))
            # The first one stays; the second is parsed under a name that no key can have and dropped at the end.
            name = f"{name}\0{line}"
        parent.key_lines[name] = line
        self.stack[-1] = (parent, name)

    def is_services(self, node: Node) -> bool:
        return bool(self.documents) and self.documents[0].kind == "map" and self.documents[0].value.get("services") is node


def parse(text: str, file: str) -> tuple[Node, list[Problem]]:
    """One YAML document as nodes, and the duplicate keys found in it (the first of each is kept).

    Raises CatalogError for text that is not one bounded, plain YAML document.
    """
    try:
        # the parser of libyaml, where PyYAML has it, is ten times as fast
        builder = _built(text, file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        builder = _built_or_refused(text, file)
    if not builder.documents:
        raise builder.fail("the file is empty", 1, "declare services; docs/catalog.md lists every key")
    if len(builder.documents) > 1:
        raise builder.fail("more than one YAML document", builder.documents[1].line, "keep one catalog per file")
    root = builder.documents[0]
    _drop_duplicates(root)
    return root, builder.problems


def _built(text: str, file: str, loader: Any) -> _Builder:
    builder = _Builder(file)
    for event in yaml.parse(text, Loader=loader):
        builder.feed(event)
    return builder


def _built_or_refused(text: str, file: str) -> _Builder:
    """Once more with the parser in Python, whose messages are the same wherever the catalog is read."""
    try:
        return _built(text, file, yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CatalogError([Problem("a character that YAML does not allow", file, line, "save the file as plain UTF-8 text")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not valid YAML ({shown(error.problem or error.context or 'syntax error')})"
        raise CatalogError([Problem(what, file, mark.line + 1 if mark else 1, "check indentation, colons and quotes there")]) from None


def _drop_duplicates(node: Node) -> None:
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current.value, dict):
            for key in [key for key in current.value if "\0" in key]:
                del current.value[key]
                del current.key_lines[key]
            pending.extend(current.value.values())
        elif isinstance(current.value, list):
            pending.extend(current.value)


def read_text(path: str, file: str) -> str:
    """The text of a file, bounded; CatalogError for one that is missing, too large or not UTF-8."""
    def fail(what: str, remedy: str) -> CatalogError:
        return CatalogError([Problem(what, file, 1, remedy)])

    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise fail(f"cannot read the file ({error.strerror})", "check the path and its permissions") from None
    except ValueError:
        raise fail("no file can have this name", "correct the path") from None
    if len(data) > MAX_BYTES:
        raise fail(f"larger than {MAX_BYTES // 1024 // 1024} MiB", "split the catalog into one per ecosystem")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CatalogError([Problem("not UTF-8", file, line, "save the file as UTF-8")]) from None
