# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A person's signed yes to a plan, ``{"approval": TEXT, "signature": {...}}``, and the check that it is one.

TEXT is the JSON of {"format", "kind": "approval", "ecosystem", "verb", "plan": digest of the plan's meaning, "services", "made", "expires"}.
The digest is of what would be done, to what, from what and how; not of when the plan was made, nor of what it forecasts. So the same command
gives the same digest as long as it would do the same, and any other plan is another digest.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any, Iterable, Mapping

from ..errors import ConfigError
from ..ledger import canonical
from . import publics

FORMAT = 1
KIND = "approval"
#: Before the fingerprint in the name of an approver's key.
PREFIX = "approval"
_RESOLVED = ("point", "at", "snapshots")
_PLANNED = ("verb", "ecosystem", "production", "catalog", "order", "flags")
#: How far the clocks of approver and controller may be apart, in seconds.
_SKEW = 300
_LIMIT = 1 << 20


def meaning(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan would do, without what changes between two looks at the same plan. ConfigError when it is no plan."""
    services = plan.get("services")
    if not isinstance(services, Mapping) or not plan.get("verb") or not plan.get("ecosystem"):
        raise ConfigError("not a plan", "services, verb or ecosystem are missing", "give the plan.json that a run with --check wrote")
    found = {key: plan.get(key) for key in _PLANNED}
    found["dependants"] = [{key: one.get(key) for key in ("service", "action")} for one in plan.get("dependants") or []]
    found["left_out"] = sorted(plan.get("left_out") or {})
    found["services"] = {
        name: {
            "host": one.get("host"), "sources": one.get("sources"), "waits_for": one.get("waits_for"),
            "resolution": {key: (one.get("resolution") or {}).get(key) for key in _RESOLVED},
        }
        for name, one in services.items()
    }
    return found


def digest(plan: Mapping[str, Any]) -> str:
    """The digest that an approval is bound to: SHA-256 (hex) of the canonical JSON of the meaning."""
    return hashlib.sha256(canonical(meaning(plan))).hexdigest()


def _stamp(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: Any) -> datetime.datetime:
    return datetime.datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)


def make(plan: Mapping[str, Any], private: bytes, seconds: float, now: datetime.datetime | None = None) -> str:
    """Approve a plan for so many seconds: the text of the file to hand to the operator."""
    now = now or datetime.datetime.now(datetime.timezone.utc)
    text = canonical({
        "format": FORMAT, "kind": KIND, "ecosystem": plan.get("ecosystem"), "verb": plan.get("verb"), "plan": digest(plan),
        "services": list(plan.get("order") or plan["services"]), "made": _stamp(now), "expires": _stamp(now + datetime.timedelta(seconds=seconds)),
    }).decode()
    return json.dumps({"approval": text, "signature": publics.sign(private, PREFIX, text)}, sort_keys=True) + "\n"


def check(
    given: Iterable[tuple[str, str]], rules: Mapping[str, Any], plan: Mapping[str, Any], operator: Iterable[str], now: datetime.datetime | None = None,
) -> list[dict[str, Any]]:
    """The approvals that count: [{"approver", "key": {"key", "version"}, "made", "expires"}]. ConfigError says which rule is not met.

    given: (where it was found, text) of each. rules: the catalog's ``approvals``. operator: the names by which whoever runs this is known.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    wanted = digest(plan)
    found: dict[str, dict[str, Any]] = {}
    for where, text in given:
        one = _one(where, text, rules, plan, wanted, now)
        found[one["approver"]] = one
    names = set(operator)
    if not found:
        raise ConfigError(f"{plan['verb']} needs an approval of its plan", f"plan {wanted}",
                          f"let one of {', '.join(sorted(rules['keys']))} approve it (see --check), then add -e lifeboat_approval=FILE")
    # the operator stands behind it too; where he is one of the approvers he is not a second person
    himself = {name for name, one in rules["keys"].items() if names & {name, *one.get("users", ())}}
    persons = (set(found) - himself) | {"the operator"}
    if len(persons) < int(rules.get("persons") or 1):
        raise ConfigError(
            f"{rules['persons']} persons have to stand behind it, here are {len(persons)}",
            f"approved by {', '.join(sorted(found))}, run by {', '.join(sorted(names))}",
            "let another approver sign the same plan, and give both files: -e lifeboat_approval=FILE,FILE",
        )
    return [found[name] for name in sorted(found)]


def _one(where: str, text: str, rules: Mapping[str, Any], plan: Mapping[str, Any], wanted: str, now: datetime.datetime) -> dict[str, Any]:
    def refuse(what: str, remedy: str) -> ConfigError:
        return ConfigError(what, where, remedy)

    anew = "have this plan approved: lifeboat audit approve --plan PLAN.JSON --key FILE"
    try:
        envelope = json.loads(text[:_LIMIT])
        signed, signature = envelope["approval"], envelope["signature"]
        said = json.loads(signed)
        if said["format"] != FORMAT or said["kind"] != KIND:
            raise ValueError("of another kind")
        made, expires = _moment(said["made"]), _moment(said["expires"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise refuse("not an approval", "give the file that lifeboat audit approve wrote") from error
    approvers = {publics.parse_public(one["key"], f"approvals.keys.{name}"): name for name, one in rules["keys"].items()}
    public = publics.signer(signed, signature, list(approvers))
    if public is None:
        raise refuse(f"the approval is by nobody whom the catalog lists, or was altered: signed by {publics.described(signature)}",
                     f"approvers are: {', '.join(sorted(rules['keys']))}")
    name = approvers[public]
    if said["plan"] != wanted or said["ecosystem"] != plan["ecosystem"] or said["verb"] != plan["verb"]:
        raise refuse(f"{name} approved another plan: {str(said['verb'])[:40]} {str(said['plan'])[:64]}, and this is {plan['verb']} {wanted}",
                     f"the plan changed, or it is for something else; {anew}")
    if now > expires:
        raise refuse(f"the approval of {name} ended at {said['expires']}", anew)
    longest = float(rules.get("valid") or 86400)
    if (expires - made).total_seconds() > longest:
        raise refuse(f"the approval of {name} is for longer than the {longest:g} s that the catalog allows", "approve it for less: --valid")
    if (made - now).total_seconds() > _SKEW:
        raise refuse(f"the approval of {name} is from the future ({said['made']})", "set the clocks right")
    return {"approver": name, "key": {key: signature[key] for key in ("key", "version")}, "made": said["made"], "expires": said["expires"]}
