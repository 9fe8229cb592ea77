# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the Vault provider, the generated policies, and the matching rules that the double applies to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import policies, registry
from ansible_collections.lifeboat.recovery.tests.doubles.vault import acl

GOOD = {"provider": "vault", "url": "https://vault.example.org:8200", "token": "t"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": None}, "keys.url is missing"),
        ({"url": "vault:8200"}, "no http"),
        ({"url": "https://user:canary@vault"}, "no http"),
        ({"url": "http://vault.example.org:8200"}, "plain http.*use https"),
        ({"auth_method": "ldop"}, "unknown auth_method 'ldop'.*approle, token"),
        ({"auth_method": "approle", "role_id": "r"}, "option 'token' does not belong to auth_method approle"),
        ({"auth_method": "approle", "token": None}, "role_id is missing"),
        ({"auth_method": "approle", "token": None, "role_id": "r", "secret_id": "canary", "secret_id_file": "/s"}, "both given"),
        ({"tokn": "x"}, "unknown option 'tokn'"),
        ({"auth": {"method": "token", "tok": "x"}}, "unknown option 'tok' in keys.auth"),
        ({"auth": {"method": "token", "token": "x"}}, "given twice"),
        ({"auth": "approle"}, "no mapping"),
        ({"timeout": 0}, "keys.timeout"),
        ({"timeout": True}, "keys.timeout"),
        ({"retries": -1}, "keys.retries"),
        ({"retries": 1.5}, "keys.retries"),
        ({"validate_certs": "no"}, "validate_certs"),
        ({"ca_cert": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
        ({"mount": "transit/*"}, "keys.mount"),
        ({"mount": "tr+nsit"}, "keys.mount"),
        ({"prefix": "a/"}, "service name"),
    ],
)
def test_wrong_options_are_named(change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    with pytest.raises(ConfigError, match=said) as caught:
        registry.provider_for({**GOOD, **change}, "orders")
    assert "canary" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("service", ["", "*", "a/b", "a+", "..", "a b", 'a"'])
def test_service_names_that_would_widen_a_policy_are_refused(service: str) -> None:
    with pytest.raises(ConfigError):
        registry.provider_for(dict(GOOD), service)
    with pytest.raises(ConfigError):
        policies.policy(service, "backup")


def test_url_may_come_from_the_environment_and_loopback_may_be_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:8200")
    registry.provider_for({"provider": "vault", "token": "t"}, "orders")
    registry.provider_for({**GOOD, "url": "http://[::1]:8200"}, "orders")
    registry.provider_for({**GOOD, "url": "http://vault.lab:8200", "validate_certs": False}, "orders")


def test_no_token_at_all_says_where_one_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAULT_TOKEN", "ANSIBLE_HASHI_VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    config = {"provider": "vault", "url": "http://127.0.0.1:9", "token_path": str(tmp_path), "retries": 0}
    with pytest.raises(KeyAccessError, match=f"no usable Vault token.*{tmp_path}/.vault-token"):
        registry.provider_for(config, "orders").index_key()
    (tmp_path / ".vault-token").write_text("canary\n")
    (tmp_path / ".vault-token").chmod(0o644)
    with pytest.raises(KeyAccessError, match="may be read by everybody") as caught:
        registry.provider_for(config, "orders").index_key()
    assert "canary" not in str(caught.value)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac.exceptions", None)
    with pytest.raises(ConfigError, match="Python library hvac is missing"):
        registry.provider_for({**GOOD, "url": "http://127.0.0.1:9"}, "orders").index_key()


@pytest.mark.parametrize("role", sorted(policies.RIGHTS))
def test_policies_name_full_paths_of_one_service(role: str) -> None:
    found = acl.parse(policies.policy("orders", role, "secure/transit"))
    assert all("*" not in path and "+" not in path for path in found)
    assert all(path.startswith(("secure/transit/", "auth/token/")) for path in found)
    assert all("orders-" in path for path in found if path.startswith("secure/"))
    assert not any({"sudo", "list", *(() if role == "shred" else ("delete",))} & granted for granted in found.values())
    text = policies.policy("orders", role, "secure/transit")
    assert ("decrypt/" in text) == (role in ("restore", "drill"))
    assert ("datakey/plaintext/" in text) == (role == "backup")


def test_unknown_role_is_named() -> None:
    with pytest.raises(ConfigError, match="a role is one of: backup, restore"):
        policies.policy("orders", "root")
    assert policies.policy_name("orders", "backup") == "lifeboat-orders-backup"


@pytest.mark.parametrize(
    ("policy", "path", "expected"),
    [
        ('path "a/b" { capabilities = ["read"] }', "a/b", {"read"}),
        ('path "a/b" { capabilities = ["read"] }', "a/bc", {"deny"}),
        ('path "a/*" { capabilities = ["read"] }', "a/b/c", {"read"}),
        ('path "a/+" { capabilities = ["read"] }', "a/b/c", {"deny"}),
        ('path "a/+/c" { capabilities = ["read"] }', "a/b/c", {"read"}),
        ('path "a/*" { capabilities = ["update"] } path "a/b" { capabilities = ["read"] }', "a/b", {"read"}),
        ('path "a/*" { capabilities = ["update"] } path "a/b*" { capabilities = ["read"] }', "a/bc", {"read"}),
        ('path "a/+/c" { capabilities = ["update"] } path "a/b/*" { capabilities = ["read"] }', "a/b/c", {"read"}),
        ('path "a/b" { capabilities = ["read"] } path "a/b" { capabilities = ["deny", "update"] }', "a/b", {"deny"}),
        ('# a comment\npath "a/b" {\n  capabilities = [ "read", "list", ]\n}\n', "a/b", {"read", "list"}),
    ],
)
def test_the_double_matches_policies_as_vault_does(policy: str, path: str, expected: set[str]) -> None:
    assert acl.capabilities([acl.parse(policy)], path) == expected


@pytest.mark.parametrize(
    "policy", ['path "a" { policy = "write" }', 'path "a" { capabilities = ["reed"] }', 'path "/a" { capabilities = ["read"] }', "{", '"a"'],
)
def test_the_double_refuses_policies_it_does_not_understand(policy: str) -> None:
    with pytest.raises(acl.PolicyError):
        acl.parse(policy)


@pytest.mark.parametrize("role", ["backup", "restore"])
def test_the_documented_policies_are_the_generated_ones(role: str) -> None:
    guide = Path(__file__).parents[3] / "docs" / "keys.md"
    assert f"```hcl\n{policies.policy('orders', role)}```" in guide.read_text(encoding="utf-8")


def test_the_catalogs_words_are_understood(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    block = {
        "provider": "vault", "url": "https://vault:8200", "mount": "transit", "prefix": "shop-", "namespace": "team", "timeout": 5,
        "ca_file": str(tmp_path / "ca.pem"), "auth": {"method": "approle", "role_id": "r", "secret_id_file": "/a"},
        "restore_auth": {"method": "token", "token_file": "/b"},
    }
    registry.provider_for(block, "orders")
