# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The places a repository can live in: a directory, and buckets of a real S3 store over TLS."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.backend import Backend
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.registry import backend_for
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed

LOCK: dict[str, Any] = {"mode": "compliance", "for": 3600.0}


@pytest.fixture(scope="session")
def store() -> Iterator[Seaweed]:
    with Seaweed() as server:
        yield server


@pytest.fixture(scope="session")
def buckets(store: Seaweed) -> dict[bool, str]:
    """One bucket without and one with object lock: a new one takes seconds."""
    made = {False: "shop-plain", True: "shop-locked"}
    for locked, name in made.items():
        assert backend_for(store.config(name, **({"object_lock": LOCK} if locked else {}))).prepare() is True
    return made


@pytest.fixture
def prefix() -> str:
    """A place in the bucket that no other test has."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture(params=["directory", "s3", "s3 with lock"])
def config(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> dict[str, Any]:
    """A repository of the catalog."""
    if request.param == "directory":
        return {"name": "local", "url": f"file://{tmp_path / 'repository'}"}
    server: Seaweed = request.getfixturevalue("store")
    locked = "lock" in request.param
    return server.config(request.getfixturevalue("buckets")[locked], prefix, **({"object_lock": LOCK} if locked else {}))


@pytest.fixture
def backend(config: dict[str, Any]) -> Backend:
    """An empty place, made."""
    made = backend_for(config)
    made.prepare()
    return made
