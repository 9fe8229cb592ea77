# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: the core of Vault as far as Lifeboat meets it: policies, mounts, namespaces, the seal; tokens are in tokens.py.

https://developer.hashicorp.com/vault/api-docs (system/mounts, system/auth, system/policies, system/namespaces, system/leases,
system/seal, system/unseal, system/seal-status, system/health, system/capabilities-self). Nothing is stored: the process is the storage.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from typing import Any

from acl import DEFAULT, PolicyError, capabilities, parse
from logins import METHODS, Grant, Method
from shared import Refused, Unsupported, answer, only
from tokens import Token, Tokens
from transit import Engine

_CAPABILITY = {"GET": "read", "LIST": "list", "POST": "update", "DELETE": "delete"}
_DENIED = "1 error occurred:\n\t* permission denied\n\n"
#: what a sealed server still answers, and anybody may ask
_SEALED = re.compile(r"sys/(health|seal-status|unseal)")
#: mounts that every server has and the double has not: "no route" would be a lie
_USUAL = re.compile(r"(secret|cubbyhole|identity|auth/token)/.*")
#: what sys/health answers (api-docs/system/health); other states than these are none
_HEALTH = {"active": 200, "standby": 429, "dr-secondary": 472, "performance-standby": 473, "uninitialized": 501, "sealed": 503}
#: paths that need the capability sudo besides (api-docs of each: "requires sudo"; policies and mounts do not)
_SUDO = re.compile(r"sys/(seal|auth/.+|leases/revoke-prefix/.+)")
Answer = tuple[int, "dict[str, Any] | None"]


class Core:
    """One namespace; the root namespace has the seal. The HTTP side is server.py."""

    def __init__(self, parent: Core | None = None, prefix: str = "") -> None:
        self.lock: threading.RLock = parent.lock if parent else threading.RLock()
        self.state = "active"  # of the root namespace
        self.unseal_key = secrets.token_hex(32)
        self.tokens = Tokens()
        self._parent, self._prefix = parent, prefix
        self._children: dict[str, Core] = {}
        self._policies = {"default": parse(DEFAULT)}
        self._texts = {"default": DEFAULT}
        self._engines: dict[str, Engine] = {}
        self._methods: dict[str, Method] = {}
        self.root_token = "" if parent else self.tokens.issue(["root"], 0, 0, False, "root", "auth/token/root").id

    # ---- one request ------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, body: dict[str, Any], token: str, namespace: str = "", certificate: bytes | None = None) -> Answer:
        """(status, whole answer); Refused and Unsupported come out as they are. certificate: the client's, DER."""
        with self.lock:
            if self.state == "sealed" and not _SEALED.fullmatch(path):
                raise Refused(503, "Vault is sealed")
            if self.state != "active" and not _SEALED.fullmatch(path):
                raise Refused(500, "local node not active but active cluster node not found")
            core = self._namespace(namespace)
            login = re.fullmatch(r"auth/([^/]+)/login", path)
            # a login of a method that is not there is a path like any other: without a token, denied
            if _SEALED.fullmatch(path) or (login and login.group(1) in core._methods):
                return core._dispatch(method, path, body, None, certificate)
            home, holder = core._holder(token)
            core._authorise(home, holder, method, path)
            try:
                return core._dispatch(method, path, body, holder, certificate, home)
            finally:
                home.tokens.used(holder)

    def _namespace(self, header: str) -> Core:
        core = self
        for name in filter(None, header.strip("/").split("/")):
            if name not in core._children:
                raise Unsupported(f"namespace {header!r}, which is not there")
            core = core._children[name]
        return core

    def _holder(self, token: str) -> tuple[Core, Token]:
        """Whose token it is, and of which namespace: this one or one above."""
        if not token:
            raise Refused(403, "permission denied")
        core: Core | None = self
        while core is not None:
            found = core.tokens.living(token)
            if found is not None:
                return core, found
            core = core._parent
        raise Refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")

    def granted(self, home: Core, holder: Token, path: str) -> frozenset[str]:
        if "root" in holder.policies:
            return frozenset({"root"})
        # policies of a namespace above name this one's paths with its name before them
        return capabilities([home._policies.get(name, {}) for name in holder.policies], self._prefix[len(home._prefix):] + path)

    def _authorise(self, home: Core, holder: Token, method: str, path: str) -> None:
        if method not in _CAPABILITY:
            raise Unsupported(f"method {method}")
        granted = self.granted(home, holder, path)
        needed = "create" if method == "POST" and self._creates(path) else _CAPABILITY[method]
        if "root" not in granted and (needed not in granted or (_SUDO.fullmatch(path) and "sudo" not in granted)):
            raise Refused(403, _DENIED)

    def _creates(self, path: str) -> bool:
        mount = self._mounted(path)
        if mount:
            return self._engines[mount].upserts(path[len(mount) + 1:])
        match = re.fullmatch(r"auth/([^/]+)/(.+)", path)
        return bool(match and match.group(1) in self._methods and self._methods[match.group(1)].creates(match.group(2)))

    def _mounted(self, path: str) -> str | None:
        return next((mount for mount in sorted(self._engines, key=len, reverse=True) if path.startswith(mount + "/")), None)

    def _dispatch(self, method: str, path: str, body: dict[str, Any], holder: Token | None, certificate: bytes | None, home: Core | None = None) -> Answer:
        mount = self._mounted(path)
        if mount:
            data, warnings = self._engines[mount].handle(method, path[len(mount) + 1:], body)
            if data is None and method in ("GET", "LIST"):
                raise Refused(404)
            return (204, None) if data is None else (200, answer(data=data, mount_type="transit", warnings=warnings))
        if path.startswith("sys/"):
            return self._system(method, path[4:], body, holder, home)
        if path.startswith("auth/token/") and holder is not None and home is not None:
            call = path[len("auth/token/"):]
            return (home if call.endswith("-self") else self).tokens.call(method, call, body, holder)
        match = re.fullmatch(r"auth/([^/]+)/(.+)", path)
        if match and match.group(1) in self._methods:
            return self._method(self._methods[match.group(1)], match.group(1), method, match.group(2), body, certificate)
        if _USUAL.fullmatch(path):
            raise Unsupported(f"{method} {path}")
        raise Refused(404, f'no handler for route "{path}". route entry not found.')

    def _method(self, mounted: Method, mount: str, method: str, path: str, body: dict[str, Any], certificate: bytes | None) -> Answer:
        result = mounted.handle(method, path, body, certificate)
        if isinstance(result, Grant):
            made = self.tokens.issue(result.policies, result.ttl, result.max_ttl, True, result.display_name, f"auth/{mount}/login", result.metadata)
            return 200, answer(auth=made.auth())
        if result is None and method in ("GET", "LIST"):
            raise Refused(404)
        return (204, None) if result is None else (200, answer(data=result, mount_type=mounted.kind))

    # ---- sys --------------------------------------------------------------------------------------------------

    def _system(self, method: str, path: str, body: dict[str, Any], holder: Token | None, home: Core | None) -> Answer:
        if path in ("health", "seal-status", "seal", "unseal"):
            return self._seal(method, path, body)
        if (method, path) == ("POST", "capabilities-self") and holder is not None and home is not None:
            only(body, "paths")
            shown = {str(each): sorted(self.granted(home, holder, str(each))) for each in body.get("paths", [])}
            return 200, answer(data={**shown, **({"capabilities": next(iter(shown.values()))} if len(shown) == 1 else {})})
        match = re.fullmatch(r"leases/revoke-prefix/(auth/.+)", path)
        if match and method == "POST":
            only(body)
            self.tokens.revoke(match.group(1))
            return 204, None
        match = re.fullmatch(r"(mounts|auth|namespaces)/([A-Za-z0-9/_-]+)", path)
        if match:
            return self._place(method, match.group(1), match.group(2).rstrip("/"), body)
        if method == "LIST" and path in ("policies/acl", "policies/acl/"):
            only(body)
            return 200, answer(data={"keys": sorted({*self._policies, *([] if self._parent else ["root"])})})
        match = re.fullmatch(r"policies/acl/([A-Za-z0-9_.-]+)", path)
        if match:
            return self._policy(method, match.group(1), body)
        raise Unsupported(f"{method} sys/{path}")

    def _seal(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if self._parent is not None:
            raise Unsupported(f"sys/{path} inside of a namespace")
        if (method, path) == ("GET", "health"):
            return _HEALTH[self.state], {
                "initialized": self.state != "uninitialized", "sealed": self.state == "sealed", "standby": "standby" in self.state,
                "performance_standby": self.state == "performance-standby", "version": "0.0.0-double",
            }
        if (method, path) == ("POST", "seal"):
            self.state = "sealed"
            return 204, None
        if (method, path) == ("POST", "unseal"):
            only(body, "key")
            if not hmac.compare_digest(str(body.get("key", "")), self.unseal_key):
                raise Refused(400, "unable to unseal: cipher: message authentication failed")
            self.state = "active"
        elif (method, path) != ("GET", "seal-status"):
            raise Unsupported(f"{method} sys/{path}")
        sealed = self.state == "sealed"
        return 200, {"type": "shamir", "initialized": True, "sealed": sealed, "t": 1, "n": 1, "progress": 0, "version": "0.0.0-double"}

    def _place(self, method: str, kind: str, name: str, body: dict[str, Any]) -> Answer:
        """Mount, enable, make a namespace, and the ways back."""
        known: dict[str, Any] = {"mounts": self._engines, "auth": self._methods, "namespaces": self._children}[kind]
        if method == "DELETE":
            known.pop(name, None)
            return 204, None
        if method != "POST":
            raise Unsupported(f"{method} sys/{kind}/{name}")
        if name in known and kind != "namespaces":
            raise Refused(400, f"path is already in use at {'auth/' if kind == 'auth' else ''}{name}/")
        if kind == "namespaces":
            only(body)
            known.setdefault(name, Core(self, f"{self._prefix}{name}/"))
            return 200, answer(data={"custom_metadata": {}, "id": secrets.token_hex(3), "path": f"{self._prefix}{name}/"})
        only(body, "type", "description")
        types: dict[str, Any] = {"transit": Engine} if kind == "mounts" else METHODS
        if body.get("type") not in types:
            raise Unsupported(f"{kind} of type {body.get('type')!r}")
        known[name] = types[body["type"]]()
        return 204, None

    def _policy(self, method: str, name: str, body: dict[str, Any]) -> Answer:
        only(body, *(["policy"] if method == "POST" else []))
        if method == "POST":
            if name == "root":
                raise Refused(400, 'cannot update "root" policy')
            try:
                self._policies[name] = parse(str(body.get("policy", "")))
            except PolicyError as error:
                raise Refused(400, f"failed to parse policy: {error}") from error
            self._texts[name] = str(body.get("policy", ""))
            return 204, None
        if method == "DELETE":
            if name in ("root", "default"):
                raise Refused(400, f'cannot delete "{name}" policy')
            self._policies.pop(name, None)
            self._texts.pop(name, None)
            return 204, None
        if method == "GET":
            if name not in self._texts:
                raise Refused(404)
            return 200, answer(data={"name": name, "policy": self._texts[name]})
        raise Unsupported(f"{method} policies")
