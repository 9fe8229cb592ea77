# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies and AppRoles that the catalog asks for, in every Vault there is: planned, applied, refused, and taken away again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.access.site import ROLES, USUAL
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, KeyAccessError
from ansible_collections.lifeboat.recovery.tests.integration.access.conftest import HOSTS, Vault, catalog, names
from ansible_collections.lifeboat.recovery.tests.integration.keys.test_vault_contract import ALLOWED, CALLS


@pytest.fixture
def document(vault: Vault) -> dict[str, Any]:
    return catalog({"url": "file:///srv/repository"}, vault.keys)


def got_through(vault: Vault, token: str, calls: Iterable[str] = tuple(CALLS)) -> set[str]:
    """The calls of the contract suite, on the own service and on another one, that were not refused."""
    for service in HOSTS:
        vault.site.provider("bootstrap", service).ensure()
    return {name for name in calls for method, path, body in [CALLS[name]] if vault.site.transit(method, path, body, token)[0] != 403}


#: How an administrator's own things are reached.
ADMINISTRATION = (
    ("POST", "sys/policies/acl/lifeboat-orders-backup", {"policy": ""}), ("GET", "sys/policies/acl/lifeboat-orders-restore", None),
    ("POST", "auth/{approle}/role/lifeboat-shop-db1-backup", {"token_policies": ["lifeboat-orders-restore"]}),
    ("POST", "auth/{approle}/role/lifeboat-shop-db1-restore/secret-id", {}), ("GET", "auth/{approle}/role/lifeboat-shop-db1-restore/role-id", None),
    ("POST", "auth/token/create", {}), ("LIST", "sys/policies/acl", None), ("POST", "sys/mounts/elsewhere", {"type": "transit"}),
)


@pytest.mark.parametrize("role", ROLES)
def test_who_logs_in_has_the_rights_of_the_role_and_no_others(vault: Vault, document: dict[str, Any], role: str) -> None:
    vault.apply(document, identities={role: "lifeboat-{service}-{role}"}, roles=[] if role in USUAL else [role])
    token = vault.token(f"lifeboat-orders-{role}")
    assert got_through(vault, token) == ALLOWED[role]
    for method, path, body in ADMINISTRATION:
        assert vault.site.server.ask(method, path.format(approle=vault.approle), body, token)[0] == 403, path


@pytest.mark.parametrize("role", ["backup", "operator"])
def test_a_widened_policy_is_noticed(vault: Vault, document: dict[str, Any], role: str) -> None:
    """The control: were the role given the whole mount, each refusal above would be missing; applied again, all are back."""
    vault.apply(document, identities={role: "lifeboat-{service}-{role}"})
    token = vault.token(f"lifeboat-orders-{role}")
    wide = f'path "{vault.site.mount}/*" {{ capabilities = ["create", "read", "update", "delete", "list"] }}'
    vault.site.server.must("POST", f"sys/policies/acl/lifeboat-orders-{role}", {"policy": f"# Lifeboat: role {role}, widened\n{wide}"})
    # in their order, since one deletes the key; of the two left out the double knows only that they are refused
    calls = [name for name in CALLS if name not in ("export", "plaintext backup")]
    assert got_through(vault, token, calls) == set(calls)
    assert vault.apply(document)["changed"]
    assert got_through(vault, token) == ALLOWED[role]


def test_a_host_has_one_identity_for_its_services(vault: Vault) -> None:
    document = catalog({"url": "file:///srv/repository"}, vault.keys, orders="db1", payments="db1", stock="db2")
    vault.apply(document)
    (name,) = names(document, "backup")
    told = vault.site.server.must("GET", f"auth/{vault.approle}/role/{name}")["data"]
    assert (name, told["token_policies"]) == ("lifeboat-shop-db1-backup", ["lifeboat-orders-backup", "lifeboat-payments-backup"])
    assert (told["token_ttl"], told["token_max_ttl"], told["token_no_default_policy"], told["bind_secret_id"]) == (3600, 86400, True, True)


def test_planned_applied_and_repeated(vault: Vault, document: dict[str, Any]) -> None:
    before = vault.state()
    planned = vault.apply(document, check=True)
    assert vault.state() == before
    assert planned["changed"] and {change["action"] for change in planned["changes"]} == {"create"}
    assert len(planned["changes"]) == 2 * len(USUAL) + 2 * 2 + len(USUAL) - 2
    applied = vault.apply(document)
    assert applied["diff"] == planned["diff"]
    written = {name: text for name, text in vault.state().items() if name not in before}
    assert {each["after"] for each in planned["diff"] if "Vault policy" in each["after_header"]} == {text for text in written.values() if isinstance(text, str)}
    again = vault.apply(document)
    assert (again["changed"], again["changes"], again["diff"]) == (False, [], [])


def test_what_somebody_changed_is_shown_and_changed_back(vault: Vault, document: dict[str, Any]) -> None:
    vault.apply(document)
    state, server = vault.state(), vault.site.server
    text = state["lifeboat-orders-backup"]
    server.must("POST", "sys/policies/acl/lifeboat-orders-backup", {"policy": text.replace("datakey/plaintext", "datakey/wrapped")})
    server.must("POST", f"auth/{vault.approle}/role/lifeboat-shop-db1-backup", {"token_policies": ["lifeboat-orders-backup", "lifeboat-orders-restore"]})
    planned = vault.apply(document, check=True)
    assert [(change["name"], change["action"]) for change in planned["changes"]] == [
        ("lifeboat-orders-backup", "update"), ("lifeboat-shop-db1-backup", "update"),
    ]
    assert "datakey/wrapped" in planned["diff"][0]["before"] and planned["diff"][0]["after"] == text
    assert "lifeboat-orders-restore" in planned["diff"][1]["before"] and "lifeboat-orders-restore" not in planned["diff"][1]["after"]
    vault.apply(document)
    assert vault.state() == state


def test_what_is_not_ours_stays(vault: Vault, document: dict[str, Any]) -> None:
    server = vault.site.server
    other = {**document, "ecosystem": "other", "services": {"ledgers": document["services"]["orders"]}}
    vault.apply(other)
    server.must("POST", "sys/policies/acl/lifeboat-of-somebody", {"policy": 'path "secret/a" { capabilities = ["read"] }'})
    server.must("POST", f"auth/{vault.approle}/role/lifeboat-of-somebody", {"token_policies": ["lifeboat-of-somebody"]})
    before = vault.state()
    vault.apply(document)
    server.must("POST", f"auth/{vault.approle}/role/lifeboat-shop-db1-backup", {"secret_id_num_uses": 7})
    assert not vault.apply(document)["changed"]
    assert vault.state()["role lifeboat-shop-db1-backup"]["secret_id_num_uses"] == 7
    vault.apply(document, state="absent")
    assert vault.state() == before
    server.must("POST", "sys/policies/acl/lifeboat-orders-prune", {"policy": 'path "secret/b" { capabilities = ["read"] }'})
    with pytest.raises(ConflictError, match="not ours.*lifeboat-orders-prune"):
        vault.apply(document)


def test_a_service_that_left_the_catalog_loses_its_rights_when_asked(vault: Vault, document: dict[str, Any]) -> None:
    vault.apply(document)
    token = vault.token("lifeboat-shop-db2-backup")
    smaller = {**document, "services": {"orders": document["services"]["orders"]}}
    kept = vault.apply(smaller)
    assert [change["name"] for change in kept["changes"] if change["action"] != "update"] == []
    assert "policy lifeboat-payments-backup" in kept["left"] and "AppRole lifeboat-shop-db2-backup" in kept["left"]
    assert any("lifeboat_access_purge" in text for text in kept["warnings"])
    planned = vault.apply(smaller, check=True, purge=True)
    assert {change["action"] for change in planned["changes"]} == {"delete"}
    assert "lifeboat-payments-backup" in vault.state()
    vault.apply(smaller, purge=True)
    assert [name for name in vault.state() if "payments" in name or "db2" in name] == []
    assert not vault.apply(smaller, purge=True)["changed"]
    assert got_through(vault, token) == set()


def test_who_is_no_administrator_is_told(vault: Vault, document: dict[str, Any]) -> None:
    vault.apply(document)
    before = vault.state()
    with pytest.raises(KeyAccessError, match="token of an administrator") as caught:
        vault.apply(document, vault_auth={"method": "token", "token": vault.token("lifeboat-shop-db1-backup")})
    assert "\n" not in str(caught.value)
    assert vault.state() == before
