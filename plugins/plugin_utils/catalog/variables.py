# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``${name}`` and ``${env:NAME}``: the only thing that is computed in a catalog. No templates, no code.

``variables`` maps names to scalars; ``variables: {file: path}`` loads more of them from a flat YAML file (names
given inline win). A scalar that is exactly one reference keeps the type of what it refers to. ``$${`` is a literal ``${``.
"""

from __future__ import annotations

import os
import re
from typing import Mapping

from .problems import CatalogError, Faults, display_path, nearest, shown
from .reader import Node, Scalar, parse, read_text

#: All text that substitution may produce in one catalog, so that no catalog can blow itself up.
MAX_EXPANDED = 4 * 1024 * 1024
MAX_VALUE = 64 * 1024

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}\n]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)\Z")
#: The normalised catalog is kept in every repository and shown by ansible-inventory: no secret may get into it.
_SECRET = re.compile(r"(TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|SECRET_ID|CREDENTIALS?|PRIVATE_KEY|ACCESS_KEY)\Z", re.IGNORECASE)


class Variables:
    """The names a catalog may refer to. Resolution is lazy, memoised and bounded; a circle is a fault."""

    def __init__(self, faults: Faults, environment: Mapping[str, str] | None = None) -> None:
        self.faults = faults
        self.environment = os.environ if environment is None else environment
        self.nodes: dict[str, Node] = {}
        self.done: dict[str, Scalar] = {}
        self.open: list[str] = []
        self.bad: set[str] = set()
        self.failed = False
        #: The file with more names could not be read: names that are not known may well be in it.
        self.incomplete = False
        self.expanded = 0

    def fault(self, what: str, node: Node, remedy: str) -> str:
        """Record a fault of a substitution; what depends on it is not reported again."""
        self.failed = True
        self.bad.update(self.open)
        self.faults.add(what, node.file, node.line, remedy)
        return ""

    def load(self, node: Node | None, directory: str) -> None:
        """Take the catalog's ``variables`` mapping; ``file`` is read relative to the catalog's directory."""
        if node is None or node.value is None:
            return
        if node.kind != "map":
            self.faults.add("variables is not a mapping", node.file, node.line, "write name: value pairs, or file: path of a flat YAML file")
            return
        inline = dict(node.value)
        source = inline.pop("file", None)
        if source is not None:
            self.load_file(source, directory)
        self.take(inline)
        for name in self.nodes:
            self.lookup(name, node)  # so that a fault in one is reported even when nothing refers to it

    def take(self, values: Mapping[str, Node]) -> None:
        for name, value in values.items():
            if not _NAME.match(name):
                self.faults.add(f'variable name "{shown(name)}"', value.file, value.line, "use letters, digits, _ and -")
            elif value.kind != "scalar":
                self.faults.add(f"variable {name} is not a scalar", value.file, value.line, "variables hold text, numbers and booleans only")
            else:
                self.nodes[name] = value

    def load_file(self, source: Node, directory: str) -> None:
        self.incomplete = True
        self.failed = False
        path = self.substitute(source) if source.kind == "scalar" else None
        if self.failed:
            return
        if not isinstance(path, str) or not path:
            self.faults.add("variables.file is not a path", source.file, source.line, "give the path of a flat YAML file")
            return
        full = os.path.normpath(os.path.join(directory, path))
        file = display_path(full)
        try:
            root, problems = parse(read_text(full, file), file)
        except CatalogError as error:
            for problem in error.problems:
                self.faults.add(f"variables file: {problem.what}", source.file, source.line, f"see {problem.file}:{problem.line}; {problem.remedy}")
            return
        self.faults.problems.extend(problems)
        if root.kind != "map":
            self.faults.add("a variables file that is not a mapping", file, root.line, "write name: value pairs")
            return
        self.incomplete = False
        self.take(root.value)

    def apply(self, root: Node) -> None:
        """Replace every reference below ``root`` in place."""
        for node in root.scalars():
            if isinstance(node.value, str) and "${" in node.value:
                self.failed = False
                node.value = self.substitute(node)
                node.computed = True
                node.broken = self.failed

    def substitute(self, node: Node) -> Scalar:
        """The value of one scalar node with its references resolved; faults are recorded, never raised."""
        text: Scalar = node.value
        if not isinstance(text, str):
            return text
        whole = _REFERENCE.fullmatch(text)
        if whole and whole.group(1) is not None:
            return self.bounded(self.lookup(whole.group(1), node), node)
        pieces: list[str] = []
        position = length = 0
        for match in _REFERENCE.finditer(text):
            pieces.append(text[position:match.start()])
            position = match.end()
            if match.group(0) == "$${":
                pieces.append("${")
            elif match.group(1) is None:
                self.fault("unfinished ${ reference", node, "write ${name}, or $${ for the two characters themselves")
            else:
                pieces.append(_text(self.lookup(match.group(1), node)))
            length += len(pieces[-1])
            if length > MAX_VALUE:
                break  # bounded() refuses it; it need not be built first
        pieces.append(text[position:])
        return self.bounded("".join(pieces), node)

    def bounded(self, value: Scalar, node: Node) -> Scalar:
        if isinstance(value, str):
            self.expanded += len(value)
            if len(value) > MAX_VALUE or self.expanded > MAX_EXPANDED:
                return self.fault("substitution makes too much text", node, "shorten the variables")
        return value

    def lookup(self, reference: str, node: Node) -> Scalar:
        environment = _ENVIRONMENT.match(reference)
        if environment:
            return self.from_environment(environment.group(1), node)
        if reference not in self.nodes:
            if self.incomplete:
                self.failed = True
                self.bad.update(self.open)
                return ""
            return self.fault(f'unknown variable "{shown(reference)}"', node, nearest(reference, self.nodes, "variables are"))
        if reference in self.bad:
            self.failed = True
            self.bad.update(self.open)
        if reference in self.done:
            return self.done[reference]
        if reference in self.open:
            circle = " -> ".join([*self.open[self.open.index(reference):], reference])
            first = self.nodes[reference]
            return self.fault(f"variables refer to each other in a circle ({circle})", first, "give one of them a value")
        if len(self.open) >= 32:
            return self.fault("variables refer to each other more than 32 deep", node, "shorten the chain")
        self.open.append(reference)
        try:
            self.done[reference] = self.substitute(self.nodes[reference])
        finally:
            self.open.pop()
        return self.done[reference]

    def from_environment(self, name: str, node: Node) -> Scalar:
        if _SECRET.search(name):
            return self.fault(f"environment variable {name} looks like a secret", node,
                              "catalogs are stored with every snapshot; refer to a file that holds it instead")
        if name not in self.environment:
            return self.fault(f"environment variable {name} is not set", node, f"export {name} before the run")
        return self.environment[name]


def _text(value: Scalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
