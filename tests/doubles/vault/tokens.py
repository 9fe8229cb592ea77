# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: Vault's tokens: made, looked up, renewed up to their limit, counted, revoked.

https://developer.hashicorp.com/vault/api-docs/auth/token (create, lookup-self, renew-self, revoke-self, revoke).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from shared import MAX_TTL, Refused, Unsupported, answer, only, seconds


@dataclass
class Token:
    id: str
    accessor: str
    policies: list[str]
    created: float
    expires: float | None
    ttl: int
    max_ttl: int
    explicit: int
    renewable: bool
    display_name: str
    path: str
    metadata: dict[str, str] | None
    uses: int  # left; 0 = any, -1 = none

    def left(self) -> int:
        return max(0, int(self.expires - time.time() + 0.999)) if self.expires else 0

    def auth(self) -> dict[str, Any]:
        """The ``auth`` block of an answer."""
        return {
            "client_token": self.id, "accessor": self.accessor, "policies": self.policies, "token_policies": self.policies, "metadata": self.metadata,
            "lease_duration": self.left(), "renewable": self.renewable, "entity_id": "", "token_type": "service", "orphan": True, "mfa_requirement": None,
            "num_uses": self.uses,
        }


class Tokens:
    """The token store of one namespace."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def issue(
        self, policies: list[str], ttl: int, max_ttl: int, renewable: bool, display_name: str, path: str, metadata: dict[str, str] | None = None,
        explicit: int = 0, uses: int = 0,
    ) -> Token:
        now = time.time()
        token = Token(
            "hvs." + secrets.token_urlsafe(24), secrets.token_urlsafe(18), policies, now, now + ttl if ttl else None, ttl, max_ttl or MAX_TTL, explicit,
            renewable, display_name, path, metadata, uses,
        )
        self._tokens[token.id] = token
        return token

    def living(self, token: str) -> Token | None:
        found = self._tokens.get(token)
        if found is not None and found.expires is not None and time.time() >= found.expires:
            del self._tokens[token]
            return None
        return found

    def revoke(self, prefix: str) -> None:
        """End the tokens that a login below ``prefix`` gave."""
        for token in [each for each in self._tokens.values() if each.path.startswith(prefix)]:
            del self._tokens[token.id]

    def used(self, token: Token) -> None:
        """Count a request of a token with num_uses; the last one ends it."""
        if token.uses == 1:
            self._tokens.pop(token.id, None)
        elif token.uses:
            token.uses -= 1

    def call(self, method: str, path: str, body: dict[str, Any], holder: Token) -> tuple[int, dict[str, Any] | None]:
        if (method, path) == ("POST", "create"):
            return self._create(body, holder)
        if (method, path) == ("GET", "lookup-self"):
            only(body)
            return 200, answer(data=self._shown(holder), mount_type="token")
        if (method, path) == ("POST", "renew-self"):
            only(body, "increment")
            if not holder.renewable:
                raise Refused(400, "lease is not renewable")
            wanted = time.time() + (seconds(body.get("increment")) or holder.ttl)
            limit = holder.created + holder.max_ttl
            holder.expires = min(wanted, limit)
            capped = [f"TTL of {holder.ttl}s exceeded the effective max_ttl of {int(limit - time.time())}s; TTL value is capped accordingly"]
            return 200, answer(auth=holder.auth(), warnings=capped if wanted > limit else None)
        if (method, path) == ("POST", "revoke-self"):
            self._tokens.pop(holder.id, None)
            return 204, None
        if (method, path) == ("POST", "revoke"):
            only(body, "token")
            if str(body.get("token")) not in self._tokens:
                raise Unsupported("revoking a token that is not there")
            del self._tokens[str(body["token"])]
            return 204, None
        raise Unsupported(f"{method} auth/token/{path}")

    def _create(self, body: dict[str, Any], holder: Token) -> tuple[int, dict[str, Any] | None]:
        only(body, "policies", "ttl", "explicit_max_ttl", "renewable", "no_default_policy", "display_name", "num_uses")
        policies = sorted({*body.get("policies", holder.policies), *([] if body.get("no_default_policy") else ["default"])})
        if "root" not in holder.policies and not set(policies) <= set(holder.policies):
            raise Refused(400, "child policies must be subset of parent")
        limit = seconds(body.get("explicit_max_ttl"))
        ttl = seconds(body.get("ttl")) or MAX_TTL
        name = str(body.get("display_name") or "")
        made = self.issue(
            policies, min(ttl, limit) if limit else ttl, limit, bool(body.get("renewable", True)), f"token-{name}" if name else "token",
            "auth/token/create", explicit=limit, uses=int(body.get("num_uses", 0)),
        )
        return 200, answer(auth=made.auth(), mount_type="token")

    @staticmethod
    def _shown(token: Token) -> dict[str, Any]:
        ends = datetime.fromtimestamp(token.expires, timezone.utc).isoformat().replace("+00:00", "Z") if token.expires else None
        shown = {
            "accessor": token.accessor, "creation_time": int(token.created), "creation_ttl": token.ttl, "display_name": token.display_name, "entity_id": "",
            "expire_time": ends, "explicit_max_ttl": token.explicit, "id": token.id, "meta": token.metadata, "num_uses": token.uses, "orphan": True,
            "path": token.path, "policies": token.policies, "ttl": token.left(), "type": "service",
        }
        if token.expires:
            shown.update(issue_time=datetime.fromtimestamp(token.created, timezone.utc).isoformat().replace("+00:00", "Z"), renewable=token.renewable)
        return shown
