# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Vault that fails: throttled, electing, slow, cut off, lying about its name. Against the double, whose faults are ordered."""

from __future__ import annotations

import datetime
import ipaddress
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError, KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import registry
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site

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
    backup = double.provider("backup", timeout=0.2, retries=1)
    backup.index_key()
    double.server.faults(*[{"stall": 5, "path": "datakey"}] * 2)
    with pytest.raises(KeyAccessError, match="timed out, asked 2 times"):
        backup.new_data_key(b"s")


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


def test_hundreds_of_keys_open_in_one_call_and_only_once(double: Site) -> None:
    double.bootstrapped()
    backup, restore = double.provider("backup"), double.provider("restore")
    made = [(f"s{number}".encode(), *backup.new_data_key(f"s{number}".encode())) for number in range(400)]
    asked = [(context, wrapped) for context, _key, wrapped in made]
    for _again in range(2):
        assert restore.open_data_keys(asked + asked[:10]) == [key for _context, key, _wrapped in made + made[:10]]
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


def certificate(folder: Path, name: str, address: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None) -> tuple[Any, Any]:
    """A test certificate for an address (or a CA), written as <name>.pem and <name>.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer[0].subject if issuer else subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer[1] if issuer else key).public_key()), critical=False)
        .add_extension(x509.KeyUsage(True, False, False, False, False, issuer is None, issuer is None, False, False), critical=True)
    )
    if issuer:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
    made = builder.sign(issuer[1] if issuer else key, SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made, key


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_is_verified(tmp_path: Path) -> None:
    ca = certificate(tmp_path, "ca", "", None)
    certificate(tmp_path, "other-ca", "", None)
    certificate(tmp_path, "good", "127.0.0.1", ca)
    certificate(tmp_path, "elsewhere", "127.0.0.9", ca)
    tls = {name: (str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key"), str(tmp_path / "ca.pem")) for name in ("good", "elsewhere")}
    with running.start("double", tls["good"]) as server:
        site = Site(server, server.mount("transit"))
        site.bootstrapped()
        token = site.token("backup")
        assert len(registry.provider_for(site.config(token), "orders").index_key()) == 32
        for changed in ({"ca_cert": None}, {"ca_cert": str(tmp_path / "other-ca.pem")}):
            with pytest.raises(KeyAccessError, match="TLS certificate is not trusted.*keys.ca_file"):
                registry.provider_for({**site.config(token), **changed}, "orders").index_key()
        assert len(registry.provider_for(site.config(token, validate_certs=False), "orders").index_key()) == 32
    with running.start("double", tls["elsewhere"]) as server:
        config = {"provider": "vault", "url": server.url, "token": "t", "ca_cert": str(tmp_path / "ca.pem"), "retries": 0}
        with pytest.raises(KeyAccessError, match="does not fit"):
            registry.provider_for(config, "orders").index_key()


# ---- the double itself --------------------------------------------------------------------------------------------


def test_the_double_refuses_loudly_what_it_does_not_know() -> None:
    with pytest.raises(AssertionError, match="does not support"), running.start("double") as server:
        mount = server.mount("transit")
        for method, path, body in (
            ("POST", f"{mount}/random/32", {}),
            ("POST", f"{mount}/keys/a", {"type": "rsa-2048"}),
            ("POST", f"{mount}/keys/b", {"type": "aes256-gcm96", "auto_rotate_period": "1h"}),
            ("GET", "sys/leases", None),
        ):
            status, answer = server.ask(method, path, body)
            assert status == 501 and "not supported by the test double" in answer["errors"][0], (method, path)
        assert len(server.unsupported()) == 4
