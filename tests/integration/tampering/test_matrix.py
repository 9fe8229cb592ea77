# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every class of object, tampered with in every way: verify names it, and a restore refuses before it touches anything live, or needs it not."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import layout
from ansible_collections.lifeboat.recovery.tests.lab import manipulations, targets
from ansible_collections.lifeboat.recovery.tests.lab.two_services import TwoServices
from ansible_collections.lifeboat.recovery.tests.tools.places import ROOT


class Expected(NamedTuple):
    """depth: of the shallowest verify that names the object; "" for none. restore: where it refuses, or "right": it goes on and is right."""

    depth: str
    level: str
    restore: str


#: The object is needed, and its place and content are known from what is signed: refused before anything is staged.
REFUSED = Expected("exists", "error", "preflight")
#: The same for what is opened only when the log is read: refused while staging, beside the live data.
WHILE_STAGING = Expected("exists", "error", "stage")
#: A sound piece in another's place shows only to who holds the key of the log.
WHEN_OPENED = Expected("decode", "error", "stage")
#: A copy or a cache: named, and nothing needs it.
TOLD = Expected("exists", "warning", "right")
TOLD_WHEN_OPENED = Expected("decode", "warning", "right")
#: A cache or a copy that may be gone at any time.
NOT_MISSED = Expected("", "", "right")

#: Class -> flip, truncate, delete, older, swap, replay. docs/threat-model.md has the same table in words.
MATRIX: dict[str, tuple[Expected, ...]] = {
    "pack": (REFUSED,) * 6,
    "key": (REFUSED,) * 6,
    "key of a log": (WHILE_STAGING,) * 6,
    "tree": (REFUSED,) * 6,
    "manifest": (REFUSED,) * 6,
    "index": (TOLD, TOLD, NOT_MISSED, TOLD, TOLD, TOLD),
    "catalog": (TOLD, TOLD, NOT_MISSED, TOLD, TOLD, TOLD),
    "escrow": (TOLD, TOLD, NOT_MISSED, TOLD, TOLD, TOLD),
    "hold": (TOLD, TOLD, NOT_MISSED, TOLD, TOLD, TOLD),
    "journal": (TOLD, TOLD, NOT_MISSED, TOLD, TOLD, TOLD),
    "ledger": (TOLD,) * 6,
    "log_record": (REFUSED,) * 6,
    "log_piece": (WHILE_STAGING, WHILE_STAGING, REFUSED, WHEN_OPENED, WHEN_OPENED, WHEN_OPENED),
    "log_history": (TOLD, TOLD, TOLD, TOLD_WHEN_OPENED, TOLD_WHEN_OPENED, TOLD_WHEN_OPENED),
}


def named(world: TwoServices, name: str, depth: str) -> set[str]:
    """The levels of the findings that name an object."""
    try:
        found = verify_service(world.spec(), depth=depth)["findings"]
    except LifeboatError as error:
        found = [{"level": "error", **error.as_dict()}]
    # the name of a copy that is gone is not known, its place is
    return {one["level"] for one in found if name in one["where"] or name.rpartition("/")[0] + "/" == one["where"]}


def attempt(world: TwoServices) -> tuple[str, str]:
    """A restore as the playbooks do it, up to the cutover: (where it refused, what it said); where it does not it goes on, and is right."""
    run, spec, live = lease.new_run("restore"), world.spec(), world.live()
    told = restore.preflight(spec, "latest", run)
    if not told["ok"]:
        return "preflight", str([one for one in told["findings"] if one["level"] == "error"])
    try:
        restore.stage(spec, "latest", run)
    except LifeboatError as error:
        return "stage", str(error)
    assert world.live() == live, "nothing live is touched before the cutover"
    assert restore.go_live(spec, "latest", run)["changed"]
    assert world.content() == captured(3)
    return "right", ""


#: All of them in a directory; in a bucket, where each takes seconds, those that leave a name free and those that overwrite it.
CELLS = [(kind, how, "in_directory") for kind in MATRIX for how in manipulations.MANIPULATIONS]
CELLS += [(kind, how, "in_bucket") for kind in MATRIX for how in (manipulations.delete, manipulations.replay)]


@pytest.mark.parametrize(("kind", "manipulation", "any_world"), [
    pytest.param(kind, how, place, id=f"{kind}-{how.__name__}-{place}", marks=[pytest.mark.soak] if place == "in_bucket" else []) for kind, how, place in CELLS
], indirect=["any_world"])
def test_tampered(any_world: TwoServices, kind: str, manipulation: manipulations.Manipulation) -> None:
    world, expected = any_world, MATRIX[kind][manipulations.MANIPULATIONS.index(manipulation)]
    target = targets.targets(world)[kind]
    manipulation(*(world.at(name) for name in target))
    assert named(world, target.name, expected.depth or "decode") == ({expected.level} if expected.level else set())
    if expected.depth == "decode":
        assert not named(world, target.name, "hash"), "documented: seen by who holds the keys only"

    live = world.live()
    where, said = attempt(world)
    assert where == expected.restore, said
    if where != "right":
        assert world.live() == live and (target.name in said or target.older in said), said


def captured(number: int) -> dict[str, bytes]:
    """The live content of ``orders`` when a point was taken."""
    text = f"orders {number}".encode()
    more = {f"tree/more orders {one}": TwoServices.large(f"orders {one}") for one in range(1, number + 1)}
    return {"server/box": text, "tree/file": text, **more}


def test_the_matrix_has_every_class() -> None:
    """The classes are what layout.py makes names of; the format's document lists the same."""
    classes = set()
    for name, function in inspect.getmembers(layout, inspect.isfunction):
        if not name.startswith("_") and inspect.signature(function).return_annotation == "str":
            wanted = [{"str": "x", "int": 1, "bytes": b"x"}[str(one.annotation)] for one in inspect.signature(function).parameters.values()]
            if not function(*wanted).endswith("/"):
                classes.add(name)
    # a service with a tombstone has nothing to restore: tests/integration/rotation/test_shred.py forges, moves and removes one
    assert classes == set(MATRIX) - {"key of a log"} | {"tombstone"}
    assert all(len(row) == len(manipulations.MANIPULATIONS) for row in MATRIX.values())
    table = (ROOT / "docs" / "repository-format.md").read_text().split("## Names")[1].split("\n## ")[0]
    listed = re.findall(r"^\| ([a-z ]+) \| `", table, re.MULTILINE)
    assert len(listed) == len(classes) + 1, "and the descriptor, which test_rollback.py tampers with"
