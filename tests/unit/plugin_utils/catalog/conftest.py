# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import model, sources

#: Fixed options, so that messages stay the same when a source type gains an option.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "files": {"path": {"type": "path", "required": True}, "reread": {"type": "bool", "default": False}},
    "postgresql_database": {
        "database": {"type": "str", "required": True},
        "port": {"type": "int", "default": 5432},
        "data_directory": {"type": "path"},
        "address": {"type": "str", "default": "127.0.0.1"},
        "cluster": {"type": "str", "default": "shared", "choices": ["shared", "own"]},
        "schemas": {"type": "list"},
        "settings": {"type": "dict"},
        "tls": {"type": "str", "choices": ["off", "on", "verify"]},
    },
    "postgresql": {"data_directory": {"type": "path", "required": True}, "port": {"type": "int", "default": 5432}, "conninfo": {"type": "str"}, "log": {
        "type": "dict", "options": {"spool": {"type": "path"}, "spool_limit": {"type": "size", "least": 64 << 20},
                                    "interval": {"type": "float", "least": 0.1, "most": 60}}}},
    "redis": {"port": {"type": "int", "default": 6379}},
}


@pytest.fixture(scope="module", autouse=True)
def fixed_options() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "known_types", lambda: sorted(OPTIONS))
        patch.setattr(sources, "options_of", lambda source_type: OPTIONS[source_type])
        yield


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., model.Catalog]:
    """Read a catalog text as shop.catalog.yml in an empty current directory."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, environment: dict[str, str] | None = None, name: str = "shop.catalog.yml") -> model.Catalog:
        (tmp_path / name).write_text(text)
        return model.load(name, environment or {})

    return read
