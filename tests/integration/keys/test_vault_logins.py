# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way to log in, on every server that is at hand; and how a token is kept alive, replaced, and its end named."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import registry
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.keys import issuers
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.tls import Authority


def credential(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


# ---- methods ------------------------------------------------------------------------------------------------------


def test_approle_logs_in(site: Site) -> None:
    site.bootstrapped()
    config = site.approle("backup", token_ttl="1h")
    assert len(registry.provider_for(config, "orders").new_data_key(b"s")[0]) == 32
    nested = {name: value for name, value in config.items() if name not in ("auth_method", "role_id", "secret_id", "mount_point")}
    nested["auth"] = {"method": "approle", **{name: config[name] for name in ("role_id", "secret_id", "mount_point")}}
    assert len(registry.provider_for(nested, "orders").index_key()) == 32


def test_credentials_in_files_and_a_second_role_that_opens(site: Site, tmp_path: Path) -> None:
    """As a catalog has it: auth for what hosts do, restore_auth whose secret is only where a restore runs; names with a prefix."""
    prefix = "shop-"
    assert registry.provider_for({**site.config(site.server.root_token), "prefix": prefix}, "orders").ensure()
    blocks = {}
    for role in ("backup", "restore"):
        options = site.approle(role, service=prefix + "orders")
        blocks[role] = {
            "method": "approle", "mount_point": options["mount_point"], "role_id": options["role_id"],
            "secret_id_file": credential(tmp_path / role, options["secret_id"]),
        }
    config = {**site.anonymous(prefix=prefix, retries=1), "auth": blocks["backup"], "restore_auth": blocks["restore"]}
    keys = registry.provider_for(config, "orders")
    key, wrapped = keys.new_data_key(b"s")
    assert wrapped.key == "shop-orders-data"
    assert keys.open_data_keys([(b"s", wrapped)]) == [key]
    signature, index = keys.sign(b"m"), keys.index_key()
    (tmp_path / "restore").rename(tmp_path / "elsewhere")
    host = registry.provider_for(config, "orders")
    host.new_data_key(b"t")
    with pytest.raises(KeyAccessError, match=f"cannot read the Vault credential.*{tmp_path}/restore"):
        host.open_data_keys([(b"s", wrapped)])
    (tmp_path / "elsewhere").rename(tmp_path / "restore")
    (tmp_path / "backup").unlink()
    rescue = registry.provider_for(config, "orders")
    assert rescue.open_data_keys([(b"s", wrapped)]) == [key]
    assert rescue.index_key() == index
    rescue.verify(b"m", signature)


def test_jwt_logs_in_with_the_token_that_is_in_the_file_then(site: Site, tmp_path: Path) -> None:
    site.bootstrapped()
    issuer, mount = issuers.Issuer(), site.server.mount("jwt")
    site.server.must("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [issuer.public], "bound_issuer": "https://issuer.example.org"})
    settings = site.granted("backup", token_ttl="1h")
    site.server.must("POST", f"auth/{mount}/role/host", {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], **settings})
    path = tmp_path / "jwt"
    block = {"method": "jwt", "mount_point": mount, "role_id": "host", "jwt_file": credential(path, issuer.token("db1"))}
    keys: Any = registry.provider_for(site.anonymous(auth=block), "orders")
    key, _wrapped = keys.new_data_key(b"s")
    assert len(key) == 32
    for bad in (issuer.token("db1", audience="elsewhere"), issuer.token("db1", lives=-60), issuers.Issuer().token("db1"), "no token"):
        credential(path, bad)
        site.server.must("POST", "auth/token/revoke", {"token": keys._session._login.token})
        with pytest.raises(KeyAccessError) as caught:
            keys.new_data_key(b"t")
        assert "refused the login with status 4" in str(caught.value) and f"'update' on {site.mount}/datakey/plaintext/orders-data" in str(caught.value)
        assert "lifeboat-orders-backup" in str(caught.value) and bad not in str(caught.value)
        credential(path, issuer.token("db1"))
        keys.new_data_key(b"t")
    with pytest.raises(KeyAccessError, match="refused the login with status 4.*role_id, and the token's issuer"):
        registry.provider_for(site.anonymous(auth={**block, "role_id": "unknown"}), "orders").index_key()


def test_kubernetes_logs_in_as_its_service_account(own_site: Site, tmp_path: Path) -> None:
    own_site.bootstrapped()
    server, issuer, mount = own_site.server, issuers.Issuer(), own_site.server.mount("kubernetes")
    with issuers.cluster() as cluster:
        server.must("POST", f"auth/{mount}/config", {"kubernetes_host": cluster.url, "disable_local_ca_jwt": True})
        bound = {"bound_service_account_names": ["lifeboat"], "bound_service_account_namespaces": ["shop"], "audience": "vault"}
        server.must("POST", f"auth/{mount}/role/host", {**bound, **own_site.granted("backup", token_ttl="1h")})
        mine, another = issuer.account("lifeboat"), issuer.account("frontend")
        cluster.accounts = {mine: ("shop", "lifeboat", "b2b1-uid"), another: ("shop", "frontend", "b2b1-uid")}
        path = tmp_path / "token"
        block = {"method": "kubernetes", "mount_point": mount, "role_id": "host", "jwt_file": credential(path, mine)}
        path.chmod(0o644)  # as the kubelet writes it
        assert len(registry.provider_for(own_site.anonymous(auth=block), "orders").new_data_key(b"s")[0]) == 32
        for bad in (another, issuer.account("lifeboat", uid="replaced"), issuer.account("lifeboat", namespace="other")):
            path.write_text(bad)
            with pytest.raises(KeyAccessError, match="refused the login with status 403") as caught:
                registry.provider_for(own_site.anonymous(auth=block), "orders").new_data_key(b"s")
            assert bad not in str(caught.value)


def test_client_certificate_logs_in(tls_site: Site, authority: Authority, tmp_path: Path) -> None:
    tls_site.bootstrapped()
    mount = tls_site.server.mount("cert")
    trusted = {"certificate": Path(authority.ca_file).read_text(), "allowed_common_names": ["db1.example.org"]}
    tls_site.server.must("POST", f"auth/{mount}/certs/host", {**trusted, **tls_site.granted("backup", token_ttl="1h")})

    def block(files: tuple[str, str], **more: Any) -> dict[str, Any]:
        return {"method": "cert", "mount_point": mount, "cert_auth_public_key": files[0], "cert_auth_private_key": files[1], **more}

    mine, another = authority.issue("127.0.0.1", "db1.example.org"), authority.issue("127.0.0.1", "db2.example.org")
    for more in ({}, {"role_id": "host"}):
        assert len(registry.provider_for(tls_site.anonymous(auth=block(mine, **more)), "orders").new_data_key(b"s")[0]) == 32
    with pytest.raises(KeyAccessError, match="refused the login with status 400.*client certificate's issuer, names and end"):
        registry.provider_for(tls_site.anonymous(auth=block(another)), "orders").index_key()
    # a certificate that is renewed while the work goes on
    keys: Any = registry.provider_for(tls_site.anonymous(auth=block(mine)), "orders")
    keys.index_key()
    for old, new in zip(mine, another):
        Path(new).replace(old)
    tls_site.server.must("POST", "auth/token/revoke", {"token": keys._session._login.token})
    with pytest.raises(KeyAccessError, match="refused the login with status 400"):
        keys.new_data_key(b"s")
    authority.issue("127.0.0.1", "db1.example.org")
    keys.new_data_key(b"s")


def test_namespaces_are_kept_apart(site: Site) -> None:
    """Where the server has them (Vault Enterprise, OpenBao, the double); Vault's community edition says that it does not."""
    inside = site.server.inside()
    if inside is None:
        assert "namespace" not in site.config("t")
        return
    team = Site(inside, inside.mount("transit"))
    team.bootstrapped()
    assert team.config("t")["namespace"] == inside.namespace != site.server.namespace
    keys = registry.provider_for(team.approle("backup"), "orders")
    assert len(keys.new_data_key(b"s")[0]) == 32
    outside = {**team.config(site.server.root_token), "namespace": site.server.namespace or None}
    with pytest.raises(KeyAccessError, match="nothing at this path.*namespace"):
        registry.provider_for(outside, "orders").new_data_key(b"s")
    inside.clean()


def test_refused_login_names_the_role_and_not_the_secret(site: Site) -> None:
    config = site.approle("backup")
    for changed in ({"secret_id": "canary-secret-id"}, {"role_id": "canary-role"}, {"secret_id": ""}):
        with pytest.raises(KeyAccessError) as caught:
            registry.provider_for({**config, **changed}, "orders").index_key()
        text = str(caught.value)
        assert "refused the login with status 4" in text and f"auth/{config['mount_point']}/login" in text
        assert f"needed: 'update' on {site.mount}/hmac/orders-index" in text
        assert "canary" not in text and config["secret_id"] not in text


def test_used_up_secret_id_does_not_stop_who_is_logged_in(site: Site) -> None:
    site.bootstrapped()
    config = site.approle("backup", secret_id_num_uses=1, token_ttl="1h")
    keys = registry.provider_for(config, "orders")
    keys.index_key()
    keys.new_data_key(b"s")
    with pytest.raises(KeyAccessError, match="refused the login"):
        registry.provider_for(config, "orders").index_key()


# ---- the life of a token ------------------------------------------------------------------------------------------


def _ended(server: running.Server, token: str) -> None:
    deadline = time.monotonic() + 120
    while server.ask("GET", "auth/token/lookup-self", None, token)[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _left(server: running.Server, token: str) -> int:
    """Seconds that a token has still to live."""
    return int(server.ask("GET", "auth/token/lookup-self", None, token)[1]["data"]["ttl"])


def test_expired_token_is_called_expired(site: Site) -> None:
    site.bootstrapped()
    token = site.token("backup", ttl="1s", renewable=False, explicit_max_ttl="1s")
    keys = registry.provider_for(site.config(token), "orders")
    _ended(site.server, token)
    with pytest.raises(KeyAccessError, match="expired, revoked or unknown.*datakey/plaintext/orders-data.*fresh token.*lifeboat-orders-backup") as caught:
        keys.new_data_key(b"s")
    assert token not in str(caught.value)


def test_token_that_may_not_look_itself_up_is_not_called_ended(site: Site) -> None:
    site.bootstrapped()
    bare = site.server.token(f'path "{site.mount}/hmac/orders-index/sha2-256" {{ capabilities = ["update"] }}')
    keys = registry.provider_for(site.config(bare), "orders")
    assert len(keys.index_key()) == 32
    with pytest.raises(KeyAccessError, match=f"has ended or lacks 'update' on {site.mount}/sign/orders-sign .*lookup-self.*lifeboat-orders-backup"):
        keys.sign(b"m")


def test_approle_outlives_its_tokens(site: Site) -> None:
    """Token life of one second: work that takes longer goes on."""
    site.bootstrapped()
    keys = registry.provider_for(site.approle("backup", token_ttl="1s", token_max_ttl="1s"), "orders")
    end = time.monotonic() + 2.5
    count = 0
    while time.monotonic() < end:
        keys.new_data_key(f"s{count}".encode())
        count += 1
    assert count > 3


def test_revoked_token_of_an_approle_is_replaced(site: Site) -> None:
    site.bootstrapped()
    keys: Any = registry.provider_for(site.approle("backup", token_ttl="1h"), "orders")
    keys.new_data_key(b"s")
    token = keys._session._login.token
    assert site.server.ask("POST", "auth/token/revoke", {"token": token})[0] == 204
    keys.new_data_key(b"t")
    assert keys._session._login.token != token


def test_token_file_is_read_again_when_its_token_ended(site: Site, tmp_path: Path) -> None:
    site.bootstrapped()
    first, second = site.token("backup"), site.token("backup")
    credential(tmp_path / ".vault-token", first)
    keys = registry.provider_for(site.anonymous(token_path=str(tmp_path)), "orders")
    keys.new_data_key(b"s")
    site.server.must("POST", "auth/token/revoke", {"token": first})
    credential(tmp_path / ".vault-token", second)
    keys.new_data_key(b"t")


def keepers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "lifeboat-vault-token"]


def test_token_is_kept_alive_while_the_work_asks_nothing_and_no_longer(site: Site) -> None:
    site.bootstrapped()
    gc.collect()
    before = keepers()
    token = site.token("backup", ttl="12s")
    keys = registry.provider_for(site.config(token), "orders")
    keys.index_key()
    (keeper,) = [each for each in keepers() if each not in before]
    assert keeper.daemon
    left = [_left(site.server, token)]

    def renewed() -> bool:
        left.append(_left(site.server, token))
        return left[-1] > left[-2]

    processes.wait_for(renewed, "a renewal that nobody asked for")
    keys.new_data_key(b"s")
    del keys
    gc.collect()
    keeper.join(timeout=60)
    assert not keeper.is_alive()
    _ended(site.server, token)
