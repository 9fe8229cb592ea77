# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Capture into a real directory repository: deduplication, resume, sequence, marks, refusals."""

from __future__ import annotations

import os
import pathlib
import random
import shutil

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, KeyAccessError, SourceError, StorageError, TargetError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.inspect import list_snapshots
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.resolve import resolve_target
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import checked, pool
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService


@pytest.fixture
def docs(tmp_path: pathlib.Path) -> FilesService:
    service = FilesService(tmp_path).bootstrap()
    service.fill()
    return service


def test_second_capture_of_an_unchanged_tree_stores_no_chunk(docs: FilesService) -> None:
    first = docs.capture("p1")["snapshots"][0]
    packs = [path for path in docs.objects() if path.suffix == ".pack"]
    second = docs.capture("p2")["snapshots"][0]
    assert (first["mode"], second["mode"]) == ("full", "incremental")
    assert first["chunks_new"] > 0 and second["chunks_new"] == 0 and second["bytes_stored"] == 0
    assert second["digest"] == first["digest"]
    assert [path for path in docs.objects() if path.suffix == ".pack"] == packs


def test_only_changed_content_is_stored(docs: FilesService) -> None:
    docs.capture("p1")
    with open(docs.tree / "large", "r+b") as handle:
        handle.seek(2 << 20)
        handle.write(b"changed")
    snapshot = docs.capture("p2")["snapshots"][0]
    assert snapshot["chunks_new"] == 1
    assert verify_service(docs.spec)["ok"]


def test_same_size_and_mtime_but_other_content_is_seen(docs: FilesService) -> None:
    """A file rewritten within the clock's grain with its times put back."""
    path = docs.tree / "d0" / "f0.txt"
    before = path.stat()
    first = docs.capture("p1")["snapshots"][0]
    path.write_bytes(b"FILE 0\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert docs.capture("p2")["snapshots"][0]["digest"] != first["digest"]


def test_capture_needs_no_private_key(docs: FilesService) -> None:
    spec = docs.without_private_keys()
    docs.capture("p1", spec)
    (docs.tree / "more").write_bytes(os.urandom(100_000))
    assert docs.capture("p2", spec)["snapshots"][0]["chunks_new"] == 1
    assert verify_service(spec, depth="hash")["ok"]
    refused = verify_service(spec, depth="decode")
    assert not refused["ok"] and {finding["code"] for finding in refused["findings"]} == {"key"}
    assert verify_service(docs.spec, depth="decode")["ok"]


def test_the_same_run_again_is_a_no_op(docs: FilesService) -> None:
    assert docs.capture("p1")["changed"]
    objects = docs.objects()
    again = docs.capture("p1")
    assert not again["changed"] and len(again["snapshots"]) == 1
    assert docs.objects() == objects


def test_a_lost_chunk_cache_is_rebuilt(docs: FilesService) -> None:
    docs.capture("p1")
    shutil.rmtree(docs.home / "state")
    assert docs.capture("p2")["snapshots"][0]["chunks_new"] == 0


def test_a_garbled_chunk_cache_is_rebuilt(docs: FilesService) -> None:
    docs.capture("p1")
    for path in (docs.home / "state").rglob("chunks-*.sqlite"):
        path.write_bytes(b"no database" * 1000)
    assert docs.capture("p2")["snapshots"][0]["chunks_new"] == 0


def test_packs_of_an_unfinished_capture_are_used_again(docs: FilesService) -> None:
    """Without its manifest, index and cache, what a capture stored is found through the packs' own footers."""
    docs.capture("p1")
    for path in docs.objects():
        if path.suffix in (".json", ".tree", ".index") and path.name != "lifeboat.json" and path.parent.name != "keys":
            path.unlink()
    shutil.rmtree(docs.home / "state")
    snapshot = docs.capture("p2")["snapshots"][0]
    assert snapshot["chunks_new"] == 0 and snapshot["mode"] == "full"
    assert verify_service(docs.spec)["ok"]


def test_sequence_numbers_and_the_chain(docs: FilesService) -> None:
    for number in range(3):
        docs.capture(f"p{number}")
    listed = list_snapshots(docs.spec)
    assert [snapshot["sequence"] for snapshot in listed["snapshots"]] == [1, 2, 3]
    assert [point["id"] for point in listed["points"]] == ["p0", "p1", "p2"] and not listed["warnings"]


def test_a_removed_newest_manifest_is_noticed_and_its_number_not_used_again(docs: FilesService) -> None:
    docs.capture("p1")
    docs.capture("p2")
    (docs.repository / "services/docs/snapshots/tree/000000000002.json").unlink()
    listed = list_snapshots(docs.spec)
    assert "newest manifest of source tree is missing: number 2" in listed["warnings"][0]["what"]
    assert not verify_service(docs.spec)["ok"]
    assert docs.capture("p3")["snapshots"][0]["sequence"] == 3


def test_a_removed_middle_manifest_is_named(docs: FilesService) -> None:
    for number in range(3):
        docs.capture(f"p{number}")
    (docs.repository / "services/docs/snapshots/tree/000000000002.json").unlink()
    assert "number 2 of docs.tree is missing" in list_snapshots(docs.spec)["warnings"][0]["what"]


def test_a_manifest_copied_from_another_service_is_refused(docs: FilesService, tmp_path: pathlib.Path) -> None:
    docs.capture("p1")
    other = FilesService(tmp_path, "other").bootstrap()
    other.capture("p1")
    source = docs.repository / "services/other/snapshots/tree/000000000001.json"
    target = docs.repository / "services/docs/snapshots/tree/000000000002.json"
    shutil.copy(source, target)
    assert [warning["where"] for warning in list_snapshots(docs.spec)["warnings"]] == ["services/docs/snapshots/tree/000000000002.json"]


def test_services_share_nothing(docs: FilesService, tmp_path: pathlib.Path) -> None:
    docs.capture("p1")
    other = FilesService(tmp_path, "other").bootstrap()
    assert other.capture("p1")["snapshots"][0]["chunks_reused"] == 0


def test_repository_of_a_newer_format_is_refused(docs: FilesService) -> None:
    (docs.repository / "lifeboat.json").write_text(checked.dump({"format": 2, "id": "x"}).decode())
    with pytest.raises(ConfigError, match="format 2, this version reads up to 1: file://.*; update"):
        docs.capture("p1")


def test_absent_repository_is_refused(tmp_path: pathlib.Path) -> None:
    service = FilesService(tmp_path)
    service.spec.provider().ensure()
    with pytest.raises(StorageError, match="no repository there: file://.*; create it"):
        service.capture("p1")


def test_absent_directory_leaves_no_snapshot(docs: FilesService) -> None:
    shutil.rmtree(docs.tree)
    with pytest.raises(SourceError, match="source directory does not exist: .*; correct 'path'"):
        docs.capture("p1")
    assert not [path for path in docs.objects() if "snapshots" in path.parts]


def test_keys_of_somebody_else_open_nothing(docs: FilesService, tmp_path: pathlib.Path) -> None:
    docs.capture("p1")
    stranger = FilesService(tmp_path / "elsewhere").bootstrap()
    docs.document["keys"] = stranger.document["keys"]
    docs.spec = type(docs.spec).from_dict(docs.document)
    result = verify_service(docs.spec)
    assert not result["ok"] and result["checked"]["snapshots"] == 0


def test_wrong_private_key_is_named(docs: FilesService, tmp_path: pathlib.Path) -> None:
    docs.capture("p1")
    stranger = FilesService(tmp_path / "elsewhere").bootstrap()
    shutil.copy(stranger.home / "keys/private/docs/data.key", docs.home / "keys/private/docs/data.key")
    store = docs.spec.store()
    point, _problems = resolve_target(docs.spec, store, "latest")
    with pytest.raises(KeyAccessError, match="wrong key|data key"):
        store.reader(point.snapshots["tree"]).open_keys()


@pytest.mark.parametrize("target", ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00", "docs.tree-000009-abcdef01", "proven", "no such thing"])
def test_unknown_targets_name_the_candidates(docs: FilesService, target: str) -> None:
    docs.capture("p1")
    with pytest.raises(TargetError, match="newest first: p1"):
        resolve_target(docs.spec, docs.spec.store(), target)


def test_targets(docs: FilesService) -> None:
    first = docs.capture("p1")["snapshots"][0]
    second = docs.capture("p2")["snapshots"][0]
    store = docs.spec.store()
    found = {target: resolve_target(docs.spec, store, target)[0].id for target in ("latest", "p1", first["id"], first["time"], second["time"])}
    assert found == {"latest": "p2", "p1": "p1", first["id"]: "p1", first["time"]: "p1", second["time"]: "p2"}


def test_a_disk_that_fails_while_packs_are_made_durable_leaves_no_snapshot(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PACK_TARGET", 1 << 20)
    service = FilesService(tmp_path).bootstrap()
    for nth in (1, 3):
        # new content each time: what a failed capture left whole is used again, and would make no pack to fail at
        for number in range(12):
            (service.tree / f"file{number}").write_bytes(os.urandom(1 << 20))
        faults.configure(f"pack.fsync.before:{nth}:error")
        try:
            with pytest.raises(StorageError, match="Input/output error"):
                service.capture(f"p{nth}")
        finally:
            faults.configure()
        assert list(service.repository.rglob(".tmp-*")) == [] and list_snapshots(service.spec)["snapshots"] == []
    (whole,) = service.capture("p4")["snapshots"]
    assert whole["chunks_reused"] > 0 and verify_service(service.spec, "p4", "decode")["findings"] == []


def test_compression_is_set_per_source(tmp_path: pathlib.Path) -> None:
    chance, stored = random.Random(7), {}
    words = [chance.randbytes(chance.randint(2, 12)) for _word in range(500)]
    text = b" ".join(chance.choices(words, k=200000))
    for level in (None, 1, 3, "19"):
        service = FilesService(tmp_path / str(level), sources={
            "tree": {"type": "files", "path": str(tmp_path / str(level) / "data" / "tree"), **({"compression": level} if level else {})}}).bootstrap()
        (service.tree / "file").write_bytes(text)
        stored[level] = service.capture("p")["snapshots"][0]["bytes_stored"]
        assert verify_service(service.spec, "p", "decode")["findings"] == []
    assert stored[None] == stored[3] != stored[1] and stored["19"] < stored[1]
    service.document["entry"]["sources"]["tree"]["compression"] = 20
    with pytest.raises(ConfigError, match="'compression' must be one of 1, 2"):
        service.capture("q", type(service.spec).from_dict(service.document))


def test_a_disk_that_is_full_at_the_first_byte_of_a_pack_leaves_nothing_half_written(tmp_path: pathlib.Path) -> None:
    service = FilesService(tmp_path).bootstrap()
    (service.tree / "file").write_bytes(os.urandom(3 << 20))
    faults.configure("pack.write.before:1:full")
    try:
        with pytest.raises(StorageError, match="No space left on device"):
            service.capture("p1")
    finally:
        faults.configure()
    assert list(service.repository.rglob(".tmp-*")) == []
