# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How a session gets a Vault token: one class per auth method, option names as in community.hashi_vault.

A secret can also be named by its file (``secret_id_file``): a catalog holds no secrets. Files are read at each login,
so a rotated secret counts. A further method is a class with the same members in a file ``vault_auth_<method>.py`` and
one line in METHODS.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import ConfigError, KeyAccessError

#: call(method, path, body) -> the whole JSON answer of an unauthenticated request, errors already reworded
Call = Callable[[str, str, "dict[str, Any]"], "dict[str, Any]"]


@dataclass(frozen=True)
class Login:
    """What a login gave. ttl: seconds, 0 when the token does not expire or its life is unknown."""

    token: str
    ttl: int = 0
    renewable: bool = False


class TokenAuth:
    """A token that was made elsewhere: option, environment, or a file that an agent keeps fresh."""

    name = "token"
    options = frozenset({"token", "token_path", "token_file"})

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self._token = str(config.get("token") or "")
        self._directory = str(config.get("token_path") or "~")
        self._file = str(config.get("token_file") or ".vault-token")
        self._where = where

    def ready(self) -> bool:
        """Whether there is a token to try on this host; asks nobody."""
        return bool(self._given() or os.path.exists(self._path()))

    def login(self, call: Call) -> Login:
        """Find the token; a token file is read again each time, so a renewed sink counts."""
        token = self._given() or (_secret(self._path()) if os.path.exists(self._path()) else "")
        if not token or not token.isascii() or not token.isprintable():
            raise KeyAccessError(
                "no usable Vault token" if not token else "the Vault token has characters that no token has", self._where,
                f"set VAULT_TOKEN, or keep one in {self._path()} (token_path, token_file)",
            )
        return Login(token)

    def _given(self) -> str:
        return (self._token or os.environ.get("ANSIBLE_HASHI_VAULT_TOKEN") or os.environ.get("VAULT_TOKEN") or "").strip()

    def _path(self) -> str:
        return os.path.join(os.path.expanduser(self._directory), os.path.expanduser(self._file))


class AppRoleAuth:
    """role_id and secret_id, or the files that hold them; logs in again whenever the token's life ends."""

    name = "approle"
    options = frozenset({"role_id", "role_id_file", "secret_id", "secret_id_file", "mount_point"})

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self._values = {name: str(config.get(name) or "") for name in ("role_id", "secret_id")}
        self._files = {name: os.path.expanduser(str(config.get(f"{name}_file") or "")) for name in ("role_id", "secret_id")}
        self._mount = str(config.get("mount_point") or "approle").strip("/")
        for name in ("role_id", "secret_id"):
            if self._values[name] and self._files[name]:
                raise ConfigError(f"keys.{name} and keys.{name}_file are both given", where, "keep one of them")
        if not self._values["role_id"] and not self._files["role_id"]:
            raise ConfigError("keys.role_id is missing", where, "auth_method approle needs role_id, and secret_id_file unless the role binds none")

    def ready(self) -> bool:
        """Whether the files that hold its parts are on this host; asks nobody."""
        return all(not path or os.path.exists(path) for path in self._files.values())

    def login(self, call: Call) -> Login:
        """POST auth/<mount>/login (https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle)."""
        body = {name: self._values[name] or (_secret(self._files[name]) if self._files[name] else "") for name in ("role_id", "secret_id")}
        return login_of(call("POST", f"auth/{self._mount}/login", {name: value for name, value in body.items() if value}), self._mount)


def _secret(path: str) -> str:
    """One line of a file that not everybody may read."""
    try:
        with open(path, encoding="ascii") as handle:
            mode = os.fstat(handle.fileno()).st_mode
            text = handle.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise KeyAccessError(f"cannot read the Vault credential ({reason})", path, "put it there, readable by the user that runs Lifeboat") from error
    if mode & 0o007:
        raise KeyAccessError(
            f"Vault credential may be read by everybody (mode {stat.S_IMODE(mode):04o})", path, f"chmod 600 {path}; if somebody else could read it, replace it",
        )
    return text


def login_of(answer: dict[str, Any], where: str) -> Login:
    """The Login in the ``auth`` block of an answer."""
    auth = answer.get("auth")
    if not isinstance(auth, dict) or not auth.get("client_token"):
        raise KeyAccessError("Vault's login answer holds no token", where, "is keys.url a Vault server, and the mount of this auth method?")
    return Login(str(auth["client_token"]), int(auth.get("lease_duration") or 0), bool(auth.get("renewable")))


#: auth_method -> class
METHODS: dict[str, Any] = {each.name: each for each in (TokenAuth, AppRoleAuth)}

#: every option of every method, for the check of unknown ones
OPTIONS = frozenset().union(*(each.options for each in METHODS.values()))


def method_for(config: dict[str, Any], where: str) -> Any:
    """The auth method of a ``keys`` entry (default token); ConfigError for an unknown one or for options of another."""
    name = config.get("auth_method") or "token"
    if name not in METHODS:
        raise ConfigError(f"unknown auth_method {name!r}", where, f"keys.auth_method is one of: {', '.join(sorted(METHODS))}")
    foreign = sorted(each for each in OPTIONS - METHODS[name].options if config.get(each))
    if foreign:
        raise ConfigError(
            f"option {foreign[0]!r} does not belong to auth_method {name}", where, f"it takes: {', '.join(sorted(METHODS[name].options))}",
        )
    return METHODS[name](config, where)
