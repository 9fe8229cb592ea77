# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""inventory: products, stock and reservations."""

from __future__ import annotations

from typing import Any

from .base import Answer, DatabaseService, Refused, route


class Service(DatabaseService):
    """Stock is promised by a reservation and leaves with its shipment; it is never below what was promised."""

    probe = "SELECT product FROM stock.levels LIMIT 1"

    @route("GET", r"/products/(\d+)")
    def show(self, _body: Any, product: str) -> Answer:
        """One product with what is left of it."""
        with self.transaction() as cursor:
            cursor.execute(
                "SELECT p.id, sku, name, price, on_hand - reserved FROM products p JOIN stock.levels l ON l.product = p.id WHERE p.id = %s", [product]
            )
            row = cursor.fetchone()
        if row is None:
            raise Refused(404, "no such product")
        return 200, dict(zip(("id", "sku", "name", "price", "available"), row))

    @route("GET", "/catalog")
    def catalog(self, _body: Any) -> Answer:
        """How many products there are, by the ids a customer may ask for."""
        with self.transaction() as cursor:
            cursor.execute("SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM products")
            first, last = cursor.fetchone()
        return 200, {"first": first, "last": last}

    @route("POST", "/reservations")
    def reserve(self, body: Any) -> Answer:
        """Promise {lines: [[product, quantity]]} or nothing: {id, lines: [[product, quantity, price]]}."""
        wanted: dict[int, int] = {}
        for product, quantity in body["lines"]:
            wanted[int(product)] = wanted.get(int(product), 0) + int(quantity)
        lines = []
        with self.transaction() as cursor:
            cursor.execute("INSERT INTO reservations DEFAULT VALUES RETURNING id")
            reservation = cursor.fetchone()[0]
            # In one order for everybody, so that two customers never wait for each other.
            for product, quantity in sorted(wanted.items()):
                cursor.execute(
                    "UPDATE stock.levels SET reserved = reserved + %s WHERE product = %s AND on_hand - reserved >= %s", [quantity, product, quantity]
                )
                if cursor.rowcount != 1:
                    raise Refused(409, f"product {product} is sold out")
                cursor.execute("INSERT INTO reservation_lines VALUES (%s, %s, %s)", [reservation, product, quantity])
                cursor.execute("SELECT price FROM products WHERE id = %s", [product])
                lines.append([product, quantity, cursor.fetchone()[0]])
        return 201, {"id": reservation, "lines": lines}

    @route("POST", r"/reservations/(\d+)/(ship|release)")
    def settle(self, body: Any, reservation: str, how: str) -> Answer:
        """End a reservation: the goods leave, or are free again. A second time changes nothing."""
        state = "shipped" if how == "ship" else "released"
        with self.transaction() as cursor:
            cursor.execute("UPDATE reservations SET state = %s, order_id = %s WHERE id = %s AND state = 'open'", [state, body.get("order_id"), reservation])
            if cursor.rowcount == 1:
                gone = 1 if how == "ship" else 0
                cursor.execute(
                    "UPDATE stock.levels l SET reserved = reserved - r.quantity, on_hand = on_hand - r.quantity * %s"
                    " FROM reservation_lines r WHERE r.reservation = %s AND l.product = r.product",
                    [gone, reservation],
                )
                if gone:
                    cursor.execute(
                        "INSERT INTO stock.movements (product, kind, delta, reference)"
                        " SELECT product, 'shipment', -quantity, 'reservation ' || reservation FROM reservation_lines WHERE reservation = %s",
                        [reservation],
                    )
        return 200, {"id": int(reservation), "state": state}

    def audit(self) -> dict[str, Any]:
        """Stock levels that are negative or promised twice."""
        with self.transaction() as cursor:
            cursor.execute("SELECT count(*), count(*) FILTER (WHERE on_hand < 0 OR reserved < 0 OR reserved > on_hand) FROM stock.levels")
            products, wrong = cursor.fetchone()
        return {"ok": wrong == 0, "products": products, "wrong": wrong}
