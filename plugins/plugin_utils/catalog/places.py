# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Where snapshots live and where keys come from. Backends, key providers and login methods are asked for what they take."""

from __future__ import annotations

import importlib
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

from . import kinds
from .kinds import WRONG, At, Field
from .reader import Node

_ENGINE = "ansible_collections.lifeboat.recovery.plugins.module_utils"


def object_lock(node: Node, at: At) -> Any:
    """A duration, or {mode: compliance|governance, for: duration}."""
    if node.kind != "map":
        value = kinds.positive_duration(node, at)
        return WRONG if value is WRONG else {"mode": "compliance", "for": value}
    return kinds.take_fields(node, at, OBJECT_LOCK)


def repository_url(node: Node, at: At) -> Any:
    backends = importlib.import_module(f"{_ENGINE}.repository.registry").schemes()
    return kinds.url(*backends)(node, at)


OBJECT_LOCK = {
    "mode": Field(kinds.choice("compliance", "governance"), default="compliance"),
    "for": Field(kinds.positive_duration, required=True),
}
REPOSITORY = {
    "url": Field(repository_url, required=True),
    "endpoint": Field(kinds.url("https", "http")),
    "region": Field(kinds.text),
    "ca_file": Field(kinds.path),
    "credentials_file": Field(kinds.home_path),
    "profile": Field(kinds.text),
    "path_style": Field(kinds.boolean),
    "role_arn": Field(kinds.text),
    "external_id": Field(kinds.text),
    "object_lock": Field(object_lock),
    "grace": Field(kinds.duration),
}
_S3_ONLY = ("endpoint", "region", "ca_file", "credentials_file", "profile", "path_style", "role_arn", "external_id", "object_lock")


def repository(node: Node, at: At) -> Any:
    def complete(result: dict[str, Any], node: Node, at: At) -> Any:
        for key in _S3_ONLY if result["url"].startswith("file:") else ():
            if key in result:
                return at.key(key).wrong(node.value[key], "does not belong to a directory repository", "remove it, or use an s3:// url")
        return result
    return kinds.closed(REPOSITORY, complete)(node, at)


#: Options of login methods that are secrets themselves: a catalog names the file instead.
SECRET = ("token", "secret_id", "password", "jwt")


def auth_fields(method: str) -> dict[str, Field]:
    """What a login method of the Vault provider takes, without its secrets."""
    methods = importlib.import_module(f"{_ENGINE}.keys.vault_auth").METHODS
    fields = {"method": Field(kinds.choice(*methods), required=True)}
    for option in sorted(methods[method].options) if method in methods else ():
        if option not in SECRET:
            # token_file may be a name below token_path
            is_path = option != "token_file" and option.endswith(("_file", "_path", "_key"))
            fields[option] = Field(kinds.home_path if is_path else kinds.text)
    return fields


def auth(node: Node, at: At) -> Any:
    """{method, …options of that method}."""
    method = node.value.get("method") if node.kind == "map" else None
    name = method.value if isinstance(method, Node) and isinstance(method.value, str) else "token"
    for key, value in node.value.items() if node.kind == "map" else ():
        if key in SECRET:
            return at.key(key).wrong(value, "is a secret, and catalogs are stored with every snapshot", "write it to a file and name that file")
    fields = auth_fields(name)
    if len(fields) == 1:  # an unknown method: its options cannot be judged
        return fields["method"].kind(method, at.key("method")) if isinstance(method, Node) else WRONG
    return kinds.closed(fields)(node, at)


def escrow(node: Node, at: At) -> Any:
    """An X25519 public key, one line of base64."""
    value = kinds.text(node, at)
    if value is WRONG:
        return WRONG
    try:
        importlib.import_module(f"{_ENGINE}.keys.escrow").public_key(value)
    except ConfigError as error:
        return at.wrong(node, "is no X25519 public key", error.remedy)
    return value


def proxies(node: Node, at: At) -> Any:
    """One address, or one for each of http and https."""
    one = kinds.url("http", "https")
    return kinds.closed({"http": Field(one), "https": Field(one)})(node, at) if node.kind == "map" else one(node, at)


KEYS = {
    "provider": Field(kinds.choice("file", "vault"), required=True),
    "path": Field(kinds.home_path),
    "private_path": Field(kinds.home_path),
    "url": Field(kinds.url("https", "http")),
    "mount": Field(kinds.text),
    "prefix": Field(kinds.text),
    "namespace": Field(kinds.text),
    "ca_file": Field(kinds.home_path),
    "cert_auth_public_key": Field(kinds.home_path),
    "cert_auth_private_key": Field(kinds.home_path),
    "proxies": Field(proxies),
    "validate_certs": Field(kinds.boolean),
    "timeout": Field(kinds.positive_duration),
    "retries": Field(kinds.integer(0, 20)),
    "auth": Field(auth),
    "restore_auth": Field(auth),
    "rotate_auth": Field(auth),
    "escrow": Field(escrow),
}
#: Which keys go with which provider; the rest go with both.
_KEYS_OF = {
    "file": ("private_path",),
    "vault": (
        "url", "mount", "prefix", "namespace", "ca_file", "cert_auth_public_key", "cert_auth_private_key", "proxies", "validate_certs", "timeout",
        "retries", "auth", "restore_auth", "rotate_auth",
    ),
}


def keys(node: Node, at: At) -> Any:
    def complete(result: dict[str, Any], node: Node, at: At) -> Any:
        provider = result["provider"]
        other = "vault" if provider == "file" else "file"
        for key in _KEYS_OF[other]:
            if key in result:
                return at.key(key).wrong(node.value[key], f"does not belong to provider {provider}", f"remove it; it goes with provider {other}")
        if provider == "file" and "path" not in result:
            return at.wrong(node, "has no path", "add path: for provider file")
        if provider == "vault":
            if "url" not in result:
                return at.wrong(node, "has no url", "add url: for provider vault")
            result.setdefault("mount", "transit")
        return result
    return kinds.closed(KEYS, complete)(node, at)
