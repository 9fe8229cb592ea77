# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight of one service on its host: each finding brought about for real, on a restore that would work without it."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import clocks, identity, room, state
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, preflight_host, restore, verify
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import s3
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Footprint
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.disk import rename_refused
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.box_source import Box
from ansible_collections.lifeboat.recovery.tests.doubles.restore_world import new_run
from ansible_collections.lifeboat.recovery.tests.lab.small_disk import SmallDisk

ROOT = pathlib.Path(__file__).resolve().parents[3]


def look(world, target="latest", accept=(), clock=time.time, **changes):
    return restore.preflight(world.spec(**changes), target, new_run(target=target), accept=accept, clock=clock)


def told(found, *levels):
    """[(level, kind, what)] of a preflight."""
    return [(one["level"], one["kind"], one["what"]) for one in found["findings"] if one["level"] in (levels or ("error", "warning", "note"))]


def only(found, level, kind):
    """The one finding there is; it has a place and a remedy."""
    (one,) = found["findings"]
    assert (one["level"], one["kind"]) == (level, kind), one
    assert one["where"] and one["remedy"]
    return one


def test_a_sound_restore_has_no_finding_and_the_answer_tells_what_only_the_controller_can_judge(world):
    found = look(world)
    assert told(found) == []
    assert found["host"] == identity.host()
    assert found["clock"]["began"] <= found["clock"]["ended"] <= time.time()
    assert [(place["source"], place["live"]) for place in found["places"]] == [("tree", str(world.tree))]
    assert [(need["source"], need["bytes"]) for need in found["needs"]] == [("tree", len("captured"))]


# -- the snapshot, the repository, the keys --------------------------------------------------------------------------------


def test_a_sample_is_decoded_by_the_restores_own_decoder(world, monkeypatch):
    """Neither size nor presence tells that a pack was altered; hashes are not read here."""
    monkeypatch.setattr(verify, "_BUDGET", 0)
    assert told(look(world)) == []
    for pack in (world.top / "repository").rglob("packs/**/*.*"):
        content = bytearray(pack.read_bytes())
        content[60:] = bytes(byte ^ 255 for byte in content[60:])
        pack.chmod(0o600)
        pack.write_bytes(content)
    assert {(level, kind) for level, kind, _what in told(look(world), "error")} == {("error", "snapshot")}


def test_a_dead_repository_is_one_finding_and_the_host_is_looked_at_all_the_same(world):
    (world.top / "repository").rename(world.top / "elsewhere")
    for folder in ("keys", "private"):
        shutil.rmtree(world.top / folder)
    found = look(world, entry={**world.spec().entry, "runtime": {"stop": ["/nowhere/stop"]}})
    assert sorted(kind for _level, kind, _what in told(found, "error")) == ["command", "key", "repository"]
    (dead,) = [one for one in found["findings"] if one["kind"] == "repository"]
    assert dead["cause"] == f"file://{world.top}/repository" == dead["where"]


# -- the host --------------------------------------------------------------------------------------------------------------


def test_a_port_that_a_stranger_took_is_told_with_his_name(world):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        entry = {**world.spec().entry, "health": [{"tcp": f"127.0.0.1:{port}"}], "runtime": {"status": ["false"]}}
        one = only(look(world, entry=entry), "error", "port")
        assert f"process {os.getpid()} (" in one["what"] and one["remedy"].startswith("end it, or correct") and one["where"].endswith(f":{port}")
        running = {**entry, "runtime": {"status": ["true"]}}
        assert told(look(world, entry=running)) == [], "it is the service itself"
    assert preflight_host.listener(port) == ""


def test_commands_that_are_not_there_or_may_not_be_run(world):
    script = world.top / "start"
    script.write_text("#!/bin/sh\n")
    sources = world.spec().entry["sources"]
    entry = {"runtime": {"start": [str(script)], "stop": ["lifeboat-no-such-program"]},
             "sources": {**sources, "tree": {**sources["tree"], "server": {"start": ["true"]}, "provision": ["/nowhere/provision"]}}}
    found = look(world, entry=entry)
    assert {kind for _level, kind, _what in told(found)} == {"command"}
    assert sorted(what for _level, _kind, what in told(found)) == [
        "provision names a program that is not there", "runtime.start may not be run", "runtime.stop names a program that is not there"]
    elsewhere = {**entry, "runtime": {**entry["runtime"], "hosts": ["app1"]}, "sources": sources}
    assert told(look(world, entry=elsewhere)) == [], "those run on other hosts"


def test_all_missing_libraries_are_told_at_once(world, monkeypatch):
    entry = {**world.spec().entry, "invariants": [{"name": "x", "http": "http://127.0.0.1:1/", "json": "a"}]}
    for name in ("jmespath", "pyfastcdc"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails, as where it is not installed
    found = look(world, entry=entry)
    assert [(kind, "jmespath" in what, "pyfastcdc" in what) for _level, kind, what in told(found)] == [("version", True, False), ("version", False, True)]


def test_programs_of_a_version_that_is_not_there():
    """The snapshot is of a PostgreSQL that this machine cannot have."""
    kind = registry.get("postgresql")()
    spec = Spec.from_dict({"service": "orders", "entry": {"sources": {"db": {"type": "postgresql", "data_directory": "/nowhere/pg", "port": 1}}},
                           "repository": {"url": "file:///nowhere"}, "keys": {"provider": "file"}, "state_dir": "/nowhere"})
    _source, config = spec.source("db")
    context = spec.context("db", config, None, bytes(32))
    found = [one.as_dict() for one in kind.preflight_restore(context, {"facts": {"server_version": 990001, "bytes": 1}})]
    (version,) = [one for one in found if one["kind"] == "version"]
    assert "PostgreSQL 99" in version["what"] and "install the PostgreSQL 99" in version["remedy"]
    assert {"command", "place"} <= {one["kind"] for one in found}


def test_a_directory_that_denies_renaming_is_told_to_who_has_no_right(tmp_path):
    """As an unprivileged user in a child: root may do everything."""
    sticky, closed = tmp_path / "sticky", tmp_path / "closed"
    for folder, mode in ((sticky, 0o1777), (closed, 0o555)):
        (folder / "data").mkdir(parents=True)
        folder.chmod(mode)
    tmp_path.chmod(0o755)
    os.chmod(tmp_path.parent, 0o755)
    os.chmod(tmp_path.parent.parent, 0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
        answers = [rename_refused(str(folder), str(folder / "data")) for folder in (sticky, closed, sticky / "data")]
        os.write(writing, json.dumps(answers).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as handle:
        one, other, _own = json.load(handle)
    os.waitpid(child, 0)
    assert other[0] == "no right to create and rename beside the source" and "become" in other[2]
    if os.geteuid() == 0:
        assert "sticky directory" in one[0]
    assert rename_refused(str(sticky), str(sticky / "data")) is None


# -- room ------------------------------------------------------------------------------------------------------------------

_PREFLIGHT = """
import json, sys
from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
print(json.dumps(restore.preflight(Spec.from_dict(json.loads(sys.argv[1])), "latest", lease.new_run("restore"))))
"""


@pytest.mark.parametrize("size", [1 << 20, 4 << 20])
def test_two_sources_that_only_fit_one_by_one_on_a_real_small_disk(world, size):
    """Each copy takes 700 KiB: a disk of 1 MiB has room for either and not for both."""
    disk = world.top / "disk"
    for name in ("one", "two"):
        (disk / name).mkdir(parents=True)
        (disk / name / "file").write_bytes(os.urandom(700 << 10))
    data = {
        "service": "orders", "entry": {"sources": {name: {"type": "files", "path": str(disk / name)} for name in ("one", "two")}},
        "repository": {"url": f"file://{world.top}/other"}, "state_dir": str(world.top / "state2"),
        "keys": {"provider": "file", "path": str(world.top / "keys"), "private_path": str(world.top / "private")},
    }
    operations.prepare_repository(Spec.from_dict(data), False)
    operations.capture(Spec.from_dict(data), new_run("backup"), "auto")
    small = SmallDisk(str(disk), size, {})
    try:
        done = subprocess.run([sys.executable, "-c", _PREFLIGHT, json.dumps(data)], env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")}, timeout=120,
                              capture_output=True, text=True, check=False, preexec_fn=small.enter)
    finally:
        small.close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if size > 1 << 20:
        assert told(found) == [] and len({need["device"] for need in found["needs"]}) == 1
        return
    one = only(found, "error", "space")
    assert "not enough space to stage beside the live data" in one["what"] and one["where"] == str(disk)
    assert [need["bytes"] for need in found["needs"]] == [700 << 10, 700 << 10] and one["cause"] == found["needs"][0]["device"]


def test_what_former_restores_keep_is_told_where_room_lacks(world, monkeypatch):
    measured = room.measured
    monkeypatch.setattr(room, "measured", lambda need: {**measured(need), "free": 0})
    world.write("changed")
    assert "commit" not in only(restore.preflight(world.spec(), "latest", new_run()), "error", "space")["remedy"]
    monkeypatch.setattr(room, "measured", measured)
    world.restore()
    world.write("changed")
    monkeypatch.setattr(room, "measured", lambda need: {**measured(need), "free": 0})
    assert "or commit former restores, which keep " in only(restore.preflight(world.spec(), "latest", new_run()), "error", "space")["remedy"]


def test_what_is_staged_already_takes_no_more_room(world):
    run = new_run()
    restore.stage(world.spec(), "latest", run)
    assert restore.preflight(world.spec(), "latest", run)["needs"] == []


# -- clocks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("behind", "timed", "level"), [(1.0, True, ""), (30.0, True, "warning"), (300.0, False, "warning"), (300.0, True, "error"),
                                                        (3600.0, False, "error")])
def test_a_host_whose_clock_is_behind_sees_snapshots_from_the_future(world, behind, timed, level):
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    found = look(world, moment if timed else "latest", clock=lambda: world.taken_at() - behind)
    assert {(one, kind) for one, kind, _what in told(found)} == ({(level, "clock")} if level else set())
    assert not level or any("repository" in what for _level, _kind, what in told(found)), found["findings"]
    if level == "error" and timed:
        assert "or name a point or a position instead of a time" in found["findings"][0]["remedy"]


def test_the_date_of_an_s3_server_is_compared_within_the_second_that_it_is_precise_to(monkeypatch):
    backend = s3.S3Backend({"url": "s3://bucket/prefix"})

    class Api:
        def head_object(self, **_which):
            return {"ResponseMetadata": {"HTTPHeaders": {"date": "Mon, 23 Nov 2026 07:00:00 GMT"}}}

    backend.client._client = Api()
    there = 1795417200.0
    assert clocks.judge(backend.skew(lambda: there + 0.9, ["x"]), "it", "us", True) is None
    assert backend.skew(lambda: there - 100, ["x"]).least == 100.0
    level, error = clocks.judge(backend.skew(lambda: there - 100, ["x"]), "the repository", "this host", True)
    assert level == "error" and "100 s ahead of" in error.what and error.kind == "clock"
    assert backend.skew(lambda: there, []) is None


# -- whose data ------------------------------------------------------------------------------------------------------------

PRODUCTION = {"ecosystem": "shop", "production": True}


def catalog(ecosystem, production=False):
    return {"catalog": {"ecosystem": ecosystem, "production": production}}


def test_a_catalog_for_drills_that_leads_to_production_is_refused(world):
    world.backup("newer", catalog=PRODUCTION)
    assert told(look(world, **catalog("shop", True))) == []
    one = only(look(world, **catalog("drill")), "error", "identity")
    assert "live data of production ecosystem shop" in one["what"] and one["where"] == str(world.tree) and one["source"] == "tree"
    assert told(look(world, accept=("new_host",), **catalog("shop")), "error"), "no word helps"
    sources = world.spec().entry["sources"]
    apart = {"sources": {**sources, "tree": {**sources["tree"], "path": str(world.top / "drill")}}}
    assert told(look(world, entry=apart, **catalog("drill"))) == [], "a place of its own is what a drill needs"


def test_data_that_was_captured_for_another_ecosystem_is_refused(world):
    world.backup("newer", catalog={"ecosystem": "shop"})
    assert "live data of ecosystem shop, this catalog is yard" in only(look(world, **catalog("yard")), "error", "identity")["what"]


def test_the_origin_marker_says_whose_data_it_is(world, monkeypatch):
    monkeypatch.setattr(Box, "footprint", lambda self, context, manifest: Footprint(os.path.realpath(context.config["path"])))
    world.backup("newer")
    spec = world.spec(**catalog("shop"))
    run = new_run()
    restore.go_live(spec, "latest", run)
    restore.mark_verified(spec, run, "verified")
    origin = state.read_json(spec.path("origin.json"))
    assert origin["ecosystem"] == "shop" and origin["places"] == {"box": str(world.box), "tree": str(world.tree)}
    assert told(look(world, **catalog("shop"))) == []
    assert "restored for ecosystem shop, this catalog is yard" in only(look(world, **catalog("yard")), "error", "identity")["what"]
    # a neighbour whose marker names this place
    os.unlink(spec.path("origin.json"))
    folder = pathlib.Path(spec.service_dir).with_name("payments")
    folder.mkdir()
    (folder / "origin.json").write_text(json.dumps(origin))
    found = look(world, **catalog("shop"))
    assert set(told(found)) == {("error", "identity", "the live data belongs to service payments of ecosystem shop")}


def test_another_machine_needs_a_word_and_is_known_after_a_restore(world, monkeypatch):
    monkeypatch.setattr(identity, "host_id", lambda: "f" * 32)
    world.backup("newer")
    monkeypatch.setattr(identity, "host_id", lambda: "a" * 32)  # the state directory came along, as on a cloned disk
    one = only(look(world), "error", "identity")
    assert "another machine" in one["what"] and "-e lifeboat_new_hosts=" in one["remedy"] and "f" * 32 in one["where"]
    assert only(look(world, accept=("new_host",)), "warning", "identity")["what"] == one["what"]
    world.restore()
    world.write("written since")
    assert told(look(world)) == [], "the service lives here now"
    os.unlink(world.spec().path("origin.json"))
    assert told(look(world), "error")
    point = restore.preflight(world.spec(), "latest", new_run(), accept=("new_host",))["point"]["id"]
    world.backup("captured here")
    assert told(look(world, point)) == [], "it was captured here since"


def test_a_host_without_a_machine_id_is_not_judged(world, tmp_path, monkeypatch):
    (tmp_path / "machine-id").write_text("uninitialized\n")
    assert identity.host_id((str(tmp_path / "absent"), str(tmp_path / "machine-id"))) == ""
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    raw = identity.host_id((str(tmp_path / "machine-id"),))
    assert len(raw) == 32 and raw != "0123456789abcdef0123456789abcdef"
    monkeypatch.setattr(identity, "host_id", lambda: "")
    assert told(look(world)) == []
