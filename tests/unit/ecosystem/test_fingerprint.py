# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fingerprint sees every kind of change to a tree, and the comparison says which."""

from __future__ import annotations

import os
import pathlib
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.tests.ecosystem.shop.fingerprint import compare, files


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    (root / "plain").write_bytes(b"content")
    (root / "other").write_bytes(b"content")
    os.link(root / "plain", root / "inner" / "again")
    os.symlink("plain", root / "link")
    with open(root / "sparse", "wb") as file:
        file.write(b"x" * 4096)
        file.truncate(32 << 20)
    with open(os.path.join(os.fsencode(root), b"caf\xe9\n"), "wb") as odd:
        odd.write(b"odd")
    for path in (*root.rglob("*"), root):
        if not path.is_symlink():
            os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    return root


def _flip(root: pathlib.Path) -> None:
    (root / "other").write_bytes(b"cOntent")


def _fill(root: pathlib.Path) -> None:
    (root / "sparse").write_bytes(b"x" * 4096 + bytes((32 << 20) - 4096))


def _unlink(root: pathlib.Path) -> None:
    (root / "inner" / "again").unlink()
    (root / "inner" / "again").write_bytes(b"content")


def _swap_names(root: pathlib.Path) -> None:
    os.rename(os.path.join(os.fsencode(root), b"caf\xe9\n"), os.path.join(os.fsencode(root), "caf\u00e9\n".encode()))


CHANGES: list[tuple[Callable[[pathlib.Path], Any], str]] = [
    (_flip, "other > sha256"),
    (_fill, "sparse > sparse: missing"),
    (_unlink, "inner/again > same_file_as: missing"),
    (_swap_names, "caf\\xe9\\n: missing"),
    (lambda root: os.utime(root / "inner", ns=(1, 1_700_000_000_123_456_788)), "inner > mtime_ns"),
    (lambda root: (root / "other").chmod(0o600), "other > mode"),
    (lambda root: (root / "new").write_bytes(b""), "new: new"),
    (lambda root: ((root / "link").unlink(), os.symlink("plain2", root / "link")), "link > target"),
    (lambda root: os.truncate(root / "other", 3), "other > size"),
]


@pytest.mark.parametrize(("change", "trace"), CHANGES, ids=[trace for _change, trace in CHANGES])
def test_a_change_is_seen(tree: pathlib.Path, change: Callable[[pathlib.Path], Any], trace: str) -> None:
    before = files.tree(str(tree))
    assert compare.compare(before, files.tree(str(tree))) == []
    change(tree)
    differences = compare.compare(before, files.tree(str(tree)))
    assert any(trace in difference for difference in differences), differences


def test_an_absent_tree_is_said_to_be_absent(tmp_path: pathlib.Path) -> None:
    assert files.tree(str(tmp_path / "nothing")) == {"absent": "No such file or directory"}


def test_a_key_whose_time_has_come_is_no_difference_and_a_lost_one_is() -> None:
    keys = {"short": ["string", "d1", 5_000], "long": ["string", "d2", 9_000], "ever": ["hash", "d3", -1]}
    before = {"redis": {"databases": {"0": keys, "1": {"only": ["string", "d4", 5_500]}}, "taken_ms": 1_000}}
    after: dict[str, Any] = {"redis": {"databases": {"0": {key: keys[key] for key in ("long", "ever")}}, "taken_ms": 6_000}}
    assert compare.compare(before, after) == []
    del after["redis"]["databases"]["0"]["long"]
    assert compare.compare(before, after) == ["redis > databases > 0 > long: missing"]


def test_roles_are_compared_as_a_set_of_lines() -> None:
    before = {"postgresql": {"c": {"roles": ["CREATE ROLE a;", "CREATE ROLE b;"]}}}
    after = {"postgresql": {"c": {"roles": ["CREATE ROLE b;", "CREATE ROLE z;"]}}}
    assert compare.compare(before, after) == ["postgresql > c > roles: missing: CREATE ROLE a;", "postgresql > c > roles: new: CREATE ROLE z;"]
