# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A double of a source for the tests of the restore state machine: a store that is one file, and a log of what was done to it.

It is strict about the contract: it refuses to be staged, swapped or undone out of order, and to displace twice. What it did it
writes to ``<path>.log`` after each effect, so that a test can count effects over any number of killed processes.
"""

from __future__ import annotations

import io
import os
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils import durable, faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.seal import keyed_hash
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Captured, Comparison, Finding, Source


class Box(Source):
    """``path`` is the live file. Its directory is the server, which ``prepare`` provisions when it is gone."""

    type = "box"
    options = {"path": {"type": "path", "required": True, "help": "the box"}, "refuse": {"type": "str", "help": "a step that fails"}}

    def _log(self, context: Any, word: str) -> None:
        with open(context.config["path"] + ".log", "a", encoding="utf-8") as handle:
            handle.write(word + "\n")

    def _refuse(self, context: Any, word: str) -> None:
        if context.config.get("refuse") == word:
            raise SourceError(f"told to refuse {word}", context.config["path"], "")

    def preflight_capture(self, context: Any) -> list[Finding]:
        return []

    def capture(self, context: Any, writer: Any) -> Captured:
        with open(context.config["path"], "rb") as handle:
            data = handle.read()
        extents, size = writer.put_stream(io.BytesIO(data), "box")
        writer.entry({"type": "box", "extents": [list(extent) for extent in extents], "size": size})
        return Captured({"algorithm": "box", "value": keyed_hash(context.digest_key, data).hex()}, "content", {"bytes": size})

    def preflight_restore(self, context: Any, manifest: dict[str, Any]) -> list[Finding]:
        if context.config.get("refuse") == "preflight":
            return [Finding("error", SourceError("told to refuse preflight", context.config["path"], "nothing")),
                    Finding("warning", SourceError("told to warn", context.config["path"], "nothing"))]
        return []

    def plan_stage(self, context: Any, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
        path = context.config["path"]
        return {"live": path, **{word: f"{path}.{stage_id}.{word}" for word in ("staged", "displaced", "set_aside")}}

    def prepare(self, context: Any, record: dict[str, Any]) -> bool:
        directory = os.path.dirname(record["live"])
        if os.path.isdir(directory):
            return False
        os.mkdir(directory)
        self._log(context, "provisioned")
        return True

    def stage(self, context: Any, reader: Any, record: dict[str, Any]) -> None:
        self._refuse(context, "stage")
        if os.path.exists(record["displaced"]):
            raise AssertionError("staged after its cutover")
        data = b"".join(b"".join(reader.stream([tuple(extent) for extent in entry["extents"]])) for entry in reader.entries())
        descriptor = os.open(record["staged"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            durable.write_all(descriptor, data, record["staged"], "stage")
            durable.fsync_file(descriptor, record["staged"], "stage")
        finally:
            os.close(descriptor)
        durable.fsync_dir(os.path.dirname(record["staged"]), "stage")
        self._log(context, "staged")

    def _compare(self, context: Any, manifest: dict[str, Any], path: str) -> Comparison:
        try:
            with open(path, "rb") as handle:
                data = handle.read()
        except FileNotFoundError:
            return Comparison(False, ["absent"])
        equal = keyed_hash(context.digest_key, data).hex() == manifest["digest"]["value"]
        return Comparison(equal, [] if equal else ["content differs"], 1)

    def verify_staged(self, context: Any, reader: Any, record: dict[str, Any]) -> Comparison:
        self._refuse(context, "verify")
        return self._compare(context, reader.manifest, record["staged"])

    def verify_live(self, context: Any, reader: Any, manifest: dict[str, Any]) -> Comparison:
        return self._compare(context, manifest, context.config["path"])

    def cutover(self, context: Any, record: dict[str, Any]) -> dict[str, Any]:
        self._refuse(context, "cutover")
        live, staged, displaced = record["live"], record["staged"], record["displaced"]
        if os.path.exists(staged):
            if os.path.exists(live):
                if os.path.exists(displaced):
                    raise AssertionError("displaced twice")
                durable.rename_durably(live, displaced, "swap")
                self._log(context, "displaced")
            faults.point("restore.cutover.displaced")
            durable.rename_durably(staged, live, "swap")
            self._log(context, "swapped")
        elif not os.path.exists(live):
            raise AssertionError("cutover without a staged copy")
        return {"displaced": os.path.exists(displaced)}

    def rollback(self, context: Any, record: dict[str, Any]) -> dict[str, Any]:
        self._refuse(context, "rollback")
        live, displaced, aside = record["live"], record["displaced"], record["set_aside"]
        if os.path.exists(live) and not os.path.exists(aside):
            durable.rename_durably(live, aside, "swap")
            self._log(context, "set aside")
        faults.point("rollback.displaced")
        if os.path.exists(displaced):
            durable.rename_durably(displaced, live, "swap")
            self._log(context, "put back")
        return {"set_aside": aside}

    def commit(self, context: Any, record: dict[str, Any]) -> dict[str, Any]:
        self._refuse(context, "commit")
        freed = 0
        for word in ("displaced", "set_aside"):
            if os.path.exists(record[word]):
                freed += os.path.getsize(record[word])
                durable.unlink(record[word], "displaced")
        return {"freed": freed}

    def discard(self, context: Any, record: dict[str, Any]) -> None:
        if os.path.exists(record["staged"]):
            os.unlink(record["staged"])
        self._log(context, "discarded")
