# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How a session gets a Vault token: one class per auth method, option names as in community.hashi_vault.

A secret can also be named by its file (``secret_id_file``, ``jwt_file``): a catalog holds no secrets. Files are read at
each login, so a rotated secret counts. A further method is a class with the same members and its name in METHODS.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import ConfigError, KeyAccessError

#: call(method, path, body) -> the whole JSON answer of an unauthenticated request, errors already reworded
Call = Callable[[str, str, "dict[str, Any]"], "dict[str, Any]"]

#: Client certificate and key of the TLS connection: what auth_method cert logs in with, and what a server may ask of everybody.
CLIENT_CERTIFICATE = ("cert_auth_public_key", "cert_auth_private_key")

#: No credential is longer; a JWT with many claims is the longest.
_LONGEST = 64 << 10


@dataclass(frozen=True)
class Login:
    """What a login gave. ttl: seconds, 0 when the token does not expire or its life is unknown."""

    token: str
    ttl: int = 0
    renewable: bool = False


class TokenAuth:
    """A token that was made elsewhere: option, environment, or a file that an agent keeps fresh."""

    name = "token"
    parts = "the token"
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
        token = self._given() or (secret_line(self._path()) if os.path.exists(self._path()) else "")
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
    #: What to look at when Vault refuses the login.
    parts = "role_id and secret_id (expired, used up or revoked?)"
    options = frozenset({"role_id", "role_id_file", "secret_id", "secret_id_file", "mount_point"})

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self._role, self._secret = Value(config, "role_id", where), Value(config, "secret_id", where, "ANSIBLE_HASHI_VAULT_SECRET_ID")
        self._mount = _mount(config, self.name)
        if not self._role.named:
            raise ConfigError("keys.role_id is missing", where, "auth_method approle needs role_id, and secret_id_file unless the role binds none")

    def ready(self) -> bool:
        """Whether the files that hold its parts are on this host; asks nobody."""
        return self._role.ready() and self._secret.ready()

    def login(self, call: Call) -> Login:
        """POST auth/<mount>/login (https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle)."""
        body = {"role_id": self._role.read(), "secret_id": self._secret.read()}
        return login_of(call("POST", f"auth/{self._mount}/login", {name: value for name, value in body.items() if value}), self._mount)


class JwtAuth:
    """A JSON web token from an issuer that Vault trusts, usually in a file that something keeps fresh."""

    name = "jwt"
    parts = "role_id, and the token's issuer, audience, subject and end"
    options = frozenset({"role_id", "jwt", "jwt_file", "mount_point"})
    #: Where the token is when neither it nor a file is named.
    usual_file = ""
    #: Whether a token file that everybody may read is refused.
    private = True

    def __init__(self, config: dict[str, Any], where: str) -> None:
        if self.usual_file and not config.get("jwt") and not config.get("jwt_file"):
            config = {**config, "jwt_file": self.usual_file}
        self._jwt = Value(config, "jwt", where, "ANSIBLE_HASHI_VAULT_JWT", self.private)
        self._role = str(config.get("role_id") or "")
        self._mount = _mount(config, self.name)
        if not self._role:
            raise ConfigError("keys.role_id is missing", where, f"auth_method {self.name} needs role_id: the name of the role in Vault")
        if not self._jwt.named:
            raise ConfigError("keys.jwt_file is missing", where, f"auth_method {self.name} needs jwt_file: the file that holds the token")

    def ready(self) -> bool:
        """Whether there is a token on this host; asks nobody."""
        return self._jwt.ready()

    def login(self, call: Call) -> Login:
        """POST auth/<mount>/login (https://developer.hashicorp.com/vault/api-docs/auth/jwt#jwt-login)."""
        return login_of(call("POST", f"auth/{self._mount}/login", {"role": self._role, "jwt": self._jwt.read()}), self._mount)


class KubernetesAuth(JwtAuth):
    """The token of a pod's service account, which the kubelet replaces long before it ends: same call, another issuer.

    https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login. The kubelet's file is 0644 inside the pod.
    """

    name = "kubernetes"
    usual_file = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    private = False


class CertAuth:
    """The client certificate of the TLS connection; without role_id Vault takes the first role that it fits."""

    name = "cert"
    parts = "role_id, and the client certificate's issuer, names and end"
    options = frozenset({"role_id", "mount_point", *CLIENT_CERTIFICATE})

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self._role = str(config.get("role_id") or "")
        self._mount = _mount(config, self.name)
        for name in CLIENT_CERTIFICATE:
            if not config.get(name):
                raise ConfigError(f"keys.{name} is missing", where, "auth_method cert needs the files of the client certificate and of its private key")
        self._files = [os.path.expanduser(str(config[name])) for name in CLIENT_CERTIFICATE]

    def ready(self) -> bool:
        """Whether certificate and key are on this host; asks nobody."""
        return all(os.path.exists(path) for path in self._files)

    def login(self, call: Call) -> Login:
        """POST auth/<mount>/login (https://developer.hashicorp.com/vault/api-docs/auth/cert#login-with-tls-certificate-method)."""
        return login_of(call("POST", f"auth/{self._mount}/login", {"name": self._role} if self._role else {}), self._mount)


class Value:
    """An option that may be given as it is, in a file (``<name>_file``), or in the environment."""

    def __init__(self, config: dict[str, Any], name: str, where: str, variable: str = "", private: bool = True) -> None:
        self._given, self._private = str(config.get(name) or ""), private
        self._file = os.path.expanduser(str(config.get(f"{name}_file") or ""))
        self._variable = "" if self._given or self._file else variable
        if self._given and self._file:
            raise ConfigError(f"keys.{name} and keys.{name}_file are both given", where, "keep one of them")
        #: Whether it is known where the value would come from.
        self.named = bool(self._given or self._file or os.environ.get(self._variable))

    def ready(self) -> bool:
        """Whether the file is there, if it is in one."""
        return not self._file or os.path.exists(self._file)

    def read(self) -> str:
        """The value as it is now, "" for none; KeyAccessError for a file that cannot be used."""
        return secret_line(self._file, self._private) if self._file else self._given or os.environ.get(self._variable, "").strip()


def _mount(config: dict[str, Any], usual: str) -> str:
    return str(config.get("mount_point") or usual).strip("/")


def secret_line(path: str, private: bool = True) -> str:
    """One line of a credential's file; ``private``: refuse it when everybody may read it."""
    try:
        with open(path, encoding="ascii") as handle:
            mode = os.fstat(handle.fileno()).st_mode
            text = handle.read(_LONGEST + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise KeyAccessError(f"cannot read the Vault credential ({reason})", path, "put it there, readable by the user that runs Lifeboat") from error
    if private:
        check_private(path, mode)
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise KeyAccessError("the Vault credential is no single line of text", path, "put the credential there and nothing else")
    return text


def check_private(path: str, mode: int) -> None:
    """KeyAccessError for a secret file that everybody may use."""
    if mode & 0o007:
        raise KeyAccessError(
            f"Vault credential may be read by everybody (mode {stat.S_IMODE(mode):04o})", path, f"chmod 600 {path}; if somebody else could read it, replace it",
        )


def login_of(answer: dict[str, Any], where: str) -> Login:
    """The Login in the ``auth`` block of an answer."""
    auth = answer.get("auth")
    if not isinstance(auth, dict) or not auth.get("client_token"):
        raise KeyAccessError("Vault's login answer holds no token", where, "is keys.url a Vault server, and the mount of this auth method?")
    return Login(str(auth["client_token"]), int(auth.get("lease_duration") or 0), bool(auth.get("renewable")))


#: auth_method -> class
METHODS: dict[str, Any] = {each.name: each for each in (TokenAuth, AppRoleAuth, JwtAuth, KubernetesAuth, CertAuth)}

#: every option of every method, for the check of unknown ones
OPTIONS = frozenset().union(*(each.options for each in METHODS.values()))


def method_for(config: dict[str, Any], where: str) -> Any:
    """The auth method of a ``keys`` entry (default token); ConfigError for an unknown one or for options of another."""
    name = config.get("auth_method") or "token"
    if name not in METHODS:
        raise ConfigError(f"unknown auth_method {name!r}", where, f"keys.auth_method is one of: {', '.join(sorted(METHODS))}")
    foreign = sorted(each for each in OPTIONS - METHODS[name].options - set(CLIENT_CERTIFICATE) if config.get(each))
    if foreign:
        raise ConfigError(
            f"option {foreign[0]!r} does not belong to auth_method {name}", where, f"it takes: {', '.join(sorted(METHODS[name].options))}",
        )
    return METHODS[name](config, where)
