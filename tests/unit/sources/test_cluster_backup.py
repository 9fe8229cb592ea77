# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup protocol of a cluster, as servers of all versions speak it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_backup


def test_segments_of_a_backup() -> None:
    size = 16 << 20
    assert cluster_backup.segments_between(10, 0xFE000028, 0x100000000, size) == ["0000000A00000000000000FE", "0000000A00000000000000FF"]
    assert cluster_backup.segments_between(1, 0x3000028, 0x3000100, size) == ["000000010000000000000003"]
    assert cluster_backup.segments_between(1, 1 << 32, (1 << 32) + 1, 1 << 30) == ["000000010000000100000000"]


class Fake:
    """A client that answers like a server of some version and keeps what it was asked."""

    place = "shop.db at 127.0.0.1:5432"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def rows(self, _connection: Any, statement: str, _parameters: Any = None) -> list[tuple[Any, ...]]:
        self.asked.append(statement)
        return [("0/2000028", "START WAL LOCATION: ...", "\n")]


@pytest.mark.parametrize(("version", "begin", "end"), [
    (130018, "pg_start_backup(%s, true, false)", "pg_stop_backup(false, false)"),
    (140011, "pg_start_backup(%s, true, false)", "pg_stop_backup(false, false)"),
    (150004, "pg_backup_start(%s, true)", "pg_backup_stop(false)"),
    (180000, "pg_backup_start(%s, true)", "pg_backup_stop(false)"),
])
def test_the_backup_functions_of_each_version(version: int, begin: str, end: str) -> None:
    fake: Any = Fake()
    backup = cluster_backup.Backup(fake)
    backup.version = version
    assert backup.start("label", "slot") == 0x2000028
    assert backup.stop() == (0x2000028, "START WAL LOCATION: ...", "")
    assert "pg_create_physical_replication_slot(%s, true, true)" in fake.asked[0]
    assert begin in fake.asked[1] and end in fake.asked[2]
