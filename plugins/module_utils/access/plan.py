# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The door of this room: what would change, and changing it."""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import LifeboatError
from .bucket import BucketAccess
from .objects import documents
from .site import USUAL, Place, Site
from .things import Thing
from .vault import MAX_TTL, TTL, VaultAccess


def perform(document: Mapping[str, Any], options: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Plan over a normalised catalog, and apply the plan unless ``check``.

    options: {"state", "roles", "identities", "drill", "listing", "purge", "principal", "token_ttl", "token_max_ttl", "vault_auth", "s3_login"}.
    -> {"changed", "changes": [{"kind", "name", "action"}], "diff": […], "documents": {identity: policy}, "left": [name], "warnings": [text]}
    """
    present = options.get("state", "present") == "present"
    site = Site(
        document, tuple(options.get("roles") or USUAL), options.get("identities") or {}, tuple(options.get("drill") or ()), options.get("listing") or "",
    )
    things: list[Thing] = []
    left: list[str] = []
    if site.keys.get("provider") == "vault":
        ttl = int(options.get("token_ttl") or TTL), int(options.get("token_max_ttl") or MAX_TTL)
        found, left = VaultAccess(site, options.get("vault_auth") or {}, ttl).things(present, bool(options.get("purge")))
        things += found
    principal = str(options.get("principal") or "")
    places = _places(site)
    for together in _by_bucket(places) if principal else ():
        things.append(BucketAccess(site, together, options.get("s3_login") or {}, principal).thing(present))
    changes = [thing for thing in things if thing.action != "none"]
    if not check:
        _apply(changes)
    return {
        "changed": bool(changes), "changes": [thing.as_dict() for thing in changes], "diff": [thing.diff() for thing in changes],
        "documents": _documents(site, places) if present else {}, "left": left, "warnings": _warnings(site, places, principal, left),
    }


def _apply(changes: list[Thing]) -> None:
    done: list[Thing] = []
    for thing in changes:
        try:
            thing.apply()
        except LifeboatError as error:
            error.result = {"changed": bool(done), "changes": [each.as_dict() for each in done]}
            raise
        done.append(thing)


def _places(site: Site) -> list[Place]:
    """The places that services use, each once."""
    return list(dict.fromkeys(place for service in site.services for place in service.places))


def _by_bucket(places: list[Place]) -> list[list[Place]]:
    found: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        found.setdefault((place.endpoint, place.bucket), []).append(place)
    return list(found.values())


def _documents(site: Site, places: list[Place]) -> dict[str, Any]:
    """identity -> policy; a Sid stands in it once."""
    found: dict[str, list[dict[str, Any]]] = {}
    for place in places:
        for identity, statements in documents(site, place).items():
            held = found.setdefault(identity, [])
            held += [{**statement, "Sid": f"{statement['Sid']}{len(held) + number}"} for number, statement in enumerate(statements, 1)]
    return {identity: {"Version": "2012-10-17", "Statement": statements} for identity, statements in sorted(found.items())}


def _warnings(site: Site, places: list[Place], principal: str, left: list[str]) -> list[str]:
    said = []
    if left:
        said.append(f"left over from services that are not in the catalog any more: {', '.join(left)}; remove them with lifeboat_access_purge=true")
    if places and not principal:
        said.append("no bucket policy was looked at: lifeboat_access_principal does not say how the store names identities; attach the documents of the answer")
    for place in places:
        if site.lists_bucket(place):
            said.append(f"{place.config.get('url')}: every role may list the names of all objects of the bucket, see docs/access.md, \"Amazon S3\"")
        if place.lock_days is None:
            said.append(
                f"{place.config.get('url')}: without object_lock a store keeps nothing from who may delete or write it; "
                "what protects its objects are these policies alone",
            )
    if site.keys.get("provider") != "vault":
        said.append("keys are in files: who may use them is decided by their owners and modes on each host, see docs/keys.md")
    return said
