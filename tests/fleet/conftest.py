# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts reached over ssh, one of them as an ordinary user, with a small fleet on them, four deep and in two islands; captured once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.tests.ecosystem.fleet.fleet import SHARE, Fleet
from ansible_collections.lifeboat.recovery.tests.lab.hosts import Lab

HOSTS = ("db1", "db2", "app1")
#: The other island: its database server is provisioned anew only when this file is there.
SLOW, GO = "store-04", f"{SHARE}/go"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="session")
def lasting(lab: Lab) -> Iterator[tuple[Fleet, dict[str, str]]]:
    with Fleet(lab, HOSTS, services=5, depth=4, waits={SLOW: GO}, ordinary=("db2",)) as made:
        made.bootstrap()
        made.backup()
        yield made, made.content()


@pytest.fixture
def fleet(lasting: tuple[Fleet, dict[str, str]]) -> Fleet:
    return lasting[0]


@pytest.fixture
def captured(lasting: tuple[Fleet, dict[str, str]]) -> Any:
    """service -> digest of its data when it was captured."""
    return lasting[1]
