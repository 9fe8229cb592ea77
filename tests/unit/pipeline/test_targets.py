# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of a target."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.targets import Position, split


@pytest.mark.parametrize(("target", "base", "position"), [
    ("latest", "latest", None),
    ("proven", "proven", None),
    ("20261122T171500Z-backup-ab12cd", "20261122T171500Z-backup-ab12cd", None),
    ("2026-11-22T17:15:00Z", "2026-11-22T17:15:00Z", None),
    ("lsn:0/3000060", "", Position("lsn", "0/3000060")),
    ("p@lsn:0/3000060,timeline:12", "p", Position("lsn", "0/3000060", "12")),
    ("p@latest", "p", Position("latest")),
    ("p@immediate", "p", Position("immediate")),
    ("immediate", "", Position("immediate")),
    ("xid:742", "", Position("xid", "742")),
    ("name:before deploy 4.2", "", Position("name", "before deploy 4.2")),
    ("time:2026-11-22T17:15:00.123456+01:00", "", Position("time", "2026-11-22T17:15:00.123456+01:00")),
])
def test_split(target: str, base: str, position: Position | None) -> None:
    assert split(target) == (base, position)
    if position is not None:
        assert split(f"{base}@{position}" if base else str(position)) == (base, position)


@pytest.mark.parametrize("target", [
    "p@", "p@somewhere", "lsn:3000060", "lsn:", "xid:seven", "name:", "time:2026-11-22T17:15:00", "time:yesterday", "p@latest:1",
    "immediate:x", "lsn:0/1,timeline:0x1", "lsn:0/1,timeline:", "name:" + "x" * 64,
])
def test_what_is_no_position_is_refused(target: str) -> None:
    with pytest.raises(ValueError):
        split(target)
