# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Vault provider on every server that is at hand: the strict double, and a real Vault or OpenBao where there is one."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError, KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import policies, registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.provider import WrappedKey
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site

B64 = base64.b64encode(b"anything").decode()


def test_bootstrap_makes_three_keys_once(site: Site) -> None:
    keys = site.provider("bootstrap")
    assert keys.ensure()
    assert not keys.ensure()
    for kind, wanted in (("data", ("aes256-gcm96", True)), ("index", ("aes256-gcm96", False)), ("sign", ("ed25519", False))):
        data = site.transit("GET", f"keys/orders-{kind}")[1]["data"]
        assert (data["type"], data["derived"]) == wanted
        assert not data["exportable"] and not data["deletion_allowed"] and not data["allow_plaintext_backup"]
    assert not site.provider("backup").ensure()


def test_capture_with_one_role_restore_with_the_other(site: Site) -> None:
    site.bootstrapped()
    backup, restore, auditor = (site.provider(role) for role in ("backup", "restore", "auditor"))
    made = [(f"orders.db-{number:06d}".encode(), *backup.new_data_key(f"orders.db-{number:06d}".encode())) for number in range(5)]
    assert len({key for _context, key, _wrapped in made}) == 5
    stored = [(context, WrappedKey.from_dict(wrapped.as_dict())) for context, _key, wrapped in made]
    assert restore.open_data_keys(stored) == [key for _context, key, _wrapped in made]
    assert backup.index_key() == restore.index_key()
    assert len(backup.index_key()) == 32
    signature = backup.sign(b"manifest")
    assert {**signature, "value": ""} == {"algorithm": "ed25519", "key": "orders-sign", "version": 1, "value": ""}
    for each in (backup, restore, auditor):
        each.verify(b"manifest", signature)
        with pytest.raises(DamageError, match="does not fit the content"):
            each.verify(b"another", signature)


def test_index_keys_of_services_differ(site: Site) -> None:
    site.bootstrapped()
    site.bootstrapped("payments")
    assert site.provider("backup").index_key() != site.provider("backup", "payments").index_key()


#: every call that matters, below the mount: (method, path, body)
CALLS: dict[str, tuple[str, str, Any]] = {
    "make data key": ("POST", "datakey/plaintext/orders-data", {"context": B64}),
    "make wrapped data key": ("POST", "datakey/wrapped/orders-data", {"context": B64}),
    "open": ("POST", "decrypt/orders-data", {"ciphertext": "vault:v1:AAAA", "context": B64}),
    "rewrap": ("POST", "rewrap/orders-data", {"ciphertext": "vault:v1:AAAA", "context": B64}),
    "encrypt": ("POST", "encrypt/orders-data", {"plaintext": B64, "context": B64}),
    "encrypt with the index key": ("POST", "encrypt/orders-index", {"plaintext": B64}),
    "open with the index key": ("POST", "decrypt/orders-index", {"ciphertext": "vault:v1:AAAA"}),
    "index key": ("POST", "hmac/orders-index/sha2-256", {"input": B64, "key_version": 1}),
    "sign": ("POST", "sign/orders-sign", {"input": B64}),
    "read data": ("GET", "keys/orders-data", None),
    "read index": ("GET", "keys/orders-index", None),
    "read sign": ("GET", "keys/orders-sign", None),
    "create data": ("POST", "keys/orders-data", {"type": "aes256-gcm96", "derived": True}),
    "list": ("LIST", "keys", None),
    "rotate": ("POST", "keys/orders-data/rotate", {}),
    "rotate index": ("POST", "keys/orders-index/rotate", {}),
    "rotate sign": ("POST", "keys/orders-sign/rotate", {}),
    "configure": ("POST", "keys/orders-data/config", {"deletion_allowed": True}),
    "delete": ("DELETE", "keys/orders-data", None),
    "export": ("GET", "export/encryption-key/orders-data", None),
    "plaintext backup": ("GET", "backup/orders-data", None),
    "other service: make": ("POST", "datakey/plaintext/payments-data", {"context": B64}),
    "other service: open": ("POST", "decrypt/payments-data", {"ciphertext": "vault:v1:AAAA", "context": B64}),
    "other service: index": ("POST", "hmac/payments-index/sha2-256", {"input": B64, "key_version": 1}),
    "other service: sign": ("POST", "sign/payments-sign", {"input": B64}),
    "other service: read": ("GET", "keys/payments-sign", None),
    "name beside ours": ("POST", "decrypt/orders-data2", {"ciphertext": "vault:v1:AAAA", "context": B64}),
}

ALLOWED = {
    "backup": {"make data key", "index key", "sign", "read data", "read index", "read sign"},
    "restore": {"open", "index key", "read sign"},
    "drill": {"open", "index key", "read sign"},
    "prune": {"read sign"},
    "operator": {"read sign"},
    "auditor": {"read sign"},
    "bootstrap": {"read data", "read index", "read sign", "create data", "index key"},
    "rotate": {"rewrap", "rotate", "rotate sign", "read data", "read sign"},
    "retire": {"read data", "configure", "read sign"},
    "shred": {"read data", "read index", "read sign", "sign", "configure", "delete"},
}


@pytest.mark.parametrize("role", sorted(policies.RIGHTS))
def test_every_right_that_a_role_does_not_have_is_denied(site: Site, role: str) -> None:
    site.bootstrapped()
    site.bootstrapped("payments")
    token = site.token(role)
    seen = {name: site.transit(method, path, body, token)[0] for name, (method, path, body) in CALLS.items()}
    assert {name for name, status in seen.items() if status != 403} == ALLOWED[role]
    for path, body in (("sys/policies/acl/lifeboat-widen", {"policy": ""}), ("sys/mounts/elsewhere", {"type": "transit"}), ("auth/token/create", {})):
        assert site.server.ask("POST", path, body, token)[0] == 403, path


def test_a_widened_policy_is_noticed_by_the_same_question(site: Site) -> None:
    """The control: were the backup role given ``decrypt``, the check above would see it."""
    site.bootstrapped()
    widened = policies.policy("orders", "backup", site.mount) + f'\npath "{site.mount}/decrypt/*" {{ capabilities = ["update"] }}\n'
    token = site.server.token(widened)
    assert site.transit("POST", "decrypt/orders-data", CALLS["open"][2], token)[0] != 403
    keys = registry.provider_for(site.config(token), "orders")
    key, wrapped = keys.new_data_key(b"s")
    assert keys.open_data_keys([(b"s", wrapped)]) == [key]


def test_denials_name_path_capability_and_way_out(site: Site) -> None:
    site.bootstrapped()
    backup, restore, auditor = (site.provider(role) for role in ("backup", "restore", "auditor"))
    _key, wrapped = backup.new_data_key(b"s")
    refused: list[tuple[Callable[[], object], str, str]] = [
        (lambda: backup.open_data_keys([(b"s", wrapped)]), "decrypt/orders-data", "restore policy"),
        (lambda: restore.new_data_key(b"s"), "datakey/plaintext/orders-data", "backup policy"),
        (lambda: restore.sign(b"m"), "sign/orders-sign", "backup policy"),
        (auditor.index_key, "hmac/orders-index/sha2-256", "capturing and restoring need it"),
    ]
    for use, path, hint in refused:
        with pytest.raises(KeyAccessError) as caught:
            use()
        text = str(caught.value)
        assert f"denies this role 'update' on {site.mount}/{path}" in text
        assert hint in text
        assert "\n" not in text
    with pytest.raises(KeyAccessError, match=f"denies this role 'update' on {site.mount}/keys/payments-index.*bootstrap policy"):
        fresh = policies.policy("payments", "auditor", site.mount) + "".join(
            f'\npath "{site.mount}/keys/payments-{kind}" {{ capabilities = ["read"] }}\n' for kind in ("data", "index")
        )
        registry.provider_for(site.config(site.server.token(fresh)), "payments").ensure()


def test_context_binds_a_key_to_its_snapshot(site: Site) -> None:
    site.bootstrapped()
    _key, wrapped = site.provider("backup").new_data_key(b"orders.db-000001")
    with pytest.raises(DamageError, match="belongs to another snapshot.*orders.db-000002"):
        site.provider("restore").open_data_keys([(b"orders.db-000002", wrapped)])


def test_every_changed_character_of_a_wrapped_key_is_refused(site: Site) -> None:
    site.bootstrapped()
    _key, wrapped = site.provider("backup").new_data_key(b"s")
    restore = site.provider("restore")
    for position, old in enumerate(wrapped.wrapped):
        new = "B" if old == "A" else "A"
        changed = wrapped.wrapped[:position] + new + wrapped.wrapped[position + 1:]
        with pytest.raises((DamageError, KeyAccessError)):
            restore.open_data_keys([(b"s", WrappedKey("vault", wrapped.key, wrapped.version, changed))])
    for cut in range(0, len(wrapped.wrapped), 7):
        with pytest.raises((DamageError, KeyAccessError)):
            restore.open_data_keys([(b"s", WrappedKey("vault", wrapped.key, wrapped.version, wrapped.wrapped[:cut]))])


def test_one_bad_key_among_many_is_the_one_named(site: Site) -> None:
    site.bootstrapped()
    backup = site.provider("backup")
    items = [(f"s{number}".encode(), backup.new_data_key(f"s{number}".encode())[1]) for number in range(6)]
    items[4] = (b"s4", WrappedKey("vault", items[4][1].key, 1, items[3][1].wrapped))
    with pytest.raises(DamageError, match="snapshot 's4'"):
        site.provider("restore").open_data_keys(items)


def test_keys_of_another_service_or_provider_are_refused_by_name(site: Site) -> None:
    site.bootstrapped()
    site.bootstrapped("payments")
    _key, theirs = site.provider("backup", "payments").new_data_key(b"s")
    restore = site.provider("restore")
    with pytest.raises(KeyAccessError, match="wrapped under transit key 'payments-data', this service has orders-data"):
        restore.open_data_keys([(b"s", theirs)])
    with pytest.raises(DamageError):
        restore.open_data_keys([(b"s", WrappedKey("vault", "orders-data", 1, theirs.wrapped))])
    with pytest.raises(KeyAccessError, match="kept by provider 'file'"):
        restore.open_data_keys([(b"s", WrappedKey("file", "orders-data", 1, theirs.wrapped))])
    with pytest.raises(DamageError, match="wrong signing key"):
        restore.verify(b"m", site.provider("backup", "payments").sign(b"m"))


def test_rotation_keeps_old_keys_and_chunk_ids(site: Site) -> None:
    site.bootstrapped()
    backup = site.provider("backup")
    key, wrapped = backup.new_data_key(b"s")
    old_signature, index = backup.sign(b"m"), backup.index_key()
    early = site.provider("auditor")
    early.verify(b"m", old_signature)
    for kind in ("data", "index", "sign"):
        site.server.must("POST", f"{site.mount}/keys/orders-{kind}/rotate", {})
    later = site.provider("backup")
    new_key, new_wrapped = later.new_data_key(b"t")
    assert (wrapped.version, new_wrapped.version) == (1, 2)
    assert later.index_key() == index
    assert site.provider("restore").open_data_keys([(b"s", wrapped), (b"t", new_wrapped)]) == [key, new_key]
    new_signature = later.sign(b"m")
    assert new_signature["version"] == 2
    for each in (early, later):
        each.verify(b"m", old_signature)
        each.verify(b"m", new_signature)
    with pytest.raises(DamageError, match="wrong signing key"):
        early.verify(b"m", {**new_signature, "version": 9})


def test_rewrapped_key_opens_and_a_retired_version_is_named(site: Site) -> None:
    site.bootstrapped()
    key, wrapped = site.provider("backup").new_data_key(b"s")
    context = base64.b64encode(b"lifeboat/data-key/1\0s").decode()
    site.server.must("POST", f"{site.mount}/keys/orders-data/rotate", {})
    answer = site.server.must("POST", f"{site.mount}/rewrap/orders-data", {"batch_input": [{"ciphertext": wrapped.wrapped, "context": context}]})
    rewrapped = WrappedKey("vault", "orders-data", 2, answer["data"]["batch_results"][0]["ciphertext"])
    site.server.must("POST", f"{site.mount}/keys/orders-data/config", {"min_decryption_version": 2})
    restore = site.provider("restore")
    assert restore.open_data_keys([(b"s", rewrapped)]) == [key]
    with pytest.raises(KeyAccessError, match="orders-data version 1.*min_decryption_version"):
        restore.open_data_keys([(b"s", wrapped)])
    with pytest.raises(KeyAccessError, match="Vault has no orders-data version 7"):
        restore.open_data_keys([(b"s", WrappedKey("vault", "orders-data", 7, wrapped.wrapped.replace("v1", "v7")))])


def test_missing_keys_and_mounts_say_what_to_do(site: Site) -> None:
    backup = site.provider("backup")
    with pytest.raises(KeyAccessError, match="not found.*orders-data.*run bootstrap"):
        backup.new_data_key(b"s")
    root = site.config(site.server.root_token)
    with pytest.raises(KeyAccessError, match="nothing at this path.*keys.mount"):
        registry.provider_for({**root, "mount": "not-mounted-here"}, "orders").new_data_key(b"s")
    with pytest.raises(KeyAccessError, match="orders-sign is not usable: it is not there"):
        registry.provider_for(root, "orders").verify(b"m", {"algorithm": "ed25519", "key": "orders-sign", "version": 1, "value": B64})


@pytest.mark.parametrize("lost", ["index", "sign"])
def test_lost_key_of_an_established_service_is_not_made_anew(site: Site, lost: str) -> None:
    site.bootstrapped()
    site.server.must("POST", f"{site.mount}/keys/orders-{lost}/config", {"deletion_allowed": True})
    site.server.must("DELETE", f"{site.mount}/keys/orders-{lost}")
    with pytest.raises(KeyAccessError, match=f"the {lost} key of service orders is lost"):
        site.provider("bootstrap").ensure()
    assert site.transit("GET", f"keys/orders-{lost}")[0] == 404


def test_key_of_a_wrong_kind_is_refused(site: Site) -> None:
    site.server.must("POST", f"{site.mount}/keys/orders-data", {"type": "aes256-gcm96"})
    site.server.must("POST", f"{site.mount}/keys/orders-index", {"type": "aes256-gcm96"})
    site.server.must("POST", f"{site.mount}/keys/orders-sign", {"type": "ed25519"})
    with pytest.raises(KeyAccessError, match="orders-data is not usable: derived is False instead of True"):
        site.provider("bootstrap").ensure()


def test_kept_public_keys_verify_without_vault_and_unmask_a_replaced_key(site: Site, tmp_path: Path) -> None:
    site.bootstrapped()
    backup = site.provider("backup", path=str(tmp_path))
    assert backup.ensure()
    assert not backup.ensure()
    signature = backup.sign(b"m")
    offline = {"provider": "vault", "url": "http://127.0.0.1:9", "mount": site.mount, "token": "none", "retries": 0, "path": str(tmp_path)}
    registry.provider_for(offline, "orders").verify(b"m", signature)
    with pytest.raises(DamageError):
        registry.provider_for(offline, "orders").verify(b"n", signature)
    site.server.must("POST", f"{site.mount}/keys/orders-sign/config", {"deletion_allowed": True})
    site.server.must("DELETE", f"{site.mount}/keys/orders-sign")
    site.server.must("POST", f"{site.mount}/keys/orders-sign", {"type": "ed25519"})
    with pytest.raises(KeyAccessError, match="version 1 is not the one that is kept here"):
        site.provider("backup", path=str(tmp_path)).ensure()


# ---- tokens -------------------------------------------------------------------------------------------------------


def approle(site: Site, role: str, service: str = "orders", **settings: Any) -> dict[str, Any]:
    """keys options of a fresh AppRole with the generated policy of ``role``."""
    mount = site.server.mount("approle")
    name = site.server.policy(policies.policy(service, role, site.mount))
    site.server.must("POST", f"auth/{mount}/role/app", {"token_policies": [name], "token_no_default_policy": True, **settings})
    options = {"auth_method": "approle", "mount_point": mount, "role_id": site.server.must("GET", f"auth/{mount}/role/app/role-id")["data"]["role_id"]}
    if settings.get("bind_secret_id", True):
        options["secret_id"] = site.server.must("POST", f"auth/{mount}/role/app/secret-id", {})["data"]["secret_id"]
    config = site.config("", **options)
    del config["token"]
    return config


def test_approle_logs_in(site: Site) -> None:
    site.bootstrapped()
    config = approle(site, "backup", token_ttl="1h")
    assert len(registry.provider_for(config, "orders").new_data_key(b"s")[0]) == 32
    nested = {name: value for name, value in config.items() if name not in ("auth_method", "role_id", "secret_id", "mount_point")}
    nested["auth"] = {"method": "approle", **{name: config[name] for name in ("role_id", "secret_id", "mount_point")}}
    assert len(registry.provider_for(nested, "orders").index_key()) == 32


def credential(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def test_credentials_in_files_and_a_second_role_that_opens(site: Site, tmp_path: Path) -> None:
    """As a catalog has it: auth for what hosts do, restore_auth whose secret is only where a restore runs; names with a prefix."""
    prefix = "shop-"
    assert registry.provider_for({**site.config(site.server.root_token), "prefix": prefix}, "orders").ensure()
    blocks = {}
    for role in ("backup", "restore"):
        options = approle(site, role, service=prefix + "orders")
        blocks[role] = {
            "method": "approle", "mount_point": options["mount_point"], "role_id": options["role_id"],
            "secret_id_file": credential(tmp_path / role, options["secret_id"]),
        }
    config = {
        "provider": "vault", "url": site.server.url, "mount": site.mount, "prefix": prefix, "retries": 1, "namespace": None, "ca_file": site.server.ca_cert,
    }
    keys = registry.provider_for({**config, "auth": blocks["backup"], "restore_auth": blocks["restore"]}, "orders")
    key, wrapped = keys.new_data_key(b"s")
    assert wrapped.key == "shop-orders-data"
    assert keys.open_data_keys([(b"s", wrapped)]) == [key]
    signature, index = keys.sign(b"m"), keys.index_key()
    (tmp_path / "restore").rename(tmp_path / "elsewhere")
    host = registry.provider_for({**config, "auth": blocks["backup"], "restore_auth": blocks["restore"]}, "orders")
    host.new_data_key(b"t")
    with pytest.raises(KeyAccessError, match=f"cannot read the Vault credential.*{tmp_path}/restore"):
        host.open_data_keys([(b"s", wrapped)])
    (tmp_path / "elsewhere").rename(tmp_path / "restore")
    (tmp_path / "backup").unlink()
    rescue = registry.provider_for({**config, "auth": blocks["backup"], "restore_auth": blocks["restore"]}, "orders")
    assert rescue.open_data_keys([(b"s", wrapped)]) == [key]
    assert rescue.index_key() == index
    rescue.verify(b"m", signature)


def test_refused_login_names_the_role_and_not_the_secret(site: Site) -> None:
    config = approle(site, "backup")
    for changed in ({"secret_id": "canary-secret-id"}, {"role_id": "canary-role"}, {"secret_id": ""}):
        with pytest.raises(KeyAccessError) as caught:
            registry.provider_for({**config, **changed}, "orders").index_key()
        text = str(caught.value)
        assert "refused the login with status 4" in text and f"auth/{config['mount_point']}/login" in text
        assert "canary" not in text and config["secret_id"] not in text


def test_used_up_secret_id_does_not_stop_who_is_logged_in(site: Site) -> None:
    site.bootstrapped()
    config = approle(site, "backup", secret_id_num_uses=1, token_ttl="1h")
    keys = registry.provider_for(config, "orders")
    keys.index_key()
    keys.new_data_key(b"s")
    with pytest.raises(KeyAccessError, match="refused the login"):
        registry.provider_for(config, "orders").index_key()


def _ended(server: running.Server, token: str) -> None:
    deadline = time.monotonic() + 30
    while server.ask("GET", "auth/token/lookup-self", None, token)[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_expired_token_is_called_expired(site: Site) -> None:
    site.bootstrapped()
    token = site.token("backup", ttl="1s", renewable=False, explicit_max_ttl="1s")
    keys = registry.provider_for(site.config(token), "orders")
    _ended(site.server, token)
    with pytest.raises(KeyAccessError, match="expired, revoked or unknown.*datakey/plaintext/orders-data.*fresh token") as caught:
        keys.new_data_key(b"s")
    assert token not in str(caught.value)


def test_approle_outlives_its_tokens(site: Site) -> None:
    """Token life of one second: work that takes longer goes on."""
    site.bootstrapped()
    keys = registry.provider_for(approle(site, "backup", token_ttl="1s", token_max_ttl="1s"), "orders")
    end = time.monotonic() + 2.5
    count = 0
    while time.monotonic() < end:
        keys.new_data_key(f"s{count}".encode())
        count += 1
    assert count > 3


def test_revoked_token_of_an_approle_is_replaced(site: Site) -> None:
    site.bootstrapped()
    keys: Any = registry.provider_for(approle(site, "backup", token_ttl="1h"), "orders")
    keys.new_data_key(b"s")
    token = keys._session._login.token
    assert site.server.ask("POST", "auth/token/revoke", {"token": token})[0] == 204
    keys.new_data_key(b"t")
    assert keys._session._login.token != token


def test_token_file_is_read_again_when_its_token_ended(site: Site, tmp_path: Path) -> None:
    site.bootstrapped()
    sink = tmp_path / ".vault-token"
    first, second = site.token("backup"), site.token("backup")
    sink.write_text(first + "\n")
    sink.chmod(0o600)
    config = site.config("", token_path=str(tmp_path))
    del config["token"]
    keys = registry.provider_for(config, "orders")
    keys.new_data_key(b"s")
    site.server.must("POST", "auth/token/revoke", {"token": first})
    sink.write_text(second + "\n")
    keys.new_data_key(b"t")


def test_renewable_token_is_renewed_before_it_ends(site: Site) -> None:
    site.bootstrapped()
    keys = registry.provider_for(site.config(site.token("backup", ttl="2s")), "orders")
    end = time.monotonic() + 4
    count = 0
    while time.monotonic() < end:
        keys.new_data_key(b"s")
        count += 1
        time.sleep(0.1)
    assert count > 5


# ---- the seal -----------------------------------------------------------------------------------------------------


def test_sealed_vault_stops_a_backup_and_not_a_restore_that_has_its_keys(own_site: Site) -> None:
    own_site.bootstrapped()
    backup, restore = own_site.provider("backup"), own_site.provider("restore")
    key, wrapped = backup.new_data_key(b"s")
    signature = backup.sign(b"m")
    assert restore.open_data_keys([(b"s", wrapped)]) == [key]
    index = restore.index_key()
    restore.verify(b"m", signature)
    own_site.server.seal()
    with pytest.raises(KeyAccessError, match="Vault is sealed, asked 3 times.*unseal"):
        backup.new_data_key(b"t")
    assert restore.open_data_keys([(b"s", wrapped)]) == [key]
    assert restore.index_key() == index
    restore.verify(b"m", signature)
    own_site.server.unseal()
    backup.new_data_key(b"t")
