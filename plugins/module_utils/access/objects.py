# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which right over which objects each role has, and the statements that say so, as bucket policies and as policies of identities.

One table, RIGHTS; what is not in it is denied. What must never be is denied once more by name, so that a policy that somebody widens
elsewhere opens nothing. Statements are few and short: the policy of a bucket has a greatest size.
Actions and condition keys: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Callable, Iterable

from .site import Place, Service, Site

#: Objects of a repository that belong to no service, readable by every role; see repository.s3_probe for the second.
COMMON = ("lifeboat.json", "probe/checksums-are-not-checked")
#: What only a key opens, and the wrapped keys: told by the ends of their names, which no manifest, catalog or ledger has.
SEALED = ("*.pack", "*.tree", "*.index", "*.log", "*.history")
WRAPPED = ("*/keys/*.??????.json", "*/escrow/*.??????.json")
#: The word that a service's keys were destroyed. Whoever signs could write it.
TOMBSTONE = "*/shredded.json"
#: Copies of ledgers are never taken away.
LEDGERS = ("*/ledgers/*-????????????.json",)

_LIST = ("s3:ListBucket",)
_LIST_VERSIONS = ("s3:ListBucket", "s3:ListBucketVersions")
_VERSIONS = ("s3:GetBucketVersioning",)
_READ = ("s3:GetObject", "s3:GetObjectVersion")
_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload")
_DELETE = ("s3:DeleteObject", "s3:DeleteObjectVersion")
#: Without the first, a store does not tell until when an object is locked.
_EXTEND = ("s3:GetObjectRetention", "s3:PutObjectRetention")


@dataclass(frozen=True)
class Right:
    """actions on objects, and more of them where the catalog asks for object lock.

    names: patterns below a service's prefix, or below the repository's with ``shared``.
    """

    actions: tuple[str, ...]
    names: tuple[str, ...] = ("*",)
    locked: tuple[str, ...] = ()
    shared: bool = False


@dataclass(frozen=True)
class Role:
    """listing: what may be listed of names below the service's prefix. bucket: actions on the whole bucket, names included.

    hidden: patterns of objects that are not to be read, whatever ``rights`` say; kept: not to be deleted.
    """

    rights: tuple[Right, ...]
    listing: tuple[str, ...] = _LIST
    bucket: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    kept: tuple[str, ...] = ("*",)


RIGHTS: dict[str, Role] = {
    # reads what it wrote: packs of a killed capture, index, trees. What it reads is sealed
    "backup": Role((Right(("s3:GetObject", *_WRITE), locked=_EXTEND),)),
    # what was overwritten or hidden by a deletion is still there as a version
    "restore": Role((Right(_READ),), _LIST_VERSIONS, _VERSIONS),
    "drill": Role((Right(_READ),), _LIST_VERSIONS, _VERSIONS),
    "prune": Role((Right(("s3:GetObject", *_DELETE), locked=_EXTEND[:1]),), _LIST_VERSIONS, hidden=(*SEALED, *WRAPPED), kept=LEDGERS),
    "operator": Role((Right(("s3:GetObject",)),), hidden=(*SEALED, *WRAPPED)),
    "rotate": Role((Right(("s3:GetObject",)), Right(_WRITE, ("keys/*", "escrow/*"), _EXTEND)), hidden=SEALED),
    "retire": Role((Right(("s3:GetObject",)),), hidden=SEALED),
    "shred": Role((Right(("s3:GetObject",)), Right(_WRITE, ("shredded.json",), _EXTEND)), hidden=SEALED),
    "auditor": Role((Right(_READ, locked=_EXTEND[:1]),), _LIST_VERSIONS, _VERSIONS),
    # tries the store: writes, locks and deletes below probe/ only. To see whether there is a bucket takes the right to list it
    "bootstrap": Role((
        Right((*_READ, *_WRITE, *_DELETE), ("probe/*",), _EXTEND, shared=True), Right(_WRITE, ("lifeboat.json",), _EXTEND, shared=True),
        Right(("s3:GetObject",), (f"services/{TOMBSTONE}",), shared=True),
    ), (), (*_VERSIONS, *_LIST_VERSIONS)),
}

_NEVER = (
    "s3:BypassGovernanceRetention", "s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:PutBucketAcl", "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketPolicy", "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration", "s3:PutObjectAcl", "s3:PutObjectLegalHold",
    "s3:PutObjectVersionAcl", "s3:PutReplicationConfiguration",
)
#: Whoever writes below a service's prefix.
WRITERS = ("backup", "rotate", "shred")

#: identity -> how the store names it in a policy
Principal = Callable[[str], str]


def statements(site: Site, place: Place, principal: Principal | None) -> list[dict[str, Any]]:
    """What the policy of one place's bucket must say; without ``principal`` nobody is named and Sids are plain."""
    made: list[dict[str, Any]] = []
    for role in site.roles:
        for identities, services in _together(site, role, place):
            made += _allowed(site, role, identities, [service.name for service in services], place)
    made += _for_all(site, place)
    return [_finished(site, statement, principal) for statement in _merged(made)]


def _merged(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Statements that differ only in whom they name become one, called by what it is about and not by a role."""
    found: dict[str, dict[str, Any]] = {}
    for statement in made:
        key = json.dumps({name: value for name, value in statement.items() if name not in ("Sid", "Principal")}, sort_keys=True)
        if key in found:
            other = found[key]
            words = statement["Sid"].split()
            found[key] = {**other, "Sid": words[min(1, len(words) - 1)], "Principal": tuple(sorted({*other["Principal"], *statement["Principal"]}))}
        else:
            found[key] = statement
    return list(found.values())


def documents(site: Site, place: Place) -> dict[str, list[dict[str, Any]]]:
    """identity -> statements of a policy to be attached to it, where a bucket policy is not the place."""
    found: dict[str, list[dict[str, Any]]] = {}
    for role in site.roles:
        for identity, services in site.by_identity(role).items():
            here = [service.name for service in services if place in service.places]
            if here:
                made = _allowed(site, role, (identity,), here, place)
                made += [shared for shared in _for_all(site, place) if identity in shared["Principal"]]
                found[identity] = [_finished(site, statement, None) for statement in made]
    return found


def sid_prefix(site: Site) -> str:
    """What the Sids of all statements begin with that are ours: they have letters and digits only."""
    readable = re.sub(r"[^A-Za-z0-9]", "", site.ecosystem.title())[:24]
    return f"Lifeboat{readable}{hashlib.sha256(site.ecosystem.encode()).hexdigest()[:6]}"


def _together(site: Site, role: str, place: Place) -> Iterable[tuple[tuple[str, ...], list[Service]]]:
    """Services whose role is held by the same identities, so that one statement does for all: policies have a greatest size."""
    found: dict[tuple[str, ...], list[Service]] = {}
    for service in site.of_role(role):
        if place in service.places:
            found.setdefault(site.identities(service, role), []).append(service)
    return sorted(found.items())


def _allowed(site: Site, role: str, identities: tuple[str, ...], services: list[str], place: Place) -> list[dict[str, Any]]:
    rights, made = RIGHTS[role], []
    bucket, base = f"arn:aws:s3:::{place.bucket}", place.base
    if rights.listing and not site.lists_bucket(place):
        below = {"StringLike": {"s3:prefix": [f"{base}services/{service}/*" for service in services]}}
        made.append(_statement(f"{role} list", "Allow", identities, rights.listing, [bucket], below))
    if rights.bucket:
        made.append(_statement(f"{role} bucket", "Allow", identities, rights.bucket, [bucket]))
    for number, right in enumerate(rights.rights):
        roots = [base] if right.shared else [f"{base}services/{service}/" for service in services]
        names = [f"{bucket}/{root}{name}" for root in roots for name in right.names]
        actions = (*right.actions, *(right.locked if place.lock_days is not None else ()))
        made.append(_statement(f"{role} objects {number + 1}", "Allow", identities, actions, names))
    return made


def _for_all(site: Site, place: Place) -> list[dict[str, Any]]:
    """What several roles have in common, and denials that hold whatever else is allowed to them, also by policies that are not ours."""
    bucket, base = f"arn:aws:s3:::{place.bucket}", place.base
    stored = [f"{bucket}/{base}services/*", f"{bucket}/{base}lifeboat.json"]
    writers = _all(site, place, WRITERS)
    made = [
        _statement("common", "Allow", _all(site, place, site.roles), ("s3:GetObject",), [f"{bucket}/{base}{name}" for name in COMMON]),
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html: parts cannot carry the condition
        _statement("once", "Deny", writers, ("s3:PutObject",), stored, {
            "Null": {"s3:if-none-match": ["true"]}, "Bool": {"s3:ObjectCreationOperation": ["true"]},
        }),
    ]
    for listing in sorted({RIGHTS[role].listing for role in site.roles} - {()}) if site.lists_bucket(place) else ():
        made.append(_statement("list", "Allow", _all(site, place, [role for role in site.roles if RIGHTS[role].listing == listing]), listing, [bucket]))
    if place.lock_days is not None:
        made.append(_statement("extent", "Deny", writers, ("s3:PutObject", "s3:PutObjectRetention"), stored, {
            "NumericGreaterThan": {"s3:object-lock-remaining-retention-days": [str(place.lock_days)]},
        }))
    made.append(_statement("tombstone", "Deny", _all(site, place, ("backup",)), ("s3:PutObject",), [f"{bucket}/{base}services/{TOMBSTONE}"]))
    deleting = tuple(role for role in site.roles if RIGHTS[role].kept != ("*",))
    others = tuple(role for role in site.roles if role not in deleting)
    made.append(_statement("never", "Deny", _all(site, place, others), (*_DELETE, *_NEVER), [bucket, *stored]))
    for role in deleting:
        identities = _all(site, place, (role,))
        made.append(_statement("never", "Deny", identities, _NEVER, [bucket, *stored]))
        made.append(_statement("keep", "Deny", identities, _DELETE, [f"{bucket}/{base}services/{name}" for name in RIGHTS[role].kept]))
    for hidden in sorted({RIGHTS[role].hidden for role in site.roles} - {()}):
        identities = _all(site, place, [role for role in site.roles if RIGHTS[role].hidden == hidden])
        made.append(_statement("sealed", "Deny", identities, _READ, [f"{bucket}/{base}services/{name}" for name in hidden]))
    return [statement for statement in made if statement["Principal"]]


def _all(site: Site, place: Place, roles: Iterable[str]) -> tuple[str, ...]:
    found = set()
    for role in roles:
        if role in site.roles:
            found |= {identity for identity, services in site.by_identity(role).items() if any(place in each.places for each in services)}
    return tuple(sorted(found))


def _statement(
    name: str, effect: str, identities: tuple[str, ...], actions: Iterable[str], resources: list[str], condition: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A statement whose ``Principal`` still is identities, and whose ``Sid`` is words."""
    made: dict[str, Any] = {
        "Sid": name, "Effect": effect, "Principal": identities, "Action": sorted(actions), "Resource": sorted(resources),
    }
    return {**made, "Condition": condition} if condition else made


def _finished(site: Site, statement: dict[str, Any], principal: Principal | None) -> dict[str, Any]:
    words = "".join(word.title() for word in statement["Sid"].split())
    identities = statement["Principal"]
    if principal is None:
        return {"Sid": f"Lifeboat{words}", **{key: value for key, value in statement.items() if key not in ("Sid", "Principal")}}
    # several statements of one kind differ in whom and what they name
    whom = hashlib.sha256("\n".join([*identities, *statement["Action"], *statement["Resource"]]).encode()).hexdigest()[:6]
    return {**statement, "Sid": f"{sid_prefix(site)}{words}{whom}", "Principal": {"AWS": [principal(identity) for identity in identities]}}
