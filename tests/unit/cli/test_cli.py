# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host command, started as on a host: no Ansible, another package name, a directory of service files."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults, lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec

ENGINE = pathlib.Path(__file__).resolve().parents[3] / "plugins" / "module_utils"


class Host:
    def __init__(self, top):
        self.top = top
        self.data = top / "data"
        self.entry = {
            "sources": {"tree": {"type": "files", "path": str(self.data)}}, "health": [{"command": ["test", "-e", str(self.data / "file")]}],
            "invariants": [{"name": "there is content", "command": ["wc", "-c", str(self.data / "file")], "equals": f"8 {self.data}/file"}],
            "runtime": {"start": ["sh", "-c", f"echo start >> {top}/runtime"], "stop": ["sh", "-c", f"echo stop >> {top}/runtime"]},
        }
        self.document = {
            "service": "orders", "entry": self.entry, "repository": {"url": f"file://{top}/repository"},
            "keys": {"provider": "file", "path": str(top / "keys")}, "state_dir": str(top / "state"), "catalog": {"ecosystem": "shop"},
        }
        (top / "lib").mkdir()
        (top / "lib" / "lifeboat").symlink_to(ENGINE)
        (top / "etc" / "services").mkdir(parents=True)
        self.data.mkdir()
        (self.data / "file").write_text("captured")
        spec = Spec.from_dict({**self.document, "keys": {**self.document["keys"], "private_path": str(top / "private")}})
        operations.prepare_repository(spec, False)
        operations.capture(spec, lease.new_run("backup"), "auto")
        (self.data / "file").write_text("live")
        self.save()

    def save(self, **changes):
        (self.top / "etc" / "services" / "orders.json").write_text(json.dumps({**self.document, **changes}))

    def __call__(self, *words, status=0, out=False):
        """stdout; with another exit status stderr, unless ``out``."""
        done = subprocess.run(
            [sys.executable, "-m", "lifeboat.cli", "--config", str(self.top / "etc"), *map(str, words)], text=True, capture_output=True, timeout=120,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self.top / "lib"), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.top)}, cwd="/", check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 or out else done.stderr

    def runtime(self):
        path = self.top / "runtime"
        return path.read_text().split() if path.exists() else []

    def content(self):
        return (self.data / "file").read_text()


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_faults_lists_every_point(host):
    assert host("faults").split() == faults.points()


def test_status_and_points(host):
    assert "orders" in host("status")
    assert json.loads(host("status", "--json"))["orders"]["restores"] == []
    points = json.loads(host("points", "orders", "--json"))["orders"]["points"]
    assert points[0]["id"] in host("points")


def test_verify_seals_only(host):
    assert "sound" in host("verify")
    host("verify", "--depth", "decode", status=3)
    assert "sound" in host("verify", "--depth", "decode", "--keys", host.top / "private")


def test_restore_needs_the_keys_at_call_time(host):
    told = host("restore", "orders", status=1)
    assert "private_path" in told
    assert "nothing was changed" in told
    assert (host.content(), host.runtime()) == ("live", [])


def test_restore_rollback_commit(host):
    keys = ("--keys", host.top / "private")
    assert "would restore" in host("restore", "orders", "--check", *keys)
    assert host.content() == "live"
    told = host("restore", "orders", *keys)
    assert "verified" in told
    assert "lifeboat rollback orders" in told
    assert (host.content(), host.runtime()) == ("captured", ["stop", "start"])
    assert "nothing was changed" in host("restore", "orders", *keys)
    assert host.runtime() == ["stop", "start"]
    assert "verified" in host("status")
    assert "would be rolled back" in host("rollback", "orders", "--check")
    assert "rolled back" in host("rollback", "orders")
    assert (host.content(), host.runtime()) == ("live", ["stop", "start"] * 2)
    assert "committed" in host("commit", "orders")
    assert "was committed" in host("rollback", "orders", status=1)
    assert host.runtime() == ["stop", "start"] * 2  # refused before the service was stopped
    told = json.loads(host("report", "--json"))["services"]["orders"]
    assert told["mttr"]["count"] == 1 and told["success_rate"] == 1.0, "the second restore had nothing to do"
    assert "2 of 2" in host("report", "--repository", f"file://{host.top}/repository"), "attempts count, whatever was left to do"


def test_restore_in_steps(host):
    keys = ("--keys", host.top / "private")
    host("restore", "orders", "--until", "staged", *keys)
    assert (host.content(), host.runtime()) == ("live", [])
    host("restore", "orders", "--until", "cutover", *keys)
    assert (host.content(), host.runtime()) == ("captured", ["stop"])
    host("restore", "orders", *keys)
    status = json.loads(host("status", "--json"))["orders"]
    assert len(status["restores"]) == 1
    assert len(status["restores"][0]["runs"]) == 3
    assert status["origin"]["verdict"] == "verified"


def test_a_service_that_is_not_well_afterwards(host):
    host.save(entry={**host.entry, "health": [{"command": ["false"]}], "policy": {"health": {"timeout": 0.1}}})
    host("restore", "orders", "--keys", host.top / "private", status=3)
    assert json.loads(host("status", "--json"))["orders"]["origin"]["verdict"] == "failed"
    host("rollback", "orders")
    assert host.content() == "live"


def test_production_wants_the_name(host):
    host.save(catalog={"ecosystem": "shop", "document": {"production": True}})
    assert "--confirm shop" in host("restore", "orders", "--keys", host.top / "private", status=1)
    host("restore", "orders", "--keys", host.top / "private", "--confirm", "shop")


def test_a_task_file_is_not_for_this_command(host):
    host.save(entry={**host.entry, "runtime": {"stop": {"tasks": "stop.yml"}}})
    assert "--no-runtime" in host("restore", "orders", "--keys", host.top / "private", status=1)
    host("restore", "orders", "--keys", host.top / "private", "--no-runtime")


def test_a_start_that_fails_is_told_and_the_data_is_live(host):
    host.save(entry={**host.entry, "runtime": {"start": ["sh", "-c", "echo port in use >&2; exit 1"]}})
    told = host("restore", "orders", "--keys", host.top / "private", status=1)
    assert "port in use" in told
    assert "tree: live" in told
    assert "lifeboat rollback orders" in told
    host.save()
    host("restore", "orders", "--keys", host.top / "private")
    status = json.loads(host("status", "--json"))["orders"]
    assert status["origin"]["verdict"] == "verified"
    assert len(status["uncommitted"]) == 1  # nothing was displaced a second time


@pytest.mark.parametrize(("words", "message"), [
    (("restore", "nobody"), "known: orders"), (("restore", "../x"), "Not a service name"), (("points", "nobody"), "no such service"),
    (("restore", "orders", "--target", "tomorrow"), "is no known point"), (("rollback", "orders"), "no restore on record"),
])
def test_errors_are_one_line(host, words, message):
    told = host(*words, status=1)
    assert message in told
    assert len(told.strip().splitlines()) <= 3


def test_no_services_at_all(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "lifeboat").symlink_to(ENGINE)
    done = subprocess.run(
        [sys.executable, "-m", "lifeboat.cli", "--config", str(tmp_path), "status"], text=True, capture_output=True, timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )
    assert done.returncode == 1
    assert "run the bootstrap playbook" in done.stderr


def test_rebuild_index(host):
    for found in (host.top / "state" / "services" / "orders" / "cache").iterdir():
        found.write_bytes(b"rotten")
    assert "1 packs indexed" in host("rebuild-index")


def test_history_of_this_host_and_of_the_repository_alone(host):
    host("restore", "orders", "--keys", host.top / "private")
    rows = host("history", "orders").splitlines()
    assert "backup" in rows[1] and "captured" in rows[1] and "restore" in rows[2] and "verified" in rows[2], rows
    run = json.loads(host("history", "--json"))["orders"]["runs"][-1]["run"]
    assert "cutover.intent" in host("history", "orders", "--run", run) and host("history", "orders", "--run", "last") == host("history", "--run", run)
    # a new host: no specification, no state, first with the public keys and then with none
    for name in ("etc", "state"):
        (host.top / name).rename(host.top / f"gone-{name}")
    assert host("history", "--repository", f"file://{host.top}/repository", "--keys", host.top / "private").splitlines()[1:] == rows[1:]
    found = json.loads(host("history", "orders", "--repository", host.top / "repository", "--json"))
    assert [one["verdict"] for one in found["orders"]["runs"]] == ["captured", "verified"] and not found["orders"]["signed"]


def test_history_names_what_is_damaged_and_tells_the_rest(host):
    host("restore", "orders", "--keys", host.top / "private")
    path = sorted((host.top / "repository").rglob("ledgers/*/*.json"))[0]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-9])
    assert path.name in host("history", "orders", status=3)
    told = json.loads(host("history", "orders", "--json", "--repository", host.top / "repository", status=3, out=True))
    assert [run["verb"] for run in told["orders"]["runs"]] == ["restore"]


def test_history_without_a_repository_is_this_hosts_own(host):
    (host.top / "repository").rename(host.top / "away")
    assert "no repository there" in host("history", "orders", status=3)
    assert json.loads(host("history", "orders", "--json", status=3, out=True))["orders"]["runs"][0]["verdict"] == "captured"


def test_a_backup_of_the_host_command_stores_the_signed_catalog(host):
    document = {"ecosystem": "shop", "production": False, "services": {"orders": host.entry}, "keys": {"provider": "file"}}
    host.save(catalog={"ecosystem": "shop", "document": document})
    (host.data / "file").write_text("newer")
    assert "1 snapshots" in host("backup", "orders")
    (name,) = [path for path in (host.top / "repository" / "services" / "orders" / "catalogs").glob("*.json") if "production" in path.read_text()]
    outer = json.loads(name.read_text())
    assert json.loads(outer["catalog"]) == document and outer["signature"]["algorithm"] == "ed25519"
    assert len(json.loads(host("points", "orders", "--json"))["orders"]["points"]) == 2
