# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine with everything real: one service with a PostgreSQL database, a Redis and a directory, its repository and keys.

What is live is fingerprinted without any code of the engine, as it was captured and as it was before each restore.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import checks, faults, lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.lab.kits import PostgresKit, RedisKit

_STEP = Path(__file__).with_name("step.py")


class Shop:
    """The service, and what can happen to it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.kits: dict[str, Any] = {}
        self.files = top / "invoices"
        self.files.mkdir()
        try:
            for name, kit in (("db", PostgresKit), ("cache", RedisKit)):
                self.kits[name] = kit()
                self.kits[name].fill()
        except BaseException:
            self.destroy()
            raise
        for number in range(20):
            (self.files / f"invoice {number}").write_bytes(os.urandom(100 + number))
        os.link(self.files / "invoice 3", self.files / "copy")
        os.symlink("invoice 1", self.files / "newest")

    def spec(self) -> Spec:
        sources = {name: kit.config for name, kit in self.kits.items()}
        sources["invoices"] = {"type": "files", "path": str(self.files)}
        return Spec.from_dict(self.document(sources))

    def document(self, sources: dict[str, Any]) -> dict[str, Any]:
        return {
            "service": "orders", "entry": {
                "sources": sources,
                "health": [{"tcp": f"127.0.0.1:{kit.server.port}"} for kit in self.kits.values()],
                "invariants": [
                    {"name": "no key is kept", "sql": "select count(*) from no_key where false", "equals": 0},
                    {"name": "the empty key is empty", "redis": ["STRLEN", "empty"], "source": "cache", "equals": 0},
                ],
            },
            "repository": {"url": f"file://{self.top}/repository"},
            "keys": {"provider": "file", "path": str(self.top / "keys"), "private_path": str(self.top / "private")}, "state_dir": str(self.top / "state"),
        }

    def fingerprint(self) -> dict[str, Any]:
        found = {name: kit.fingerprint() for name, kit in self.kits.items()}
        found["files"] = sorted(
            (path.name, os.readlink(path) if path.is_symlink() else path.read_bytes(), path.lstat().st_mtime_ns, path.lstat().st_nlink)
            for path in self.files.iterdir()
        ) if self.files.exists() else None
        return found

    def damage(self) -> None:
        for kit in self.kits.values():
            kit.damage()
        (self.files / "invoice 1").write_text("corrupt")
        (self.files / "invoice 2").unlink()

    def lose(self) -> None:
        for kit in self.kits.values():
            kit.lose()
        shutil.rmtree(self.files)

    def leftovers(self) -> list[str]:
        return [name for kit in self.kits.values() for name in kit.leftovers()] + [path.name for path in self.top.iterdir() if ".lifeboat-" in path.name]

    def destroy(self) -> None:
        for kit in self.kits.values():
            kit.destroy()

    def run(self, verb: str, fault: str = "", trace: str = "") -> int:
        """One command in a process of its own, perhaps killed at a fault point; its exit status."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "LIFEBOAT_FAULT": fault, "LIFEBOAT_FAULT_TRACE": trace}
        document = json.dumps(self.document({name: dict(source) for name, source in self.spec().entry["sources"].items()}))
        done = subprocess.run([sys.executable, str(_STEP), verb], input=document, text=True, env=environment, capture_output=True, timeout=300, check=False)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    one = Shop(tmp_path_factory.mktemp("shop"))
    try:
        operations.prepare_repository(one.spec(), False)
        operations.capture(one.spec(), lease.new_run("backup"), "auto")
        yield one
    finally:
        one.destroy()


@pytest.fixture(scope="module")
def good(shop: Shop) -> dict[str, Any]:
    return shop.fingerprint()


def assert_same(have: dict[str, Any], want: dict[str, Any]) -> None:
    """Without the megabytes of an assertion's explanation."""
    assert [name for name in want if have[name] != want[name]] == []


def test_checks_ask_the_real_stores(shop: Shop, good: dict[str, Any]) -> None:
    told = checks.run(shop.spec(), "all")
    assert told["ok"], told["results"]
    assert [result["kind"] for result in told["results"]] == ["ready", "ready", "health", "health", "invariant", "invariant"]
    failing = {**shop.spec().entry, "invariants": [{"name": "x", "sql": "insert into no_key values ('y', 1)", "equals": 0}]}
    told = checks.run(Spec(**{**shop.spec().__dict__, "entry": failing}), "invariants")
    assert "read-only" in told["results"][0]["detail"]
    assert_same(shop.fingerprint(), good)


def test_unchanged_second_backup_stores_no_chunk(shop: Shop, good: dict[str, Any]) -> None:
    run = lease.new_run("backup")
    told = operations.capture(shop.spec(), run, "auto")
    assert sum(one["chunks_new"] for one in told["snapshots"]) == 0
    assert operations.verify(shop.spec(), run["id"], "decode")["ok"]


def test_damaged_stores_come_back_and_go_back_again(shop: Shop, good: dict[str, Any]) -> None:
    shop.damage()
    bad = shop.fingerprint()
    found = restore.preflight(shop.spec(), "latest", lease.new_run("restore"), "decode")
    assert found["ok"], found["findings"]
    assert_same(shop.fingerprint(), bad)
    run = lease.new_run("restore")
    assert restore.stage(shop.spec(), "latest", run)["changed"]
    assert_same(shop.fingerprint(), bad)
    assert restore.go_live(shop.spec(), "latest", run)["changed"]
    assert_same(shop.fingerprint(), good)
    restore.mark_verified(shop.spec(), run, "verified")

    again = restore.stage(shop.spec(), "latest", lease.new_run("restore"))
    assert (again["noop"], again["changed"]) == (True, False)
    restore.mark_verified(shop.spec(), {**lease.new_run("restore"), "id": again["restore"]["restore"]}, "verified")

    told = restore.roll_back(shop.spec(), lease.new_run("rollback"))
    assert_same(shop.fingerprint(), bad)
    assert {name: one["written"] for name, one in told["writes"].items()} == {"db": False, "cache": False, "invoices": False}
    restore.commit(shop.spec(), lease.new_run("commit"))
    assert shop.leftovers() == []
    assert_same(shop.fingerprint(), bad)


def test_lost_stores_are_provisioned_and_filled(shop: Shop, good: dict[str, Any]) -> None:
    shop.lose()
    assert shop.run("restore") == 0
    assert_same({**shop.fingerprint(), "db": shop.fingerprint()["db"][:2]}, {**good, "db": good["db"][:2]})
    assert shop.run("commit") == 0
    assert shop.leftovers() == []


def passed(shop: Shop, verb: str, trace: Path) -> list[str]:
    """The steps that a command passes. Every single point is tried in tests/unit/restore, those inside the sources in their conformance suite."""
    trace.unlink(missing_ok=True)
    assert shop.run(verb, trace=str(trace)) == 0
    hit = set(trace.read_text().split())
    return [name for name in faults.STEPS if name in hit]


def whole(shop: Shop) -> None:
    assert Ledger.for_spec(shop.spec()).verify()["torn_bytes"] == 0
    held = lease.read(shop.spec())
    assert held is None or not held["alive"]


def test_killed_at_any_step_the_same_command_again_ends_in_success(shop: Shop, tmp_path: Path) -> None:
    """damage -> restore, killed, again -> rollback, killed, again -> commit, killed, again; one round per step."""
    good = shop.fingerprint()
    shop.damage()
    steps = {"restore": passed(shop, "restore", tmp_path / "trace")}
    steps["rollback"] = passed(shop, "rollback", tmp_path / "trace")
    steps["commit"] = passed(shop, "commit", tmp_path / "trace")
    for verb, points in steps.items():
        assert points == [name for name in faults.STEPS if name.startswith(verb + ".")]
    bad = shop.fingerprint()
    for points in itertools.zip_longest(*steps.values()):
        for (verb, want), point in zip((("restore", good), ("rollback", bad), ("commit", bad)), points):
            assert shop.run(verb, fault=point or "") == (-9 if point else 0), point
            assert shop.run(verb) == 0, point
            assert_same(shop.fingerprint(), want)
            whole(shop)
        assert shop.leftovers() == [], points
