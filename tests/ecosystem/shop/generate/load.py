# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill all stores at once, each from its own process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from .. import apps, stores
from ..layout import STORES, Home, ShopError
from . import cache, shared, trade
from .world import World

_FILLERS = {
    "orders": trade.fill_orders, "inventory": shared.fill_inventory, "payments": trade.fill_payments,
    "identity": shared.fill_identity, "redis": cache.fill_redis,
}


def load(home: Home, size: int, seed: int) -> dict[str, Any]:
    """Fill an empty shop with about ``size`` bytes; returns counts per store. The same seed gives the same data."""
    down = [store for store in STORES if not stores.running(home, store)]
    if down:
        raise ShopError(f"cannot load, stores are down: {', '.join(down)}; run `ctl.py start`")
    for database, table in (("identity", "users"), ("orders", "orders")):
        with contextlib.closing(stores.connect(home, database)) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")
            if cursor.fetchone()[0]:
                raise ShopError(f"there is data already: {database}.{table}; load into a new shop")
    begun = time.monotonic()
    world = World(size, seed)
    with ProcessPoolExecutor(min(len(_FILLERS), os.cpu_count() or 1), multiprocessing.get_context("fork")) as pool:
        running = {name: pool.submit(function, home, world) for name, function in _FILLERS.items()}
        result: dict[str, Any] = {name: future.result() for name, future in running.items()}
    apps.await_healthy(home, tuple(service for service in ("identity", "inventory") if apps.running(home, service)))
    total = sum(counts["bytes"] + counts.get("file_bytes", 0) for counts in result.values())
    seconds = time.monotonic() - begun
    return {**result, "orders_count": world.orders, "bytes": total, "seconds": round(seconds, 2), "mb_per_second": round(total / 1e6 / seconds, 1)}
