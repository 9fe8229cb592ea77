# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which configured values are secrets, told by the names they stand under, and documents without them."""

from __future__ import annotations

import re
from typing import Any

_SECRET = re.compile(r"pass(word|wd|phrase)?$|secret|token|access_key|credential|private_key$|^auth$|^jwt$", re.IGNORECASE)
#: What these names hold is where a secret lies, not the secret.
_PLACE = re.compile(r"_(file|path)$|^cert_auth_", re.IGNORECASE)
#: A mapping of these names says how to log in; the names in it speak for themselves, and its ``method`` is a plain word.
_LOGIN = re.compile(r"(^|_)auth$", re.IGNORECASE)
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)
LEFT_OUT = "(left out)"


def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name)) and not _PLACE.search(name)


def hidden_values(value: Any, secret: bool = False) -> set[str]:
    """The secrets in nested options, told by the names they stand under; Ansible masks them in everything it shows."""
    if isinstance(value, dict):
        # Vault's role_id is half a credential with AppRole, and the public name of a role with every other login
        half = {"role_id"} if value.get("method", value.get("auth_method", "approle")) == "approle" else set()
        found: set[str] = set()
        for name, item in value.items():
            login = isinstance(item, dict) and _LOGIN.search(str(name))
            found |= hidden_values(item, secret or (not login and (_is_secret(str(name)) or name in half)))
        return found
    if isinstance(value, (list, tuple)):
        return {text for item in value for text in hidden_values(item, secret)}
    return {str(value)} if secret and value not in (None, "", True, False) else set()


def without_secrets(value: Any, name: str = "") -> Any:
    """A document as it may be kept: scalars under a secret's name are left out, and users and passwords of URLs."""
    if isinstance(value, dict):
        return {key: without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item, name) for item in value]
    if value not in (None, "", True, False) and _is_secret(name):
        return LEFT_OUT
    return _USERINFO.sub(r"\1***@", value) if isinstance(value, str) else value
