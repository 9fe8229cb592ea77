# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""identity: customers and their passwords."""

from __future__ import annotations

import hmac
import os
from typing import Any

from .base import Answer, DatabaseService, Refused, digest, route


class Service(DatabaseService):
    """Sign up, check a password, look a customer up."""

    probe = "SELECT id FROM users LIMIT 1"

    @route("POST", "/users")
    def add(self, body: Any) -> Answer:
        """Sign up: {email, name, password, profile?} -> {id}."""
        salt = os.urandom(16)
        with self.transaction() as cursor:
            cursor.execute(
                "INSERT INTO users (email, name, password_salt, password_hash, profile) VALUES (%s, %s, %s, %s, %s::jsonb)"
                " ON CONFLICT (email) DO NOTHING RETURNING id",
                [body["email"], body["name"], salt, digest(body["password"], salt), body.get("profile", "{}")],
            )
            row = cursor.fetchone()
        if row is None:
            raise Refused(409, "e-mail is taken")
        return 201, {"id": row[0]}

    @route("POST", "/verify")
    def verify(self, body: Any) -> Answer:
        """Log in: {email, password} -> {id}; the try is noted either way."""
        with self.transaction() as cursor:
            cursor.execute("SELECT id, password_salt, password_hash FROM users WHERE email = %s AND status = 'active'", [body["email"]])
            row = cursor.fetchone()
            good = row is not None and row[1] is not None and hmac.compare_digest(digest(body["password"], bytes(row[1])), bytes(row[2]))
            if row is not None:
                cursor.execute(
                    "INSERT INTO login_events (user_id, at, ip, agent, ok) VALUES (%s, clock_timestamp(), '127.0.0.1', 'shop', %s)", [row[0], good]
                )
        if row is None or not good:
            raise Refused(401, "wrong e-mail or password")
        return 200, {"id": row[0]}

    @route("GET", r"/users/(\d+)")
    def show(self, _body: Any, user: str) -> Answer:
        """One customer."""
        with self.transaction() as cursor:
            cursor.execute("SELECT id, email, name, status::text, tags FROM users WHERE id = %s", [user])
            row = cursor.fetchone()
        if row is None:
            raise Refused(404, "no such user")
        return 200, dict(zip(("id", "email", "name", "status", "tags"), row))

    def audit(self) -> dict[str, Any]:
        """Customers, and log-ins without a customer."""
        with self.transaction() as cursor:
            cursor.execute("SELECT count(*), count(*) FILTER (WHERE email IS NULL) FROM users")
            users, nameless = cursor.fetchone()
        return {"ok": nameless == 0, "users": users}
