# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world of the restore tests, made once and copied for every test."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.tests.doubles.box_source import Box
from ansible_collections.lifeboat.recovery.tests.doubles.restore_world import World, renew


@pytest.fixture(scope="session", autouse=True)
def box_type():
    registry.TYPES["box"] = lambda: Box
    yield
    del registry.TYPES["box"]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, box_type):
    """A world with one point of content "captured", and live content "original". Copied for every test, under one path."""
    # in memory where that is possible: fsync is called all the same, and hundreds of kills must not wait for a disk
    base = pathlib.Path(tempfile.mkdtemp(prefix="lifeboat-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path_factory.mktemp("world")))
    top = base / "orders"
    top.mkdir()
    world = World(top)
    operations.prepare_repository(world.spec(), False)
    world.point = world.backup("captured")
    world.write("original")
    copy = top.with_name("pristine")
    shutil.copytree(top, copy, symlinks=True)
    yield world, copy
    shutil.rmtree(base)


@pytest.fixture
def world(pristine):
    return renew(pristine)
