# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of a repository in real directories: complete or absent, resumed, verified at the far end, and read when the first place fails."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults, lease, state
from ansible_collections.lifeboat.recovery.plugins.module_utils.cli.main import main
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.copy import copy_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.inspect import list_snapshots
from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import holds, tombstone
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.logged_box import LoggedBox
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService
from ansible_collections.lifeboat.recovery.tests.lab.two_services import SERVICES, TwoServices

Content = dict[str, bytes]


class Twice(FilesService):
    """A service whose repository ``local`` has the copy ``global``."""

    def __init__(self, home: pathlib.Path) -> None:
        super().__init__(home)
        self.other = home / "elsewhere" / "repository"
        self.document["repository"] = {**self.document["repository"], "copies": [{"name": "global", "url": f"file://{self.other}", "copy_of": "local"}]}
        self.spec = Spec.from_dict(self.document)

    def copy(self, **options: Any) -> dict[str, Any]:
        told = copy_service(options.pop("spec", self.spec), lease.new_run("copy"), Progress("docs", "copy"), **options)
        (one,) = told["copies"]
        return {**told, **one}

    def change(self, text: str) -> None:
        (self.tree / "changing").write_text(text)
        (self.tree / f"new-{text}").write_bytes(os.urandom(300_000))

    def content(self) -> Content:
        return {str(path.relative_to(self.tree)): path.read_bytes() for path in self.tree.rglob("*") if path.is_file() and not path.is_symlink()}

    def restore(self, target: str = "latest") -> list[str]:
        """The warnings of a whole restore."""
        run, verdict = lease.new_run("restore"), "failed"
        found = restore.preflight(self.spec, target, run)
        assert found["ok"], found["findings"]
        try:
            told = restore.stage(self.spec, target, run)
            restore.go_live(self.spec, target, run)
            verdict = "restored"
        finally:
            restore.mark_verified(self.spec, run, verdict)
        return [str(warning) for warning in told["warnings"]]

    def lose(self) -> Content:
        was = self.content()
        shutil.rmtree(self.tree)
        return was


def objects(top: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def flip(path: pathlib.Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.fixture
def docs(tmp_path: pathlib.Path) -> Twice:
    service = Twice(tmp_path)
    service.bootstrap()
    service.fill()
    service.capture("p1")
    return service


def test_a_copy_is_the_same_repository_and_the_next_one_moves_only_what_is_new(docs: Twice) -> None:
    first = docs.copy(spec=docs.without_private_keys())
    assert first["ok"] and first["changed"] and len(first["snapshots"]) == 1
    assert objects(docs.other) == objects(docs.repository)
    assert Repository.open(docs.spec.repository["copies"][0]).id == Repository.open(docs.spec.repository).id
    again = docs.copy()
    assert again["ok"] and not again["changed"] and again["objects"] == 0
    docs.change("two")
    docs.capture("p2")
    second = docs.copy()
    assert 0 < second["bytes"] < first["bytes"] / 2 and objects(docs.other) == objects(docs.repository)


def test_a_damaged_object_is_named_and_no_snapshot_that_needs_it_is_copied(docs: Twice) -> None:
    docs.change("two")
    docs.capture("p2")
    newest = docs.spec.store().chains()[0].manifests[-1]
    older = docs.spec.store().chains()[0].manifests[0]
    only = {pack for pack, _size, _digest in newest.data["packs"]} - {pack for pack, _size, _digest in older.data["packs"]}
    damaged = next(path for path in docs.objects() if path.stem in only)
    flip(damaged)
    told = docs.copy()
    assert not told["ok"] and told["snapshots"] == [older.id]
    assert [problem["where"].rsplit("/", 1)[1] for problem in told["problems"]] == [damaged.name, "000000000002.json"]
    assert "pack is damaged in repository local" in told["problems"][0]["what"] and damaged.name in told["problems"][1]["what"]
    assert not (docs.other / damaged.relative_to(docs.repository)).exists()
    flip(damaged)
    assert docs.copy()["ok"] and objects(docs.other) == objects(docs.repository)


KINDS = ["pack", "tree", "key", "manifest"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage_at_the_source_stays_there(docs: Twice, kind: str) -> None:
    """Every object that a snapshot needs: nothing of it reaches the copy, and the snapshot is not there."""
    parts = {"pack": "packs", "tree": "trees", "key": "keys", "manifest": "snapshots"}
    path = next(path for path in docs.objects() if f"/{parts[kind]}/" in str(path))
    flip(path)
    told = docs.copy()
    assert not told["ok"] and told["snapshots"] == [] and any(path.name in problem["where"] for problem in told["problems"])
    assert not (docs.other / path.relative_to(docs.repository)).exists()
    assert not list(docs.other.rglob("snapshots/*/*.json"))


@pytest.mark.parametrize("point", ["pack.link.before", "pack.link.after", "tree.write.after", "key.link.after", "manifest.link.before", "manifest.link.after"])
def test_a_copy_that_dies_goes_on_where_it_was(docs: Twice, point: str) -> None:
    pid = os.fork()
    if pid == 0:
        faults.configure(point)
        try:
            docs.copy()
        finally:
            os._exit(7)
    _pid, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    for path in docs.other.rglob("*.pack"):
        assert path.read_bytes() == (docs.repository / path.relative_to(docs.other)).read_bytes()
    there = {name for name in objects(docs.other) if ".tmp-" not in name}
    told = docs.copy()
    assert told["ok"] and told["objects"] == len(set(objects(docs.repository)) - there)
    assert {name: data for name, data in objects(docs.other).items() if ".tmp-" not in name} == objects(docs.repository)


def test_what_a_killed_copy_left_damaged_is_not_taken_for_done(docs: Twice) -> None:
    pack = next(path for path in docs.objects() if path.suffix == ".pack")
    there = docs.other / pack.relative_to(docs.repository)
    Repository.open_copy(Repository.open(docs.spec.repository), docs.spec.repository["copies"][0])
    there.parent.mkdir(parents=True)
    shutil.copy(pack, there)
    flip(there)
    told = docs.copy()
    assert not told["ok"] and told["snapshots"] == [] and "pack is damaged in repository global" in told["problems"][0]["what"]


def test_another_repository_is_not_written_to(docs: Twice) -> None:
    Repository.create({"url": f"file://{docs.other}"})
    before = objects(docs.other)
    told = docs.copy()
    assert not told["ok"] and "another repository is there" in told["problems"][0]["what"] and objects(docs.other) == before


# -- restores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_restore_takes_from_the_copy_what_the_repository_lacks_and_says_so(docs: Twice, kind: str, how: str) -> None:
    docs.copy()
    was = docs.lose()
    parts = {"pack": "packs", "tree": "trees", "key": "keys", "manifest": "snapshots"}
    path = next(path for path in docs.objects() if f"/{parts[kind]}/" in str(path))
    if how == "damaged":
        flip(path)
    else:
        path.unlink()
    warnings = docs.restore()
    assert docs.content() == was
    (told,) = [warning for warning in warnings if "read from repository global" in warning]
    assert path.name in told and "local does not have it sound" in told
    entries = [entry for entry in operations.known(docs.spec, "last")["ledger"] if entry["event"] == "restore.fallback"]
    assert path.name in str(entries[0]["data"]["repositories"])


def test_a_lost_repository_is_restored_from_its_copy(docs: Twice) -> None:
    docs.copy()
    was = docs.lose()
    shutil.rmtree(docs.repository)
    warnings = docs.restore()
    assert docs.content() == was and any("repository local cannot be used" in warning and "global is read instead" in warning for warning in warnings)
    told = list_snapshots(docs.spec)
    assert [point["repositories"] for point in told["points"]] == [["global"]]


def test_without_the_copy_a_restore_of_damaged_objects_is_refused(docs: Twice) -> None:
    """The control: the same damage, and nowhere else to read."""
    flip(next(path for path in docs.objects() if path.suffix == ".pack"))
    assert not restore.preflight(docs.spec, "latest", lease.new_run("restore"))["ok"]
    docs.lose()
    with pytest.raises(LifeboatError, match="pack is damaged"):
        restore.stage(docs.spec, "latest", lease.new_run("restore"))


def test_what_both_places_hold_damaged_is_refused(docs: Twice) -> None:
    docs.copy()
    pack = next(path for path in docs.objects() if path.suffix == ".pack")
    for path in (pack, docs.other / pack.relative_to(docs.repository)):
        flip(path)
    assert not restore.preflight(docs.spec, "latest", lease.new_run("restore"))["ok"]


def test_a_copy_that_is_behind_does_not_pass_for_the_latest(docs: Twice) -> None:
    """The host remembers a newer snapshot: the operator must accept the loss by name."""
    docs.copy()
    docs.change("two")
    docs.capture("p2")
    shutil.rmtree(docs.repository)
    found = restore.preflight(docs.spec, "latest", lease.new_run("restore"))
    assert not found["ok"] and any("latest point" in finding["what"] and "p1" in finding["remedy"] for finding in found["findings"])
    docs.lose()
    docs.restore("p1")


def test_points_say_where_they_are(docs: Twice) -> None:
    docs.copy()
    docs.change("two")
    docs.capture("p2")
    assert [point["repositories"] for point in list_snapshots(docs.spec)["points"]] == [["local", "global"], ["local"]]


def test_a_new_repository_takes_the_identity_of_its_copy_and_is_filled_from_it(docs: Twice) -> None:
    docs.copy()
    whole = objects(docs.repository)
    shutil.rmtree(docs.repository)
    operations.prepare_repository(docs.spec, False)
    assert docs.copy(to=["local"], origin="global")["ok"] and objects(docs.repository) == whole
    docs.capture("p2")
    assert docs.copy()["ok"]


def test_a_repository_that_breaks_in_the_middle_is_not_taken_for_one_that_lacks_an_object(docs: Twice) -> None:
    docs.copy()
    store = docs.spec.reading_store()
    backend: Any = store.backend
    first = backend.places[0].backend
    manifest = store.chains()[0].manifests[0]

    def broken(*_arguments: Any) -> None:
        raise StorageError("does not answer", "local", "")

    first.read = first.size = broken
    assert store.manifest("tree", 1).digest == manifest.digest
    with pytest.raises(StorageError, match="does not answer"):
        backend.size("services/docs/logs/tree/000000000001/epoch.json")


def test_a_backup_makes_the_copies_that_are_due_and_a_failed_one_is_a_warning(docs: Twice) -> None:
    copies = docs.document["repository"]["copies"]
    run = lease.new_run("backup")
    assert operations.capture(docs.spec, run, "auto")["warnings"] == []
    assert objects(docs.other).keys() >= {f"services/docs/snapshots/tree/{number:012d}.json" for number in (1, 2)}
    copies[0]["every"] = 3600
    told = operations.capture(Spec.from_dict(docs.document), lease.new_run("backup"), "auto")
    assert told["warnings"] == [] and not (docs.other / "services/docs/snapshots/tree/000000000003.json").exists()
    copies.append({"name": "tape", "url": "file:///proc/nowhere", "copy_of": "local"})
    told = operations.capture(Spec.from_dict(docs.document), lease.new_run("backup"), "auto")
    assert told["changed"] and ["the copy to tape is not complete" in warning["what"] for warning in told["warnings"]] == [True]


def test_verify_of_a_copy_judges_that_copy_alone(docs: Twice) -> None:
    docs.copy()
    docs.change("two")
    docs.capture("p2")
    behind = operations.verify(docs.spec, "all", "decode", "global")
    assert behind["ok"] and behind["checked"]["snapshots"] == 1 and behind["mark"]
    flip(next(docs.other.rglob("*.pack")))
    assert not operations.verify(docs.spec, "all", "hash", "global")["ok"] and operations.verify(docs.spec, "all", "hash")["ok"]
    for manifest in docs.other.rglob("snapshots/*/*.json"):
        manifest.unlink()
    assert any("newest manifest" in finding["what"] for finding in operations.verify(docs.spec, "all", "exists", "global")["findings"])


def test_what_would_be_copied(docs: Twice) -> None:
    before = objects(docs.home)
    would = operations.copy(docs.spec, lease.new_run("copy"), [], "", True)
    assert would["changed"] and len(would["copies"][0]["snapshots"]) == 1
    assert objects(docs.home) == before
    docs.copy()
    assert not operations.copy(docs.spec, lease.new_run("copy"), [], "", True)["changed"]


def test_a_repair_brings_back_what_is_missing_and_replaces_what_is_damaged_and_nothing_else(docs: Twice) -> None:
    docs.copy()
    whole = objects(docs.repository)
    hurt = [next(path for path in docs.objects() if f"/{part}/" in str(path)) for part in ("packs", "trees", "keys", "snapshots", "catalogs", "indexes")]
    for number, path in enumerate(hurt):
        path.unlink() if number % 2 else flip(path)
    times = {path: path.stat().st_mtime_ns for path in docs.objects() if path not in hurt}
    told = docs.copy(to=["local"], repair=True)
    assert told["ok"] and told["objects"] == len(hurt) and objects(docs.repository) == whole
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert operations.verify(docs.spec, "all", "decode")["findings"] == []


def test_what_is_sound_nowhere_is_not_replaced(docs: Twice) -> None:
    docs.copy()
    pack = next(path for path in docs.objects() if path.suffix == ".pack")
    flip(pack)
    flip(docs.other / pack.relative_to(docs.repository))
    before = objects(docs.repository)
    told = docs.copy(to=["local"], repair=True)
    assert not told["ok"] and pack.name in told["problems"][0]["where"] and objects(docs.repository) == before


# -- holds


def test_a_hold_is_set_copied_listed_and_cleared(docs: Twice) -> None:
    run = lease.new_run("hold")
    with pytest.raises(ConfigError, match="a hold needs a reason"):
        operations.hold(docs.spec, run, "p1", "set", " ", False)
    before = objects(docs.repository)
    assert operations.hold(docs.spec, run, "p1", "set", "case 4711", True)["changed"] and objects(docs.repository) == before
    told = operations.hold(docs.spec, run, "p1", "set", "case 4711", False)
    (snapshot,) = told["snapshots"]
    assert told["changed"] and told["repositories"] == ["local"]
    assert not operations.hold(docs.spec, run, snapshot, "set", "again", False)["changed"]
    docs.copy()
    (hold,) = operations.holds(docs.spec)["holds"]
    assert (hold["snapshot"], hold["reason"], hold["repositories"]) == (snapshot, "case 4711", ["local", "global"]) and hold["by"].startswith(f"{run['user']}@")
    store = docs.spec.store()
    assert set(holds.closure(store, store.chains()[0].manifests[0])) == {
        name for name in before if name.split("/")[2:3] != ["indexes"] and name.startswith("services/")}
    assert operations.hold(docs.spec, run, "p1", "clear", "", False)["repositories"] == ["local", "global"]
    assert operations.holds(docs.spec)["holds"] == [] and holds.held(store, snapshot) is None
    assert operations.hold(docs.spec, run, "p1", "set", "once more", False)["changed"] and operations.holds(docs.spec)["holds"][0]["reason"] == "once more"
    assert operations.verify(docs.spec, "all", "hash")["findings"] == []


@pytest.mark.parametrize("how", ["flip", "replay"])
def test_a_hold_whose_clearing_cannot_be_trusted_still_holds(docs: Twice, how: str) -> None:
    docs.change("two")
    docs.capture("p2")
    run = lease.new_run("hold")
    (first,), (second,) = (operations.hold(docs.spec, run, point, "set", "case", False)["snapshots"] for point in ("p1", "p2"))
    operations.hold(docs.spec, run, "p1", "clear", "", False)
    cleared = docs.repository / "services/docs/holds" / f"{first}.000002.json"
    if how == "flip":
        flip(cleared)
    else:
        shutil.copy(cleared, docs.repository / "services/docs/holds" / f"{second}.000002.json")
    found = {one["snapshot"]: one for one in operations.holds(docs.spec)["holds"]}
    wanted = first if how == "flip" else second
    assert "record of a hold" in found[wanted]["damaged"]
    assert any("record of a hold" in finding["what"] for finding in operations.verify(docs.spec, "all", "exists")["findings"])


def test_repositories_that_have_parted_are_told_and_nothing_is_mixed(docs: Twice) -> None:
    """A new host captured into an empty repository with the copy's identity, before that was filled from the copy."""
    docs.copy()
    shutil.rmtree(docs.repository)
    shutil.rmtree(docs.home / "state")
    operations.prepare_repository(docs.spec, False)
    docs.change("two")
    docs.capture("p2")
    before = {name for name in objects(docs.other) if "/snapshots/" in name or "/packs/" in name}
    told = docs.copy()
    assert not told["ok"] and any("another snapshot has this number" in problem["what"] for problem in told["problems"])
    assert {name for name in objects(docs.other) if "/snapshots/" in name or "/packs/" in name} == before


def test_a_copy_that_was_not_made_for_long_is_told_where_points_are_shown(docs: Twice) -> None:
    docs.document["repository"]["copies"][0]["every"] = 60
    spec = Spec.from_dict(docs.document)
    docs.copy(spec=spec)
    assert operations.snapshots(spec)["warnings"] == []
    known = state.read_json(spec.path("copies.json")) or {}
    for copies in known.values():
        copies["global"]["finished"] = "2026-01-01T00:00:00.000000Z"
    state.write_json(spec.path("copies.json"), known, "mark")
    (warning,) = operations.snapshots(spec)["warnings"]
    assert "the copy global is behind" in warning["what"]


def test_bootstrap_makes_the_copies_too(docs: Twice) -> None:
    assert operations.prepare_repository(docs.spec, True)["made"] == ["copy global"] and not docs.other.exists()
    assert operations.prepare_repository(docs.spec, False)["made"] == ["copy global"]
    assert operations.prepare_repository(docs.spec, False)["changed"] is False


def test_the_host_command_copies_holds_verifies_and_repairs(docs: Twice, capsys: pytest.CaptureFixture[str]) -> None:
    config = docs.home / "config"
    (config / "services").mkdir(parents=True)
    (config / "services" / "docs.json").write_text(json.dumps(docs.document), encoding="utf-8")

    def command(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["--config", str(config), *words])
        return status, "".join(capsys.readouterr())

    assert command("copy", "docs", "--check") == (0, "docs: local to global: 1 snapshots would be copied\n")
    status, said = command("copy", "docs")
    assert status == 0 and "1 snapshots complete" in said
    assert "local, global" in command("points", "docs")[1]
    pack = next(path for path in docs.objects() if path.suffix == ".pack")
    flip(pack)
    assert command("verify", "docs")[0] == 3 and command("verify", "docs", "--from", "global")[0] == 0
    status, said = command("copy", "docs", "--repair")
    assert status == 1 and "needs the name of what is repaired" in said
    status, said = command("copy", "docs", "--repair", "--to", "local")
    assert status == 0 and "repair of local: 1 objects" in said and command("verify", "docs")[0] == 0
    assert command("hold", "docs", "--target", "p1", "--reason", "case 4711")[0] == 0
    assert "case 4711" in command("hold")[1]
    assert "no longer held" in command("hold", "docs", "--target", "p1", "--clear")[1] and "case 4711" not in command("hold")[1]


def test_every_class_of_object_is_copied(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TYPES, "logged_box", lambda: LoggedBox)
    world = TwoServices(tmp_path).make()
    other = tmp_path / "elsewhere"
    for service in SERVICES:
        spec = world.spec(service)
        copies = [{"name": "global", "url": f"file://{other}", "copy_of": "local"}]
        spec = world.spec(service, repository={**spec.repository, "name": "local", "copies": copies})
        tombstone.write(spec.store().backend, spec.provider(), spec.store().repository.id, service, {"time": "now", "by": "me", "run": "r", "reason": ""})
        copy_service(spec, lease.new_run("copy"), Progress(service, "copy"))
        ours, theirs = (objects(top / "services" / service) for top in (tmp_path / "repository", other))
        late = {name for name in ours if name.startswith("ledgers/") and name not in theirs}
        assert {name: data for name, data in ours.items() if name not in late} == theirs and len(late) <= 1, "the ledger's copy of the copy itself"
