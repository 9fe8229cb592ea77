# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages another version of PostgreSQL needs to run, from what apt-cache prints."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parents[2] / "tools"
GRAPH = """postgresql-17
 |Depends: locales
  Depends: locales-all
  Depends: postgresql-client-17
  Depends: libllvm19
  Depends: libxml2
  Depends: zlib1g
postgresql-client-17
  Depends: libpq5
  Depends: <libreadline-virtual>
    libreadline8
libpq5
  Depends: libc6
  PreDepends: zlib1g
libxml2
  Depends: libc6
libc6
libllvm19
zlib1g
locales
"""


def load(monkeypatch: Any) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    specification = importlib.util.spec_from_file_location("lifeboat_tools_servers", TOOLS / "servers.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "lifeboat_tools_servers", module)
    specification.loader.exec_module(module)
    return module


def test_programs_and_their_libraries_and_nothing_else(monkeypatch: Any) -> None:
    found = load(monkeypatch).needed(["postgresql-17", "postgresql-client-17"], GRAPH)
    assert found == ["libc6", "libpq5", "libxml2", "postgresql-17", "postgresql-client-17", "zlib1g"]


def test_what_cannot_be_had_is_told_and_tried_again_where_it_is_needed(monkeypatch: Any, tmp_path: Path) -> None:
    servers = load(monkeypatch)
    monkeypatch.setattr(servers, "SERVERS", tmp_path / "postgresql")
    monkeypatch.setattr(servers, "RELEASES", {97: ("somewhere", True), 93: ("elsewhere", False)})

    def nothing(log: Path) -> str:
        raise servers.NotToBeHad("no apt source of this machine is a Debian archive")

    monkeypatch.setattr(servers, "mirror", nothing)
    told: list[str] = []
    servers.complete(tmp_path / "log", told.append)
    assert [line.partition(" is not to be had: ")[2] for line in told] == ["no apt source of this machine is a Debian archive"] * 2
    assert servers.missing() == [97]
    assert sorted(path.name for path in servers.SERVERS.iterdir()) == ["93.not", "97.not"]
