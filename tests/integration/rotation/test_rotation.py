# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new version of the data key: everything wrapped anew, the old version retired, and what a thief of old things has then."""

from __future__ import annotations

import json
import shutil
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, DamageError, KeyAccessError, LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.provider import KeyVersionError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import datakeys
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.directory import DirectoryBackend
from ansible_collections.lifeboat.recovery.tests.integration.rotation.conftest import World

Make = Callable[..., World]


def stored(world: World) -> list[datakeys.StoredKey]:
    """Every generation of every key."""
    backend = DirectoryBackend(f"file://{world.files.repository}")
    found = []
    for name in world.key_objects():
        key_id, generation, _json = name.split(".")
        found.append(datakeys.read_generation(backend, world.service, key_id, int(generation), "a test"))
    return found


def opens(world: World, key: datakeys.StoredKey, **keys: Any) -> bytes:
    repository = world.spec("restore").store().repository.id
    return world.spec("restore", **keys).provider().open_data_keys([(datakeys.context(repository, world.service, key.id), key.wrapped)])[0]


def test_rotated_rewrapped_retired_and_everything_restores(world: Make) -> None:
    docs = world()
    first, second = docs.capture("one"), docs.capture("two")
    stolen = stored(docs)
    before = {key.id: opens(docs, key) for key in stolen}
    objects = {path: path.read_bytes() for path in docs.files.objects()}
    told = operations.rotate(docs.spec("rotate"), docs.run("rotate_keys"), True, False)
    assert (told["changed"], told["version"], told["data_keys"], told["rewrapped"]) == (True, 2, 2, 2)
    assert docs.key_objects() == sorted(f"{key.id}.{number:06d}.json" for key in stolen for number in (0, 1))
    assert all(path.read_bytes() == content for path, content in objects.items()), "an object was rewritten in place"
    third = docs.capture("three")
    with pytest.raises(ConfigError, match="version 2 is the newest"):
        operations.retire(docs.spec("retire"), docs.run("retire"), "2", False)
    retired = operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    assert retired["changed"] and len(retired["retired"]) == 1 and retired["data_keys"] == 3
    assert not operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)["changed"]
    for key in stolen:
        with pytest.raises(KeyVersionError, match="key version is retired"):
            opens(docs, key)
    assert {key.id: opens(docs, key) for key in stored(docs) if key.generation == 1} == before
    assert "one" in docs.restore(first) and "two" in docs.restore(second) and {"one", "two", "three"} <= docs.restore(third)
    assert operations.verify(docs.spec("restore"), "all", "decode")["findings"] == []
    events = [json.loads(line)["event"] for line in (docs.files.home / "state" / "services" / "docs" / "ledger.jsonl").read_text().splitlines()]
    assert [event for event in events if event.startswith(("rotate.", "retire."))] == [
        "rotate.intent", "rotate.version", "rotate.batch", "rotate.done", "retire.intent", "retire.done"]


def test_who_rotates_opens_nothing(site: Any, tmp_path: Any) -> None:
    docs = World(tmp_path, site)
    docs.capture("one")
    with pytest.raises(KeyAccessError, match="decrypt/docs-data"):
        key = stored(docs)[0]
        repository = docs.spec("rotate").store().repository.id
        docs.spec("rotate").provider().open_data_keys([(datakeys.context(repository, "docs", key.id), key.wrapped)])


def test_needed_versions_are_not_retired(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = world()
    first = docs.capture("one")
    docs.spec("rotate").provider().rotate(1)
    second = docs.capture("two")
    with pytest.raises(KeyVersionError, match=rf"still needed by 1 of 2 data keys.*snapshot {first}.*nothing was retired"):
        operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    # a list that shows neither the key nor the newest manifests proves nothing: both are asked for by name
    whole = DirectoryBackend.list
    monkeypatch.setattr(DirectoryBackend, "list", lambda self, prefix: (one for one in whole(self, prefix) if "/keys/" not in one[0]))
    with pytest.raises(KeyVersionError, match="still needed by 1 of 2"):
        operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    monkeypatch.setattr(DirectoryBackend, "list", lambda self, prefix: iter(()))
    with pytest.raises(DamageError, match="not certain which data keys are needed.*list of snapshots is incomplete"):
        operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    monkeypatch.setattr(DirectoryBackend, "list", whole)
    told = operations.rotate(docs.spec("rotate"), docs.run("rotate_keys"), False, False)
    assert (told["version"], told["rewrapped"], told["data_keys"]) == (2, 1, 2)
    lost = docs.files.repository / "services" / "docs" / "snapshots" / "tree" / "000000000001.json"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(DamageError, match="manifest number 1 of docs.tree is missing"):
        operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    lost.write_bytes(kept)
    assert operations.retire(docs.spec("retire"), docs.run("retire"), "1", True)["changed"]
    assert operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)["changed"]
    assert "one" in docs.restore(first) and "two" in docs.restore(second)


def test_a_copy_that_is_behind_keeps_a_version(world: Make, tmp_path: Any) -> None:
    docs = world()
    docs.capture("one")
    copy = tmp_path / "copy"
    shutil.copytree(docs.files.repository, copy)
    operations.rotate(docs.spec("rotate"), docs.run("rotate_keys"), True, False)
    spec = docs.spec("retire")
    spec.repository["copies"] = [{"name": "far", "url": f"file://{copy}"}]
    with pytest.raises(KeyVersionError, match=f"still needed by 1 data keys in a copy of the repository: file://{copy}"):
        operations.retire(spec, docs.run("retire"), "1", False)
    shutil.copytree(docs.files.repository, copy, dirs_exist_ok=True)
    assert operations.retire(spec, docs.run("retire"), "1", False)["changed"]


def test_a_damaged_generation_is_named_and_the_older_one_opens(world: Make) -> None:
    docs = world()
    first = docs.capture("one")
    operations.rotate(docs.spec("rotate"), docs.run("rotate_keys"), True, False)
    path = next(path for path in docs.files.objects() if path.name.endswith(".000001.json"))
    path.write_bytes(path.read_bytes().replace(b'"sha256":"', b'"sha256":"0'))
    assert any(path.name in str(finding) for finding in operations.verify(docs.spec("restore"), "all", "exists")["findings"])
    assert "one" in docs.restore(first)
    with pytest.raises(LifeboatError, match="not certain which data keys are needed.*damaged"):
        operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    older = path.with_name(path.name.replace(".000001.", ".000000."))
    kept = older.read_bytes()
    older.write_bytes(kept[:-9])
    assert any(older.name in str(finding) for finding in operations.verify(docs.spec("restore"), "all", "exists")["findings"])
    older.write_bytes(kept)
    # the next rewrap puts a sound generation behind the damaged one
    assert operations.rotate(docs.spec("rotate"), docs.run("rotate_keys"), True, False)["rewrapped"] == 1
    assert operations.retire(docs.spec("retire"), docs.run("retire"), "2", False)["changed"]
    assert "one" in docs.restore(first)
