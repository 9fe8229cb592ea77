# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS to the stores: every way to a server takes it, an untrusted server is refused, and nothing falls back to plain text."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.log.receiver import Receiver
from ansible_collections.lifeboat.recovery.plugins.module_utils.log.server import LogServer
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import postgresql_client, redis_client
from ansible_collections.lifeboat.recovery.tests.lab import postgres, processes, tls
from ansible_collections.lifeboat.recovery.tests.lab.bench import Bench
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres
from ansible_collections.lifeboat.recovery.tests.lab.redis_server import RedisServer

#: An address that no certificate of a server here is for.
ELSEWHERE = "127.0.0.9"


class Certificates:
    """Two authorities; the first one issued all certificates."""

    def __init__(self, home: str) -> None:
        for name in ("ours", "theirs"):
            os.mkdir(f"{home}/{name}")
        self.ours, self.theirs = tls.Authority(f"{home}/ours"), tls.Authority(f"{home}/theirs", "somebody else's CA")
        self.server = self.ours.issue("127.0.0.1", "server")
        self.client = self.ours.issue("127.0.0.1", postgres.SUPERUSER)

    def give(self, folder: str) -> str:
        """The server's files in a directory, owned by the user that servers run as; the directory."""
        os.mkdir(folder)
        for path, name in zip((*self.server, self.ours.ca_file), ("cert.pem", "key.pem", "ca.pem")):
            shutil.copy(path, f"{folder}/{name}")
        for path in (folder, *(f"{folder}/{name}" for name in os.listdir(folder))):
            os.chmod(path, 0o700 if path == folder else 0o600)
            if (who := processes.account()) is not None:
                os.chown(path, *who)
        return folder


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(str(tmp_path_factory.mktemp("certificates")))


@pytest.fixture(scope="module")
def cluster(certificates: Certificates) -> Iterator[Postgres]:
    """A server that takes TLS only, for replication too; a client's certificate does instead of a password in one database."""
    server = Postgres().init()
    folder = certificates.give(f"{server.home}/tls")
    with open(f"{server.data}/postgresql.conf", "a", encoding="utf-8") as handle:
        handle.write(f"listen_addresses = '127.0.0.1,{ELSEWHERE}'\nssl = on\n"
                     f"ssl_cert_file = '{folder}/cert.pem'\nssl_key_file = '{folder}/key.pem'\nssl_ca_file = '{folder}/ca.pem'\n")
    with open(f"{server.data}/pg_hba.conf", "w", encoding="utf-8") as handle:
        handle.write("local all all trust\nhostssl template1 all all cert\nhostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n")
    try:
        server.start()
        connection = server.connect()
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE shop")
        connection.close()
        yield server
    finally:
        server.destroy()


def _config(cluster: Postgres, **options: Any) -> dict[str, Any]:
    return {"type": "postgresql_database", "database": "shop", "port": cluster.port, "password_file": cluster.password_file, **options}


def _refused(attempt: Any, *words: str) -> None:
    with pytest.raises(LifeboatError) as caught:
        attempt()
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), str(caught.value)
    assert not isinstance(caught.value, (postgresql_client.ServerDown, redis_client.ServerDown)), "a server that nobody may trust is not one to be started"


def _receiver_says(cluster: Postgres, client: postgresql_client.Client, folder: Path) -> str:
    """What pg_receivewal says when it cannot connect; nothing where it receives and the server sees TLS."""
    (folder / "wal").mkdir(parents=True)
    receiver = Receiver(str(folder), str(folder / "wal"))
    receiver.start(f"{cluster.bin}/pg_receivewal", client, "lifeboat_tls")
    seen = "SELECT s.ssl FROM pg_stat_ssl AS s JOIN pg_replication_slots AS r ON r.active_pid = s.pid WHERE r.slot_name = 'lifeboat_tls'"
    try:
        processes.wait_for(lambda: receiver.ended() is not None or cluster.sql(seen) == [(True,)], "the receiver")
        return "" if receiver.running else receiver.message()
    finally:
        receiver.stop()


def test_every_way_to_postgresql_takes_tls_and_verifies_it(cluster: Postgres, certificates: Certificates, tmp_path: Path) -> None:
    trusted = {"sslrootcert": certificates.ours.ca_file}
    bench = Bench(_config(cluster, **trusted), tmp_path)
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    bench.source.discard(bench.context, record)

    client = postgresql_client.Client(_config(cluster, **trusted), "shop.db")
    log = LogServer(client, "lifeboat_tls")
    try:
        assert log.identify().version // 10000 == cluster.major
        log.make_slot()
        assert _receiver_says(cluster, client, tmp_path / "trusted") == ""
        wrong = {
            "certificate verify failed": {"sslrootcert": certificates.theirs.ca_file},
            "does not match host name": {**trusted, "address": ELSEWHERE},
            "does not exist": {"sslrootcert": str(tmp_path / "none")},
        }
        for words, options in wrong.items():
            other = postgresql_client.Client(_config(cluster, **options), "shop.db")
            _refused(lambda other=other: other.connect("shop"), "TLS does not secure the connection", words, f"{other.address}:{cluster.port}")
            _refused(LogServer(other, "lifeboat_tls").identify, "TLS does not secure the connection", words)
            assert words in _receiver_says(cluster, other, tmp_path / words)
            done = subprocess.run([f"{cluster.bin}/pg_dump"], env=other.environment("shop"), capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode and words in done.stderr
    finally:
        log.drop_slot()
        log.close()


def _switch_tls(cluster: Postgres, state: str) -> None:
    """By the socket, where the server trusts."""
    by_socket = postgresql_client.Client({"database": "postgres", "socket": cluster.home, "port": cluster.port}, "the test")
    connection = by_socket.connect("postgres")
    try:
        by_socket.rows(connection, f"ALTER SYSTEM SET ssl = {state}")
        by_socket.rows(connection, "SELECT pg_reload_conf()")
        processes.wait_for(lambda: by_socket.rows(connection, "SHOW ssl") == [(state,)], f"TLS to be {state}")
    finally:
        connection.close()


def test_postgresql_without_tls_gets_nothing(cluster: Postgres, certificates: Certificates) -> None:
    client = postgresql_client.Client(_config(cluster, sslrootcert=certificates.ours.ca_file), "shop.db")
    _switch_tls(cluster, "off")
    try:
        _refused(lambda: client.connect("shop"), "TLS does not secure the connection", "does not support SSL", "ssl = on")
    finally:
        _switch_tls(cluster, "on")
    client.connect("shop").close()


def test_a_client_certificate_instead_of_a_password(cluster: Postgres, certificates: Certificates) -> None:
    certificate, key = certificates.client
    files = {"sslrootcert": certificates.ours.ca_file, "sslcert": certificate, "sslkey": key, "password_file": None}
    postgresql_client.Client(_config(cluster, **files), "shop.db").connect("template1").close()
    _refused(lambda: postgresql_client.Client(_config(cluster, **{**files, "sslcert": None, "sslkey": None}), "shop.db").connect("template1"),
             "valid client certificate", "set sslcert and sslkey")
    _refused(lambda: postgresql_client.Client(_config(cluster, **{**files, "sslkey": certificates.server[1]}), "shop.db").connect("template1"), "sslkey")


@pytest.mark.parametrize("options, mode", [
    ({}, "prefer"), ({"address": "localhost"}, "prefer"), ({"socket": "/run/postgresql"}, "prefer"), ({"address": "::1", "sslcert": "/c"}, "verify-full"),
    ({"address": "db.example.org"}, "verify-full"), ({"address": "10.1.2.3", "sslmode": "disable"}, "disable"), ({"sslmode": "verify-ca"}, "verify-ca"),
])
def test_what_is_not_on_this_host_is_verified_unless_told_otherwise(options: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGSSLROOTCERT", "/nobody")
    client = postgresql_client.Client({"database": "shop", **options}, "shop.db")
    environment = client.environment("shop")
    assert environment["PGSSLMODE"] == mode == client.way("shop")["sslmode"]
    assert "PGSSLROOTCERT" not in environment and environment.get("PGGSSENCMODE") == (None if mode == "prefer" else "disable")
    redis = redis_client.Client({"address": options.get("address"), "socket": options.get("socket")}, "shop.cache")
    assert redis.tls == (options.get("address") in ("db.example.org", "10.1.2.3"))


@pytest.fixture(scope="module")
def cache(certificates: Certificates) -> Iterator[tuple[RedisServer, int]]:
    """A server that asks for a client's certificate on a TLS port, and takes plain text on another."""
    server, port = RedisServer().init(), processes.free_port()
    folder = certificates.give(f"{server.home}/tls")
    with open(server.conf, "a", encoding="utf-8") as handle:
        handle.write(f"bind 127.0.0.1 {ELSEWHERE}\ntls-port {port}\ntls-cert-file {folder}/cert.pem\ntls-key-file {folder}/key.pem\n"
                     f"tls-ca-cert-file {folder}/ca.pem\ntls-auth-clients yes\n")
    try:
        yield server.start(), port
    finally:
        server.destroy()


def test_redis_over_tls(cache: tuple[RedisServer, int], certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "_CONNECT", 1)  # a server of plain text waits for the end of what it takes for a command
    server, port = cache
    files = {"ca_file": certificates.ours.ca_file, "cert_file": certificates.client[0], "key_file": certificates.client[1]}
    config = {"type": "redis", "port": port, "password_file": server.password_file, **files}
    with server.client() as client:
        client.set("key", "value")
    bench = Bench(config, tmp_path)
    reader, _writer = bench.capture()
    assert bench.live_equals(reader)

    def open_with(**options: Any) -> None:
        redis_client.Client({**config, **options}, "shop.cache").open().close()

    open_with(address="localhost")
    _refused(lambda: open_with(ca_file=certificates.theirs.ca_file), "TLS does not secure the connection", "self-signed certificate", "ca_file")
    _refused(lambda: open_with(address=ELSEWHERE), "TLS does not secure the connection", "IP address mismatch", ELSEWHERE)
    _refused(lambda: open_with(ca_file=None), "TLS does not secure the connection", "self-signed certificate")
    _refused(lambda: open_with(cert_file=None, key_file=None), "TLS does not secure the connection", "give cert_file and key_file")
    _refused(lambda: open_with(port=server.port), "TLS does not secure the connection", "tls-port")
    _refused(lambda: open_with(key_file=certificates.server[1]), "a file for TLS cannot be used", "key")
    with pytest.raises(ConfigError, match="tls is false, but files for it are given"):
        open_with(tls=False)
    with pytest.raises(redis_client.ServerDown, match="tls"):
        open_with(tls=False, ca_file=None, cert_file=None, key_file=None)
