# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo ecosystem lives, is wrecked as announced, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.shop import Shop

SERVICES = ("identity", "inventory", "orders", "payments", "sessions", "gateway")
STORES = ("pg-shared", "pg-orders", "pg-payments", "redis")


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as running:
        yield running


@pytest.fixture(scope="module")
def lasting() -> Iterator[Shop]:
    """For tests that leave everything running as it was."""
    with Shop() as running:
        yield running


def test_the_life_of_a_shop(shop: Shop) -> None:
    loaded = json.loads(shop.do("load", "--size", "10MB", "--seed", "7"))
    assert 7e6 < loaded["bytes"] < 15e6
    driven = json.loads(shop.do("drive", "--seconds", "3", "--seed", "7"))
    assert driven["errors"] == 0 and driven["workflows"] > 0, driven
    assert {"signup", "login", "order", "pay", "ship"} <= set(driven["operations"])
    for service in SERVICES:
        assert shop.get(service, "/health") == (200, {"service": service, "status": "ok"})
        status, audit = shop.get(service, "/audit")
        assert status == 200 and audit["ok"] is True, (service, audit)

    first, second = shop.fingerprint("first"), shop.fingerprint("second")
    assert shop.run("compare", str(first), str(second)).stdout == "equal\n"

    before = shop.pids()
    done = json.loads(shop.do("wreck"))
    assert done["still_running"] == ["pg-shared", "redis", "identity"]
    assert done["dropped_database"] == "inventory" and not pathlib.Path(done["deleted_directory"]).exists()
    assert done["invoices"]["deleted"] > 0 and done["invoices"]["flipped"] > 0 and done["emptied_redis_keys"] > 0
    assert shop.get("identity", "/health")[0] == 200
    assert shop.pids()["identity"] == before["identity"] and shop.pids()["pg-shared"] == before["pg-shared"]

    result = shop.run("compare", str(first), str(shop.fingerprint("wrecked")), "--limit", "100000")
    assert result.returncode == 1
    for trace in (
        "postgresql > pg-orders", "postgresql > pg-shared > databases > inventory", "postgresql > pg-payments",
        "redis > databases > 0", "redis > databases > 1", "INV-", "sha256", "mode", "READ_ME", "same_file_as",
        "> xattrs > 'user.origin'", "link-relative > target",
    ):
        assert trace in result.stdout, trace
    assert "databases > identity" not in result.stdout

    # What is left comes up: the killed cluster by its own recovery, the deleted one empty, its services failing with the reason.
    assert shop.run("start", "pg-orders").returncode == 1
    shop.do("provision", "pg-orders")
    shop.do("start")
    assert shop.run("status").returncode == 0
    status, health = shop.get("orders", "/health")
    assert status == 503 and "orders_app" in health["reason"]
    status, health = shop.get("payments", "/health")
    assert status == 503 and health["reason"].startswith("orders: ")
    assert "sessions:format" in shop.get("sessions", "/health")[1]["reason"]

    shop.do("down")
    assert shop.left_running() == []
    assert shop.run("status").returncode == 3


def test_commands_may_be_repeated(lasting: Shop) -> None:
    pids = lasting.pids()
    assert set(pids) == {*SERVICES, *STORES}
    assert "started" not in lasting.do("start")
    assert lasting.pids() == pids
    assert lasting.do("stop", "orders", "redis").count("stopped") == 2
    assert lasting.do("stop", "orders").strip() == "orders: was not running"
    assert lasting.run("status", "orders").returncode == 3 and lasting.run("status", "identity", "pg-orders").returncode == 0
    assert lasting.get("gateway", "/health") == (503, {"service": "gateway", "status": "failing", "reason": "orders does not answer: ConnectionRefusedError"})
    lasting.do("start", "orders", "redis")
    assert lasting.get("gateway", "/health")[0] == 200
    assert {name: pid for name, pid in lasting.pids().items() if name not in ("orders", "redis")} == {
        name: pid for name, pid in pids.items() if name not in ("orders", "redis")
    }
    # A pid that now belongs to somebody else is neither the store nor touched.
    (lasting.home / "run" / "gateway.pid").write_text(json.dumps({"pid": os.getpid(), "started": 1}), encoding="ascii")
    assert lasting.run("status", "gateway").returncode == 3
    refused = lasting.run("start", "gateway")
    assert refused.returncode == 1 and "port of gateway is in use" in refused.stderr
    (lasting.home / "run" / "gateway.pid").write_text(json.dumps({"pid": pids["gateway"], "started": _started(pids["gateway"])}), encoding="ascii")
    assert lasting.run("setup").returncode == 1
    for store in STORES:
        result = lasting.run("provision", store)
        assert result.returncode == 1 and "has a data directory already" in result.stderr


def test_a_provisioned_server_is_empty_and_otherwise_the_same(shop: Shop) -> None:
    before = json.loads(shop.fingerprint("before").read_text(encoding="utf-8"))["postgresql"]["pg-orders"]
    assert before["settings"]["work_mem"] == "5MB" and any("orders_app" in line for line in before["roles"])
    superuser = [line for line in before["roles"] if "ROLE postgres " in line]
    shop.do("stop", "pg-orders")
    data = pathlib.Path(shop.variables["pg_orders_data"])
    configuration = {name: (data / name).read_text(encoding="utf-8") for name in ("postgresql.conf", "pg_hba.conf")}
    shutil.rmtree(data)
    shop.do("provision", "pg-orders")
    assert {name: (data / name).read_text(encoding="utf-8") for name in configuration} == configuration
    after = json.loads(shop.fingerprint("after").read_text(encoding="utf-8"))["postgresql"]["pg-orders"]
    assert superuser == [line for line in after["roles"] if "ROLE postgres " in line]
    assert after["settings"] == {} and not any("orders_app" in line for line in after["roles"])
    assert after["databases"]["orders"] == {"absent": "there is no such database"}


def test_processes_run_as_an_ordinary_user_and_secrets_are_closed(lasting: Shop) -> None:
    wanted = os.geteuid() or pwd.getpwnam(lasting.variables["user"]).pw_uid
    assert wanted != 0
    assert {name: os.stat(f"/proc/{pid}").st_uid for name, pid in lasting.pids().items()} == dict.fromkeys(lasting.pids(), wanted)
    for name in ("credentials.yml", "pgpass", "conf/postgres.password", "conf/postgres.verifier", "conf/redis.password", "conf/redis.conf"):
        assert (lasting.home / name).stat().st_mode & 0o077 == 0, name
    secrets = [line.split(": ", 1)[1].strip('"\n') for line in (lasting.home / "credentials.yml").read_text(encoding="utf-8").splitlines()]
    for path in ("variables.yml", *[f"log/{name}" for name in os.listdir(lasting.home / "log")]):
        text = (lasting.home / path).read_text(encoding="utf-8", errors="replace")
        assert not any(secret in text for secret in secrets), path
    for pid in lasting.pids().values():
        line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        assert not any(secret in line for secret in secrets)


def _started(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
