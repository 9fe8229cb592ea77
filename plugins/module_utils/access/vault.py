# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Policies and AppRoles in Vault: what there is, what there shall be, and how one becomes the other.

https://developer.hashicorp.com/vault/api-docs/system/policies, https://developer.hashicorp.com/vault/api-docs/auth/approle
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Mapping

from ..errors import ConflictError
from ..keys import policies, vault_session
from .site import Site
from .things import Thing

#: Settings of an AppRole that are ours; whatever else a site sets (bound networks, secret-ids) stays as it is.
TTL, MAX_TTL = 3600, 86400
#: What every name begins with that may be left over from a catalog that named more.
_OURS = "lifeboat-"
_REMEDY = "give a token of an administrator who may write policies and AppRoles"


class VaultAccess:
    """config: keys of the catalog. auth: {"method", …} of the administrator, see keys.vault_auth. ttl: seconds of a token's life, and at most."""

    def __init__(self, site: Site, auth: Mapping[str, Any], ttl: tuple[int, int] = (TTL, MAX_TTL)) -> None:
        self._site = site
        self._ttl = ttl
        self._mount = str(site.keys.get("mount") or "transit").strip("/")
        connection = {name: value for name, value in site.keys.items() if name in vault_session.OPTIONS and value is not None}
        given = {("auth_method" if name == "method" else name): value for name, value in auth.items()}
        self._session = vault_session.Session({**connection, **given}, "the administrator's access to Vault")

    def things(self, present: bool, purge: bool) -> tuple[list[Thing], list[str]]:
        """(what there shall be and what shall go, names of what is left over and stays without ``purge``)."""
        wanted = self._wanted_policies() if present else {}
        left = self._left_over(set(wanted))
        found = [self._policy(name, text) for name, text in wanted.items()]
        roles = self._wanted_roles() if present else {}
        left_roles = {name: mount for name, mount in self._left_over_roles(set(wanted) | set(left)).items() if name not in roles}
        found += [self._role(mount, name, settings) for name, (mount, settings) in roles.items()]
        if purge or not present:
            # first nobody may log in, then the rights go
            found += [self._role(mount, name, None) for name, mount in left_roles.items()]
            found += [self._policy(name, None) for name in left]
            return found, []
        return found, [*(f"AppRole {name}" for name in left_roles), *(f"policy {name}" for name in left)]

    # ---- policies ---------------------------------------------------------------------------------------------

    def _wanted_policies(self) -> dict[str, str]:
        return {
            policies.policy_name(service.key, role): self._head() + policies.policy(service.key, role, self._mount)
            for role in self._site.roles for service in self._site.of_role(role)
        }

    def _head(self) -> str:
        return f"# Lifeboat, ecosystem {self._site.ecosystem}: kept by the access playbook, what is changed here is changed back.\n"

    def _is_ours(self, text: str) -> bool:
        return text.startswith(f"# Lifeboat, ecosystem {self._site.ecosystem}:")

    def _policy(self, name: str, text: str | None) -> Thing:
        before = self._read_policy(name)
        # one that was written by hand from the documentation is taken over
        if before is not None and not self._is_ours(before) and not before.startswith("# Lifeboat: role "):
            raise ConflictError(
                "a policy of this name is not ours", f"{self._session.options.url}/v1/sys/policies/acl/{name}", "rename it, or remove it if nobody needs it",
            )
        return Thing("Vault policy", name, before, text, partial(self._write_policy, name, text))

    def _read_policy(self, name: str) -> str | None:
        found = self._session.request("GET", f"sys/policies/acl/{name}", capability="read", remedy=_REMEDY)
        return None if found is None else str(found.get("policy") or "")

    def _write_policy(self, name: str, text: str | None) -> None:
        path = f"sys/policies/acl/{name}"
        if text is None:
            self._session.request("DELETE", path, capability="delete", remedy=_REMEDY)
        else:
            self._session.request("POST", path, {"policy": text}, capability="update", remedy=_REMEDY)

    def _left_over(self, wanted: set[str]) -> list[str]:
        found = self._listed("sys/policies/acl")
        return [name for name in found if name.startswith(_OURS) and name not in wanted and self._is_ours(self._read_policy(name) or "")]

    def _listed(self, path: str) -> list[str]:
        answer = self._session.request("GET", f"{path}?list=true", capability="list", remedy=_REMEDY)
        return sorted(str(name) for name in (answer or {}).get("keys") or [])

    # ---- AppRoles ---------------------------------------------------------------------------------------------

    def _mounts(self) -> dict[str, str]:
        """Role -> mount of the AppRole method with which it logs in, as the catalog has it."""
        auth = self._site.keys.get("auth") or {}
        opening = self._site.keys.get("restore_auth") or auth
        found = {}
        for role in self._site.roles:
            used = opening if role in ("restore", "drill") else auth
            if used.get("method") == "approle":
                found[role] = str(used.get("mount_point") or "approle").strip("/")
        return found

    def _wanted_roles(self) -> dict[str, tuple[str, dict[str, Any]]]:
        wanted = {}
        for role, mount in self._mounts().items():
            for identity, services in self._site.by_identity(role).items():
                wanted[identity] = (mount, {
                    "bind_secret_id": True, "token_max_ttl": self._ttl[1], "token_no_default_policy": True,
                    "token_policies": sorted(policies.policy_name(service.key, role) for service in services), "token_ttl": self._ttl[0],
                })
        return wanted

    def _role(self, mount: str, name: str, wanted: dict[str, Any] | None) -> Thing:
        path = f"auth/{mount}/role/{name}"
        held = self._session.request("GET", path, capability="read", remedy=_REMEDY)
        known = ("bind_secret_id", "token_max_ttl", "token_no_default_policy", "token_policies", "token_ttl")
        before = None if held is None else {key: sorted(held[key]) if isinstance(held.get(key), list) else held.get(key) for key in known}
        if before is not None and any(not str(each).startswith(_OURS) for each in before["token_policies"] or []):
            raise ConflictError(
                "an AppRole of this name has policies that are not ours", f"{self._session.options.url}/v1/{path}", "rename it, or choose other names of roles",
            )
        return Thing("AppRole", name, _text(before), _text(wanted), partial(self._write_role, path, wanted))

    def _write_role(self, path: str, wanted: dict[str, Any] | None) -> None:
        if wanted is None:
            self._session.request("DELETE", path, capability="delete", remedy=_REMEDY)
        else:
            self._session.request("POST", path, wanted, capability="update", remedy=_REMEDY)

    def _left_over_roles(self, ours: set[str]) -> dict[str, str]:
        """AppRoles that have policies of this ecosystem and no others, name -> mount."""
        found: dict[str, str] = {}
        for mount in sorted(set(self._mounts().values())):
            for name in self._listed(f"auth/{mount}/role"):
                if name.startswith(_OURS):
                    held = self._session.request("GET", f"auth/{mount}/role/{name}", capability="read", remedy=_REMEDY) or {}
                    given = set(held.get("token_policies") or [])
                    if given and given <= ours:
                        found[name] = mount
        return found


def _text(settings: dict[str, Any] | None) -> str | None:
    return None if settings is None else json.dumps(settings, indent=1, sort_keys=True) + "\n"
