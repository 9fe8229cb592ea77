# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole states put back, newest ends removed, and objects that were made to look right: what the host's marks and the keys make of them."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import checked, layout
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.tests.lab import manipulations, targets
from ansible_collections.lifeboat.recovery.tests.lab.two_services import END, SEGMENT, TwoServices

#: What remembers which snapshots and which end of the log there were; a host that is new has the keys alone.
HOST, NEW = "host", "new"


def findings(world: TwoServices, host: str = HOST, depth: str = "decode") -> list[str]:
    """The errors of a verify."""
    try:
        told = verify_service(world.spec(host=host), depth=depth)
    except LifeboatError as error:
        return [str(error)]
    assert told["mark"] == (host == HOST), "verify says whether a missing end could have been noticed"
    return [f"{one['what']}: {one['where']}" for one in told["findings"] if one["level"] == "error"]


def refusal(world: TwoServices, host: str = HOST, target: str = "latest") -> str:
    """What a restore says when it refuses; "" when it goes on, up to the staged copy."""
    run, live = lease.new_run("restore"), world.live()
    told = restore.preflight(world.spec(host=host), target, run)
    if told["ok"]:
        restore.stage(world.spec(host=host), target, run)
    assert world.live() == live
    return "" if told["ok"] else str([one for one in told["findings"] if one["level"] == "error"])


def point(world: TwoServices, host: str = NEW) -> str:
    """What ``latest`` means there."""
    return str(restore.preflight(world.spec(host=host), "latest", lease.new_run("restore"))["point"]["snapshots"]["tree"])


def test_the_newest_point_removed(world: TwoServices) -> None:
    """A host that captured it refuses to take an older one for the latest. One without memory cannot know, and verify says that it has none."""
    names = [layout.manifest("orders", source, 3) for source in ("db", "tree")]
    for name in names:
        world.at(name).unlink()
    assert [any(name in one for one in findings(world)) for name in names] == [True, True]
    assert all(name in refusal(world) for name in names[:1])
    assert findings(world, NEW) == [] and refusal(world, NEW) == "" and "-000002-" in point(world)


def test_the_whole_service_put_back_to_an_older_state(world: TwoServices) -> None:
    """Every object is valid and signed, the chain is whole; only memory outside of the repository tells."""
    for name in world.came["orders", 3]:
        world.at(name).unlink()
    assert any("newest manifest of source tree is missing" in one for one in findings(world))
    assert "000000000003.json" in refusal(world)
    assert findings(world, NEW) == [] and "-000002-" in point(world)


def test_the_end_of_the_log_removed(world: TwoServices) -> None:
    """``latest`` would silently end earlier. It can be asked for by name, and on a host without memory it is what there is."""
    name = layout.log_piece("orders", "db", 3, 2, 3 * SEGMENT + 99, END)
    world.at(name).unlink()
    assert [name in one for one in findings(world)] == [True]
    said = refusal(world)
    assert name in said and "@latest" in said
    accepted = said.rpartition("ask for ")[2].split("'")[0].split('"')[0]
    assert refusal(world, HOST, accepted) == ""
    assert findings(world, NEW) == [] and refusal(world, NEW) == ""


def _other_repository(path: pathlib.Path) -> None:
    """The descriptor of another, valid one."""
    home = path.parent.parent / "another"
    Repository.create({"url": f"file://{home}"})
    shutil.copy(home / layout.DESCRIPTOR, path)


def _forged(path: pathlib.Path) -> None:
    document = checked.load(path.read_bytes())
    path.write_bytes(checked.dump({**document, "id": "00000000-0000-4000-8000-000000000000"}))


@pytest.mark.parametrize("tamper", [
    *(lambda path, how=how: how(path, path, path) for how in (manipulations.flip, manipulations.truncate, manipulations.delete)), _other_repository, _forged,
], ids=["flip", "truncate", "delete", "replay", "forge"])
def test_the_descriptor(world: TwoServices, tamper: Callable[[pathlib.Path], None]) -> None:
    """There is one; without it nothing opens, and with another's id nothing fits, which every manifest says."""
    tamper(world.top / "repository" / layout.DESCRIPTOR)
    for host in (HOST, NEW):
        said = refusal(world, host)
        assert layout.DESCRIPTOR in said or "complete" in said, said
    try:
        found = [one["where"] for one in verify_service(world.spec())["findings"] if one["level"] == "error"]
    except LifeboatError as error:
        found = [str(error)]
    manifests = {layout.manifest("orders", source, number) for source in ("db", "tree") for number in (1, 2, 3)}
    assert any(layout.DESCRIPTOR in one for one in found) or manifests <= set(found), found


def test_a_data_key_with_a_hash_that_was_made_to_fit(world: TwoServices) -> None:
    """Its hash is no secret: whoever may write can put another's wrapped key under the right id. What it is bound to tells when it is opened."""
    target = targets.targets(world)["key"]
    for other in (target.older, target.foreign):
        path = world.at(target.name)
        document = checked.load(path.read_bytes())
        stranger = checked.load(world.at(other).read_bytes())
        path.write_bytes(checked.dump({**document, "wrapped": stranger["wrapped"]}))
        assert findings(world, depth="hash") == [], "documented: only who may open the keys sees it"
        assert findings(world) and all(path.name.split(".")[0] in one for one in findings(world))
        assert path.name.split(".")[0] in refusal(world)
        path.write_bytes(checked.dump(document))


@pytest.mark.parametrize("kept", ["", "keys"])
def test_another_service_in_its_place(world: TwoServices, kept: str) -> None:
    """All of another service's objects under this service's names, with or without its own keys."""
    ours, theirs = (world.top / "repository" / "services" / service for service in ("orders", "bills"))
    for path in ours.iterdir():
        if path.name != kept:
            shutil.rmtree(path)
            shutil.copytree(theirs / path.name, path)
    assert {layout.manifest("orders", source, 3) in one for source in ("db", "tree") for one in findings(world)} >= {True}
    assert refusal(world) and refusal(world, NEW)


def test_another_source_of_the_same_service_in_its_place(world: TwoServices) -> None:
    """The same signing key: the place that is signed tells."""
    world.at(layout.manifest("orders", "tree", 3)).write_bytes(world.at(layout.manifest("orders", "db", 3)).read_bytes())
    assert any("belongs to another place" in one for one in findings(world))
    assert layout.manifest("orders", "tree", 3) in refusal(world) and layout.manifest("orders", "tree", 3) in refusal(world, NEW)


def test_facts_in_clear_are_signed(world: TwoServices) -> None:
    """Everything in a manifest can be read without a key, and none of it changed."""
    path = world.at(layout.manifest("orders", "tree", 3))
    envelope = json.loads(path.read_bytes())
    for changed in (envelope["manifest"].replace('"mode":"incremental"', '"mode":"full"'), envelope["manifest"].replace('"sequence":3', '"sequence":4')):
        assert changed != envelope["manifest"]
        path.write_bytes(json.dumps({**envelope, "manifest": changed}, separators=(",", ":")).encode())
        assert any("signature" in one and path.name in one for one in findings(world))
        assert path.name in refusal(world, NEW)
