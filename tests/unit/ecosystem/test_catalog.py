# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo catalog says of the shop what the shop is."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import model
from ansible_collections.lifeboat.recovery.tests.ecosystem.shop.layout import CLUSTERS, REQUIRES, STORES

CATALOG = pathlib.Path(__file__).resolve().parents[3] / "inventories" / "demo" / "shop.catalog.yml"


@pytest.fixture
def catalog(tmp_path: pathlib.Path) -> model.Catalog:
    values: dict[str, Any] = {
        "home": str(tmp_path), "python": "/usr/bin/python3", "ctl": "/ctl.py", "host": "127.0.0.1", "pg_bin": "/usr/bin", "pg_superuser": "postgres",
        "pg_password_file": "/p", "redis_password_file": "/r", "redis_server": "/usr/bin/redis-server", "invoices": str(tmp_path / "invoices"),
    }
    for number, name in enumerate((*STORES, *REQUIRES)):
        values[f"{name.replace('-', '_')}_port"] = 20000 + number
        values[f"{name.replace('-', '_')}_data"] = str(tmp_path / name)
    (tmp_path / "variables.yml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()), encoding="utf-8")
    return model.load(str(CATALOG), {"SHOP_HOME": str(tmp_path)})


def test_services_and_their_requirements_are_those_of_the_shop(catalog: model.Catalog) -> None:
    assert {name: tuple(edge["service"] for edge in entry["requires"]) for name, entry in catalog.services.items()} == REQUIRES
    assert all(edge["kind"] == "hard" for entry in catalog.services.values() for edge in entry["requires"])
    assert catalog.ecosystem == "shop" and catalog.document["production"] is False


def test_every_service_can_be_verified_and_every_store_be_started_and_made_anew(catalog: model.Catalog, tmp_path: pathlib.Path) -> None:
    for name, entry in catalog.services.items():
        assert entry["health"] and entry["invariants"], name
        assert {verb: words[2:4] for verb, words in entry["runtime"].items()} == {verb: [verb, name] for verb in ("start", "stop", "status")}
    stores = {
        source["server"]["start"][3]: source for entry in catalog.services.values() for source in entry["sources"].values() if "server" in source
    }
    assert set(stores) == set(STORES)
    for store, source in stores.items():
        if source["type"] == "postgresql":
            # a cluster restored whole needs no empty server before
            assert "provision" not in source and source["log"] and source["data_directory"].endswith(f"/{store}")
        else:
            assert source["provision"] == ["/usr/bin/python3", "/ctl.py", "provision", store, "--home", str(tmp_path)]
        assert all(words[2:4] == [verb, store] for verb, words in source["server"].items())
    databases = {entry["sources"]["db"].get("database", name): (name, entry["sources"]["db"])
                 for name, entry in catalog.services.items() if "db" in entry["sources"]}
    for cluster, members in CLUSTERS.items():
        for database in members:
            name, source = databases[database]
            assert name == database and source["server"]["start"][3] == cluster
            assert source["type"] == "postgresql" or source["cluster"] == ("shared" if len(members) > 1 else "own")
