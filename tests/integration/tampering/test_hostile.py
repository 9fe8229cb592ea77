# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compromised host signs what it likes: a snapshot that is valid in every way and made to write elsewhere is refused where it is restored."""

from __future__ import annotations

import pathlib
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Captured
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.files import Files
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record

Change = Callable[[dict[str, Any]], Iterator[dict[str, Any]]]


class Writer:
    """Hands on what a capture writes, with the entry of the file ``victim`` changed."""

    def __init__(self, writer: Any, change: Change) -> None:
        self._writer, self._change = writer, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def entry(self, entry: dict[str, Any]) -> None:
        for one in self._change(entry) if entry.get("path") == "victim" else (entry,):
            self._writer.entry(one)


def renamed(path: str) -> Change:
    return lambda entry: iter([{**entry, "path": path}])


def through_a_link(outside: str) -> Change:
    """A link to elsewhere, and a file below it."""
    link = {"type": "symlink", "target": outside, "mode": 0o777}
    kept = ("uid", "gid", "user", "group", "mtime_ns")
    return lambda entry: iter([{**{key: entry[key] for key in kept}, **link, "path": "victim"},
                               {**entry, "path": "victim/written"}])


def twice(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield entry
    yield entry


def linked(to: str) -> Change:
    """A hard link to what is not part of the snapshot."""
    return lambda entry: iter([{"type": "hardlink", "path": "victim", "link": to}])


@pytest.mark.parametrize("change", [
    renamed("../written"), renamed("/tmp/lifeboat-written"), renamed("a/../../written"), renamed(""), renamed("."), renamed("a\0b"), renamed("nowhere/written"),
    through_a_link, twice, linked("../../outside/secret"), linked("/etc/passwd"), linked("absent"),
], ids=["parent", "absolute", "inside-out", "top", "dot", "nul", "no-directory", "through-a-link", "twice", "link-out", "link-absolute", "link-absent"])
def test_a_signed_snapshot_that_wants_to_write_elsewhere(tmp_path: pathlib.Path, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = FilesService(tmp_path).bootstrap()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("not part of any snapshot")
    (service.tree / "a").mkdir()
    (service.tree / "victim").write_text("content of the intruder's choice")
    hostile = change(str(outside)) if change is through_a_link else change

    class Compromised(Files):
        def capture(self, context: Any, writer: Any) -> Captured:
            return super().capture(context, Writer(writer, hostile))

    monkeypatch.setitem(registry.TYPES, "files", lambda: Compromised)
    service.capture("p1")
    assert verify_service(service.spec)["ok"], "it is sealed and signed as it should be"
    (service.tree / "victim").write_text("live")

    def listing() -> list[tuple[str, bytes]]:
        return sorted((str(path), path.read_bytes()) for top in (outside, service.tree) for path in top.rglob("*") if path.is_file())

    before, beside = listing(), sorted(service.tree.parent.iterdir())
    with pytest.raises(LifeboatError):
        restore.stage(service.spec, "latest", run_record("r1", "restore"))
    assert listing() == before and sorted(service.tree.parent.iterdir()) == beside
    assert not pathlib.Path("/tmp/lifeboat-written").exists() and not (tmp_path / "data" / "written").exists()
