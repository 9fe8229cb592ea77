# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at this host: real processes, real connections, a real PostgreSQL and Redis."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.discovery import sockets, units
from ansible_collections.lifeboat.recovery.plugins.module_utils.discovery.look import look
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import discovery
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour
from ansible_collections.lifeboat.recovery.tests.lab.postgres import SUPERUSER, Postgres
from ansible_collections.lifeboat.recovery.tests.lab.redis_server import RedisServer
from ansible_collections.lifeboat.recovery.tests.lab.talker import talking

ID = "0123456789abcdef" * 4


def words(**more: Any) -> dict[str, Any]:
    return {"units": [], "paths": [], "ports": [], "databases": {}, **more}


def test_a_listener_is_known_by_its_port_and_a_client_by_where_it_works(tmp_path: Path) -> None:
    with Harbour({"quay": []}) as harbour, talking(harbour.ports["quay"], tmp_path) as port:
        quay = words(ports=[["localhost", harbour.ports["quay"]]])
        told = look({"quay": quay, "crane": words(paths=[str(tmp_path)]), "inn": words(ports=[["127.0.0.1", 1]])})
    listener = next(one for one in told["listening"] if one["port"] == harbour.ports["quay"])
    assert (listener["services"], listener["by"], listener["space"]) == (["quay"], "port", told["own_space"])
    (connection,) = (one for one in told["connections"] if one["services"] == ["crane"])
    assert (connection["remote"], connection["remote_port"], connection["local"]) == ("127.0.0.1", harbour.ports["quay"], [["127.0.0.1", port]])
    assert connection["by"] == "data directory"
    assert told["running"] == told["visible"] == ["crane", "quay"]


@contextlib.contextmanager
def psql(server: Postgres, database: str, host: str, folder: Path) -> Iterator[None]:
    """A client that is connected and works in ``folder``."""
    passwords = folder / "pgpass"
    passwords.write_text(f"*:*:*:*:{server.password}\n")
    passwords.chmod(0o600)
    argv = [f"{server.bin}/psql", "-XAtq", "-h", host, "-p", str(server.port), "-U", SUPERUSER, "-d", database]
    with subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PGPASSFILE": str(passwords)}) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(b"select 'connected';\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"connected\n"
            yield
        finally:
            process.stdin.close()
            process.wait(60)


def test_a_server_that_two_services_share_tells_whose_clients_it_has(tmp_path: Path) -> None:
    entries = {name: {"host": "h", "requires": [], "sources": {}} for name in ("bills", "orders", "crane", "inn")}
    server = Postgres().init(copied=True)
    try:
        server.start()
        for name in ("bills", "orders"):
            server.sql(f"create database {name}")
            entries[name]["sources"] = {"db": {
                "type": "postgresql_database", "database": name, "port": server.port, "user": SUPERUSER, "password_file": server.password_file,
                "data_directory": server.data,
            }}
        for name in ("crane", "inn"):
            (tmp_path / name).mkdir()
            entries[name]["sources"] = {"files": {"type": "files", "path": str(tmp_path / name)}}
        with psql(server, "orders", "127.0.0.1", tmp_path / "crane"), psql(server, "bills", server.home, tmp_path / "inn"):
            told = look(discovery.declared(entries)["h"])
    finally:
        server.destroy()
    assert told["notes"] == [] and told["not_looked"].get("local") is None
    listener = next(one for one in told["listening"] if one["port"] == server.port)
    assert listener["services"] == ["bills", "orders"], "which of both a connection is for, only the server knows"
    found = discovery.compare({"ecosystem": "e", "services": entries}, {"h": told}, "2030-01-01T00:00:00Z", {})
    assert {(edge["service"], edge["uses"]): edge["by"] for edge in found["edges"]} == {
        ("crane", "orders"): ["client of postgresql orders.db, database orders"], ("inn", "bills"): ["client of postgresql bills.db, database bills"],
    }
    assert [(one["kind"], one["service"], one["uses"]) for one in found["findings"]] == [("undeclared", "crane", "orders"), ("undeclared", "inn", "bills")]
    assert found["unknown_clients"] == []


def test_redis_tells_its_clients() -> None:
    server = RedisServer().init()
    try:
        server.start()
        client = server.client(database=3)
        client.client_setname("crane")
        entry = {"type": "redis", "port": server.port, "password_file": server.password_file}
        told = look({"queue": words(databases={"q": entry}, paths=[server.data])})
        port = client.connection_pool.get_connection()._sock.getsockname()[1]
        client.close()
    finally:
        server.destroy()
    assert told["notes"] == [] and told["running"] == ["queue"]
    assert [(one["application"], one["database"], one["address"], one["port"]) for one in told["clients"]] == [("crane", "3", "127.0.0.1", port)]


def test_a_database_that_does_not_answer_is_a_note() -> None:
    told = look({"queue": words(databases={"q": {"type": "redis", "port": processes.free_port()}})})
    assert told["clients"] == [] and len(told["notes"]) == 1 and "does not answer" in told["notes"][0]


def test_addresses_of_the_kernel() -> None:
    assert sockets.address_of("0100007F") == "127.0.0.1"
    assert sockets.address_of("00000000000000000000000001000000") == "::1"
    assert sockets.address_of("0000000000000000FFFF00000100007F") == "127.0.0.1", "an IPv4 client of an IPv6 listener"


@pytest.mark.parametrize(("cgroup", "unit", "container"), [
    ("0::/system.slice/orders.service\n", "orders.service", ""),
    ("12:pids:/x\n1:name=systemd:/system.slice/orders.service/worker\n", "orders.service", ""),
    ("0::/user.slice/user-0.slice/user@0.service/app.slice/shop.service\n", "shop.service", ""),
    ("0::/user.slice/user-0.slice/user@0.service/init.scope\n", "", ""),
    (f"0::/system.slice/docker-{ID}.scope\n", "", ID),
    (f"4:memory:/docker/{ID}\n0::/\n", "", ID),
    (f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-{ID}.scope\n", "", ID),
    ("0::/machine.slice/short-0123.scope\n", "", ""),
])
def test_a_control_group_names_a_unit_or_a_container(cgroup: str, unit: str, container: str) -> None:
    assert (units.unit_of(cgroup), units.container_of(cgroup)) == (unit, container)
