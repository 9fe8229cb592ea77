# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A right catalog in a bad situation: keys, formats, targets, disks, ports, stores. One line each, and live data as it was."""

from __future__ import annotations

import contextlib
import copy
import os
import pathlib
import shutil
import socket
import subprocess
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import checked, layout
from ansible_collections.lifeboat.recovery.tests.integration.bad_input.said import refused
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, differences, tree

LAMP = ("-e", "lifeboat_services=lamp")


@contextlib.contextmanager
def small_disk(path: pathlib.Path, size: int) -> Iterator[bool]:
    """A file system of so many bytes mounted over a folder; False where we may not mount."""
    path.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(path)]
    mounted = os.geteuid() == 0 and subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(path)], timeout=30, check=True)


def changed(harbour: Harbour, **top: Any) -> pathlib.Path:
    """The catalog with other top-level keys."""
    return harbour.write_catalog(harbour.home / "other.catalog.yml", {**copy.deepcopy(harbour.catalog), **top})


# -- keys, formats, targets: refused in preflight or before --------------------------------------------------------------


@pytest.mark.parametrize("case", ["wrong", "missing"])
def test_private_key(harbour: Harbour, tmp_path: pathlib.Path, case: str) -> None:
    other = tmp_path / "private"
    shutil.copytree(harbour.private, other)
    if case == "wrong":
        shutil.copy(harbour.private / "quay" / "data.key", other / "lamp" / "data.key")
    else:
        (other / "lamp" / "data.key").unlink()
    catalog = changed(harbour, keys={**harbour.catalog["keys"], "private_path": str(other)})
    before = harbour.everything()
    outcome = harbour.play("restore", *LAMP, catalog=catalog)
    if case == "wrong":
        refused(outcome, "wrong key", str(other / "lamp"), "put the private half of")
    else:
        refused(outcome, "the private half of the data key of service lamp is missing", str(other / "lamp"), "put data.key back")
    assert _apart_from_records(before, harbour.everything()) == []


@pytest.mark.parametrize("verb", ["restore", "backup"])
def test_repository_of_a_newer_format(harbour: Harbour, tmp_path: pathlib.Path, verb: str) -> None:
    newer = tmp_path / "repository"
    shutil.copytree(harbour.repository, newer)
    descriptor = newer / layout.DESCRIPTOR
    document = checked.load(descriptor.read_bytes())
    descriptor.write_bytes(checked.dump({**document, "format": layout.FORMAT + 1}))
    catalog = changed(harbour, repositories={"local": {"url": f"file://{newer}"}})
    before, stored = harbour.everything(), tree(newer)
    outcome = harbour.play(verb, *(() if verb == "restore" else LAMP), catalog=catalog)
    line = refused(outcome, f"repository has format {layout.FORMAT + 1}, this version reads up to {layout.FORMAT}", f"file://{newer}", "update")
    if verb == "restore":
        assert all(name in line for name in harbour.ports), "one repository, one line"
        assert set(outcome.recap("rescued").values()) == {0} and outcome.text.count("fatal: ") == 1, outcome.text
    assert tree(newer) == stored
    assert _apart_from_records(before, harbour.everything()) == []


TARGETS = {
    "20200101T000000Z-backup-ffffff": ('unknown target "20200101T000000Z-backup-ffffff"', "lamp", "(use latest|did you mean).* newest complete points"),
    "2001-01-01T00:00:00Z": ("no complete point at or before 2001-01-01T00:00:00Z", "lamp", "the oldest complete point is"),
}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_target_that_does_not_exist(harbour: Harbour, target: str) -> None:
    before = harbour.everything()
    outcome = harbour.play("restore", *LAMP, "-e", f"lifeboat_target={target}")
    refused(outcome, *TARGETS[target])
    assert outcome.directory is None
    assert differences(before, harbour.everything()) == []


def test_service_that_does_not_exist(harbour: Harbour) -> None:
    before = harbour.everything()
    refused(harbour.play("restore", "-e", "lifeboat_services=lamb"), 'unknown service "lamb"', "the pick", 'did you mean "lamp"')
    assert differences(before, harbour.everything()) == []


# -- full disks ----------------------------------------------------------------------------------------------------------


def test_full_disk_in_the_repository(harbour: Harbour, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "disk"
    with small_disk(place, 1 << 20) as mounted:
        catalog = changed(harbour, repositories={"local": {"url": f"file://{place}/repository"}})
        harbour.succeed("bootstrap", "--limit", "lamp", catalog=catalog)
        (harbour.data("lamp") / "large").write_bytes(os.urandom(3 << 20))
        before, stored = harbour.fingerprint(), tree(place)
        # where we may not mount a small disk, the first write of a pack says that it is full
        outcome = harbour.play("backup", *LAMP, catalog=catalog, env=None if mounted else {"LIFEBOAT_FAULT": "pack.write.before:1:full"})
        refused(outcome, r"cannot write in the repository \(No space left on device\)", str(place), "free space there")
        assert harbour.fingerprint() == before
        now = tree(place)
        assert [name for name in stored if now.get(name) != stored[name]] == [], "objects are never rewritten"
        added = set(now) - set(stored)
        assert not [name for name in added if "/snapshots/" in name or ".tmp-" in name], "no snapshot, and nothing half written"
        (harbour.data("lamp") / "large").unlink()
        harbour.succeed("backup", *LAMP, catalog=catalog)


def test_full_disk_while_staging(harbour: Harbour) -> None:
    before = harbour.everything()
    outcome = harbour.play("restore", *LAMP, env={"LIFEBOAT_FAULT": "stage.write.before:2:full"})
    refused(outcome, r"cannot write the staged copy \(No space left on device\)", str(harbour.folder("lamp")), "free space")
    assert outcome.verdicts() == {"lamp": "failed"}
    # the half-built copy is gone too: on a full disk it would starve the live data
    assert _apart_from_records(before, harbour.everything()) == []


def test_too_small_a_disk_is_known_before_staging(harbour: Harbour, tmp_path: pathlib.Path) -> None:
    """Where a small disk can be mounted preflight measures it; elsewhere the fault above is all that can be shown."""
    place = tmp_path / "disk"
    with small_disk(place, 1 << 20) as mounted:
        live = place / "data"
        shutil.copytree(harbour.data("lamp"), live)
        (live / "large").write_bytes(os.urandom(600 << 10))
        services = copy.deepcopy(harbour.catalog["services"])
        services["lamp"]["sources"]["files"]["path"] = str(live)
        catalog = changed(harbour, services=services)
        harbour.succeed("backup", *LAMP, catalog=catalog)
        (live / "large").unlink()
        (live / "junk").write_bytes(os.urandom(600 << 10))
        before, others = tree(place), harbour.fingerprint()
        fault = None if mounted else {"LIFEBOAT_FAULT": "stage.write.before:1:full"}
        outcome = harbour.play("restore", *LAMP, catalog=catalog, env=fault)
        what = "not enough space to stage beside the live data" if mounted else r"cannot write the staged copy \(No space left on device\)"
        refused(outcome, what, str(place), "(free|enlarge)")
        assert tree(place) == before
        assert harbour.fingerprint() == others


# -- ports and stores ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listener(port: int) -> Iterator[None]:
    """Somebody else on the service's port."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen(8)
        yield


def test_port_in_use_is_known_before_anything_is_touched(harbour: Harbour) -> None:
    harbour.control("stop", "lamp")
    before = harbour.everything()
    with listener(harbour.ports["lamp"]):
        outcome = harbour.play("restore", *LAMP)
    refused(outcome, "port in use", f"127.0.0.1:{harbour.ports['lamp']}", "end it, or correct the port")
    assert _apart_from_records(before, harbour.everything()) == []


def test_everything_that_stands_against_a_restore_is_told_at_once_and_once(harbour: Harbour, tmp_path: pathlib.Path) -> None:
    """A key, a port, a command, one place for two services, one that is never restored into: one line each, with --check as without."""
    keys = tmp_path / "private"
    shutil.copytree(harbour.private, keys)
    (keys / "quay" / "data.key").unlink()
    services = copy.deepcopy(harbour.catalog["services"])
    services["crane"]["runtime"]["stop"] = ["/nowhere/stop"]
    (tmp_path / "alias").symlink_to(harbour.folder("lamp"))  # the catalog itself refuses what it can see: that two paths are one it cannot
    services["crane"]["sources"]["files"]["path"] = str(tmp_path / "alias" / "data")
    catalog = changed(harbour, services=services, keys={**harbour.catalog["keys"], "private_path": str(keys)},
                      never_restore_into={"paths": [str(harbour.data("quay"))]})
    harbour.control("stop", "lamp")
    before = harbour.everything()
    told = {
        "error   quay.files: the private half of the data key of service quay is missing": "key",
        "error   quay.files: nothing may be restored there": "identity",
        "error   lamp: port in use: the service is down and something else (process": "port",
        "error   crane: runtime.stop names a program that is not there": "command",
        "error   lamp, crane: lamp.files and crane.files restore into the same data": "identity",
    }
    with listener(harbour.ports["lamp"]):
        for arguments in (("--check",), ()):
            outcome = harbour.play("restore", *arguments, catalog=catalog)
            assert outcome.code != 0
            for line in told:
                assert len([found for found in outcome.lines() if line in found]) == 1, f"{line}\n{outcome.text}"
            assert "Traceback" not in outcome.text
            if arguments:
                assert differences(before, harbour.everything()) == [], "a dry run changes nothing anywhere, its own records included"
    assert _apart_from_records(before, harbour.everything()) == []
    assert set(outcome.verdicts().values()) <= {"failed", "skipped"}
    assert {found["kind"] for found in outcome.document["findings"]} == set(told.values())
    report = (outcome.directory / "report.html").read_text(encoding="utf-8") if outcome.directory else ""
    assert "lamp.files and crane.files restore into the same data" in report and "<td>lamp, crane</td>" in report


def test_port_taken_after_preflight_fails_the_start_in_clear_words(harbour: Harbour) -> None:
    """A port that no tcp probe names: the start command's own words are the error, and rollback puts the former data back."""
    services = copy.deepcopy(harbour.catalog["services"])
    services["lamp"]["health"] = services["lamp"]["health"][1:]
    catalog = changed(harbour, services=services)
    harbour.control("stop", "lamp")
    before = harbour.contents()
    with listener(harbour.ports["lamp"]):
        outcome = harbour.play("restore", *LAMP, catalog=catalog)
        line = next(line for line in outcome.lines() if "root cause" in line)
        assert f"cannot listen on 127.0.0.1:{harbour.ports['lamp']}: Address already in use" in line
        assert "mend what it says, then run the same command again" in line
        assert outcome.code != 0 and outcome.verdicts() == {"lamp": "failed"}
        assert "Traceback" not in outcome.text
    harbour.succeed("rollback", *LAMP, catalog=catalog)
    assert harbour.contents() == before


DOWN: dict[str, dict[str, Any]] = {
    "redis": {"type": "redis", "directory": "/nonexistent"},
    "postgresql_database": {"type": "postgresql_database", "database": "lamp"},
}


@pytest.mark.parametrize("kind", sorted(DOWN))
def test_source_that_is_down(harbour: Harbour, kind: str) -> None:
    port = processes.free_port()
    services = copy.deepcopy(harbour.catalog["services"])
    services["lamp"]["sources"] = {"store": {**DOWN[kind], "port": port}}
    before = harbour.everything()
    outcome = harbour.play("backup", *LAMP, catalog=changed(harbour, services=services))
    refused(outcome, "the server does not answer", f"lamp.store at 127.0.0.1:{port}", "start it, or correct address")
    assert _apart_from_records(before, harbour.everything()) == []


def test_source_that_is_gone(harbour: Harbour) -> None:
    aside = harbour.folder("lamp") / "elsewhere"
    harbour.data("lamp").rename(aside)
    try:
        before = harbour.everything()
        outcome = harbour.play("backup", *LAMP)
        refused(outcome, "source directory does not exist", str(harbour.data("lamp")), "restore the service")
        assert _apart_from_records(before, harbour.everything()) == []
    finally:
        aside.rename(harbour.data("lamp"))


def _apart_from_records(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Differences without those of the records, on the host and in the repository: that a run was tried and failed is written down."""
    own = ("/ledger.jsonl", "/lease.json", "/lease.lock", "/work", "/cache", "/history.json")

    def record(name: str) -> bool:
        copies = name.startswith("/repository/") and any(part in name for part in ("/ledgers", "/journals"))
        return copies or (name.startswith("/state/") and any(part in name for part in own))

    return [line for line in differences(before, after) if not record(line.split(": ", maxsplit=1)[0])]
