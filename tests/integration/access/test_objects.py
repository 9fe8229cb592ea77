# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bucket's policy on a real store: each role's credentials try every call there is, on their own service, another one and the bucket."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.access.site import USUAL
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError
from ansible_collections.lifeboat.recovery.tests.integration.access.conftest import HOSTS, Store, names
from ansible_collections.lifeboat.recovery.tests.lab.s3_attempts import OBJECTS, ON_A_SERVICE, ON_THE_BUCKET, Field

_EVERYTHING_READ = {*(f"read a {name}" for name in OBJECTS), "list"}
_PLAIN = {"read a tombstone", "read a manifest", "read a catalog", "read a ledger", "read a epoch", "list"}
#: What each role needs of its own service, written down by hand. Whatever else can be tried must be refused.
NEEDED: dict[str, set[str]] = {
    "backup": {*_EVERYTHING_READ, "create a pack", "create a key", "create a ledger", "create a large pack", "create an escrow record",
               "extend a lock", "extend a lock of a key"},
    "restore": {*_EVERYTHING_READ, "read an older version", "list versions"},
    "drill": {*_EVERYTHING_READ, "read an older version", "list versions"},
    "prune": {*_PLAIN, "list versions", "delete a pack", "delete a version of a pack", "delete many"},
    "operator": _PLAIN,
    "rotate": {*_PLAIN, "read a key", "read a escrow", "create a key", "create an escrow record", "extend a lock of a key"},
    "retire": {*_PLAIN, "read a key", "read a escrow"},
    "shred": {*_PLAIN, "read a key", "read a escrow", "create a tombstone"},
    "auditor": {*_EVERYTHING_READ, "read an older version", "list versions"},
    "bootstrap": {"list", "list versions", "read a tombstone"},
}
#: And of the bucket.
NEEDED_OF_THE_BUCKET = {"bootstrap": {"list the repository", "list the bucket", "list all versions"}}
#: What must be refused to whoever is not there to delete, even if another statement of the bucket's policy allows it.
DESTROYING = {name for name in ON_A_SERVICE if name.startswith("delete") or name in ("overwrite", "shorten a lock", "end a legal hold")}
CHANGING_THE_BUCKET = set(ON_THE_BUCKET) - {"list the repository", "list the bucket", "list all versions", "see its policy"}
#: What runs on the controller has its role for all services.
ON_HOSTS = ("backup", "restore")


def everything(ground: Field) -> dict[str, Any]:
    where = f"arn:aws:s3:::{ground.bucket}"
    return {"Sid": "Wide", "Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": [where, f"{where}/*"]}


def got_through(client: Any, ground: Field, service: str) -> set[str]:
    return {name for name, attempt in ON_A_SERVICE.items() if attempt(client, ground, service)}


def bucket_got_through(client: Any, ground: Field, service: str) -> set[str]:
    return {name for name, attempt in ON_THE_BUCKET.items() if attempt(client, ground, service)}


@pytest.mark.parametrize("role", sorted(NEEDED))
def test_every_right_that_a_role_does_not_have_is_refused(store: Store, ground: Field, document: dict[str, Any], role: str) -> None:
    (name,) = names(document, role)
    client = store.client(name)
    assert store.apply(document, roles=[] if role in USUAL else [role])["changed"]
    assert got_through(client, ground, "orders") == NEEDED[role]
    assert bucket_got_through(client, ground, "orders") == NEEDED_OF_THE_BUCKET.get(role, set())
    if role in ON_HOSTS:
        assert got_through(client, ground, "payments") == set()


def test_a_drill_reads_only_what_is_drilled(store: Store, ground: Field, document: dict[str, Any]) -> None:
    (name,) = names(document, "drill")
    store.apply(document, drill=["orders"])
    assert got_through(store.client(name), ground, "orders") == NEEDED["drill"]
    assert got_through(store.client(name), ground, "payments") == set()


@pytest.mark.parametrize("role", ["backup", "operator"])
def test_a_widened_policy_is_noticed(store: Store, ground: Field, document: dict[str, Any], role: str) -> None:
    """The control: were the role given everything, each refusal above would be missing."""
    (name,) = names(document, role)
    client = store.client(name)

    def widen() -> None:
        ground.owner.put_bucket_policy(Bucket=ground.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everything(ground)]}))

    widen()
    for service in HOSTS:
        assert got_through(client, ground, service) == set(ON_A_SERVICE)
    for attempt, call in ON_THE_BUCKET.items():
        assert call(client, ground, "orders"), attempt
        widen()


def test_what_is_allowed_elsewhere_destroys_nothing(store: Store, ground: Field, document: dict[str, Any]) -> None:
    """Somebody's own statement gives everybody everything: what is denied to the roles by name stays denied."""
    ground.owner.put_bucket_policy(Bucket=ground.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everything(ground)]}))
    store.apply(document)
    for role in ("backup", "restore", "rotate"):
        client = store.client(names(document, role)[0])
        assert got_through(client, ground, "orders") & DESTROYING == set(), role
        assert bucket_got_through(client, ground, "orders") & CHANGING_THE_BUCKET == set(), role


def held(ground: Field) -> list[dict[str, Any]]:
    try:
        policy = json.loads(ground.owner.get_bucket_policy(Bucket=ground.bucket)["Policy"])
    except botocore.exceptions.ClientError:
        return []
    return list(policy["Statement"])


def test_planned_applied_repeated_and_taken_back(store: Store, ground: Field, document: dict[str, Any]) -> None:
    planned = store.apply(document, check=True)
    assert [change["action"] for change in planned["changes"]] == ["create"] and held(ground) == []
    assert store.apply(document)["diff"] == planned["diff"]
    assert len(held(ground)) == len(json.loads(planned["diff"][0]["after"])["Statement"])
    again = store.apply(document)
    assert (again["changed"], again["diff"]) == (False, [])
    # a service that left the catalog is in no statement any more
    store.apply({**document, "services": {"orders": document["services"]["orders"]}})
    assert "payments" not in json.dumps(held(ground)) and "orders" in json.dumps(held(ground))
    assert store.apply(document, state="absent")["changed"] and held(ground) == []
    assert not store.apply(document, state="absent")["changed"]


def test_what_is_not_ours_stays(store: Store, ground: Field, document: dict[str, Any]) -> None:
    theirs = [{"Sid": "Theirs", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{ground.bucket}/public/*"}]
    ground.owner.put_bucket_policy(Bucket=ground.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": theirs}))
    other = {**document, "ecosystem": "other"}
    store.apply(other, roles=["backup", "operator"])
    both = held(ground)
    store.apply(document)
    assert held(ground)[:len(both)] == both and len(held(ground)) > len(both)
    changed = [statement for statement in held(ground) if "Keep" not in statement["Sid"]]
    ground.owner.put_bucket_policy(Bucket=ground.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": changed}))
    (diff,) = store.apply(document)["diff"]
    assert diff["after"].count('"Sid"') - diff["before"].count('"Sid"') == 1
    store.apply(document, state="absent")
    assert [statement for statement in held(ground) if "Shop" in statement["Sid"]] == []
    assert held(ground)[0] == theirs[0]


def test_who_does_not_own_the_bucket_is_told(store: Store, ground: Field, document: dict[str, Any]) -> None:
    (name,) = names(document, "backup")
    store.apply(document)
    before = held(ground)
    with pytest.raises(StorageError, match="may not do s3:GetBucketPolicy.*bucket's owner"):
        store.apply(document, s3_login={"credentials_file": store.server.credentials_file("backup", *store.secrets[name])})
    assert held(ground) == before
