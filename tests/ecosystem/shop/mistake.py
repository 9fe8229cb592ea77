# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two transactions in `orders`: one that must survive, and a mistake that must not."""

from __future__ import annotations

import contextlib
from typing import Any

from . import stores
from .layout import Home, ShopError

#: What each does, as an update that gives no new numbers: a sequence is logged ahead, and would come back further on.
STATEMENTS = {
    "right": "UPDATE orders SET note = 'ring twice, the dog is deaf' WHERE id = (SELECT max(id) FROM orders)",
    "wrong": "DELETE FROM order_lines",
}


def commit(home: Home, kind: str) -> dict[str, Any]:
    """Commit one of the two; {"rows", "time": of the server, after the commit, "position": bytes of log up to it}."""
    with contextlib.closing(stores.connect(home, "orders:pg-orders")) as connection, connection.cursor() as cursor:
        cursor.execute(STATEMENTS[kind])
        rows = cursor.rowcount
        connection.commit()
        if rows < 1:
            raise ShopError("there are no orders: pg-orders; fill the shop with `ctl.py load` first")
        cursor.execute("SELECT clock_timestamp(), (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint")
        time, position = cursor.fetchone()
    return {"rows": rows, "time": time.isoformat(), "position": position}
