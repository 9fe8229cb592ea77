# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which right over which transit key each role of a service has, and the Vault policies that say so.

One table, RIGHTS; what is not in it is denied. Policies name full paths, no wildcards.
"""

from __future__ import annotations

import re

from ..errors import ConfigError

#: the three keys of a service, as name suffixes
KINDS = ("data", "index", "sign")

#: role -> [(path below the transit mount with {service}, capabilities, why)]
RIGHTS: dict[str, list[tuple[str, tuple[str, ...], str]]] = {
    "backup": [
        ("datakey/plaintext/{service}-data", ("update",), "make data keys; without decrypt they can never be opened again"),
        ("hmac/{service}-index/sha2-256", ("update",), "the index key: deduplication and incremental capture"),
        ("sign/{service}-sign", ("update",), "sign manifests and journals"),
        ("keys/{service}-data", ("read",), "see that the key is there and of the right kind; shows no key material"),
        ("keys/{service}-index", ("read",), "the same"),
        ("keys/{service}-sign", ("read",), "the public signing key"),
    ],
    "restore": [
        ("decrypt/{service}-data", ("update",), "open data keys"),
        ("hmac/{service}-index/sha2-256", ("update",), "the index key: find and check chunks"),
        ("keys/{service}-sign", ("read",), "the public signing key"),
    ],
    "drill": [
        ("decrypt/{service}-data", ("update",), "open data keys of what is drilled"),
        ("hmac/{service}-index/sha2-256", ("update",), "the index key: find and check chunks"),
        ("keys/{service}-sign", ("read",), "the public signing key"),
    ],
    "prune": [
        ("keys/{service}-sign", ("read",), "the public signing key: believe no manifest that is not signed"),
    ],
    "operator": [
        ("keys/{service}-sign", ("read",), "the public signing key: what is shown is checked"),
    ],
    "auditor": [
        ("keys/{service}-sign", ("read",), "the public signing key"),
    ],
    "rotate": [
        ("keys/{service}-data/rotate", ("update",), "a new version of the wrapping key"),
        ("keys/{service}-sign/rotate", ("update",), "a new version of the signing key"),
        ("rewrap/{service}-data", ("update",), "wrap data keys with the new version inside Vault; shows no key"),
        ("keys/{service}-data", ("read",), "which versions there are"),
        ("keys/{service}-sign", ("read",), "the public signing key"),
    ],
    "retire": [
        ("keys/{service}-data", ("read",), "which versions there are"),
        ("keys/{service}-data/config", ("update",), "let old versions open nothing any more"),
        ("keys/{service}-sign", ("read",), "the public signing key"),
    ],
    "shred": [
        ("keys/{service}-data", ("read", "delete"), "destroy the key"),
        ("keys/{service}-data/config", ("update",), "allow its deletion"),
        ("keys/{service}-index", ("read", "delete"), "destroy the key"),
        ("keys/{service}-index/config", ("update",), "allow its deletion"),
        ("sign/{service}-sign", ("update",), "sign the tombstone"),
        ("keys/{service}-sign", ("read",), "the public signing key"),
    ],
    "bootstrap": [
        ("keys/{service}-data", ("create", "update", "read"), "create the key"),
        ("keys/{service}-index", ("create", "update", "read"), "create the key"),
        ("keys/{service}-sign", ("create", "update", "read"), "create the key"),
        ("hmac/{service}-index/sha2-256", ("update",), "prove that the keys work; this role reads no object that the index key opens"),
    ],
}

#: what every role needs to keep its own token alive
_OWN_TOKEN = [("auth/token/lookup-self", ("read",)), ("auth/token/renew-self", ("update",))]

_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}")
_MOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")


def check_names(service: str, mount: str) -> None:
    """ConfigError for a service or mount that cannot stand in a path (a wildcard in one would widen a policy)."""
    if not _SERVICE.fullmatch(service):
        raise ConfigError("service name cannot name a transit key", repr(service), "use letters, digits, '-', '_' and '.'")
    if not _MOUNT.fullmatch(mount):
        raise ConfigError("keys.mount is no mount path", repr(mount), "for example mount: transit")


def policy_name(service: str, role: str) -> str:
    """The name under which the policy of a role belongs in Vault."""
    return f"lifeboat-{service}-{role}"


def policy(service: str, role: str, mount: str = "transit") -> str:
    """The policy of one role for one service (with the catalog's keys.prefix before its name) as Vault's HCL; ConfigError for an unknown role."""
    check_names(service, mount)
    if role not in RIGHTS:
        raise ConfigError(f"unknown role {role!r}", f"policies of service {service}", f"a role is one of: {', '.join(RIGHTS)}")
    blocks = [
        f"# {why}\n{_block(f'{mount}/{path.format(service=service)}', capabilities)}" for path, capabilities, why in RIGHTS[role]
    ]
    blocks.append("# its own token\n" + "".join(_block(path, capabilities) for path, capabilities in _OWN_TOKEN))
    return f"# Lifeboat: role {role} of service {service}. Generated; what is not named here is denied.\n\n" + "\n".join(blocks)


def _block(path: str, capabilities: tuple[str, ...]) -> str:
    listed = ", ".join(f'"{each}"' for each in capabilities)
    return f'path "{path}" {{\n  capabilities = [{listed}]\n}}\n'
