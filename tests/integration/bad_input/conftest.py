# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One small ecosystem with one recovery point for all tests of this folder; each test finds it running and wrecked."""

from __future__ import annotations

from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour


@pytest.fixture(scope="session")
def lasting() -> Iterator[Harbour]:
    """crane requires quay; lamp stands alone."""
    with Harbour({"quay": [], "crane": ["quay"], "lamp": []}) as made:
        made.succeed("bootstrap")
        made.succeed("backup")
        yield made


@pytest.fixture
def harbour(lasting: Harbour) -> Harbour:
    """The same, all services running over data that is not what was captured."""
    for name in lasting.ports:
        if not (lasting.data(name) / "junk").exists():
            lasting.wreck(name)
        lasting.control("start", name)
    return lasting
