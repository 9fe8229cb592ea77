# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the statements say to Amazon S3, which knows conditions that the stores of the other tests do not; and how a catalog becomes names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.access import bucket, objects, plan
from ansible_collections.lifeboat.recovery.plugins.module_utils.access.site import ROLES, USUAL, Site
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import policies
from ansible_collections.lifeboat.recovery.plugins.modules import access as module
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import model, places
from ansible_collections.lifeboat.recovery.tests.doubles.s3_policy import allowed

ROOT = Path(__file__).resolve().parents[3]
WHERE = "arn:aws:s3:::backups"
OURS = f"{WHERE}/eu/services/orders"


def document(services: int = 2, **more: Any) -> dict[str, Any]:
    names = ["orders", "payments", *(f"service{number}" for number in range(2, services))][:services]
    return {
        "ecosystem": "shop", "repositories": {"main": {"url": "s3://backups/eu", "object_lock": {"mode": "compliance", "for": 30 * 86400.0}}},
        "default_repository": "main", "keys": {"provider": "file"},
        "services": {name: {"host": f"db{number}", "repository": "main"} for number, name in enumerate(names)}, **more,
    }


def arn(identity: str) -> str:
    return f"arn:aws:iam::123456789012:role/{identity}"


def statements(site: Site) -> list[dict[str, Any]]:
    return [statement for place in dict.fromkeys(site.services[0].places) for statement in objects.statements(site, place, arn)]


def site_of(given: dict[str, Any], **more: Any) -> Site:
    return Site(given, more.get("roles", USUAL), more.get("identities", {}), more.get("drill", tuple(given["services"])))


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return statements(site_of(document()))


BACKUP, ROTATE = arn("lifeboat-shop-db0-backup"), arn("lifeboat-shop-rotate")
#: Requests of a writer that must be refused although it may write: (action, object, context), by the statement that does it.
BEYOND: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "Once": [
        ("s3:PutObject", f"{OURS}/keys/k1.000000.json", {"ObjectCreationOperation": "true"}),
    ],
    "Extent": [
        ("s3:PutObjectRetention", f"{OURS}/keys/k1.000000.json", {"object_lock_remaining_retention_days": "32"}),
        ("s3:PutObject", f"{OURS}/keys/k1.000000.json",
         {"if_none_match": "*", "ObjectCreationOperation": "true", "object_lock_remaining_retention_days": "36500"}),
    ],
}
WITHIN: list[tuple[str, str, dict[str, str]]] = [
    ("s3:PutObject", f"{OURS}/keys/k1.000000.json", {"if_none_match": "*", "ObjectCreationOperation": "true", "object_lock_remaining_retention_days": "30"}),
    ("s3:PutObject", f"{OURS}/keys/k1.000000.json", {"ObjectCreationOperation": "false"}),  # a part
    ("s3:PutObjectRetention", f"{OURS}/keys/k1.000000.json", {"object_lock_remaining_retention_days": "30"}),
]


@pytest.mark.parametrize("writer", [BACKUP, ROTATE])
def test_a_writer_creates_and_extends_and_overwrites_nothing(said: list[dict[str, Any]], writer: str) -> None:
    for action, resource, context in WITHIN:
        assert allowed(said, writer, action, resource, **context), (action, context)
    for name, requests in BEYOND.items():
        without = [statement for statement in said if not statement["Sid"].split("Lifeboat")[1][10:].startswith(name)]
        assert len(without) == len(said) - 1
        for action, resource, context in requests:
            assert not allowed(said, writer, action, resource, **context), (action, context)
            assert allowed(without, writer, action, resource, **context), "the control: nothing else refuses it"


def test_what_is_denied_by_name_stays_denied_whatever_is_allowed(said: list[dict[str, Any]]) -> None:
    wide = [*said, {"Sid": "Wide", "Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": [WHERE, f"{WHERE}/*"]}]
    pack = f"{OURS}/packs/aa/aa.pack"
    for role in USUAL:
        for identity in site_of(document()).by_identity(role):
            for action in ("s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:PutLifecycleConfiguration", "s3:PutBucketVersioning", "s3:DeleteBucket"):
                assert not allowed(wide, arn(identity), action, WHERE), (role, action)
            assert not allowed(wide, arn(identity), "s3:BypassGovernanceRetention", pack), role
            assert not allowed(wide, arn(identity), "s3:DeleteObjectVersion", f"{OURS}/ledgers/db0-1234/000000000001-000000000002.json"), role
            assert allowed(wide, arn(identity), "s3:DeleteObjectVersion", pack) == (role == "prune"), role
    assert allowed(wide, arn("lifeboat-shop-of-somebody"), "s3:DeleteObject", pack), "others are not our business"
    for role in ("operator", "prune"):
        for name in ("packs/aa/aa.pack", "trees/t.tree", "indexes/i.index", "keys/k.000001.json", "logs/db/000000000001/00000001-0-1.log"):
            assert not allowed(wide, arn(f"lifeboat-shop-{role}"), "s3:GetObject", f"{OURS}/{name}"), (role, name)


def test_sources_called_as_our_folders_are_seen(said: list[dict[str, Any]]) -> None:
    for source in ("keys", "packs", "ledgers", "a.pack"):
        for name in (f"snapshots/{source}/000000000001.json", f"logs/{source}/000000000001/epoch.json"):
            assert allowed(said, arn("lifeboat-shop-operator"), "s3:GetObject", f"{OURS}/{name}"), name
            assert allowed(said, arn("lifeboat-shop-prune"), "s3:DeleteObjectVersion", f"{OURS}/{name}"), name


def test_documents_say_the_same_as_the_policy_of_the_bucket(said: list[dict[str, Any]]) -> None:
    site = site_of(document())
    found = plan.perform(document(), {"drill": ["orders", "payments"]}, True)["documents"]
    assert sorted(found) == sorted(identity for role in USUAL for identity in site.by_identity(role))
    for identity, policy in found.items():
        own = [{**statement, "Principal": "*"} for statement in policy["Statement"]]
        assert all("Principal" not in statement for statement in policy["Statement"])
        for service in ("orders", "payments"):
            for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObjectVersion", "s3:PutObjectRetention", "s3:ListBucket"):
                for name in ("packs/aa/aa.pack", "keys/k.000000.json", "snapshots/db/000000000001.json", "ledgers/h/000000000001-000000000002.json"):
                    resource = WHERE if action == "s3:ListBucket" else f"{WHERE}/eu/services/{service}/{name}"
                    context = {"prefix": f"eu/services/{service}/packs/", "if_none_match": "*", "ObjectCreationOperation": "true"}
                    assert allowed(own, "", action, resource, **context) == allowed(said, arn(identity), action, resource, **context), (identity, resource)


def test_a_copy_is_written_by_who_writes_and_read_by_who_reads() -> None:
    given = document()
    given["repositories"] |= {"far": {"url": "s3://copies", "copy_of": "main"}, "other": {"url": "s3://others"}}
    said = statements(site_of(given))
    copied = "arn:aws:s3:::copies/services/orders/packs/aa/aa.pack"
    assert allowed(said, BACKUP, "s3:PutObject", copied, if_none_match="*", ObjectCreationOperation="true")
    assert not allowed(said, BACKUP, "s3:PutObject", copied, ObjectCreationOperation="true")
    assert allowed(said, arn("lifeboat-shop-db0-restore"), "s3:GetObject", copied)
    assert not any("others" in str(statement["Resource"]) for statement in said)
    given["services"]["orders"]["copies"] = []
    assert not allowed(statements(site_of(given)), BACKUP, "s3:GetObject", copied)
    sids = [statement["Sid"] for statement in plan.perform(given, {"identities": {"backup": "all-{role}"}}, True)["documents"]["all-backup"]["Statement"]]
    assert len(sids) == len(set(sids)) > 8


@pytest.mark.parametrize("listing, endpoint, whole", [
    ("", None, True), ("", "https://s3.eu-central-1.amazonaws.com", True), ("", "https://s3.example.org", False), ("service", None, False),
    ("bucket", "https://s3.example.org", True),
])
def test_names_of_other_services_are_listed_only_where_the_store_needs_it(listing: str, endpoint: str | None, whole: bool) -> None:
    given = document()
    given["repositories"]["main"]["endpoint"] = endpoint
    said = statements(Site(given, ROLES, {}, (), listing))
    assert allowed(said, BACKUP, "s3:ListBucket", WHERE, prefix="eu/services/orders/packs/")
    assert allowed(said, BACKUP, "s3:ListBucket", WHERE, prefix="eu/services/payments/") == whole
    assert allowed(said, BACKUP, "s3:ListBucket", WHERE) == whole


def test_without_object_lock_no_lock_is_extended() -> None:
    given = document()
    del given["repositories"]["main"]["object_lock"]
    text = json.dumps(statements(site_of(given)))
    assert '"s3:PutObjectRetention"' not in text and '"s3:GetObjectRetention"' not in text
    assert any("without object_lock" in text for text in plan.perform(given, {}, True)["warnings"])


def test_a_policy_that_is_too_large_is_refused_before_anything_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket.BucketAccess, "_read", lambda self: {})
    small, large = ({"principal": "arn:aws:iam::123456789012:role/{identity}", "drill": [], "roles": roles} for roles in (["backup", "restore"], []))
    assert len(plan.perform(document(9), small, True)["changes"]) == 1
    with pytest.raises(ConfigError, match="more than 20480 bytes.*attach the documents"):
        plan.perform(document(12), large, True)


def test_the_example_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket.BucketAccess, "_read", lambda self: {})
    given = model.load(str(ROOT / "inventories/example/shop.catalog.yml")).document
    options = {"principal": "arn:aws:iam::123456789012:role/{identity}", "drill": list(given["services"])}
    for listing in ("service", "bucket"):
        assert len(plan.perform({**given, "keys": {"provider": "file"}}, {**options, "listing": listing}, True)["changes"]) == 1


def test_a_principal_that_names_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no identity"):
        plan.perform(document(), {"principal": "*"}, True)


@pytest.mark.parametrize("given, options, told", [
    (document(), {"identities": {"backup": "one", "restore": "one"}}, "one would be backup and restore at once"),
    (document(), {"identities": {"backup": "lifeboat-{place}"}}, "unknown placeholder 'place'"),
    (document(), {"identities": {"backup": "a b"}}, "cannot be used by Vault"),
    (document(), {"identities": {"boss": "x"}}, "unknown role 'boss'"),
    (document(), {"drill": ("nobody",)}, "no service 'nobody'"),
    (document(repositories={"main": {"url": "s3://backups/*"}}), {}, "cannot stand in a policy"),
    (document(repositories={"main": {"url": "s3://backups/${aws:username}"}}), {}, "cannot stand in a policy"),
    ({}, {}, "no catalog was given"),
])
def test_what_would_widen_a_policy_or_mix_roles_is_refused(given: dict[str, Any], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        site_of({"services": {}, **given} if given else {"services": {}}, **options)


def test_the_words_of_module_engine_and_documentation_are_the_same() -> None:
    assert tuple(module.ROLES) == ROLES and set(objects.RIGHTS) == set(policies.RIGHTS) == set(ROLES)
    assert set(module.SECRET) == set(places.SECRET)
    text = (ROOT / "docs" / "access.md").read_text(encoding="utf-8")
    for role in ROLES:
        assert re.search(rf"^\| `{role}` (\(only when named\) )?\|", text, re.MULTILINE), role
    for name in (ROOT / "roles/access/defaults/main.yml").read_text(encoding="utf-8").split("\n"):
        if name.startswith("lifeboat_"):
            assert f"`{name.partition(':')[0]}`" in text, name
