# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shop notices what is wrong with its data, and comes up again where the dead are not cleared away."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
from typing import Any, Iterator

import psycopg2
import pytest

from ansible_collections.lifeboat.recovery.tests.lab.shop import CTL, LIMIT, Shop

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as running:
        running.do("load", "--size", "2MB")
        yield running


@pytest.fixture(scope="module")
def lasting() -> Iterator[Shop]:
    """For tests that leave all services running."""
    with Shop() as running:
        running.do("load", "--size", "2MB")
        yield running


@contextlib.contextmanager
def superuser(shop: Shop, cluster: str, database: str) -> Iterator[Any]:
    variables = shop.variables
    password = pathlib.Path(variables["pg_password_file"]).read_text(encoding="ascii")
    connection = psycopg2.connect(host="127.0.0.1", port=variables[f"{cluster}_port"], user="postgres", password=password, dbname=database)
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def test_audits_notice_what_is_wrong(shop: Shop) -> None:
    invoices = sorted(pathlib.Path(shop.variables["invoices"]).rglob("INV-*.txt"))
    assert shop.get("orders", "/audit")[1]["ok"] is True
    data = invoices[-1].read_bytes()
    invoices[-1].chmod(0o600)
    invoices[-1].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    invoices[0].unlink()
    audit = shop.get("orders", "/audit")[1]
    assert (audit["ok"], audit["missing"], audit["wrong"]) == (False, 1, 1)

    with superuser(shop, "pg_orders", "orders") as cursor:
        cursor.execute("SELECT max(id) FROM orders WHERE state IN ('paid', 'shipped')")
        newest = cursor.fetchone()[0]
        cursor.execute("UPDATE orders SET total = total + 1 WHERE id = %s", [newest])
    assert shop.get("payments", "/audit")[1]["examples"] == [newest]
    gateway = shop.get("gateway", "/audit")[1]
    assert gateway["ok"] is False and gateway["paid_as_ordered"] is False and gateway["newest_order"] == newest

    with superuser(shop, "pg_shared", "inventory") as cursor:
        cursor.execute("ALTER TABLE stock.levels DROP CONSTRAINT levels_on_hand_check, DROP CONSTRAINT levels_check")
        cursor.execute("UPDATE stock.levels SET on_hand = -1 WHERE product = 1")
    assert shop.get("inventory", "/audit")[1]["ok"] is False


def test_refusals_of_a_service_are_no_failures(lasting: Shop) -> None:
    assert lasting.get("orders", "/orders/1")[0] == 404
    assert lasting.get("sessions", f"/sessions/{'0' * 32}")[0] == 401
    assert lasting.get("gateway", "/nowhere")[0] == 404
    assert lasting.get("gateway", "/health")[0] == 200


_NEVER_REAPS = f"""
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl({_PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0)
for words in (["stop"], ["start"], ["wreck"], ["provision", "pg-orders"], ["start"], ["status"], ["down"]):
    result = subprocess.run([sys.executable, sys.argv[1], *words, "--home", sys.argv[2]], timeout={LIMIT})
    if result.returncode:
        sys.exit(" ".join(words))
"""


def test_a_killed_store_starts_again_where_nobody_clears_away_the_dead(shop: Shop) -> None:
    """In a container whose first process does not reap, a killed server keeps its pid; its lock file must not keep it from starting."""
    result = subprocess.run(
        [sys.executable, "-c", _NEVER_REAPS, str(CTL), str(shop.home)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert shop.left_running() == []


def test_the_driver_reports_a_shop_that_is_down_and_ends_in_time(lasting: Shop) -> None:
    lasting.do("stop", "orders")
    result = lasting.run("drive", "--seconds", "1")
    told = json.loads(result.stdout)
    assert result.returncode == 1 and told["errors"] > 0 and any("orders" in error for error in told["first_errors"])
    assert lasting.run("drive", "--seconds", "1", "--allow-errors").returncode == 0
    lasting.do("start", "orders")
