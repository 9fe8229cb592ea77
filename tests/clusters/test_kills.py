# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshot, shipper, restore and server killed at random moments: never a false success, never a snapshot that was accepted and cannot be
restored, and what is done again completes."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.kill_walk import Walk
from ansible_collections.lifeboat.recovery.tests.lab.postgres import bin_dir, bin_dirs

#: `make soak`: 20 walks of 12 strikes, over the versions in turn.
LONG = [(bin_dirs()[list(bin_dirs())[seed % len(bin_dirs())]], seed) for seed in range(20)]


def test_each_of_them_once(tmp_path: pathlib.Path) -> None:
    """One strike of every kind, at moments of its own."""
    walk = Walk(tmp_path, bin_dir(), 7)
    try:
        for strike in (walk.snapshot_killed, walk.server_killed_in_snapshot, walk.shipper_killed, walk.restore_killed, walk.server_killed_in_restore):
            print(f"{strike.__name__}:")
            walk.strike(strike)
        walk.every_snapshot_is_restorable(2)
    finally:
        walk.end()


@pytest.mark.soak
@pytest.mark.parametrize(("programs", "seed"), LONG, ids=[str(seed) for _programs, seed in LONG])
def test_a_long_walk(programs: str, seed: int, tmp_path: pathlib.Path) -> None:
    print(f"seed {seed}, {programs}")
    walk = Walk(tmp_path, programs, seed)
    try:
        for _strike in range(12):
            walk.step()
        walk.every_snapshot_is_restorable(4)
    finally:
        walk.end()
