# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries are imported where they are needed, named when they are missing, and may be begun ahead."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import libraries
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError


def test_begun_libraries_are_there_and_missing_ones_are_named_by_who_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lifeboat_begun.py").write_text("word = 'there'\n")
    monkeypatch.syspath_prepend(tmp_path)
    libraries.begin("lifeboat_missing", "lifeboat_begun")
    for thread in threading.enumerate():
        if thread.name == "libraries":
            thread.join(30)
    assert sys.modules.pop("lifeboat_begun").word == "there"
    with pytest.raises(ConfigError, match="Python library lifeboat_missing is missing"):
        libraries.need("lifeboat_missing")
