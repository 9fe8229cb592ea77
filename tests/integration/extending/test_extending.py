# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new source type, verb and backend, added to a copy of the collection by the words of docs/architecture.md and then used.

The files that each may touch are read from the document itself, so document and code cannot drift apart.
"""

from __future__ import annotations

import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.harbour import ROOT, Harbour

TOYS = pathlib.Path(__file__).with_name("toys")
#: What the document calls <type>, <verb> and <scheme>.
NAMES = {"type": "single_file", "verb": "inventory_count", "scheme": "boxes"}
LIMIT = 300


def named_in_the_document(word: str) -> set[str]:
    """The files that the paragraph about <word> names."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text[text.index("## Where a new thing goes"):]
    section = section[:section.index("\n## ")]
    (paragraph,) = [one for one in section.split("\n\n") if f"<{word}>" in one]
    files = re.findall(r"`((?:plugins|playbooks|tests|docs)/[^`\s]+)`", paragraph)
    return {name.replace(f"<{word}>", NAMES[word]) for name in files}


def contents(top: pathlib.Path) -> dict[str, bytes]:
    """Path -> content of every file, without what Python caches."""
    return {
        str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".git" not in path.parts
    }


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def insert(path: pathlib.Path, anchor: str, lines: str) -> None:
    """Put lines before the only place where an anchor stands."""
    text = path.read_text(encoding="utf-8")
    assert text.count(anchor) == 1, f"{path} has {anchor!r} {text.count(anchor)} times"
    path.write_text(text.replace(anchor, lines + anchor), encoding="utf-8")


def add_source(copy: pathlib.Path) -> None:
    shutil.copy(TOYS / "single_file.py", copy / "plugins/module_utils/sources/single_file.py")
    registry = copy / "plugins/module_utils/sources/registry.py"
    insert(registry, "TYPES: dict", "def _single_file() -> type[Source]:\n    from .single_file import SingleFile\n\n    return SingleFile\n\n\n")
    insert(registry, '    "redis": _redis,\n', '    "single_file": _single_file,\n')
    kits = copy / "tests/lab/kits.py"
    kit = (TOYS / "kit.py").read_text(encoding="utf-8")
    insert(kits, "#: name -> kit;", kit[kit.index("\nclass ") + 1:] + "\n\n")
    insert(kits, '    "redis": RedisKit,\n', '    "single_file": SingleFileKit,\n')
    insert(copy / "docs/catalog.md", "#### type: files\n",
           "#### type: single_file\n\n| key | value | default | meaning |\n|---|---|---|---|\n| `file` | path | required | the file |\n\n")


def add_verb(copy: pathlib.Path) -> None:
    shutil.copy(TOYS / "inventory_count.yml", copy / "playbooks/inventory_count.yml")
    insert(copy / "plugins/plugin_utils/run/words.py", '    "verify": ("verified",),\n', '    "inventory_count": ("verified",),\n')


def add_backend(copy: pathlib.Path) -> None:
    shutil.copy(TOYS / "boxes.py", copy / "plugins/module_utils/repository/boxes.py")
    registry = copy / "plugins/module_utils/repository/registry.py"
    insert(registry, "from .directory import", "from .boxes import BoxesBackend\n")
    insert(registry, "    DirectoryBackend.scheme:", "    BoxesBackend.scheme: BoxesBackend,\n")


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A folder of collections with a copy of this one, extended; what was touched is what the document names."""
    top = tmp_path_factory.mktemp("collections")
    copy = top / "ansible_collections" / "lifeboat" / "recovery"
    for folder in ("plugins", "roles", "playbooks", "meta", "docs", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "output", ".*"))
    for name in ("galaxy.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for word, add in (("type", add_source), ("verb", add_verb), ("scheme", add_backend)):
        before = contents(copy)
        add(copy)
        assert changed(before, contents(copy)) == named_in_the_document(word)
    before = contents(copy)
    yield top
    assert changed(before, contents(copy)) == set(), "using it changes nothing of it"


def environment(collections: pathlib.Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "LIFEBOAT_", "PYTEST_"))}
    return {**kept, **beside(collections), "PYTHONPATH": str(collections)}


def beside(collections: pathlib.Path) -> dict[str, str]:
    """What Python compiles of the copy is kept, and not in the copy."""
    return {"PYTHONPYCACHEPREFIX": str(collections / "compiled")}


def test_the_toys_save_and_restore_a_service(collections: pathlib.Path) -> None:
    boxes = pathlib.Path("/var/tmp") / f"lifeboat-boxes-{secrets.token_hex(6)}"
    try:
        with Harbour({"note": [], "lamp": ["note"]}, collections) as harbour:
            data = harbour.data("note")
            harbour.catalog["repositories"]["local"]["url"] = f"boxes://{boxes.name}"
            harbour.catalog["services"]["note"]["sources"] = {
                "count": {"type": "single_file", "file": str(data / "count")},
                "items": {"type": "files", "path": str(data / "items")},
            }
            harbour.write_catalog()
            env = beside(collections)
            harbour.succeed("bootstrap", env=env)
            refused = harbour.play("inventory_count", env=env)
            assert refused.code != 0 and refused.verdicts() == {"note": "failed", "lamp": "failed"}, "there is nothing to count yet"
            harbour.succeed("backup", env=env)
            assert not harbour.repository.exists() and len(list(boxes.iterdir())) > 5

            captured = (data / "count").read_bytes()
            (data / "count").write_text("999", encoding="utf-8")
            for item in (data / "items").iterdir():
                item.unlink()
            restored = harbour.succeed("restore", env=env)
            assert restored.verdicts() == {"note": "verified", "lamp": "verified"}
            assert (data / "count").read_bytes() == captured and len(list((data / "items").iterdir())) == 5
            assert restored.document["services"]["note"]["proof"]["sources"]["count"]["type"] == "single_file"

            counted = harbour.succeed("inventory_count", env=env)
            assert counted.verdicts() == {"note": "verified", "lamp": "verified"}
            assert counted.message("note") == "2 snapshots"
            harbour.succeed("rollback", env=env)
            assert (data / "count").read_text(encoding="utf-8") == "999"
    finally:
        shutil.rmtree(boxes, ignore_errors=True)


def test_the_toy_source_conforms_and_is_documented(collections: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = collections / "ansible_collections" / "lifeboat" / "recovery"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rp", "-o", "cache_dir=" + str(tmp_path), "-k", "single_file or reference",
         "tests/integration/sources/test_conformance.py", "tests/unit/plugin_utils/catalog/test_reference.py",
         "--deselect", "tests/unit/plugin_utils/catalog/test_reference.py::test_shipped_catalogs_are_sound"],
        cwd=copy, env=environment(collections), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    assert any("test_killed_at_every_point" in line and "single_file" in line for line in passed), done.stdout
    assert any("test_every_option_of_every_source_is_in_the_reference" in line for line in passed), done.stdout
