# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: what an administrator of Vault reads: lists of policies and AppRoles, and an AppRole's settings.

https://developer.hashicorp.com/vault/api-docs/system/policies#list-acl-policies,
https://developer.hashicorp.com/vault/api-docs/auth/approle#list-roles and #read-approle
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from transit import Refused


def policies(names: Iterable[str]) -> dict[str, Any]:
    return {"keys": sorted({*names, "root"})}


def roles(names: Iterable[str]) -> dict[str, Any]:
    """An empty list is not found."""
    found = sorted(names)
    if not found:
        raise Refused(404)
    return {"keys": found}


def role(settings: Mapping[str, Any], seconds: Callable[[Any], int]) -> dict[str, Any]:
    """All settings, those that were never given with their defaults; durations in seconds."""
    return {
        "bind_secret_id": settings.get("bind_secret_id", True), "local_secret_ids": False, "secret_id_bound_cidrs": None,
        "secret_id_num_uses": int(settings.get("secret_id_num_uses", 0)), "secret_id_ttl": seconds(settings.get("secret_id_ttl")),
        "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": seconds(settings.get("token_max_ttl")),
        "token_no_default_policy": settings.get("token_no_default_policy", False), "token_num_uses": 0, "token_period": 0,
        "token_policies": list(settings.get("token_policies", [])), "token_ttl": seconds(settings.get("token_ttl")), "token_type": "default",
    }
