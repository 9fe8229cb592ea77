# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One small ecosystem with two islands for the tests of this folder; each test finds it running over data that is not what was captured."""

from __future__ import annotations

from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour

#: mill needs rock; lamp stands alone. Longer chains are those of run_view.
GRAPH = {"rock": [], "mill": ["rock"], "lamp": []}


@pytest.fixture(scope="module")
def lasting() -> Iterator[Harbour]:
    with Harbour(GRAPH) as made:
        made.succeed("bootstrap")
        made.succeed("backup")
        made.captured = made.contents()
        yield made


@pytest.fixture
def harbour(lasting: Harbour) -> Harbour:
    for name in lasting.ports:
        if not (lasting.data(name) / "junk").exists():
            lasting.wreck(name)
        lasting.control("start", name)
    return lasting
