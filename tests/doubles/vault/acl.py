# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: Vault's policy language and its matching rules, as far as policies of paths and capabilities go.

Rules: https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax (exact path before pattern, the
pattern with the later first wildcard wins, deny wins inside one path). Anything else in a policy is refused loudly.
"""

from __future__ import annotations

import re

CAPABILITIES = {"create", "read", "update", "patch", "delete", "list", "sudo", "deny"}

#: what Vault's built-in ``default`` policy grants of what the double knows
DEFAULT = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
"""

_TOKEN = re.compile(r'\s+|#[^\n]*|//[^\n]*|(?P<word>[a-z_]+)|"(?P<text>[^"\\\n]*)"|(?P<sign>[{}\[\]=,])')


class PolicyError(Exception):
    """The text is no policy that the double understands."""


def parse(text: str) -> dict[str, frozenset[str]]:
    """{path pattern: capabilities} of a policy."""
    found: dict[str, frozenset[str]] = {}
    tokens = _tokens(text)
    while tokens:
        _expect(tokens, "path")
        path = _expect(tokens, None)[1:]
        for each in ("{", "capabilities", "=", "["):
            _expect(tokens, each)
        capabilities = set()
        while tokens and tokens[0] != "]":
            capabilities.add(_expect(tokens, None)[1:])
            if tokens and tokens[0] == ",":
                tokens.pop(0)
        for each in ("]", "}"):
            _expect(tokens, each)
        unknown = capabilities - CAPABILITIES
        if unknown or path.startswith("/"):
            raise PolicyError(f"path {path!r}: invalid capability {sorted(unknown)}")
        found[path] = found.get(path, frozenset()) | capabilities
    return found


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise PolicyError(f"not understood: {text[position:position + 40]!r}")
        position = match.end()
        if match.group("text") is not None:
            tokens.append('"' + match.group("text"))
        elif match.group("word") or match.group("sign"):
            tokens.append(match.group("word") or match.group("sign"))
    return tokens


def _expect(tokens: list[str], wanted: str | None) -> str:
    """The next token; ``None`` wants a quoted text."""
    found = tokens.pop(0) if tokens else "end of policy"
    if found != wanted if wanted is not None else not found.startswith('"'):
        raise PolicyError(f"expected {wanted or 'a quoted text'}, found {found!r}")
    return found


def capabilities(policies: list[dict[str, frozenset[str]]], path: str) -> frozenset[str]:
    """What a token with these policies may do at ``path`` (without a leading slash or ``v1/``)."""
    merged: dict[str, frozenset[str]] = {}
    for policy in policies:
        for pattern, granted in policy.items():
            merged[pattern] = merged.get(pattern, frozenset()) | granted
    matching = [pattern for pattern in merged if _matches(pattern, path)]
    if not matching:
        return frozenset({"deny"})
    best = max(matching, key=_rank)
    return frozenset({"deny"}) if "deny" in merged[best] else merged[best]


def _matches(pattern: str, path: str) -> bool:
    glob = pattern.endswith("*")
    parts = [("[^/]+" if each == "+" else re.escape(each)) for each in (pattern[:-1] if glob else pattern).split("/")]
    return re.fullmatch("/".join(parts) + (".*" if glob else ""), path) is not None


def _rank(pattern: str) -> tuple[bool, int, bool, int, int, str]:
    """Higher is more specific, in the order of Vault's documentation."""
    segments = pattern.split("/")
    wild = [position for position, each in enumerate(pattern) if each == "*" and position == len(pattern) - 1]
    plus = re.search(r"(?:^|(?<=/))\+(?=/|$)", pattern)
    first = min([*wild, *([plus.start()] if plus else []), len(pattern)])
    return (first == len(pattern), first, not pattern.endswith("*"), -segments.count("+"), len(pattern), pattern)
