# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a target means, and what choosing the next best would lose."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import TargetError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import build, target
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.pick import pick_services

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=timezone.utc)


def point(service: str, number: int, minute: int, complete: bool = True, proven: bool = False, size: int = 100, run: str = "") -> dict[str, Any]:
    snapshots = {"db": f"{service}.db-{number:06}-1a2b3c4d"}
    return {"id": run or f"20261122T17{minute:02}00Z-backup-{number:06x}", "service": service, "time": f"2026-11-22T17:{minute:02}:00Z",
            "complete": complete, "snapshots": snapshots, "missing": [] if complete else ["files"], "skew_seconds": 0.0, "bytes": size, "proven": proven}


def services(**groups: str | None) -> dict[str, dict[str, Any]]:
    return {name: {"requires": [], "priority": None, "consistency_group": group or None, "sources": {} if name == "gateway" else {"db": {"type": "x"}},
                   "host": "h"} for name, group in groups.items()}


ORDERS = [point("orders", 1, 0), point("orders", 2, 10, proven=True), point("orders", 3, 20), point("orders", 4, 30, complete=False)]


@pytest.mark.parametrize("asked, number", [
    ("latest", 3), ("proven", 2), ("2026-11-22T17:15:00Z", 2), ("2026-11-22T18:15:00+01:00", 2), ("2026-11-22T17:10:00.000+00:00", 2),
    ("2026-11-22 17:59:00Z", 3), ("20261122T170000Z-backup-000001", 1), ("orders.db-000002-1a2b3c4d", 2),
])
def test_targets(asked: str, number: int) -> None:
    assert target.find("orders", ORDERS, asked, NOW)["snapshots"]["db"] == f"orders.db-{number:06}-1a2b3c4d"


NEWEST = "newest complete points: 20261122T172000Z-backup-000003, 20261122T171000Z-backup-000002, 20261122T170000Z-backup-000001"


@pytest.mark.parametrize("points, asked, line", [
    (ORDERS, "latst", f'unknown target "latst": orders; did you mean "latest"?; {NEWEST}'),
    (ORDERS, "20261122T171000Z-backup-000009", f'unknown target "20261122T171000Z-backup-000009": orders; '
     f'did you mean "20261122T171000Z-backup-000002"?; {NEWEST}'),
    (ORDERS, "?", f'unknown target "?": orders; use latest, proven, an ISO time with zone, a point id or a snapshot id; {NEWEST}'),
    (ORDERS, "2026-11-22T17:15:00", f'target time "2026-11-22T17:15:00" has no zone: orders; write 2026-11-22T17:15:00Z for UTC, or add +01:00; {NEWEST}'),
    (ORDERS, "2026-11-22", f'target time "2026-11-22" has no zone: orders; write 2026-11-22Z for UTC, or add +01:00; {NEWEST}'),
    (ORDERS, "2026-11-22T19:00:00Z", f"target time 2026-11-22T19:00:00Z is in the future: orders; use lifeboat_target=latest for the newest; {NEWEST}"),
    (ORDERS, "2026-11-22T16:59:59Z", "no complete point at or before 2026-11-22T16:59:59Z: orders; the oldest complete point is "
     f"20261122T170000Z-backup-000001 of 2026-11-22T17:00:00Z; {NEWEST}"),
    (ORDERS, "orders.db-000004-1a2b3c4d", f"point 20261122T173000Z-backup-000004 is torn: it lacks files: orders; {NEWEST}"),
    (ORDERS[:1], "proven", "no point has been proven by a restore or drill yet: orders; use lifeboat_target=latest, or drill one; "
     "newest complete points: 20261122T170000Z-backup-000001"),
    ([], "latest", "no recovery point exists: orders; take a backup first: the backup playbook"),
    (ORDERS[3:], "latest", "no complete point: the newest, 20261122T173000Z-backup-000004, lacks files: orders; take a backup first: the backup playbook"),
])
def test_refusals(points: list[dict[str, Any]], asked: str, line: str) -> None:
    with pytest.raises(TargetError) as caught:
        target.find("orders", points, asked, NOW)
    assert str(caught.value) == line


def test_sequence_numbers_decide_not_clocks() -> None:
    early = {**point("orders", 9, 5), "time": "2026-11-22T10:00:00Z"}
    assert target.find("orders", [*ORDERS, early], "latest", NOW)["id"] == early["id"]
    assert [found["snapshots"]["db"][10:16] for found in target.newest_first([early, *ORDERS])] == ["000009", "000004", "000003", "000002", "000001"]


def test_candidates_say_age_and_loss() -> None:
    found = target.candidates(ORDERS, NOW)
    assert [(item["usable"], item["age_seconds"], item["lost_seconds"]) for item in found] == [
        (False, 1800.0, None), (True, 2400.0, 0.0), (True, 3000.0, 600.0), (True, 3600.0, 1200.0)]


def test_each_service_takes_its_own_newest_and_the_skew_is_said() -> None:
    catalog = services(orders=None, mail=None, gateway=None)
    points = {"orders": ORDERS, "mail": [point("mail", 1, 5)]}
    result = target.resolve(catalog, ["orders", "mail", "gateway"], points, "latest", NOW)
    assert (result["orders"]["time"], result["mail"]["time"]) == ("2026-11-22T17:20:00Z", "2026-11-22T17:05:00Z")
    assert result["gateway"]["stateless"] and result["gateway"]["point"] is None
    assert result["orders"]["next"] == {"point": "20261122T171000Z-backup-000002", "time": "2026-11-22T17:10:00Z", "lost_seconds": 600.0,
                                        "command": "ansible-playbook lifeboat.recovery.restore -i CATALOG -e lifeboat_target=20261122T171000Z-backup-000002"}
    assert result["mail"]["next"] is None
    document = {"ecosystem": "shop", "production": False, "tiers": {}, "services": catalog}
    plan = build.build(document, pick_services(document), points, now=NOW, forks=2)
    assert plan["skew_seconds"] == 900.0
    assert plan["warnings"] == [
        "services go back to 2 different points, 900s apart: 20261122T170500Z-backup-000001, 20261122T172000Z-backup-000003",
        "never proven by a restore or drill: mail, orders",
        "forks=2 is fewer than 3 services: 1 wait for a free slot, so islands may wait for each other; run with --forks 3",
    ]


GROUP = services(orders="checkout", payments="checkout")
GROUP_POINTS = {
    "orders": [point("orders", 1, 0, run="r1"), point("orders", 2, 10, run="r2"), point("orders", 3, 20, run="r3"), point("orders", 4, 30, run="r4")],
    "payments": [point("payments", 11, 1, run="r1"), point("payments", 12, 11, run="r2"), point("payments", 13, 21, run="r3", complete=False)],
}


def test_a_group_goes_to_one_point_that_all_members_have() -> None:
    result = target.resolve(GROUP, ["orders", "payments"], GROUP_POINTS, "latest", NOW)
    assert [result[name]["point"] for name in ("orders", "payments")] == ["r2", "r2"]
    assert result["orders"]["together"] == ["orders", "payments"] and result["orders"]["next"]["point"] == "r1"
    assert result["orders"]["snapshots"] == {"db": "orders.db-000002-1a2b3c4d"}
    with pytest.raises(TargetError, match=r"^point r3 is torn: it lacks payments.files: consistency group checkout; newest complete points: r2, r1$"):
        target.resolve(GROUP, ["orders", "payments"], GROUP_POINTS, "r3", NOW)
    with pytest.raises(TargetError, match=r"^point r4 is torn: it lacks payments: consistency group checkout"):
        target.resolve(GROUP, ["orders", "payments"], GROUP_POINTS, "r4", NOW)
    # every member's snapshot is older than the time asked for
    assert target.resolve(GROUP, ["orders", "payments"], GROUP_POINTS, "2026-11-22T17:10:30Z", NOW)["orders"]["point"] == "r1"
    # a snapshot of one member means its point for all of them
    assert target.resolve(GROUP, ["orders", "payments"], GROUP_POINTS, "orders.db-000001-1a2b3c4d", NOW)["payments"]["point"] == "r1"


def test_a_snapshot_is_no_target_for_strangers() -> None:
    with pytest.raises(TargetError) as caught:
        target.resolve(services(orders=None, mail=None), ["orders", "mail"], {"orders": ORDERS, "mail": []}, "orders.db-000001-1a2b3c4d", NOW)
    assert str(caught.value) == ("a snapshot id is a target for one service: orders.db-000001-1a2b3c4d belongs to orders; "
                                 "add -e lifeboat_services=orders, or name its recovery point for all")


def test_all_services_without_a_target_are_named() -> None:
    with pytest.raises(target.TargetErrors) as caught:
        target.resolve(services(a=None, b=None), ["a", "b"], {"a": [], "b": []}, "latest", NOW)
    assert len(str(caught.value).splitlines()) == 2 == len(caught.value.errors)


def test_fallback_is_bounded_by_the_loss_and_takes_the_group_along() -> None:
    resolved = target.resolve(GROUP, ["orders", "payments"], GROUP_POINTS, "latest", NOW)
    with pytest.raises(TargetError) as caught:
        target.fall_back(GROUP, resolved, GROUP_POINTS, ["payments"])
    assert str(caught.value) == (
        "point r2 does not verify; the next candidate r1 would lose 600s more: consistency group checkout; accept it with "
        "-e lifeboat_max_loss=600s, or run: ansible-playbook lifeboat.recovery.restore -i CATALOG -e lifeboat_target=r1")
    again = target.fall_back(GROUP, resolved, GROUP_POINTS, ["payments"], 600)
    assert [(again[name]["point"], again[name]["fallback_from"], again[name]["lost_seconds"]) for name in ("orders", "payments")] == [
        ("r1", "r2", 600.0), ("r1", "r2", 600.0)]
    with pytest.raises(TargetError, match="point r1 does not verify and there is no older complete one: consistency group checkout"):
        target.fall_back(GROUP, {**resolved, **again}, GROUP_POINTS, ["orders"], 10 ** 9)


def test_repeated_fallback_counts_the_whole_loss() -> None:
    catalog = services(orders=None)
    points = {"orders": [point("orders", number, number * 10) for number in range(4)]}
    resolved = target.resolve(catalog, ["orders"], points, "latest", NOW)
    once = target.fall_back(catalog, resolved, points, ["orders"], 900)
    with pytest.raises(TargetError, match="would lose 1200s more"):
        target.fall_back(catalog, once, points, ["orders"], 900)


def test_a_loss_that_clocks_cannot_tell_is_never_taken_silently() -> None:
    catalog = services(orders=None)
    points = {"orders": [point("orders", 1, 40), point("orders", 2, 10)]}
    assert [item["lost_seconds"] for item in target.candidates(points["orders"], NOW)] == [0.0, None]
    resolved = target.resolve(catalog, ["orders"], points, "latest", NOW)
    assert resolved["orders"]["next"]["lost_seconds"] is None
    with pytest.raises(TargetError) as caught:
        target.fall_back(catalog, resolved, points, ["orders"], 10 ** 9)
    assert str(caught.value).startswith("point 20261122T171000Z-backup-000002 does not verify; the next candidate 20261122T174000Z-backup-000001 "
                                        "would lose an unknown time, because the clock was set back between them: orders; if that is acceptable, run: ")


LOG = {"timeline": 1, "end": 0x9000, "until": "2026-11-22T17:40:00Z"}
LOGGED: list[dict[str, Any]] = [
    {**point("orders", 1, 0, run="p1"), "finished": "2026-11-22T17:01:00Z", "logs": {"db": {**LOG, "start": 0x1000}}},
    {**point("orders", 2, 10, run="p2"), "finished": "2026-11-22T17:15:00Z", "logs": {"db": {**LOG, "start": 0x5000}}},
]
BARE = [point("orders", 1, 0, run="p1")]


@pytest.mark.parametrize(("asked", "at"), [
    ("latest", "p2@latest"),
    ("p1", "p1"),
    ("p1@latest", "p1@latest"),
    ("p2@immediate", "p2@immediate"),
    ("2026-11-22T17:35:00Z", "p2@time:2026-11-22T17:35:00Z"),
    ("2026-11-22T17:14:00Z", "p1@time:2026-11-22T17:14:00Z"),
    ("lsn:0/8FF8", "p2@lsn:0/8FF8"),
    ("lsn:0/4000,timeline:1", "p1@lsn:0/4000,timeline:1"),
    ("xid:700", "p2@xid:700"),
    ("name:before deploy", "p2@name:before deploy"),
])
def test_positions_in_a_log(asked: str, at: str) -> None:
    assert target.resolve(services(orders=None), ["orders"], {"orders": LOGGED}, asked, NOW)["orders"]["at"] == at


@pytest.mark.parametrize(("points", "asked", "line"), [
    (LOGGED, "2026-11-22T17:41:00Z", "the log is proven up to 2026-11-22T17:40:00Z"),
    (LOGGED, "lsn:0/9001", "the log covers 0/5000 to 0/9000"),
    (LOGGED, "p1@nowhere", "unknown kind of position"),
    (BARE, "xid:1", "no point has a log"),
    (BARE, "p1@latest", "no log goes on from point p1"),
])
def test_positions_out_of_reach(points: list[dict[str, Any]], asked: str, line: str) -> None:
    with pytest.raises(TargetError, match=line):
        target.resolve(services(orders=None), ["orders"], {"orders": points}, asked, NOW)
