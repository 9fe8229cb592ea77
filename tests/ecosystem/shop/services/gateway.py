# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gateway: what customers talk to. It keeps nothing itself."""

from __future__ import annotations

from typing import Any

from .base import Answer, BaseService, Refused, route


class Service(BaseService):
    """Sign up, log in, browse, order, pay, have it shipped. All but the first two take the session's token in the body."""

    health_seconds = 3.0

    def _user(self, body: Any) -> int:
        return int(self.ask("sessions", "GET", f"/sessions/{body['token']}")["user_id"])

    def _own(self, body: Any, order: str) -> Any:
        found = self.ask("orders", "GET", f"/orders/{order}")
        if found["user_id"] != self._user(body):
            raise Refused(403, "not your order")
        return found

    @route("POST", "/signup")
    def signup(self, body: Any) -> Answer:
        """{email, name, password} -> {id}."""
        return 201, self.ask("identity", "POST", "/users", body)

    @route("POST", "/login")
    def login(self, body: Any) -> Answer:
        """{email, password} -> {token}."""
        user = self.ask("identity", "POST", "/verify", body)
        return 200, self.ask("sessions", "POST", "/sessions", {"user_id": user["id"]})

    @route("POST", "/logout")
    def logout(self, body: Any) -> Answer:
        """{token} -> {ended}."""
        return 200, self.ask("sessions", "DELETE", f"/sessions/{body['token']}")

    @route("GET", r"/products/(\d+)")
    def product(self, _body: Any, product: str) -> Answer:
        """One product."""
        return 200, self.ask("inventory", "GET", f"/products/{product}")

    @route("GET", "/catalog")
    def catalog(self, _body: Any) -> Answer:
        """The range of product numbers."""
        return 200, self.ask("inventory", "GET", "/catalog")

    @route("POST", "/orders")
    def order(self, body: Any) -> Answer:
        """{token, lines: [[product, quantity]]} -> {id, total}."""
        return 201, self.ask("orders", "POST", "/orders", {"user_id": self._user(body), "lines": body["lines"], "note": body.get("note")})

    @route("POST", r"/orders/(\d+)/pay")
    def pay(self, body: Any, order: str) -> Answer:
        """{token, card} -> {id, amount}."""
        self._own(body, order)
        return 200, self.ask("payments", "POST", "/payments", {"order_id": int(order), "card": body["card"]})

    @route("POST", r"/orders/(\d+)/ship")
    def ship(self, body: Any, order: str) -> Answer:
        """{token} -> the order."""
        self._own(body, order)
        return 200, self.ask("orders", "POST", f"/orders/{order}/ship", {})

    @route("POST", r"/orders/(\d+)/show")
    def show(self, body: Any, order: str) -> Answer:
        """{token} -> the order."""
        return 200, self._own(body, order)

    def audit(self) -> dict[str, Any]:
        """Reads through everything behind it: the newest paid order has its payment, and the other services' own audits hold."""
        newest = self.ask("orders", "GET", "/newest")
        matches = True
        if newest is not None:
            payment = self.ask("payments", "GET", f"/payments/by-order/{newest['id']}")
            matches = payment["amount"] == newest["total"] and payment["id"] == newest["payment"]
            self.ask("identity", "GET", f"/users/{newest['user_id']}")
        audits = {peer: bool(self.ask(peer, "GET", "/audit")["ok"]) for peer in ("sessions", "payments")}
        return {"ok": matches and all(audits.values()), "newest_order": newest["id"] if newest else None, "paid_as_ordered": matches, **audits}
