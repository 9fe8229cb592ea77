# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Faults of a catalog: each one line with file, line and remedy; all of them reported together."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from typing import Iterable, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError


@dataclass(frozen=True)
class Problem:
    """One fault: ``what: file:line; remedy``."""

    what: str
    file: str
    line: int
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.file}:{self.line}; {self.remedy}"


class CatalogError(ConfigError):
    """A catalog that cannot be used. ``problems`` holds every fault found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("a catalog error needs at least one problem")
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line))
        first = self.problems[0]
        super().__init__(first.what, f"{first.file}:{first.line}", first.remedy)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class Faults:
    """Collects problems while a catalog is read, so that one run shows them all."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, what: str, file: str, line: int, remedy: str) -> None:
        problem = Problem(what, file, line, remedy)
        if problem not in self.problems:
            self.problems.append(problem)

    def raise_any(self) -> None:
        """Raise CatalogError if anything was found."""
        if self.problems:
            raise CatalogError(self.problems)


def nearest(name: str, known: Iterable[str], otherwise: str = "known are") -> str:
    """The remedy for a wrong word: the nearest known one, or the list of all."""
    words = sorted(set(known))
    if not words:
        return "none is declared; declare it first"
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"{otherwise} {', '.join(words)}"


def shown(value: object, limit: int = 60) -> str:
    """A value from a hostile file, safe and short enough for one line of an error."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def display_path(path: str) -> str:
    """A path as a person at this prompt would write it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
