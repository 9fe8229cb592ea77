# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipper against a real server: what it calls proven is in the repository, whatever happens to it, to the server, to the repository."""

from __future__ import annotations

from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres


def test_ships_and_tells(lab: LogLab, cluster: WalPostgres) -> None:
    lab.start()
    cluster.sql("CREATE TABLE t (n int)")
    cluster.sql("INSERT INTO t SELECT generate_series(1, 100)")
    position = cluster.position()
    lab.wait_proven(position - 8)
    told = lab.status()
    print(told)
    assert told["ok"] and told["running"] and told["proven"]["in_repository"]
    assert lab.stop() == 0
