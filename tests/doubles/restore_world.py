# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service with two sources, a real repository in a directory, real file keys: the ground of the restore tests."""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec

_numbers = itertools.count(1)


def new_run(verb="restore", **changes):
    """A run with a readable, unique id, of this living process."""
    number = next(_numbers)
    return {**lease.new_run(verb), "id": f"20300101T{number:06d}Z-{verb}-abc{number:03d}", **changes}


class World:
    """One service: source ``box`` (the double) and source ``tree`` (type files)."""

    def __init__(self, top: pathlib.Path) -> None:
        self.top = top
        self.box = top / "server" / "box"
        self.tree = top / "tree"

    def spec(self, **changes):
        entry = {"sources": {"box": {"type": "box", "path": str(self.box)}, "tree": {"type": "files", "path": str(self.tree)}}}
        data = {
            "service": "orders", "entry": {**entry, **changes.pop("entry", {})}, "repository": {"url": f"file://{self.top}/repository"},
            "keys": {"provider": "file", "path": str(self.top / "keys"), "private_path": str(self.top / "private")},
            "state_dir": str(self.top / "state"), **changes,
        }
        return Spec.from_dict(data)

    def write(self, text):
        self.box.parent.mkdir(exist_ok=True)
        self.box.write_text(text)
        self.tree.mkdir(exist_ok=True)
        (self.tree / "file").write_text(text)
        os.utime(self.tree / "file", ns=(0, 0))
        os.utime(self.tree, ns=(0, 0))

    def read(self):
        """The content of both sources; None where one is absent."""
        return tuple(path.read_text() if path.exists() else None for path in (self.box, self.tree / "file"))

    def backup(self, text, **changes):
        self.write(text)
        run = new_run("backup")
        operations.capture(self.spec(**changes), run, "auto")
        return run["id"]

    def taken_at(self):
        """When the newest snapshot was finished, by the file system."""
        return max(path.stat().st_mtime for path in (self.top / "repository").rglob("snapshots/*/*.json"))

    def log(self):
        path = self.box.with_suffix(".log")
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def leftovers(self):
        """Names beside the live data, which hold staged, displaced or set-aside copies."""
        names = [path.name for path in self.box.parent.iterdir() if path.name not in ("box", "box.log")] if self.box.parent.exists() else []
        return sorted(names + [path.name for path in self.top.iterdir() if path.name.startswith(".tree.")])

    def restore(self, target="latest", verdict="verified", force=False, run=None):
        """As a playbook does it, in one go."""
        run = run or new_run()
        staged = restore.stage(self.spec(), target, run, force)
        if staged["noop"]:
            restore.mark_verified(self.spec(), run, verdict)
            return staged
        live = restore.go_live(self.spec(), target, run, force)
        restore.mark_verified(self.spec(), run, verdict)
        return live


def renew(pristine):
    """Put the world back to its beginning."""
    world, copy = pristine
    shutil.rmtree(world.top)
    shutil.copytree(copy, world.top, symlinks=True)
    return world
