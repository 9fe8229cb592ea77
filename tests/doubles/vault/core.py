# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: the core of Vault as far as Lifeboat meets it: tokens with a life, policies, AppRole, mounts, the seal.

https://developer.hashicorp.com/vault/api-docs (auth/token, auth/approle, system/mounts, system/policies, system/auth,
system/seal-status, system/health, system/capabilities-self). Nothing is stored: the process is the storage.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any, Callable

import admin
from acl import DEFAULT, PolicyError, capabilities, parse
from transit import Engine, Refused, Unsupported

MAX_TTL = 32 * 24 * 3600
_CAPABILITY = {"GET": "read", "LIST": "list", "POST": "update", "DELETE": "delete"}
_DENIED = "1 error occurred:\n\t* permission denied\n\n"
#: paths that need no token
_OPEN = re.compile(r"sys/(health|seal-status|unseal)|auth/[^/]+/login")
#: paths that need the capability sudo besides
_SUDO = re.compile(r"sys/(seal|auth/.+|policies/acl/.+)")


@dataclass
class Token:
    id: str
    accessor: str
    policies: list[str]
    created: float
    expires: float | None
    ttl: int
    max_ttl: int
    renewable: bool
    display_name: str
    path: str


@dataclass
class Role:
    role_id: str
    secret_ids: dict[str, tuple[float | None, int]]  # secret id -> (expires, uses left, 0 = any)
    settings: dict[str, Any]


class Core:
    """State and behaviour; the HTTP side is server.py."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.root_token = "double-root." + secrets.token_urlsafe(18)
        self.unseal_key = secrets.token_hex(32)
        self.state = "active"
        self._policies = {"default": parse(DEFAULT)}
        self._texts = {"default": DEFAULT}
        self._engines: dict[str, Engine] = {}
        self._roles: dict[str, dict[str, Role]] = {}
        self._tokens: dict[str, Token] = {}
        self._issue(["root"], 0, 0, False, "root", "auth/token/root", known=self.root_token)

    # ---- one request ------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, body: dict[str, Any], token: str) -> tuple[int, dict[str, Any] | None]:
        """(status, whole answer); Refused and Unsupported come out as they are."""
        with self.lock:
            if self.state == "sealed" and not re.fullmatch(r"sys/(health|seal-status|unseal)", path):
                raise Refused(503, "Vault is sealed")
            if self.state == "standby" and not re.fullmatch(r"sys/(health|seal-status)", path):
                raise Refused(500, "local node not active but active cluster node not found")
            holder = None
            if not _OPEN.fullmatch(path):
                holder = self._holder(token)
                self._authorise(holder, method, path)
            return self._dispatch(method, path, body, holder)

    def _holder(self, token: str) -> Token:
        found = self._tokens.get(token)
        if not token:
            raise Refused(403, "permission denied")
        if found is None or (found.expires is not None and time.time() >= found.expires):
            self._tokens.pop(token, None)
            raise Refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
        return found

    def granted(self, holder: Token, path: str) -> frozenset[str]:
        if "root" in holder.policies:
            return frozenset({"root"})
        return capabilities([self._policies.get(name, {}) for name in holder.policies], path)

    def _authorise(self, holder: Token, method: str, path: str) -> None:
        if method not in _CAPABILITY:
            raise Unsupported(f"method {method}")
        granted = self.granted(holder, path)
        needed = _CAPABILITY[method]
        mount = self._mounted(path)
        if method == "POST" and mount and self._engines[mount].upserts(path[len(mount) + 1:]):
            needed = "create"
        if "root" in granted:
            return
        if needed not in granted or (_SUDO.fullmatch(path) and "sudo" not in granted):
            raise Refused(403, _DENIED)

    def _mounted(self, path: str) -> str | None:
        return next((mount for mount in sorted(self._engines, key=len, reverse=True) if path.startswith(mount + "/")), None)

    def _dispatch(self, method: str, path: str, body: dict[str, Any], holder: Token | None) -> tuple[int, dict[str, Any] | None]:
        mount = self._mounted(path)
        if mount:
            data = self._engines[mount].handle(method, path[len(mount) + 1:], body)
            if data is None and method in ("GET", "LIST"):
                raise Refused(404)
            return (204, None) if data is None else (200, _answer(data=data, mount_type="transit"))
        if path.startswith("sys/"):
            return self._system(method, path[4:], body, holder)
        if path.startswith("auth/token/") and holder is not None:
            return self._token_call(method, path[len("auth/token/"):], body, holder)
        match = re.fullmatch(r"auth/([^/]+)/(.+)", path)
        if match and match.group(1) in self._roles:
            return self._approle(method, match.group(1), match.group(2), body)
        raise Refused(404, f'no handler for route "{path}". route entry not found.')

    # ---- sys --------------------------------------------------------------------------------------------------

    def _system(self, method: str, path: str, body: dict[str, Any], holder: Token | None) -> tuple[int, dict[str, Any] | None]:
        sealed, standby = self.state == "sealed", self.state == "standby"
        if (method, path) == ("GET", "health"):
            status = 503 if sealed else 429 if standby else 200
            return status, {"initialized": True, "sealed": sealed, "standby": standby, "performance_standby": False, "version": "0.0.0-double"}
        if (method, path) == ("GET", "seal-status"):
            return 200, self._seal_status()
        if (method, path) == ("POST", "seal"):
            self.state = "sealed"
            return 204, None
        if (method, path) == ("POST", "unseal"):
            if not hmac.compare_digest(str(body.get("key", "")), self.unseal_key):
                raise Refused(400, "unable to unseal: cipher: message authentication failed")
            self.state = "active"
            return 200, self._seal_status()
        if (method, path) == ("POST", "capabilities-self") and holder is not None:
            shown = {each: sorted(self.granted(holder, str(each))) for each in body.get("paths", [])}
            return 200, _answer(data=shown)
        places: tuple[tuple[str, dict[str, Any], Callable[[], Any]], ...] = (("mounts", self._engines, Engine), ("auth", self._roles, dict))
        for kind, known, made in places:
            match = re.fullmatch(kind + "/([a-z0-9/_-]+)", path)
            if match and method == "POST":
                wanted = "transit" if kind == "mounts" else "approle"
                if body.get("type") != wanted or set(body) - {"type", "description"}:
                    raise Unsupported(f"{kind} with {body}")
                if match.group(1) in known:
                    raise Refused(400, f"path is already in use at {match.group(1)}/")
                known[match.group(1)] = made()
                return 204, None
            if match and method == "DELETE":
                known.pop(match.group(1), None)
                return 204, None
        if (method, path) == ("LIST", "policies/acl"):
            return 200, _answer(data=admin.policies(self._texts))
        match = re.fullmatch(r"policies/acl/([A-Za-z0-9_.-]+)", path)
        if match:
            return self._policy(method, match.group(1), body)
        raise Unsupported(f"{method} sys/{path}")

    def _seal_status(self) -> dict[str, Any]:
        return {"type": "shamir", "initialized": True, "sealed": self.state == "sealed", "t": 1, "n": 1, "progress": 0, "version": "0.0.0-double"}

    def _policy(self, method: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        if method == "POST":
            if name == "root":
                raise Refused(400, 'cannot update "root" policy')
            try:
                self._policies[name] = parse(str(body.get("policy", "")))
            except PolicyError as error:
                raise Refused(400, f"failed to parse policy: {error}") from error
            self._texts[name] = str(body["policy"])
            return 204, None
        if method == "DELETE":
            self._policies.pop(name, None)
            self._texts.pop(name, None)
            return 204, None
        if method == "GET":
            if name not in self._policies:
                raise Refused(404)
            return 200, _answer(data={"name": name, "policy": self._texts[name]})
        raise Unsupported(f"{method} policies")

    # ---- auth/token -------------------------------------------------------------------------------------------

    def _issue(
        self, policies: list[str], ttl: int, max_ttl: int, renewable: bool, display_name: str, path: str, known: str | None = None,
    ) -> Token:
        now = time.time()
        token = Token(
            known or "hvs." + secrets.token_urlsafe(24), secrets.token_urlsafe(18), policies, now, now + ttl if ttl else None, ttl, max_ttl or MAX_TTL,
            renewable, display_name, path,
        )
        self._tokens[token.id] = token
        return token

    def _token_call(self, method: str, path: str, body: dict[str, Any], holder: Token) -> tuple[int, dict[str, Any] | None]:
        if (method, path) == ("POST", "create"):
            _only(body, "policies", "ttl", "explicit_max_ttl", "renewable", "no_default_policy", "display_name")
            policies = sorted({*body.get("policies", holder.policies), *([] if body.get("no_default_policy") else ["default"])})
            if "root" not in holder.policies and not set(policies) <= set(holder.policies):
                raise Refused(400, "child policies must be subset of parent")
            limit = _seconds(body.get("explicit_max_ttl"))
            ttl = _seconds(body.get("ttl")) or MAX_TTL
            made = self._issue(
                policies, min(ttl, limit) if limit else ttl, limit, bool(body.get("renewable", True)),
                str(body.get("display_name", "token")), "auth/token/create",
            )
            return 200, _answer(auth=_auth(made))
        if (method, path) == ("GET", "lookup-self"):
            left = max(0, int((holder.expires or 0) - time.time() + 0.999)) if holder.expires else 0
            return 200, _answer(data={
                "accessor": holder.accessor, "creation_time": int(holder.created), "creation_ttl": holder.ttl, "display_name": holder.display_name,
                "expire_time": None, "explicit_max_ttl": 0, "id": holder.id, "meta": None, "num_uses": 0, "orphan": True, "path": holder.path,
                "policies": holder.policies, "renewable": holder.renewable, "ttl": left, "type": "service",
            })
        if (method, path) == ("POST", "renew-self"):
            _only(body, "increment")
            if not holder.renewable:
                raise Refused(400, "lease is not renewable")
            now = time.time()
            holder.expires = min(now + holder.ttl, holder.created + holder.max_ttl)
            return 200, _answer(auth=_auth(holder))
        if (method, path) == ("POST", "revoke-self"):
            del self._tokens[holder.id]
            return 204, None
        if (method, path) == ("POST", "revoke"):
            self._tokens.pop(str(body.get("token")), None)
            return 204, None
        raise Unsupported(f"{method} auth/token/{path}")

    # ---- auth/approle -----------------------------------------------------------------------------------------

    def _approle(self, method: str, mount: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        roles = self._roles[mount]
        if (method, path) == ("POST", "login"):
            return self._login(roles, mount, body)
        if (method, path) == ("LIST", "role"):
            return 200, _answer(data=admin.roles(roles))
        match = re.fullmatch(r"role/([A-Za-z0-9_.-]+)(/role-id|/secret-id|/secret-id/destroy)?", path)
        if match is None:
            raise Unsupported(f"{method} approle {path}")
        name, rest = match.group(1), match.group(2) or ""
        if (method, rest) == ("POST", ""):
            _only(body, "token_policies", "token_ttl", "token_max_ttl", "secret_id_ttl", "secret_id_num_uses", "bind_secret_id", "token_no_default_policy")
            roles.setdefault(name, Role(str(uuid.uuid4()), {}, {})).settings.update(body)
            return 204, None
        if name not in roles:
            raise Refused(404)
        role = roles[name]
        if (method, rest) == ("GET", ""):
            return 200, _answer(data=admin.role(role.settings, _seconds))
        if (method, rest) == ("DELETE", ""):
            del roles[name]
            return 204, None
        if (method, rest) == ("GET", "/role-id"):
            return 200, _answer(data={"role_id": role.role_id})
        if (method, rest) == ("POST", "/secret-id"):
            _only(body)
            made, ttl = str(uuid.uuid4()), _seconds(role.settings.get("secret_id_ttl"))
            role.secret_ids[made] = (time.time() + ttl if ttl else None, int(role.settings.get("secret_id_num_uses", 0)))
            return 200, _answer(data={"secret_id": made, "secret_id_accessor": str(uuid.uuid4()), "secret_id_ttl": ttl, "secret_id_num_uses": 0})
        if (method, rest) == ("POST", "/secret-id/destroy"):
            role.secret_ids.pop(str(body.get("secret_id")), None)
            return 204, None
        raise Unsupported(f"{method} approle {path}")

    def _login(self, roles: dict[str, Role], mount: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        _only(body, "role_id", "secret_id")
        if not body.get("role_id"):
            raise Refused(400, "missing role_id")
        role = next((each for each in roles.values() if each.role_id == body["role_id"]), None)
        if role is None:
            raise Refused(400, "invalid role or secret ID")
        if role.settings.get("bind_secret_id", True):
            secret = str(body.get("secret_id", ""))
            if not secret:
                raise Refused(400, "missing secret_id")
            expires, uses = role.secret_ids.get(secret, (0.0, 0))
            if expires is not None and time.time() >= expires:
                raise Refused(400, "invalid role or secret ID")
            if uses == 1:
                del role.secret_ids[secret]
            elif uses:
                role.secret_ids[secret] = (expires, uses - 1)
        policies = sorted({*role.settings.get("token_policies", []), *([] if role.settings.get("token_no_default_policy") else ["default"])})
        ttl, limit = _seconds(role.settings.get("token_ttl")) or MAX_TTL, _seconds(role.settings.get("token_max_ttl"))
        made = self._issue(policies, min(ttl, limit) if limit else ttl, limit, True, mount, f"auth/{mount}/login")
        return 200, _answer(auth=_auth(made))


def _only(body: dict[str, Any], *known: str) -> None:
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise Unsupported(f"parameter {unknown[0]!r}")


def _seconds(value: Any) -> int:
    """A duration as Vault takes it: seconds, or a number with s, m, h."""
    if value in (None, ""):
        return 0
    match = re.fullmatch(r"([0-9]+)([smh]?)", str(value))
    if match is None:
        raise Refused(400, f"error parsing duration {value!r}")
    return int(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)]


def _auth(token: Token) -> dict[str, Any]:
    left = int(token.expires - time.time() + 0.999) if token.expires else 0
    return {
        "client_token": token.id, "accessor": token.accessor, "policies": token.policies, "token_policies": token.policies, "metadata": None,
        "lease_duration": left, "renewable": token.renewable, "entity_id": "", "token_type": "service", "orphan": True, "num_uses": 0,
    }


def _answer(data: Any = None, auth: Any = None, mount_type: str = "") -> dict[str, Any]:
    return {
        "request_id": str(uuid.uuid4()), "lease_id": "", "renewable": False, "lease_duration": 0, "data": data, "wrap_info": None, "warnings": None,
        "auth": auth, "mount_type": mount_type,
    }
