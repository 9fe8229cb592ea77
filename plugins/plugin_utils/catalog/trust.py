# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Who has to approve, and where else the journals go: the catalog's ``approvals`` and ``audit``."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.audit import publics
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

from . import kinds, places
from .kinds import WRONG, At, Field
from .problems import shown
from .reader import Node

#: Verbs that change what is live.
VERBS = ("restore", "rollback", "commit", "extract")


def public_key(node: Node, at: At) -> Any:
    """An ed25519 public key as ``lifeboat audit key`` prints it."""
    value = kinds.text(node, at)
    if value is WRONG:
        return WRONG
    try:
        publics.parse_public(value, at.label)
    except ConfigError:
        return at.wrong(node, f'is not a public ed25519 key ("{shown(value)}")', "put the one line of the approver's .pub file here: base64 of 32 bytes")
    return value.strip()


APPROVER = {"key": Field(public_key, required=True), "users": Field(kinds.sequence(kinds.text, single=True), default=[])}


def approver(node: Node, at: At) -> Any:
    """A public key, or {key, users: [names of accounts and of AWX by which the person is known]}."""
    def short(node: Node, at: At) -> Any:
        value = public_key(node, at)
        return WRONG if value is WRONG else {"key": value, "users": []}
    return kinds.closed(APPROVER, short=short)(node, at)


APPROVALS = {
    "required": Field(kinds.sequence(kinds.choice(*VERBS), single=True, minimum=1), required=True),
    "keys": Field(kinds.mapping_of(approver), required=True),
    "persons": Field(kinds.integer(1, 9), default=1),
    "valid": Field(kinds.positive_duration, default=86400),
}


def approvals(node: Node, at: At) -> Any:
    def complete(result: dict[str, Any], node: Node, at: At) -> Any:
        keys, declared = result["keys"], len(node.value["keys"].value)  # a wrong one is reported already
        if not declared:
            return at.key("keys").wrong(node.value["keys"], "names nobody", "list at least one approver and his public key")
        seen: dict[str, str] = {}
        for name, one in keys.items():
            if one["key"] in seen:
                return at.key("keys").key(name).wrong(node.value["keys"].value[name], f"has the key of {seen[one['key']]}", "each person has a key of his own")
            seen[one["key"]] = name
        if result["persons"] > declared + 1:
            return at.key("persons").wrong(node.value["persons"], f"cannot be met: {declared} approvers and the operator are fewer than {result['persons']}",
                                           "list more approvers, or ask for fewer persons")
        result["required"] = sorted(set(result["required"]))
        return result
    return kinds.closed(APPROVALS, complete)(node, at)


def syslog_place(node: Node, at: At) -> Any:
    """host:port, or the path of a socket."""
    return kinds.path(node, at) if isinstance(node.value, str) and node.value.startswith("/") else kinds.address(node, at)


#: The three kinds of places; each takes what its own kind needs.
_FILE = {"file": Field(kinds.home_path, required=True)}
_SYSLOG = {"syslog": Field(syslog_place, required=True), "protocol": Field(kinds.choice("tcp", "udp"), default="tcp")}
_URL = places.REPOSITORY
COPY_KINDS = {"file": _FILE, "syslog": _SYSLOG, "url": _URL}


def copy(node: Node, at: At) -> Any:
    """{file: path}, {syslog: host:port or socket} or {url: …}, and required: true|false."""
    named = [word for word in COPY_KINDS if node.kind == "map" and word in node.value]
    if len(named) != 1:
        return at.wrong(node, "must have one of file, syslog and url" if not named else f"has both {' and '.join(named)}", "write one place per item")
    return kinds.closed({**COPY_KINDS[named[0]], "required": Field(kinds.boolean, default=False)})(node, at)


AUDIT = {"key": Field(kinds.home_path), "copies": Field(kinds.sequence(copy), default=[])}
audit = kinds.closed(AUDIT)
