# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Source type ``single_file``: one file, staged beside itself and swapped in by two renames."""

from __future__ import annotations

import io
import os
from typing import Any, ClassVar

from .. import durable
from ..errors import SourceError
from .contract import Captured, Comparison, Context, Finding, Reader, Source, TreeReader, Writer


class SingleFile(Source):
    """A file's content; its mode and times are not kept."""

    type = "single_file"
    options: ClassVar[dict[str, dict[str, Any]]] = {"file": {"type": "path", "required": True, "help": "the file"}}

    def preflight_capture(self, context: Context) -> list[Finding]:
        if os.path.isfile(context.config["file"]):
            return []
        return [Finding("error", SourceError("there is no such file", context.config["file"], "correct 'file' in the catalog"))]

    def capture(self, context: Context, writer: Writer) -> Captured:
        with open(context.config["file"], "rb") as handle:
            data = handle.read()
        extents, size = writer.put_stream(io.BytesIO(data), "content")
        writer.entry({"type": "file", "extents": [list(extent) for extent in extents], "size": size})
        return Captured(self._digest(context, data), "content", {"bytes": size})

    @staticmethod
    def _digest(context: Context, data: bytes) -> dict[str, Any]:
        from ..libraries import need

        return {"algorithm": "blake3-keyed", "value": need("blake3").blake3(data, key=context.digest_key).hexdigest()}

    def preflight_restore(self, context: Context, manifest: dict[str, Any]) -> list[Finding]:
        parent = os.path.dirname(context.config["file"])
        if os.access(parent, os.W_OK):
            return []
        return [Finding("error", SourceError("no right to write beside the file", parent, "run as its owner"))]

    def plan_stage(self, context: Context, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
        path = context.config["file"]
        return {"live": path, **{word: f"{path}.{stage_id}.{word}" for word in ("staged", "displaced", "set_aside")}}

    def prepare(self, context: Context, record: dict[str, Any]) -> bool:
        return False

    def stage(self, context: Context, reader: Reader, record: dict[str, Any]) -> None:
        data = b"".join(b"".join(reader.stream([tuple(extent) for extent in entry["extents"]])) for entry in reader.entries())
        descriptor = os.open(record["staged"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            durable.write_all(descriptor, data, record["staged"], "stage")
            durable.fsync_file(descriptor, record["staged"], "stage")
        finally:
            os.close(descriptor)
        durable.fsync_dir(os.path.dirname(record["staged"]), "stage")

    def _compare(self, context: Context, manifest: dict[str, Any], path: str) -> Comparison:
        try:
            with open(path, "rb") as handle:
                data = handle.read()
        except FileNotFoundError:
            return Comparison(False, [f"{path} does not exist"])
        equal = self._digest(context, data) == manifest["digest"]
        return Comparison(equal, [] if equal else [f"{path} differs"], 1)

    def verify_staged(self, context: Context, reader: Reader, record: dict[str, Any]) -> Comparison:
        return self._compare(context, reader.manifest, record["staged"])

    def verify_live(self, context: Context, reader: TreeReader, manifest: dict[str, Any]) -> Comparison:
        return self._compare(context, manifest, context.config["file"])

    def cutover(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        if os.path.exists(record["staged"]):
            if os.path.exists(record["live"]):
                durable.rename_durably(record["live"], record["displaced"], "swap")
            durable.rename_durably(record["staged"], record["live"], "swap")
        return {"displaced": os.path.exists(record["displaced"])}

    def rollback(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        if os.path.exists(record["live"]) and not os.path.exists(record["set_aside"]):
            durable.rename_durably(record["live"], record["set_aside"], "swap")
        if os.path.exists(record["displaced"]):
            durable.rename_durably(record["displaced"], record["live"], "swap")
        return {"set_aside": record["set_aside"]}

    def commit(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        freed = 0
        for word in ("displaced", "set_aside"):
            if os.path.exists(record[word]):
                freed += os.path.getsize(record[word])
                durable.unlink(record[word], "displaced")
        return {"freed": freed}

    def discard(self, context: Context, record: dict[str, Any]) -> None:
        durable.unlink(record["staged"], "stage")
