# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""archive_command: a segment handed over is proven before the server is told so."""

from __future__ import annotations

import pathlib

from ansible_collections.lifeboat.recovery.plugins.module_utils.log import wal
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import SEGMENT, LogLab, WalPostgres


def segments(cluster: WalPostgres) -> list[pathlib.Path]:
    """Complete segments, oldest first."""
    current = cluster.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0]
    return [path for path in sorted((pathlib.Path(cluster.data) / "pg_wal").iterdir()) if wal.parse_segment(path.name, SEGMENT) and path.name < current]


def test_push(lab: LogLab, cluster: WalPostgres) -> None:
    cluster.configure("wal_keep_size = 64MB")
    cluster.sql("SELECT pg_reload_conf()")
    for word in "abcd":
        cluster.sql(f"CREATE TABLE {word} (n int)")
        cluster.sql("SELECT pg_switch_wal()")
    files = segments(cluster)[-3:]
    for path in files[:2]:
        lab.run("log", "push", "orders", "db", str(path))
    lab.run("log", "push", "orders.db", str(files[1]))  # asked again: the server did not hear the first answer
    ((covered),) = lab.log().coverage()
    assert (covered.end - covered.start) == 2 * SEGMENT and lab.proven() == (1, covered.end)
    assert lab.log().read(1, covered.start, covered.end) == b"".join(path.read_bytes() for path in files[:2])
    assert "not a segment" in lab.run("log", "push", "orders", "db", str(lab.home / "etc" / "services" / "orders.json"), status=1)
    lab.repository.rename(lab.home / "away")
    assert "repository" in lab.run("log", "push", "orders", "db", str(files[2]), status=1)
    (lab.home / "away").rename(lab.repository)
    lab.run("log", "push", "orders", "db", str(files[2]))
    assert lab.log().coverage()[0].end == covered.end + SEGMENT and not lab.status()["gaps"]


def test_a_segment_that_was_left_out_is_a_gap(lab: LogLab, cluster: WalPostgres) -> None:
    cluster.configure("wal_keep_size = 64MB")
    cluster.sql("SELECT pg_reload_conf()")
    for word in "abcd":
        cluster.sql(f"CREATE TABLE {word} (n int)")
        cluster.sql("SELECT pg_switch_wal()")
    first, _second, third = segments(cluster)[-3:]
    for path in (first, third):
        lab.run("log", "push", "orders", "db", str(path))
    assert len(lab.status()["gaps"]) == 1 and len(lab.log().coverage()) == 2
