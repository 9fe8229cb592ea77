# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs on a small service of files, as scenes: what stands before, the command, and what must be true after it."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import sys
import traceback
from typing import Callable

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults, state
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.log import proven
from ansible_collections.lifeboat.recovery.plugins.module_utils.log import shipping as shipping_module
from ansible_collections.lifeboat.recovery.plugins.module_utils.log.spool import Spool
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.copy import copy_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.inspect import list_snapshots
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_index import load
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_reader import SourceLog
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_writer import LogWriter
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles import wal_segments
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record

CAPTURED = b"as it was captured\n"
LIVE = b"live data that somebody still may want\n"


def _contents(tree: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()}


def _beside(service: FilesService) -> list[pathlib.Path]:
    return sorted(path for path in service.tree.parent.iterdir() if path != service.tree)


def run_killed(command: Callable[[], None], fault: str = "", trace: str = "") -> tuple[int, str]:
    """Run a command in a process of its own under a fault plan: (exit code, negative for a signal; the error it printed)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            faults.configure(fault, trace)
            command()
            code = 0
        except BaseException:  # the parent reports it; nothing of the parent's clean-up may run here
            os.write(writing, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        told = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


class Scene:
    """One verb. prepare() builds the world before it, run() is the command, check() asserts the world after it."""

    verb = ""

    def __init__(self, home: pathlib.Path) -> None:
        self.service = FilesService(home)

    def prepare(self) -> None:
        self.service.bootstrap()
        (self.service.tree / "dir").mkdir()
        (self.service.tree / "dir" / "file").write_bytes(CAPTURED)
        (self.service.tree / "large").write_bytes(CAPTURED * 100_000)
        self.service.capture("p1", self.service.without_private_keys())

    def run(self) -> None:
        raise AssertionError("a scene has a command")

    def check(self) -> None:
        raise AssertionError("a scene has an outcome")

    def _restore(self) -> None:
        run = run_record("restore-" + os.urandom(4).hex(), "restore")
        told = restore.preflight(self.service.spec, "latest", run)
        assert told["ok"], told["findings"]
        restore.stage(self.service.spec, "latest", run)
        restore.go_live(self.service.spec, "latest", run)
        restore.mark_verified(self.service.spec, run, "verified")

    def check_sound(self) -> None:
        """What holds after every scene: all that is published verifies, the ledger's chain is whole."""
        told = verify_service(self.service.spec)
        assert told["ok"], told["findings"]
        restore.current_state(self.service.spec)


class Capture(Scene):
    """A second, incremental capture, without the private half of the key."""

    verb = "capture"

    def prepare(self) -> None:
        super().prepare()
        (self.service.tree / "new").write_bytes(os.urandom(2 << 20))

    def run(self) -> None:
        self.service.capture("backup-" + os.urandom(4).hex(), self.service.without_private_keys())

    def check(self) -> None:
        self.check_sound()
        listed = list_snapshots(self.service.spec)
        assert not listed["warnings"], listed["warnings"]
        newest = listed["snapshots"][-1]
        assert newest["sequence"] == len(listed["snapshots"]) and newest["facts"]["files"] == 3
        packs = [path for path in self.service.objects() if path.suffix == ".pack"]
        assert sum(path.stat().st_size for path in packs) < 5 << 20, "finished packs of the killed capture were not used again"
        store = self.service.spec.store()
        source, config = self.service.spec.source("tree")
        manifest = store.chains()[0].manifests[-1]
        context = self.service.spec.context("tree", config, _progress(), store.chunk_key)
        assert source.verify_live(context, store.reader(manifest), manifest.data).equal


class FirstCapture(Capture):
    """Repository, keys and the first capture."""

    verb = "first"

    def prepare(self) -> None:
        self.service.tree.mkdir(parents=True)
        for name in ("one", "two", "three"):
            (self.service.tree / name).write_bytes(os.urandom(200_000))

    def run(self) -> None:
        self.service.bootstrap()
        super().run()


class Restore(Scene):
    """Wrecked live data are restored; the former ones are kept."""

    verb = "restore"

    def prepare(self) -> None:
        super().prepare()
        (self.service.tree / "large").unlink()
        (self.service.tree / "dir" / "file").write_bytes(LIVE)

    def run(self) -> None:
        self._restore()

    def check(self) -> None:
        self.check_sound()
        assert _contents(self.service.tree) == {"dir/file": CAPTURED, "large": CAPTURED * 100_000}
        kept = _beside(self.service)
        assert [path.suffix for path in kept] == [".displaced"], kept
        assert _contents(kept[0]) == {"dir/file": LIVE}
        told = restore.preflight(self.service.spec, "latest", run_record("again", "restore"))
        assert told["data_current"] and not told["changed"], told


class Restage(Restore):
    """The same after a first try was killed half-way through staging, and with a migration."""

    verb = "restage"

    def __init__(self, home: pathlib.Path) -> None:
        super().__init__(home)
        self.migrations = home / "migrations"
        note = [sys.executable, "-I", "-S", "-c", "import sys; open(sys.argv[1], 'a').write('m')", str(self.migrations)]
        self.service.document["entry"]["runtime"] = {"migrate": note}
        self.service.spec = Spec.from_dict(self.service.document)

    def prepare(self) -> None:
        super().prepare()
        assert run_killed(self._restore, "restore.stage.filled:1")[0] == -signal.SIGKILL

    def check(self) -> None:
        super().check()
        # once more where a kill came between its end and the ledger's word of it
        assert self.migrations.read_text() in ("m", "mm")


class Commit(Restore):
    """What the restore displaced is deleted."""

    verb = "commit"

    def prepare(self) -> None:
        super().prepare()
        self._restore()

    def run(self) -> None:
        restore.commit(self.service.spec, run_record("commit-" + os.urandom(4).hex(), "commit"))

    def check(self) -> None:
        self.check_sound()
        assert _contents(self.service.tree) == {"dir/file": CAPTURED, "large": CAPTURED * 100_000}
        assert not _beside(self.service)


class Rollback(Commit):
    """The displaced data come back, the restored copy is set aside."""

    verb = "rollback"

    def run(self) -> None:
        restore.roll_back(self.service.spec, run_record("rollback-" + os.urandom(4).hex(), "rollback"))

    def check(self) -> None:
        self.check_sound()
        assert _contents(self.service.tree) == {"dir/file": LIVE}
        aside = _beside(self.service)
        assert [path.suffix for path in aside] == [".set-aside"], aside
        assert _contents(aside[0]) == {"dir/file": CAPTURED, "large": CAPTURED * 100_000}


class Ship(Scene):
    """Complete segments and a tail that lie in a spool, two timelines, are shipped into the log."""

    verb = "ship"

    def __init__(self, home: pathlib.Path) -> None:
        super().__init__(home)
        self.spool = home / "spool"

    def prepare(self) -> None:
        self.service.bootstrap()
        wal_segments.fill(self.spool / "wal")

    def run(self) -> None:
        shipping_module.AHEAD = 1  # one after the other, so that a point is passed as often in each run
        spec = self.service.without_private_keys()
        place = spec.path("log-proven.json")
        state.ensure_private(spec.service_dir)
        mark = proven.read(place, "here")
        mark.system, mark.segment_size = wal_segments.SYSTEM, wal_segments.SIZE
        store = spec.store()
        shipping = shipping_module.Shipping(
            Spool(str(self.spool)), LogWriter(store, "tree"), lambda: load(store.backend, store.provider, store.repository.id, "docs", "tree"),
            mark, lambda kept: proven.write(place, "here", kept), lambda timeline: wal_segments.HISTORY, lambda: None)
        shipping.ship()
        shipping.close()

    def check(self) -> None:
        told = verify_service(self.service.spec)
        assert told["ok"] and not told["findings"], told["findings"]
        log = SourceLog(self.service.spec.store(), "tree", wal_segments.SYSTEM)
        for timeline, end in wal_segments.ENDS.items():
            for start in range(wal_segments.STARTS[timeline], end, wal_segments.SIZE):
                upto = min(end, start + wal_segments.SIZE)
                assert log.read(timeline, start, upto) == wal_segments.segment(timeline, start, upto)[:upto - start]
        assert log.histories() == {2: wal_segments.HISTORY}
        mark = proven.read(self.service.spec.path("log-proven.json"), "here")
        assert (mark.timeline, mark.position) == (2, wal_segments.ENDS[2]) and not mark.gaps
        # what was removed from the spool may be back after a power loss: it is proven, and removed again by the next pass
        assert {path.name for path in (self.spool / "wal").iterdir()} >= {"00000002.history", wal_segments.TAIL}


class Repair(Scene):
    """A damaged pack and a damaged manifest replaced from a copy."""

    verb = "repair"

    def prepare(self) -> None:
        super().prepare()
        far = self.service.home / "far"
        shutil.copytree(self.service.repository, far)
        for kind in ("packs", "snapshots"):
            path = next(self.service.repository.rglob(f"{kind}/*/*"))
            path.write_bytes(path.read_bytes()[:-1])

    def run(self) -> None:
        far = self.service.home / "far"
        self.service.document["repository"] = {**self.service.document["repository"], "copies": [{"name": "far", "url": f"file://{far}"}]}
        self.service.spec = Spec.from_dict(self.service.document)
        told = copy_service(self.service.spec, run_record("copy-" + os.urandom(4).hex(), "copy"), _progress(), ["local"], repair=True)
        assert told["ok"], told["copies"]

    def check(self) -> None:
        self.check_sound()
        assert _objects(self.service.repository) == _objects(self.service.home / "far")


def _objects(top: pathlib.Path) -> dict[str, bytes]:
    return {name: data for name, data in _contents(top).items() if ".tmp-" not in name}


def _progress() -> Progress:
    return Progress("docs", "check")


class Rotate(Scene):
    """A new version of the data key, everything wrapped under it, the old version retired."""

    verb = "rotate"

    def run(self) -> None:
        spec = self.service.spec
        if not any(entry["event"] == "rotate.done" for entry in Ledger.for_spec(spec).entries()):
            told = operations.rotate(spec, run_record("rotate-" + os.urandom(4).hex(), "rotate_keys"), True, False)
            assert (told["version"], told["data_keys"]) == (2, 1), "the same command again made a second version"
        operations.retire(spec, run_record("retire-" + os.urandom(4).hex(), "retire"), "1", False)

    def check(self) -> None:
        self.check_sound()
        found = self.service.spec.provider().versions()
        assert (found.newest, found.oldest) == (2, 2), found
        assert not list((self.service.home / "keys" / "private" / "docs").glob("data-*.key"))
        told = verify_service(self.service.spec, depth="decode")
        assert told["ok"], told["findings"]
        assert not self.service.spec.provider().ensure(), "bootstrap found something to mend"


class Shred(Scene):
    """The keys of a service are destroyed."""

    verb = "shred"

    def run(self) -> None:
        operations.shred(self.service.spec, run_record("shred-" + os.urandom(4).hex(), "shred"), "lab/docs", "a drill", False)

    def check(self) -> None:
        keys = self.service.home / "keys"
        assert sorted(path.name for path in keys.rglob("*") if path.is_file()) == ["sign.key", "sign.pub", "sign.pub"]
        try:
            self._restore()
        except (LifeboatError, AssertionError) as error:
            assert "was shredded on" in str(error), error
        else:
            raise AssertionError("a shredded service was restored")


SCENES: dict[str, Callable[[pathlib.Path], Scene]] = {
    scene.verb: scene for scene in (FirstCapture, Capture, Restore, Restage, Commit, Rollback, Ship, Repair, Rotate, Shred)
}
