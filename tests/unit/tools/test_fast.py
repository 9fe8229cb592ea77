# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes playbooks of the tests cheap shows them no other code than there is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.tests.lab import quick

PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); import told; print(told.word(), told.word.__code__.co_filename)"


def run(archive: Path, kept: Path) -> list[str]:
    """Import ``told`` out of a zip file: what it says and where its code is from."""
    environment = {**quick.variables(archive.parent), "LIFEBOAT_TESTS_FAST": str(kept), "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(archive)], env=environment, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.split()


def archive(path: Path, word: str) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("told.py", f"def word():\n    return {word!r}\n")
    return path


def test_code_is_kept_by_its_text_and_says_where_it_is_from(tmp_path: Path) -> None:
    kept, one, two = tmp_path / "kept", tmp_path / "one.zip", tmp_path / "two.zip"
    assert run(archive(one, "first"), kept) == ["first", f"{one}/told.py"]
    (code,) = (kept / "code").iterdir()
    written = code.stat().st_mtime_ns
    assert run(archive(two, "first"), kept) == ["first", f"{two}/told.py"]
    assert [(path, path.stat().st_mtime_ns) for path in (kept / "code").iterdir()] == [(code, written)], "compiled once"
    assert run(archive(two, "second"), kept) == ["second", f"{two}/told.py"]
    code.write_bytes(b"torn")
    assert run(one, kept) == ["first", f"{one}/told.py"]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("LIFEBOAT_TESTS_FAST", raising=False)
    spec = importlib.util.spec_from_file_location("fast", quick.FAST / "sitecustomize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_payloads_of_other_files_are_others(fast: Any, tmp_path: Path) -> None:
    module = tmp_path / "ansible_collections/lifeboat/recovery/plugins/module_utils/some/part.py"
    module.parent.mkdir(parents=True)
    module.write_text("x = 1\n")
    first = fast.packed(str(tmp_path))
    assert fast.packed(str(tmp_path)) == first
    module.write_text("x = 2222\n")
    second = fast.packed(str(tmp_path))
    (module.parent / "more.py").write_text("")
    assert len({first, second, fast.packed(str(tmp_path))}) == 3
