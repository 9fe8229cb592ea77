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
from ansible_collections.lifeboat.recovery.tests.lab.two_services import TwoServices


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TwoServices, pathlib.Path]]:
    """The world, and a copy of how it was before anybody touched it. The live data are newer than what was captured."""
    registry.TYPES["logged_box"] = lambda: LoggedBox
    top = tmp_path_factory.mktemp("tampering")
    (top / "world").mkdir()
    world = TwoServices(top / "world").make()
    world.write("orders", "live data that a refused restore must not touch")
    shutil.copytree(world.top, top / "pristine")
    yield world, top / "pristine"
    del registry.TYPES["logged_box"]


@pytest.fixture
def world(made: tuple[TwoServices, pathlib.Path]) -> TwoServices:
    one, pristine = made
    one.renew(pristine)
    return one
