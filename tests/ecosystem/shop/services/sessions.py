# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sessions: who is logged in, in Redis."""

from __future__ import annotations

import importlib
import secrets
import time
from typing import Any

from ..layout import HOST, Home
from .base import Answer, BaseService, Refused, route

SECONDS = 7 * 86400

# created = still listed + ended, whatever happens in between: the three change in one script.
_OPEN = """
redis.call('HSET', KEYS[1], 'user', ARGV[1], 'created', ARGV[2], 'pages', 0)
redis.call('EXPIREAT', KEYS[1], ARGV[3])
redis.call('ZADD', 'sessions:by_expiry', ARGV[3], ARGV[4])
redis.call('INCR', 'sessions:created')
redis.call('XADD', 'sessions:events', 'MAXLEN', '~', 100000, '*', 'event', 'open', 'user', ARGV[1])
return 1
"""
_CLOSE = """
local removed = redis.call('ZREM', 'sessions:by_expiry', ARGV[1])
redis.call('DEL', KEYS[1])
if removed == 1 then
  redis.call('INCR', 'sessions:ended')
  redis.call('XADD', 'sessions:events', 'MAXLEN', '~', 100000, '*', 'event', 'close', 'session', ARGV[1])
end
return removed
"""


class Service(BaseService):
    """Sessions end by log-out or by themselves after a week."""

    def __init__(self, home: Home, name: str, credentials: dict[str, Any]) -> None:
        super().__init__(home, name, credentials)
        import redis

        importlib.import_module("redis.asyncio")  # loaded now, see base
        self._redis: Any = redis.Redis(
            host=HOST, port=home.port("redis"), password=str(credentials["redis"]), socket_timeout=3, socket_connect_timeout=2, decode_responses=True
        )
        self._open = self._redis.register_script(_OPEN)
        self._close = self._redis.register_script(_CLOSE)

    def check_store(self) -> None:
        if self._redis.get("sessions:format") != "2":
            raise LookupError("sessions:format is not 2: this Redis holds no sessions")

    @route("POST", "/sessions")
    def add(self, body: Any) -> Answer:
        """Open a session for {user_id} -> {token}."""
        user = self.ask("identity", "GET", f"/users/{int(body['user_id'])}")
        token = secrets.token_hex(16)
        now = int(time.time())
        self._open(keys=[f"session:{token}"], args=[user["id"], now, now + SECONDS, token])
        return 201, {"token": token}

    @route("GET", r"/sessions/([0-9a-f]{32})")
    def show(self, _body: Any, token: str) -> Answer:
        """Whose session it is; counts the page."""
        key = f"session:{token}"
        user = self._redis.hget(key, "user")
        if user is None:
            raise Refused(401, "no such session")
        pages = self._redis.hincrby(key, "pages", 1)
        return 200, {"user_id": int(user), "pages": pages}

    @route("DELETE", r"/sessions/([0-9a-f]{32})")
    def end(self, _body: Any, token: str) -> Answer:
        """Log out."""
        return 200, {"ended": bool(self._close(keys=[f"session:{token}"], args=[token]))}

    def audit(self) -> dict[str, Any]:
        """created = listed + ended, and of the listed that last longest none is missing."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.get("sessions:created").get("sessions:ended").zcard("sessions:by_expiry").zrange("sessions:by_expiry", 0, 199, desc=True)
            created, ended, listed, newest = pipe.execute()
        missing = 0
        if newest:
            with self._redis.pipeline(transaction=False) as pipe:
                for token in newest:
                    pipe.exists(f"session:{token}")
                missing = pipe.execute().count(0)
        balanced = created is not None and ended is not None and int(created) == int(ended) + listed
        return {"ok": balanced and missing == 0, "listed": listed, "missing": missing}
