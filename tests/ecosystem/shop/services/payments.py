# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""payments: one payment per order, booked in a double-entry ledger."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from .base import Answer, DatabaseService, Refused, route


class Service(DatabaseService):
    """A payment is made only for an order that exists, for exactly its total."""

    probe = "SELECT id FROM payments LIMIT 1"

    @route("POST", "/payments")
    def add(self, body: Any) -> Answer:
        """Pay {order_id, card} -> {id, amount}; paying twice gives the first payment."""
        order = self.ask("orders", "GET", f"/orders/{int(body['order_id'])}")
        total = Decimal(order["total"])
        new = str(uuid.uuid4())
        with self.transaction() as cursor:
            cursor.execute(
                "INSERT INTO payments (id, order_id, charged, card, payer_ip, provider_answer, fee, took)"
                " VALUES (%s, %s, ROW(%s, 'EUR'), %s, '127.0.0.1', '{\"approved\": true}', %s, '150 ms') ON CONFLICT (order_id) DO NOTHING",
                [new, order["id"], total, body["card"], float(total) * 0.029],
            )
            if cursor.rowcount == 1 and total:
                cursor.execute("INSERT INTO ledger (payment, account, amount) VALUES (%s, 'customers', %s), (%s, 'sales', %s)", [new, -total, new, total])
        with self.transaction() as cursor:
            cursor.execute("SELECT id::text, (charged).amount FROM payments WHERE order_id = %s", [order["id"]])
            payment, amount = cursor.fetchone()
        self.ask("orders", "POST", f"/orders/{order['id']}/paid", {"payment": payment})
        return 201, {"id": payment, "amount": amount}

    @route("GET", r"/payments/by-order/(\d+)")
    def by_order(self, _body: Any, order: str) -> Answer:
        """The payment of an order."""
        with self.transaction() as cursor:
            cursor.execute("SELECT id::text, order_id, state::text, (charged).amount FROM payments WHERE order_id = %s", [order])
            row = cursor.fetchone()
        if row is None:
            raise Refused(404, "not paid")
        return 200, dict(zip(("id", "order_id", "state", "amount"), row))

    def audit(self) -> dict[str, Any]:
        """The ledger is in balance; the newest 500 payments and 500 others have an order of the same amount."""
        with self.transaction() as cursor:
            cursor.execute("SELECT coalesce(sum(amount), 0) FROM ledger")
            balance = cursor.fetchone()[0]
            cursor.execute(
                "(SELECT order_id, (charged).amount FROM payments ORDER BY order_id DESC LIMIT 500)"
                " UNION (SELECT order_id, (charged).amount FROM payments ORDER BY id LIMIT 500)"
            )
            pairs = cursor.fetchall()
        unknown = self.ask("orders", "POST", "/known", {"orders": pairs})["unknown"]
        return {"ok": balance == 0 and not unknown, "balance": balance, "checked": len(pairs), "without_order": len(unknown), "examples": unknown[:3]}
