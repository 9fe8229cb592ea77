# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source, its kit and a double of the repository, for tests that drive a source by hand."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils import room
from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Comparison, Context
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import IndexOnly, MemoryReader, MemoryStore, MemoryWriter
from ansible_collections.lifeboat.recovery.tests.lab import step as step_program
from ansible_collections.lifeboat.recovery.tests.lab import struck

STAGE_ID = "20261122_171500_abcdef12"


class Bench:
    """One source over one store. work: a directory of the test."""

    def __init__(self, config: dict[str, Any], work: Path) -> None:
        self.source = registry.get(config["type"])()
        options = {name: option.get("default") for name, option in self.source.options.items()}
        self.config = {**options, **config}
        self.work = work
        self.key = bytes(range(32))
        self.store = MemoryStore(self.key)

    @property
    def context(self) -> Context:
        """A new context over the same work directory."""
        work = self.work / "work"
        work.mkdir(mode=0o700, exist_ok=True)
        return Context("shop", "data", self.config, str(work), Progress("shop", "test"), self.key, 2)

    def capture(self, previous: MemoryReader | None = None) -> tuple[MemoryReader, MemoryWriter]:
        """A snapshot after a clean preflight."""
        assert self.errors(self.source.preflight_capture(self.context)) == []
        writer = MemoryWriter(self.store, previous)
        return writer.finish(self.source.capture(self.context, writer)), writer

    @staticmethod
    def errors(findings: list[Any]) -> list[str]:
        """The errors among findings, as an operator reads them."""
        return [str(finding.error) for finding in findings if finding.level == "error"]

    def lacking(self, manifest: dict[str, Any]) -> list[str]:
        """What the copy lacks of room, as an operator reads it."""
        footprint = self.source.footprint(self.context, manifest)
        needs = [measured for need in footprint.needs if (measured := room.measured(need)) is not None] if footprint else []
        return [str(error) for total in room.added_up(needs).values() for error in room.lacking(total)]

    def off_by(self, seconds: float, manifest: dict[str, Any]) -> list[str]:
        """What preflight says of clocks where ours is behind by so many seconds."""
        context = self.context
        context.clock = lambda: time.time() - seconds
        return [str(finding.error) for finding in self.source.preflight_restore(context, manifest) if finding.as_dict()["kind"] == "clock"]

    def live(self, reader: MemoryReader) -> Comparison:
        """verify_live with the index key alone."""
        comparison = self.source.verify_live(self.context, IndexOnly(reader), reader.manifest)
        assert comparison.equal == (not comparison.differences)
        return comparison

    def live_equals(self, reader: MemoryReader) -> bool:
        """The live data is what was captured."""
        return self.live(reader).equal

    def stage(self, reader: MemoryReader, stage_id: str = STAGE_ID) -> dict[str, Any]:
        """Preflight, plan, prepare, stage; returns the record."""
        assert self.errors(self.source.preflight_restore(self.context, reader.manifest)) == []
        record = self.source.plan_stage(self.context, reader.manifest, stage_id)
        self.source.prepare(self.context, record)
        self.source.stage(self.context, reader, record)
        self.source.settle(self.context, record)
        return record

    def _bundle(self, reader: MemoryReader, record: dict[str, Any]) -> str:
        """What another process needs to call a method of the source, in a file."""
        bundle = self.work / "bundle"
        state = {"chunks": self.store.chunks, "ids": reader._ids, "lines": reader._lines, "manifest": reader.manifest}
        with open(bundle, "wb") as handle:
            pickle.dump({"config": self.config, "work": self.context.work_dir, "key": self.key, "record": record, **state}, handle)
        return str(bundle)

    def spawn(self, verb: str, reader: MemoryReader, record: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Start one method in a process of its own."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LIFEBOAT_FAULT")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        return subprocess.Popen([sys.executable, step_program.__file__, self._bundle(reader, record), verb], env=environment, stderr=subprocess.PIPE)

    def step(self, verb: str, reader: MemoryReader, record: dict[str, Any], fault: str = "", trace: Path | None = None) -> int:
        """Run one method in a process of its own, perhaps with a fault; its exit code (-9: killed)."""
        bundle = self._bundle(reader, record)
        return struck.run(lambda: step_program.main(bundle, verb), self.work / "said", fault, trace)
