# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the README promises: its catalog is one, what it lists is there, and nothing is left out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_catalog_in_the_readme_is_read(tmp_path: Path) -> None:
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "plugin:" in block)
    catalog = tmp_path / "shop.catalog.yml"
    catalog.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(catalog), "--list"], check=False, capture_output=True, text=True, timeout=120,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev"), "ANSIBLE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["lifeboat_services"]["hosts"]) == {"identity", "orders"}


@pytest.mark.parametrize(("folder", "pattern"), [
    ("playbooks", "*.yml"), ("roles", "*"), ("plugins/modules", "[a-z]*.py"), ("plugins/filter", "[a-z]*.py"), ("plugins/callback", "[a-z]*.py"),
    ("plugins/lookup", "[a-z]*.py"), ("plugins/inventory", "[a-z]*.py"),
])
def test_everything_public_is_listed(folder: str, pattern: str) -> None:
    content = README.split("## Content")[1].split("`ansible-doc")[0]
    listed = set(re.findall(r"`(\w+)`", content))
    there = {path.stem for path in (ROOT / folder).glob(pattern) if path.stem != "__init__"}
    assert there - listed == set()


def test_links_lead_somewhere() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    dead = []
    for document in documents:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if not (document.parent / link).exists():
                dead.append(f"{document.name}: {link}")
    assert dead == []
