# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which controls were satisfied for a service in a run. Only what was seen counts: null where nobody looked, or where it does not apply."""

from __future__ import annotations

from typing import Any, Mapping

#: In the order in which they are told.
NAMES = ("encrypted", "signed", "verified", "immutable", "approved")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _all(found: list[Any], key: str) -> Any:
    """Whether every source has it; null when it was seen of none."""
    seen = [bool(one[key]) for one in found if key in one]
    return None if not seen else len(seen) == len(found) and all(seen)


def of_service(kept: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{control: {"ok": true|false|null, …what it is known by}}.

    encrypted and signed carry "keys" ([{"provider", "key", "version"}]), verified "how" (the weakest proof, or the depth of a verification),
    immutable "until" (the earliest end of a lock), approved "by" (approvers) and "digest" (of the plan).
    """
    observed: list[Any] = []
    for subject in ("snapshot", "protect", "staged", "live"):
        observed = [one for one in _mapping(_mapping(kept.get(subject)).get("controls")).values() if isinstance(one, dict)] or observed
    # of several keys by name: one entry each
    keys = {str(sorted(key.items())): key for one in observed for key in one.get("keys") or []}
    signers = {str(sorted(one["signed_by"].items())): one["signed_by"] for one in observed if _mapping(one.get("signed_by")).get("key")}
    locks = [one["locked_until"] for one in observed if one.get("locked_until")]
    approval = _mapping(plan.get("approval"))
    by = [str(one.get("approver")) for one in approval.get("given") or [] if isinstance(one, dict)]
    return {
        "encrypted": {"ok": _all(observed, "keys"), "keys": list(keys.values())},
        "signed": {"ok": _all(observed, "signed_by"), "keys": list(signers.values())},
        "verified": _verified(kept, sources),
        "immutable": {"ok": _all(observed, "locked_until"), "until": min(locks) if locks and len(locks) == len(observed) else None},
        "approved": {"ok": bool(by) if approval.get("required") or by else None, "by": by, "digest": approval.get("digest") if by else None},
    }


def _verified(kept: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    depth = _mapping(kept.get("verify"))
    if "ok" in depth and depth.get("depth"):
        return {"ok": bool(depth["ok"]), "how": f"depth {depth['depth']}"}
    compared = [facts for facts in sources.values() if isinstance(facts.get("equal"), bool) or facts.get("state") == "current"]
    if not compared:
        return {"ok": None, "how": None}
    equal = len(compared) == len(sources) and all(facts.get("equal") is not False for facts in compared)
    kinds = {str(facts.get("proof") or "content") for facts in compared}
    return {"ok": equal, "how": next((kind for kind in ("none", "physical", "content") if kind in kinds), sorted(kinds)[0])}


def line(controls: Mapping[str, Mapping[str, Any]]) -> str:
    """The controls in one line of plain words, as ``encrypted (orders-data@1a2b v1), signed, verified (content), not immutable``."""
    words = []
    for name in NAMES:
        one = controls[name]
        if one["ok"] is None:
            continue
        detail = ", ".join(f"{key.get('key')} v{key.get('version')}" for key in one.get("keys") or []) or str(one.get("how") or one.get("until") or "") \
            or ", ".join(one.get("by") or [])
        words.append((name if one["ok"] else f"not {name}") + (f" ({detail})" if detail and one["ok"] else ""))
    return ", ".join(words)
