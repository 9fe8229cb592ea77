# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""orders: what customers bought, with an invoice file for each order."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from decimal import Decimal
from typing import Any

from .base import Answer, DatabaseService, Refused, route


class Service(DatabaseService):
    """new -> paid -> shipped. The invoice is on the disk before the order is committed."""

    probe = "SELECT id FROM orders LIMIT 1"

    def check_store(self) -> None:
        super().check_store()
        if not os.access(self.home.invoices, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(f"no invoice directory: {self.home.invoices}")

    @route("POST", "/orders")
    def add(self, body: Any) -> Answer:
        """Order {user_id, lines: [[product, quantity]]} -> {id, total}."""
        user = self.ask("identity", "GET", f"/users/{int(body['user_id'])}")
        reservation = self.ask("inventory", "POST", "/reservations", {"lines": body["lines"]})
        lines = [(int(product), int(quantity), Decimal(price)) for product, quantity, price in reservation["lines"]]
        total = sum((quantity * price for _product, quantity, price in lines), Decimal(0))
        try:
            with self.transaction() as cursor:
                cursor.execute(
                    "INSERT INTO orders (user_id, reservation, total, note, meta) VALUES (%s, %s, %s, %s, %s::jsonb) RETURNING id",
                    [user["id"], reservation["id"], total, body.get("note"), json.dumps({"channel": "web"})],
                )
                order = int(cursor.fetchone()[0])
                for line, (product, quantity, price) in enumerate(lines, 1):
                    cursor.execute(
                        "INSERT INTO order_lines (order_id, line, product, quantity, price) VALUES (%s, %s, %s, %s, %s)",
                        [order, line, product, quantity, price],
                    )
                path, data = self._invoice(order, user["name"], lines, total)
                cursor.execute("INSERT INTO invoices VALUES (%s, %s, %s, %s)", [order, path, len(data), hashlib.sha256(data).digest()])
        except Exception:
            # Best effort: a reservation without an order is allowed, an order without a reservation is not.
            self.call("inventory", "POST", f"/reservations/{reservation['id']}/release", {})
            raise
        return 201, {"id": order, "total": total}

    def _invoice(self, order: int, name: str, lines: list[tuple[int, int, Decimal]], total: Decimal) -> tuple[str, bytes]:
        """Write the invoice durably; returns its path below the invoice directory and its content."""
        text = [f"INVOICE {order}", f"Customer: {name}", ""]
        text += [f"{quantity:6d} x {product:8d} @ {price:10.2f}" for product, quantity, price in lines]
        data = "\n".join([*text, "", f"TOTAL {total:.2f} EUR", ""]).encode() + os.urandom(order % 3000)
        relative = f"{time.strftime('%Y/%m/%d', time.gmtime())}/INV-{order}.txt"
        final = self.home.invoices / relative
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
        return relative, data

    @route("POST", r"/orders/(\d+)/paid")
    def paid(self, body: Any, order: str) -> Answer:
        """Note the payment of an order."""
        with self.transaction() as cursor:
            cursor.execute("UPDATE orders SET state = 'paid', payment = %s WHERE id = %s AND state = 'new'", [body["payment"], order])
        return self.show({}, order)

    @route("POST", r"/orders/(\d+)/ship")
    def ship(self, _body: Any, order: str) -> Answer:
        """Hand over what was paid."""
        with self.transaction() as cursor:
            cursor.execute("SELECT state::text, reservation FROM orders WHERE id = %s FOR UPDATE", [order])
            row = cursor.fetchone()
            if row is None:
                raise Refused(404, "no such order")
            if row[0] not in ("paid", "shipped"):
                raise Refused(409, "not paid")
            self.ask("inventory", "POST", f"/reservations/{row[1]}/ship", {"order_id": int(order)})
            cursor.execute("UPDATE orders SET state = 'shipped' WHERE id = %s AND state = 'paid'", [order])
        return self.show({}, order)

    @route("GET", r"/orders/(\d+)")
    def show(self, _body: Any, order: str) -> Answer:
        """One order."""
        with self.transaction() as cursor:
            cursor.execute("SELECT id, user_id, state::text, total, payment, reservation FROM orders WHERE id = %s", [order])
            row = cursor.fetchone()
        if row is None:
            raise Refused(404, "no such order")
        return 200, dict(zip(("id", "user_id", "state", "total", "payment", "reservation"), row))

    @route("POST", "/known")
    def known(self, body: Any) -> Answer:
        """Which of {ids} are not orders, or not for the total given: {orders: [[id, total]]} -> {unknown: [id]}."""
        pairs = [(int(order), Decimal(total)) for order, total in body["orders"]]
        with self.transaction() as cursor:
            cursor.execute("SELECT id, total FROM orders WHERE id = ANY(%s)", [[order for order, _total in pairs]])
            totals = dict(cursor.fetchall())
        return 200, {"unknown": [order for order, total in pairs if totals.get(order) != total]}

    @route("GET", "/newest")
    def newest(self, _body: Any) -> Answer:
        """The newest paid or shipped order, or null."""
        with self.transaction() as cursor:
            cursor.execute("SELECT id, user_id, state::text, total, payment FROM orders WHERE state IN ('paid', 'shipped') ORDER BY id DESC LIMIT 1")
            row = cursor.fetchone()
        return 200, dict(zip(("id", "user_id", "state", "total", "payment"), row)) if row else None

    def audit(self) -> dict[str, Any]:
        """Every invoice is there with its size; the newest hundred and a hundred others with their content too."""
        missing: list[str] = []
        wrong: list[str] = []
        with self.transaction() as cursor:
            cursor.execute("SELECT path, size, sha256, row_number() OVER (ORDER BY order_id DESC), row_number() OVER (ORDER BY md5(path)) FROM invoices")
            rows = cursor.fetchall()
        for path, size, digest, newest, mixed in rows:
            full = self.home.invoices / path
            try:
                found = full.lstat()
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    wrong.append(path)
                elif min(newest, mixed) <= 100 and hashlib.sha256(full.read_bytes()).digest() != bytes(digest):
                    wrong.append(path)
            except OSError:
                missing.append(path)
        return {"ok": not missing and not wrong, "invoices": len(rows), "missing": len(missing), "wrong": len(wrong), "examples": [*missing[:3], *wrong[:3]]}
