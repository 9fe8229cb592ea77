# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The secret-id of an AppRole: a new one made, tried, put into its file; the old one destroyed.

https://developer.hashicorp.com/vault/api-docs/auth/approle: "Generate new secret ID", "Destroy AppRole secret ID", "Login with AppRole".
A secret-id whose answer was lost on the way is known to nobody and ends with the role's secret_id_ttl.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import ConfigError, KeyAccessError, LifeboatError
from ..keys import vault
from ..keys.vault_session import Session
from .exchange import Exchange

#: The blocks of keys that log in.
BLOCKS = ("auth", "restore_auth", "rotate_auth")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}")


def exchange(keys: dict[str, Any], service: str, block: str, role_name: str) -> Exchange:
    """The exchange of the secret-id of one login of the catalog, by the credentials of rotate_auth. role_name: the AppRole's name in Vault."""
    where = f"keys.{block} of service {service}"
    login = keys.get(block)
    if keys.get("provider") != "vault" or block not in BLOCKS or not isinstance(login, dict) or login.get("method") != "approle":
        raise ConfigError("this is no login by AppRole", where, f"name one of {', '.join(BLOCKS)} that has method: approle")
    if not login.get("secret_id_file"):
        raise ConfigError("the secret-id is in no file", where, "write it to a file and name that as secret_id_file")
    if not _ROLE.fullmatch(role_name):
        raise ConfigError(f"{role_name!r} is no name of an AppRole", where, "give role_name as Vault has it (vault list auth/approle/role)")
    base = {name: value for name, value in keys.items() if name not in ("provider", "mount", "prefix", "path", *BLOCKS, "escrow", "escrow_key")}
    base = {name: value for name, value in base.items() if value is not None and name not in vault.LOGIN}
    ruler = Session(vault.flattened(base, keys.get("rotate_auth") or keys.get("auth"), where), where)
    path = f"auth/{str(login.get('mount_point') or 'approle').strip('/')}/role/{role_name}/secret-id"
    parts = {name: value for name, value in login.items() if name not in ("secret_id_file", "secret_id")}

    def make() -> str:
        told = ruler.request("POST", path, {}, capability="update", remedy=f"grant 'update' on {path!r} (rotate_auth)", once=True) or {}
        secret = told.get("secret_id")
        if not isinstance(secret, str) or not secret:
            raise KeyAccessError("Vault's answer holds no secret-id", f"{ruler.options.url}/v1/{path}", "is it the mount of an AppRole method?")
        return secret

    def prove(secret: str) -> None:
        fresh = Session(vault.flattened(base, {**parts, "secret_id": secret}, where), where)
        fresh.request("GET", "auth/token/lookup-self", capability="read")

    def end(secret: str) -> None:
        ruler.request("POST", f"{path}/destroy", {"secret_id": secret}, capability="update", remedy=f"grant 'update' on {path + '/destroy'!r} (rotate_auth)")
        try:
            prove(secret)
        except LifeboatError:
            return
        raise KeyAccessError("the destroyed secret-id still logs in", where, "was it made for another AppRole? destroy it by hand")

    return Exchange(str(login["secret_id_file"]), make, prove, end=end)
