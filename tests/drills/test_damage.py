# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every object of a repository, damaged in every way: verify names it, a restore that needs it refuses and touches nothing."""

from __future__ import annotations

import os
import pathlib
import random
from typing import Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record


def flip(path: pathlib.Path, seed: int) -> None:
    """One bit, anywhere."""
    data = bytearray(path.read_bytes())
    at = random.Random(seed).randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(bytes(data))


def cut(path: pathlib.Path, seed: int) -> None:
    """The end is gone."""
    size = path.stat().st_size
    os.truncate(path, random.Random(seed).randrange(size))


def delete(path: pathlib.Path, _seed: int) -> None:
    path.unlink()


def empty(path: pathlib.Path, _seed: int) -> None:
    os.truncate(path, 0)


def listing(tree: pathlib.Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns, path.lstat().st_ino) for path in [tree, *tree.rglob("*")])


@pytest.fixture
def docs(tmp_path: pathlib.Path) -> FilesService:
    """Three points, the second with a pack of its own that the third does not need."""
    service = FilesService(tmp_path).bootstrap()
    service.fill()
    service.capture("p1")
    only = service.tree / "only-in-p2"
    only.write_bytes(os.urandom(300_000))
    service.capture("p2")
    only.unlink()
    (service.tree / "in-p3").write_bytes(os.urandom(300_000))
    service.capture("p3")
    return service


def needed_by(service: FilesService, point: str) -> set[str]:
    """Names of the objects without which a point cannot be restored."""
    store = service.spec.store()
    names = {"lifeboat.json"}
    for chain in store.chains():
        for manifest in chain.manifests:
            if manifest.data["point"]["id"] == point:
                prefix = f"services/{service.spec.service}/"
                names |= {manifest.name, f"{prefix}trees/{manifest.data['tree']['id']}.tree"}
                names |= {f"{prefix}keys/{key}.000000.json" for key in manifest.data["keys"]}
                names |= {f"{prefix}packs/{pack[:2]}/{pack}.pack" for pack, _size, _digest in manifest.data["packs"]}
    return names


@pytest.mark.parametrize("damage", [flip, cut, delete, empty])
def test_every_object_damaged(docs: FilesService, damage: Callable[[pathlib.Path, int], None]) -> None:
    needed = needed_by(docs, "p3")
    (docs.tree / "d0" / "f0.txt").write_text("live data that a refused restore must not touch")
    before = listing(docs.tree)
    seen: dict[str, int] = {}
    for seed, path in enumerate(docs.objects()):
        name = str(path.relative_to(docs.repository))
        whole = path.read_bytes()
        damage(path, seed)
        kind = name.split("/")[2] if "/" in name else name
        seen[kind] = seen.get(kind, 0) + 1
        try:
            found = verify_service(docs.spec)["findings"]
        except LifeboatError as error:
            found = [error.as_dict()]
        if damage is delete and kind in ("indexes", "catalogs"):
            assert not found, f"{name}: caches and copies may go, {found}"
        else:
            assert any(name in finding["where"] for finding in found), f"{damage.__name__} of {name} was not named: {found}"
        try:
            told = restore.preflight(docs.spec, "latest", run_record("r", "restore"))
            refused, shown = not told["ok"], str(told["findings"])
        except LifeboatError as error:
            refused, shown = True, str(error)
        assert refused == (name in needed) or (refused and name.endswith("snapshots/tree/000000000003.json")), f"{name}: {shown}"
        if not (damage is delete and kind in ("indexes", "catalogs")):
            assert name in shown or name not in needed, f"{name} is not named: {shown}"
        if refused and kind != "packs":  # a pack whose footer alone is damaged still restores
            with pytest.raises(LifeboatError):
                restore.stage(docs.spec, "latest", run_record("r", "restore"))
        path.write_bytes(whole)
        assert listing(docs.tree) == before
    assert set(seen) == {"lifeboat.json", "packs", "keys", "trees", "indexes", "catalogs", "snapshots"}
    assert verify_service(docs.spec)["ok"]


def test_a_restore_goes_on_past_unrelated_damage(docs: FilesService) -> None:
    needed = needed_by(docs, "p3")
    hurt = [path for path in docs.objects() if str(path.relative_to(docs.repository)) not in needed and path.suffix in (".pack", ".index")]
    assert {path.suffix for path in hurt} == {".pack", ".index"}
    for seed, path in enumerate(hurt):
        flip(path, seed)
    run = run_record("r1", "restore")
    told = restore.preflight(docs.spec, "latest", run)
    assert told["ok"] and {finding["level"] for finding in told["findings"]} == {"warning"}
    (docs.tree / "in-p3").unlink()
    restore.stage(docs.spec, "latest", run)
    assert restore.go_live(docs.spec, "latest", run)["changed"]
    assert (docs.tree / "in-p3").exists()


def test_a_damaged_index_is_rebuilt_by_the_next_capture(docs: FilesService) -> None:
    for seed, path in enumerate(docs.objects()):
        if path.suffix == ".index":
            flip(path, seed)
    for path in (docs.home / "state").rglob("chunks-*"):
        path.unlink()
    result = docs.capture("p4")
    assert result["snapshots"][0]["chunks_new"] == 0
    assert all("index is damaged" in warning["what"] for warning in result["warnings"]) and len(result["warnings"]) == 3


def test_damage_inside_a_needed_pack_stops_staging_and_leaves_live_data(docs: FilesService) -> None:
    """Preflight by existence cannot see a flipped bit in a large pack; the decoder does, before anything is swapped."""
    packs = [path for path in docs.objects() if path.suffix == ".pack" and str(path.relative_to(docs.repository)) in needed_by(docs, "p3")]
    flip(max(packs, key=lambda path: path.stat().st_size), 7)
    before = listing(docs.tree)
    with pytest.raises(LifeboatError, match=r"pack .*: .*snapshot docs\.tree-000003-.*\.pack"):
        restore.stage(docs.spec, "latest", run_record("r1", "restore"), force=True)
    assert listing(docs.tree) == before
