# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The closed schema of a catalog: which keys there are, of which kind, with which defaults. Meaning is in validation.py."""

from __future__ import annotations

from typing import Any

from . import checks, kinds, sources
from .kinds import WRONG, At, Field
from .problems import shown
from .reader import Node

_WORDS = {"hourly": 3600, "daily": 86400, "weekly": 604800, "monthly": 2592000}


def interval(node: Node, at: At) -> Any:
    """hourly, daily, weekly, monthly or a duration, in seconds."""
    if isinstance(node.value, str) and node.value in _WORDS:
        return _WORDS[node.value]
    value = kinds.duration_seconds(node.value) if node.kind == "scalar" else None
    if not value:
        return at.wrong(node, f"is not an interval ({shown(node.plainly())})", "write hourly, daily, weekly, monthly or a duration")
    return value


def log_interval(node: Node, at: At) -> Any:
    """As interval; continuous is 0."""
    return 0 if node.value == "continuous" else interval(node, at)


def object_lock(node: Node, at: At) -> Any:
    """A duration, or {mode: compliance|governance, for: duration}."""
    if node.kind != "map":
        value = kinds.positive_duration(node, at)
        return WRONG if value is WRONG else {"mode": "compliance", "for": value}
    return kinds.take_fields(node, at, {
        "mode": Field(kinds.choice("compliance", "governance"), default="compliance"),
        "for": Field(kinds.positive_duration, required=True),
    })


REPOSITORY = {
    "url": Field(kinds.url("file", "s3"), required=True),
    "endpoint": Field(kinds.url("https", "http")),
    "region": Field(kinds.text),
    "ca_file": Field(kinds.path),
    "credentials_file": Field(kinds.home_path),
    "profile": Field(kinds.text),
    "path_style": Field(kinds.boolean),
    "object_lock": Field(object_lock),
    "grace": Field(kinds.duration),
}
_S3_ONLY = ("endpoint", "region", "ca_file", "credentials_file", "profile", "path_style", "object_lock")


def _repository(result: dict[str, Any], node: Node, at: At) -> Any:
    if result["url"].startswith("file:"):
        for key in _S3_ONLY:
            if key in result:
                at.key(key).wrong(node.value[key], "does not belong to a directory repository", "remove it, or use an s3:// url")
                return WRONG
    return result


#: Every way to log in to Vault names files or paths, never a secret itself; names as in community.hashi_vault.
AUTH = {
    "method": Field(kinds.choice("approle", "token", "kubernetes", "jwt", "cert", "aws_iam", "userpass", "ldap"), required=True),
    "mount_point": Field(kinds.text),
    "role_id": Field(kinds.text),
    "role": Field(kinds.text),
    "username": Field(kinds.text),
    "role_id_file": Field(kinds.home_path),
    "secret_id_file": Field(kinds.home_path),
    "token_file": Field(kinds.home_path),
    "jwt_file": Field(kinds.home_path),
    "password_file": Field(kinds.home_path),
    "cert_file": Field(kinds.home_path),
    "cert_key_file": Field(kinds.home_path),
}

KEYS = {
    "provider": Field(kinds.choice("file", "vault"), required=True),
    "path": Field(kinds.home_path),
    "private_path": Field(kinds.home_path),
    "url": Field(kinds.url("https", "http")),
    "mount": Field(kinds.text),
    "prefix": Field(kinds.text),
    "namespace": Field(kinds.text),
    "ca_file": Field(kinds.path),
    "auth": Field(kinds.closed(AUTH)),
    "restore_auth": Field(kinds.closed(AUTH)),
    "timeout": Field(kinds.positive_duration),
    "escrow": Field(kinds.text),
}
_KEYS_OF = {
    "file": ("path", "private_path"),
    "vault": ("url", "mount", "prefix", "namespace", "ca_file", "auth", "restore_auth", "timeout"),
}


def _keys(result: dict[str, Any], node: Node, at: At) -> Any:
    provider = result["provider"]
    other = "vault" if provider == "file" else "file"
    for key in result:
        if key in _KEYS_OF[other]:
            at.key(key).wrong(node.value[key], f"does not belong to provider {provider}", f"remove it; it goes with provider {other}")
            return WRONG
    needed = ("path",) if provider == "file" else ("url", "auth")
    missing = [key for key in needed if key not in result]
    for key in missing:
        at.wrong(node, f"has no {key}", f"add {key}: for provider {provider}")
    if missing:
        return WRONG
    if provider == "vault":
        result.setdefault("mount", "transit")
    return result


SCHEDULE = {"full": Field(interval), "incremental": Field(interval), "logs": Field(log_interval)}
RETENTION = {key: Field(kinds.integer(0, 100_000)) for key in ("last", "hourly", "daily", "weekly", "monthly", "yearly")}
TIER = {
    "rto": Field(kinds.positive_duration),
    "rpo": Field(kinds.positive_duration),
    "schedule": Field(kinds.closed(SCHEDULE)),
    "retention": Field(kinds.closed(RETENTION)),
    "drill": Field(interval),
    "repository": Field(kinds.name),
}
GROUP = {"max_skew": Field(kinds.duration)}

REQUIREMENT = {"service": Field(kinds.name, required=True), "kind": Field(kinds.choice("hard", "soft"), default="hard")}


def requirement(node: Node, at: At) -> Any:
    """A service name, or {service, kind: hard|soft}."""
    def short(node: Node, at: At) -> Any:
        value = kinds.name(node, at)
        return WRONG if value is WRONG else {"service": value, "kind": "hard"}
    return kinds.closed(REQUIREMENT, short=short)(node, at)


RUNTIME = {
    "start": Field(sources.control_kind),
    "stop": Field(sources.control_kind),
    "status": Field(sources.control_kind),
    "provision": Field(kinds.argv),
    "hosts": Field(kinds.sequence(kinds.host, minimum=1)),
}
TIMEOUTS = {"start": Field(kinds.positive_duration, default=60), "health": Field(kinds.positive_duration, default=60)}

SERVICE = {
    "owner": Field(kinds.text),
    "domain": Field(kinds.name),
    "tier": Field(kinds.name),
    "host": Field(kinds.host, required=True),
    "runtime": Field(kinds.closed(RUNTIME), default={}),
    "requires": Field(kinds.sequence(requirement, single=True), default=[]),
    "consistency_group": Field(kinds.name),
    "priority": Field(kinds.integer(0, 1_000_000)),
    "sources": Field(kinds.mapping_of(sources.source_kind), default={}),
    "health": Field(kinds.sequence(checks.probe_kind, single=True), default=[]),
    "invariants": Field(kinds.sequence(checks.invariant_kind), default=[]),
    "timeouts": Field(kinds.closed(TIMEOUTS), default={"start": 60, "health": 60}),
    "repository": Field(kinds.name),
}
#: Keys that every normalised entry has, null where the catalog is silent.
SERVICE_NULLS = ("owner", "domain", "tier", "consistency_group", "priority", "repository")


def service(node: Node, at: At) -> Any:
    """As much of a service as is right, so that the rest of the catalog can still be checked against it."""
    if node.kind != "map":
        kinds.closed(SERVICE)(node, at)
        return {}
    return kinds.take_fields(node, at, SERVICE, partial=True)


CATALOG = {
    "plugin": Field(kinds.choice("lifeboat.recovery.catalog"), required=True),
    "ecosystem": Field(kinds.name),
    "production": Field(kinds.boolean, default=False),
    "variables": Field(kinds.anything),
    "state_dir": Field(kinds.home_path),
    "repositories": Field(kinds.mapping_of(kinds.closed(REPOSITORY, _repository)), required=True),
    "keys": Field(kinds.closed(KEYS, _keys), required=True),
    "tiers": Field(kinds.mapping_of(kinds.closed(TIER)), default={}),
    "consistency_groups": Field(kinds.mapping_of(kinds.closed(GROUP))),
    "services": Field(kinds.mapping_of(service), required=True),
    "reconcile": Field(kinds.sequence(kinds.closed(checks.RECONCILE)), default=[]),
}
