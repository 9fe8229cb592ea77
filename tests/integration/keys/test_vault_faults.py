# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Vault that fails: throttled, electing, slow, cut off, lying about its name. Against the double, whose faults are ordered."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError, KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import registry, vault_wire
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.datakeys import create_key, open_keys
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site
from ansible_collections.lifeboat.recovery.tests.lab.tls import Authority

FAULTS: list[dict[str, Any]] = [
    {"status": 503, "errors": ["Vault is sealed"]},
    {"status": 500, "errors": ["local node not active but active cluster node not found"]},
    {"status": 429, "errors": ["request path \"transit/\": rate limit quota exceeded"]},
    {"status": 412, "errors": ["required index state not present"]},
    {"status": 502}, {"status": 504}, {"drop": True}, {"truncate": True},
]


def calls(site: Site, part: str) -> list[int]:
    return [status for _method, path, status in site.server.seen() if part in path]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.get("status") or next(iter(fault))))
def test_passing_fault_is_survived_and_a_lasting_one_is_bounded(double: Site, fault: dict[str, Any]) -> None:
    double.bootstrapped()
    backup, restore = double.provider("backup"), double.provider("restore")
    key, wrapped = backup.new_data_key(b"s")
    restore.index_key()
    here = {**fault, "path": "orders-"}
    double.server.faults(here, here)
    assert len(backup.new_data_key(b"t")[0]) == 32
    double.server.faults(here, here)
    assert restore.open_data_keys([(b"s", wrapped)]) == [key]
    double.server.faults(here, here)
    backup.verify(b"m", backup.sign(b"m"))
    before = len(calls(double, "datakey"))
    double.server.faults(*[here] * 10)
    with pytest.raises(KeyAccessError, match="asked 3 times.*nothing was changed") as caught:
        backup.new_data_key(b"u")
    assert len(calls(double, "datakey")) - before == 3
    assert "\n" not in str(caught.value)


def test_slow_server_is_given_up_after_the_timeout(double: Site) -> None:
    double.bootstrapped()
    backup = double.provider("backup", timeout=5, retries=1)
    backup.index_key()
    double.server.faults(*[{"stall": 60, "path": "datakey"}] * 2)
    with pytest.raises(KeyAccessError, match="timed out, asked 2 times"):
        backup.new_data_key(b"s")


def test_server_that_asks_for_patience_gets_it(double: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    double.bootstrapped()
    backup = double.provider("backup")
    backup.index_key()
    pauses: list[float] = []
    monkeypatch.setattr(vault_wire.time, "sleep", pauses.append)
    for wish, least in (("3", 3), ("86400", 30), ("soon", 0)):
        double.server.faults({"status": 429, "errors": ["rate limit quota exceeded"], "headers": {"Retry-After": wish}, "path": "datakey"})
        backup.new_data_key(b"s")
        assert least < pauses.pop() < least + 1
        assert pauses == []


def test_standby_sends_to_the_active_node_and_nowhere_else(double: Site) -> None:
    double.bootstrapped()
    backup = double.provider("backup")
    path = f"/v1/{double.mount}/datakey/plaintext/orders-data"

    def sent_to(place: str, times: int = 1) -> None:
        double.server.faults(*[{"status": 307, "headers": {"Location": place}, "path": "datakey"}] * times)

    sent_to(double.server.url + path, 2)
    assert len(backup.new_data_key(b"s")[0]) == 32
    for place, times in ((double.server.url + path, 3), (double.server.url + "/v1/elsewhere", 1), ("http://vault.example.org:8200" + path, 1), ("", 1)):
        sent_to(place, times)
        with pytest.raises(KeyAccessError, match="sends the request elsewhere.*active node"):
            backup.new_data_key(b"s")


def test_proxy_that_is_named_is_used(double: Site) -> None:
    double.bootstrapped()
    config = double.config(double.token("backup"), retries=0)
    assert len(registry.provider_for(config, "orders").index_key()) == 32
    for proxies in ("http://127.0.0.1:9", {"http": "http://127.0.0.1:9"}):
        with pytest.raises(KeyAccessError, match="cannot be reached"):
            registry.provider_for({**config, "proxies": proxies}, "orders").index_key()


def test_unreachable_server_is_named() -> None:
    config = {"provider": "vault", "url": "http://127.0.0.1:9", "token": "canary-token", "retries": 1}
    with pytest.raises(KeyAccessError, match="Vault cannot be reached, asked 2 times: http://127.0.0.1:9/v1/") as caught:
        registry.provider_for(config, "orders").index_key()
    assert "canary" not in str(caught.value)


def test_refusals_are_not_repeated(double: Site) -> None:
    double.bootstrapped()
    _key, wrapped = double.provider("backup").new_data_key(b"s")
    before = len(calls(double, "decrypt"))
    with pytest.raises(DamageError):
        double.provider("restore").open_data_keys([(b"t", wrapped)])
    assert len(calls(double, "decrypt")) - before == 1
    with pytest.raises(KeyAccessError):
        double.provider("backup").open_data_keys([(b"s", wrapped)])
    assert len(calls(double, "decrypt")) - before == 2


def test_chain_of_hundreds_opens_in_one_call_and_only_once(double: Site, tmp_path: Path) -> None:
    double.bootstrapped()
    backup, restore = double.provider("backup"), double.provider("restore")
    repository, _made = Repository.create({"url": f"file://{tmp_path}/repository"})
    assert repository is not None
    chain = [f"key-{number:04d}" for number in range(300)]
    made = {name: create_key(repository.backend, "orders", repository.id, backup, name) for name in chain}
    for wanted in (chain, chain + chain[:10]):
        assert open_keys(repository.backend, "orders", repository.id, restore, wanted, "orders.db-000300") == made
    assert calls(double, "decrypt") == [200]


def test_outage_in_the_middle_keeps_what_was_opened(double: Site) -> None:
    double.bootstrapped()
    backup, restore = double.provider("backup"), double.provider("restore")
    first, second = (backup.new_data_key(context) for context in (b"s", b"t"))
    assert restore.open_data_keys([(b"s", first[1])]) == [first[0]]
    double.server.state("standby")
    assert restore.open_data_keys([(b"s", first[1])]) == [first[0]]
    with pytest.raises(KeyAccessError, match="local node not active"):
        restore.open_data_keys([(b"s", first[1]), (b"t", second[1])])
    double.server.state("active")
    assert restore.open_data_keys([(b"s", first[1]), (b"t", second[1])]) == [first[0], second[0]]


def test_answers_of_something_else_are_refused(double: Site) -> None:
    """A proxy's error page or a foreign server is not taken for keys."""
    double.bootstrapped()
    backup = double.provider("backup")
    backup.index_key()
    asked: list[tuple[Callable[[], object], str]] = [(lambda: backup.new_data_key(b"s"), "datakey"), (lambda: backup.sign(b"m"), "sign/")]
    for use, part in asked:
        double.server.faults({"status": 200, "path": part})
        with pytest.raises(KeyAccessError, match="holds no (data key|signature)"):
            use()


def test_many_threads_share_one_provider(double: Site) -> None:
    double.bootstrapped()
    keys = double.provider("backup", retries=0)
    made: list[bytes] = []

    def work() -> None:
        for number in range(10):
            made.append(keys.new_data_key(f"s{number}".encode())[0])

    threads = [threading.Thread(target=work) for _number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=60)
    assert len(set(made)) == 60


def test_renewal_that_fails_does_not_stop_the_work(double: Site) -> None:
    double.bootstrapped()
    token = double.token("backup", ttl="1h")
    keys: Any = registry.provider_for(double.config(token), "orders")
    keys.new_data_key(b"s")
    keys._session._fresh_until = 1e-9
    double.server.faults(*[{"status": 500, "path": "renew-self"}] * 3)
    keys.new_data_key(b"t")
    assert calls(double, "renew-self") == [500, 500, 500]


# ---- TLS ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_is_verified(authority: Authority, tmp_path: Path) -> None:
    other = Authority(str(tmp_path))
    with running.start("double", running.Tls(*authority.issue("127.0.0.1"), authority.ca_file)) as server:
        site = Site(server, server.mount("transit"))
        site.bootstrapped()
        token = site.token("backup")
        assert len(registry.provider_for(site.config(token), "orders").index_key()) == 32
        for changed in ({"ca_cert": None}, {"ca_cert": other.ca_file}):
            with pytest.raises(KeyAccessError, match="TLS certificate is not trusted.*keys.ca_file"):
                registry.provider_for({**site.config(token), **changed}, "orders").index_key()
        assert len(registry.provider_for(site.config(token, validate_certs=False), "orders").index_key()) == 32
    # a name that resolves to the server and does not stand in its certificate
    with running.start("double", running.Tls(*authority.issue("127.0.0.9", "elsewhere"), authority.ca_file)) as server:
        config = {"provider": "vault", "url": server.url, "token": "t", "ca_cert": authority.ca_file, "retries": 0}
        with pytest.raises(KeyAccessError, match="does not fit"):
            registry.provider_for(config, "orders").index_key()


def test_server_that_asks_for_a_client_certificate(authority: Authority, tmp_path: Path) -> None:
    """Mutual TLS goes with every login, here with a token; a refused certificate is no broken connection."""
    public, private = authority.issue("127.0.0.1", "host.example.org")
    with running.start("double", running.Tls(*authority.issue("127.0.0.1"), authority.ca_file, authority.ca_file, ask=True)) as server:
        server.client = authority.issue("127.0.0.1", "test.example.org")
        site = Site(server, server.mount("transit"))
        shown = {"cert_auth_public_key": public, "cert_auth_private_key": private}
        assert registry.provider_for(site.config(server.root_token, **shown), "orders").ensure()
        restore = {"restore_auth": {"method": "token", "token": site.token("restore")}}
        keys = registry.provider_for({**site.config(site.token("backup"), **shown), **restore}, "orders")
        key, wrapped = keys.new_data_key(b"s")
        assert keys.open_data_keys([(b"s", wrapped)]) == [key]
        with pytest.raises(KeyAccessError, match="cert_auth_public_key"):
            registry.provider_for(site.config(server.root_token), "orders").index_key()
        foreign = dict(zip(shown, Authority(str(tmp_path)).issue("127.0.0.1", "host.example.org")))
        with pytest.raises(KeyAccessError, match="or the client's, is not accepted"):
            registry.provider_for(site.config(server.root_token, **foreign), "orders").index_key()
        Path(private).chmod(0o644)
        with pytest.raises(KeyAccessError, match=f"may be read by everybody.*{private}"):
            registry.provider_for(site.config(server.root_token, **shown), "orders").index_key()
        Path(private).unlink()
        with pytest.raises(KeyAccessError, match=f"cannot read the client certificate for Vault.*{private}"):
            registry.provider_for(site.config(server.root_token, **shown), "orders").index_key()


# ---- the double itself --------------------------------------------------------------------------------------------


def test_the_double_refuses_loudly_what_it_does_not_know() -> None:
    with pytest.raises(AssertionError, match="does not support"), running.start("double") as server:
        mount, approle = server.mount("transit"), server.mount("approle")
        asked: list[tuple[str, str, Any]] = [
            ("POST", f"{mount}/random/32", {}),
            ("POST", f"{mount}/keys/a", {"type": "rsa-2048"}),
            ("POST", f"{mount}/keys/b", {"type": "aes256-gcm96", "auto_rotate_period": "1h"}),
            ("GET", "sys/leases", None),
            ("GET", "secret/data/orders", None),
            ("POST", "identity/entity", {}),
            ("POST", "sys/mounts/kv", {"type": "kv"}),
            ("POST", "sys/auth/people", {"type": "userpass"}),
            ("POST", f"auth/{approle}/role/a", {"token_bound_cidrs": ["127.0.0.1/32"]}),
            ("POST", f"auth/{approle}/tidy/secret-id", {}),
            ("GET", "auth/token/accessors", None),
            ("PATCH", "sys/policies/acl/a", {}),
        ]
        for method, path, body in asked:
            status, answer = server.ask(method, path, body)
            assert status == 501 and "not supported by the test double" in answer["errors"][0], (method, path)
        assert len(server.unsupported()) == len(asked)


def test_the_double_answers_as_vault_does_where_nothing_is(double: Site) -> None:
    """Bodies that clients tell apart: https://developer.hashicorp.com/vault/api-docs#error-response."""
    ask, denied = double.server.ask, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
    assert double.transit("GET", "keys/absent") == (404, {"errors": []})
    assert ask("GET", "elsewhere/keys/a") == (404, {"errors": ['no handler for route "elsewhere/keys/a". route entry not found.']})
    assert ask("POST", "auth/elsewhere/login", {"role_id": "r"}, token="") == (403, {"errors": ["permission denied"]})
    assert ask("GET", f"{double.mount}/keys/a", token=double.token("auditor")) == (403, denied)
    assert ask("GET", f"{double.mount}/keys/a", token="hvs.gone") == (403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]})
    double.bootstrapped()
    assert "missing 'context' for key derivation" in double.transit("POST", "datakey/plaintext/orders-data", {})[1]["errors"][0]
    good = double.transit("POST", "datakey/plaintext/orders-data", {"context": "YQ=="})[1]["data"]["ciphertext"]
    batch = {"batch_input": [{"ciphertext": good, "context": "YQ=="}, {"ciphertext": good, "context": "Yg=="}]}
    for more, wanted in (({}, 400), ({"partial_failure_response_code": 207}, 207)):
        status, answer = double.transit("POST", "decrypt/orders-data", {**batch, **more})
        assert status == wanted and "errors" not in answer
        assert [sorted(each) for each in answer["data"]["batch_results"]] == [["plaintext", "reference"], ["error", "reference"]]
    assert double.transit("POST", "keys/orders-data", {"type": "aes256-gcm96"})[1]["warnings"] == ["key orders-data already existed"]
    for state, status in (("standby", 429), ("dr-secondary", 472), ("performance-standby", 473), ("uninitialized", 501), ("sealed", 503), ("active", 200)):
        double.server.state(state)
        assert ask("GET", "sys/health")[0] == status
