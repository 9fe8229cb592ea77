# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two services in one repository, three points each, with an object of every class: small enough to be copied for every test."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils import state
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import escrow
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.log import proven
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_writer import LogWriter, OpenEpoch
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3 import S3Backend
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import lifecycle, who
from ansible_collections.lifeboat.recovery.tests.doubles.logged_box import SEGMENT, SYSTEM

from . import manipulations

SERVICES = ("orders", "bills")
#: Where timeline 2 leaves timeline 1.
LEFT = 2 * SEGMENT + 20_000
HISTORY = f"1\t0/{LEFT:X}\tno recovery target specified\n".encode()
END = 3 * SEGMENT + 300


class TwoServices:
    """Both have the sources ``db`` (a box with a log) and ``tree`` (files). The repository is a directory below ``top``."""

    def __init__(self, top: pathlib.Path) -> None:
        self.top = top
        #: (service, number of the point) -> names of the objects that came with it.
        self.came: dict[tuple[str, int], list[str]] = {}

    @property
    def repository(self) -> dict[str, Any]:
        """As the catalog has it."""
        return {"url": f"file://{self.top / 'repository'}"}

    def at(self, name: str) -> manipulations.Object:
        """An object where somebody who may write to the repository finds it."""
        return self.top / "repository" / name

    def spec(self, service: str = "orders", host: str = "host", owner: str = "team", **changes: Any) -> Spec:
        """As the service's host has it; another ``host`` has the keys and no memory of this repository."""
        home = self.top / service
        sources = {"db": {"type": "logged_box", "path": str(home / "server" / "box")}, "tree": {"type": "files", "path": str(home / "tree")}}
        return Spec.from_dict({
            "service": service, "entry": {"owner": owner, "sources": sources}, "repository": self.repository,
            "keys": {"provider": "file", "path": str(self.top / "keys"), "private_path": str(self.top / "private")},
            "state_dir": str(self.top / f"state-{host}"), **changes,
        })

    def make(self) -> TwoServices:
        """Repository, keys, three points and a log for each service. Between the points everything changes that has a class of its own."""
        for service in SERVICES:
            spec = self.spec(service)
            spec.provider().ensure()
            Repository.create(spec.repository)
            for number in (1, 2, 3):
                self.write(service, f"{service} {number}")
                self._backup(service, number)
                if number == 1:
                    self._log(spec)
                known = {name for names in self.came.values() for name in names}
                self.came[service, number] = [name for name, _size in spec.store().backend.list(f"services/{service}/") if name not in known]
            self._mark(spec)
        return self

    def _backup(self, service: str, number: int) -> None:
        """A backup as the playbook does it, its journal sealed and published, its point held; from the third on for another escrow key."""
        spec = self.spec(service, owner=f"team {number}")
        public = escrow.new_key(str(self.top / f"escrow{number // 3}.key"))
        spec = self.spec(service, owner=f"team {number}", keys={**spec.keys, "escrow": public})
        plan = {"order": [service], "services": {service: {"sources": spec.source_names}}}
        run = lifecycle.begin("backup", "shop", plan, [service], root=str(self.top / "runs"), pid=os.getpid(), operator=who.of({}, "deploy"))
        told = operations.capture(spec, dict(run.run), "auto")
        operations.hold(spec, dict(run.run), "latest", "set", f"case {number}", False)
        run.collect(service, Ledger.for_spec(spec).entries())
        run.keep(service, "snapshot", {key: value for key, value in told.items() if key != "ledger"})
        run.verdict(service, "captured")
        lifecycle.finish(run)
        operations.publish_journal(spec, dict(run.run), pathlib.Path(run.file("journal.jsonl")).read_text(), False)

    def write(self, service: str, text: str) -> None:
        """New live content, some of it large enough for a pack of its own."""
        home = self.top / service
        for path in (home / "server" / "box", home / "tree" / "file"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (home / "tree" / f"more {text}").write_bytes(self.large(text))

    @staticmethod
    def large(text: str) -> bytes:
        """Content that needs a chunk of its own."""
        return random.Random(text).randbytes(20_000)

    def _log(self, spec: Spec) -> None:
        writer = LogWriter(spec.store(), "db")
        dice = random.Random(spec.service)

        def begin(before: OpenEpoch | None, timeline: int, begins: int, **changes: Any) -> OpenEpoch:
            ancestors = [[1, f"0/{LEFT:X}"]] if timeline == 2 else []
            about = {"system": SYSTEM, "timeline": timeline, "history": None, "ancestors": ancestors, "segment_size": SEGMENT, "server_version": 150004,
                     "host": "db1", "gaps": [], "follows": None, "begins": f"0/{begins:X}", **changes}
            epoch = writer.begin(about, (before.number, before.digest) if before else (0, None))
            if timeline == 2:
                writer.put_history(epoch, HISTORY, 1)
            return epoch

        def put(epoch: OpenEpoch, *ranges: tuple[int, int]) -> None:
            for start, end in ranges:
                writer.put(epoch, start, dice.randbytes(end - start), 1_800_000_000_000_000_000 + end)

        first = begin(None, 1, SEGMENT)
        put(first, (SEGMENT, 2 * SEGMENT), (2 * SEGMENT, LEFT + 500))
        second = begin(first, 2, 2 * SEGMENT)
        put(second, (2 * SEGMENT, 3 * SEGMENT))
        third = begin(second, 2, 3 * SEGMENT, follows={"timeline": 2, "position": f"0/{3 * SEGMENT:X}"})
        put(third, (3 * SEGMENT, 3 * SEGMENT + 99), (3 * SEGMENT + 99, END))

    def _mark(self, spec: Spec) -> None:
        """The host knows how far the log was proven."""
        directory = os.path.join(spec.service_dir, "log", "db")
        state.ensure_private(directory)
        mark = proven.Proven(spec.store().repository.id, SYSTEM, SEGMENT, 2, 2 * SEGMENT, END, 1, 3)
        proven.write(os.path.join(directory, "proven.json"), str(spec.repository["url"]), mark)

    def newest_and_oldest(self, service: str, kind: str) -> tuple[str, str]:
        """Of the objects below a directory of a service's part: one that came with the third point, and one that came with the first."""
        def one(number: int) -> str:
            return next(name for name in self.came[service, number] if name.startswith(f"services/{service}/{kind}/"))

        return one(3), one(1)

    def live(self, service: str = "orders") -> list[tuple[Any, ...]]:
        """The live data: names, content, times and inodes."""
        home = self.top / service
        found = []
        for path in [home / "server" / "box", home / "tree", *sorted((home / "tree").rglob("*"))]:
            status = path.lstat()
            found.append((str(path), status.st_mode, status.st_ino, status.st_mtime_ns, path.read_bytes() if path.is_file() else b""))
        return found

    def content(self, service: str = "orders") -> dict[str, bytes]:
        """The live data without what every restore changes."""
        return {name.rpartition(f"/{service}/")[2]: data for name, _mode, _inode, _time, data in self.live(service) if data}

    def renew(self, pristine: pathlib.Path) -> None:
        """Back to the beginning: a copy of what was made."""
        shutil.rmtree(self.top)
        shutil.copytree(pristine, self.top, symlinks=True)


class InBucket:
    """An object of a bucket, for whoever owns it."""

    def __init__(self, backend: S3Backend, name: str) -> None:
        self._api, self._where = backend.client.api, {"Bucket": backend.client.bucket, "Key": backend.client.key(name)}
        self.name = name.rpartition("/")[2]

    def read_bytes(self) -> bytes:
        return bytes(self._api.get_object(**self._where)["Body"].read())

    def write_bytes(self, data: bytes) -> None:
        self._api.put_object(**self._where, Body=data)

    def unlink(self) -> None:
        self._api.delete_object(**self._where)


class TwoServicesInBucket(TwoServices):
    """The same in a bucket without versions."""

    def __init__(self, top: pathlib.Path, config: dict[str, Any]) -> None:
        super().__init__(top)
        self._config = config
        self._backend = S3Backend(config)
        self._made: dict[str, bytes] = {}

    @property
    def repository(self) -> dict[str, Any]:
        return self._config

    def at(self, name: str) -> manipulations.Object:
        return InBucket(self._backend, name)

    def make(self) -> TwoServices:
        super().make()
        self._made = {name: self.at(name).read_bytes() for name, _size in self._backend.list("")}
        return self

    def renew(self, pristine: pathlib.Path) -> None:
        super().renew(pristine)
        there = dict(self._backend.list(""))
        for name in set(there) - set(self._made):
            self.at(name).unlink()
        for name, data in self._made.items():
            if name not in there or self.at(name).read_bytes() != data:
                self.at(name).write_bytes(data)
