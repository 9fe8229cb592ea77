# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository that is tampered with: made once, copied back before every test."""

from __future__ import annotations

import pathlib
import shutil
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.tests.doubles.logged_box import LoggedBox
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed
from ansible_collections.lifeboat.recovery.tests.lab.two_services import TwoServices, TwoServicesInBucket


def _made(world: TwoServices) -> tuple[TwoServices, pathlib.Path]:
    """The world, and a copy of how it was before anybody touched it. The live data are newer than what was captured."""
    world.top.mkdir()
    world.make()
    world.write("orders", "live data that a refused restore must not touch")
    pristine = world.top.with_name("pristine")
    shutil.copytree(world.top, pristine)
    return world, pristine


@pytest.fixture(scope="session", autouse=True)
def logged_box() -> Iterator[None]:
    registry.TYPES["logged_box"] = lambda: LoggedBox
    yield
    del registry.TYPES["logged_box"]


@pytest.fixture(scope="session")
def in_directory(tmp_path_factory: pytest.TempPathFactory) -> tuple[TwoServices, pathlib.Path]:
    return _made(TwoServices(tmp_path_factory.mktemp("tampering") / "world"))


@pytest.fixture(scope="session")
def in_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TwoServices, pathlib.Path]]:
    with Seaweed() as store:
        yield _made(TwoServicesInBucket(tmp_path_factory.mktemp("tampering") / "world", store.config("tampering")))


@pytest.fixture
def world(in_directory: tuple[TwoServices, pathlib.Path]) -> TwoServices:
    one, pristine = in_directory
    one.renew(pristine)
    return one


@pytest.fixture
def any_world(request: pytest.FixtureRequest) -> TwoServices:
    """The one that the test names: in_directory or in_bucket."""
    one, pristine = request.getfixturevalue(request.param)
    one.renew(pristine)
    return one
