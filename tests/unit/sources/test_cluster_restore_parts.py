# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a cluster's restore without a server: positions, histories, hostile trees, delta, links that move."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, DamageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_lsn as lsn
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_places as places
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_checks import listing
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_pages import encode_marks, marks, total
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_restore import Rebuild
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Captured, Context, Entry
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader, MemoryStore, MemoryWriter

KEY = bytes(range(32))
PAGE = 8192
SEGMENT = 16 << 20


def test_positions_and_names() -> None:
    assert lsn.parse_position("1A/2b") == 0x1A0000002B and lsn.position_text(0x1A0000002B) == "1A/2B"
    assert lsn.segment_name(10, 0x1A0000002B // SEGMENT, SEGMENT) == "0000000A0000001A00000000"
    assert lsn.parse_segment("0000000A0000001A000000FF", SEGMENT) == (10, 0x1AFF)
    assert lsn.parse_segment("0000000A0000001A00000100", SEGMENT) is None
    assert lsn.parse_history_name(lsn.history_name(31)) == 31 and lsn.history_name(31) == "0000001F.history"
    assert [lsn.parse_timeline(text) for text in ("12", "0xC", "0000000C")] == [12, 12, 12]
    for wrong in ("", "0", "x", "-1", "1/2"):
        with pytest.raises(ValueError, match="not a timeline"):
            lsn.parse_timeline(wrong)
    with pytest.raises(ValueError, match="not a position"):
        lsn.parse_position("0/123456789")


def test_histories() -> None:
    content = b"# a comment\n1\t0/5000000\tno recovery target specified\n\n2\t0/6000028\tbefore 2026-11-22\n"
    pieces = lsn.way(11, {11: content})
    assert [(piece.timeline, piece.start, piece.end) for piece in pieces] == [(1, 0, 0x5000000), (2, 0x5000000, 0x6000028), (11, 0x6000028, None)]
    assert lsn.on_way(pieces, 1, 0x5000000) and not lsn.on_way(pieces, 1, 0x5000001)
    for wrong in (b"nonsense\n", b"2\t0/5000000\tx\n1\t0/6000000\tx\n", b"1\t0/6000000\tx\n2\t0/5000000\tx\n"):
        with pytest.raises(ValueError, match="history"):
            lsn.parse_history(wrong)


class Tree:
    """A snapshot made by hand."""

    def __init__(self, tmp_path: Path) -> None:
        self.writer = MemoryWriter(MemoryStore(KEY))
        self.top = tmp_path
        for name in ("global", "base"):
            self.writer.entry({"type": "dir", "path": name, "mode": 0o700})

    def large(self, path: str, content: bytes, /, **wrong: Any) -> None:
        """A span of several chunks with a sum; pages of zeros are not stored."""
        self.writer.entry({"type": "file", "path": path, "mode": 0o600, "mtime_ns": 0, "size": len(content), "seen": [0, 0]})
        data = []
        for at in range(0, len(content), 3 * PAGE):
            part = content[at:at + 3 * PAGE]
            if any(part):
                data.append([at, self.writer.put(b"other" + part), 5, len(part)])
        self.writer.entry({"type": "span", "path": path, "at": 0, "length": len(content), "data": data, "marks": encode_marks(marks(KEY, content)),
                           "sum": encode_marks(total(KEY, content)), **wrong})

    def file(self, path: str, content: bytes, /, **wrong: Any) -> None:
        self.writer.entry({"type": "file", "path": path, "mode": 0o600, "mtime_ns": 0, "size": len(content), "seen": [0, 0]})
        number = self.writer.put(content)
        self.writer.entry({"type": "span", "path": path, "at": 0, "length": len(content), "data": [[0, number, 0, len(content)]],
                           "marks": encode_marks(marks(KEY, content)), **wrong})

    def restore(self, *more: Entry, control: bool = True, in_place: bool = False) -> dict[str, int]:
        for entry in more:
            self.writer.entry(entry)
        if control:
            self.file("global/pg_control", b"c" * 8192)
        reader: MemoryReader = self.writer.finish(Captured({}, "physical"))
        record = {"stage_id": "s", "live": str(self.top / "live"), "staged": str(self.top / "staged"), "tablespaces": [], "wal_directory": None,
                  "mode": 0o700, "in_place": in_place}
        context = Context("shop", "db", {}, str(self.top), Progress("shop", "test"), KEY, 2)
        return Rebuild(context, reader, record, places.Owner(os.geteuid(), os.getegid())).run()


def test_pages_come_from_live_where_their_marks_are_the_same(tmp_path: Path) -> None:
    data = b"".join(bytes([number]) * PAGE for number in range(1, 6)) + b"tail"
    live = tmp_path / "live" / "base"
    live.mkdir(parents=True)
    (live / "1").write_bytes(data[:PAGE] + b"x" * PAGE + data[2 * PAGE:4 * PAGE])
    tree = Tree(tmp_path)
    tree.file("base/1", data)
    told = tree.restore()
    assert (tmp_path / "staged/base/1").read_bytes() == data
    assert told["bytes_reused"] == 3 * PAGE


@pytest.mark.parametrize("way", ["empty", "beside", "beside by hand", "in place"])
def test_large_spans(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some pages are the same, some others, some zeros where the live file has content, and the live file is shorter."""
    page = [bytes([number % 7 + 1]) * PAGE for number in range(30)]
    for number in (*range(9, 12), *range(27, 30)):
        page[number] = bytes(PAGE)
    data = b"".join(page)
    before = [*page[:9], *[b"y" * PAGE] * 3, *page[12:20]]
    before[4] = b"x" * PAGE
    tree = Tree(tmp_path)
    tree.large("base/1", data)
    if way != "empty":
        base = tmp_path / ("staged" if way == "in place" else "live") / "base"
        base.mkdir(parents=True)
        (base / "1").write_bytes(b"".join(before))
    if way == "beside by hand":
        def refuse(*_arguments: Any) -> int:
            raise OSError(errno.EXDEV, "across file systems")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    if way == "in place":
        (tmp_path / "staged" / "global").mkdir()
    told = tree.restore(in_place=way == "in place")
    assert (tmp_path / "staged/base/1").read_bytes() == data
    assert told["bytes_reused"] == (0 if way == "empty" else 19 * PAGE), "16 pages, and three of zeros beyond the live file's end"


def test_in_place_removes_nothing_behind_links_that_are_not_its_own(tmp_path: Path) -> None:
    precious, space = tmp_path / "precious", tmp_path / "space" / ".lifeboat-s.staged"
    for folder in (precious, space / "PG_15_1", tmp_path / "staged/pg_tblspc", tmp_path / "staged/global", tmp_path / "staged/left"):
        folder.mkdir(parents=True)
    (precious / "file").touch()
    (space / "PG_15_1/old").touch()
    (tmp_path / "staged/pg_tblspc/16400").symlink_to(space)
    (tmp_path / "staged/former").symlink_to(precious)
    tree = Tree(tmp_path)
    tree.writer.entry({"type": "link", "path": "hostile", "target": str(precious)})
    tree.restore(in_place=True)
    assert (precious / "file").exists() and not (space / "PG_15_1").exists()
    assert sorted(path.name for path in (tmp_path / "staged").iterdir()) == ["base", "global", "hostile"]
    assert sorted(listing(str(tmp_path / "staged"))) == ["global/pg_control", "hostile"]


@pytest.mark.parametrize("way", ["read back", "sum", "marks"])
def test_what_is_read_back_is_held_against_the_snapshot(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path)
    data = b"".join(bytes([number]) * PAGE for number in range(1, 31))
    wrong = {"sum": {"sum": encode_marks(bytes(32))}, "marks": {"marks": encode_marks(marks(KEY, data[:-1] + b"x"))}}
    tree.large("base/1", data, **wrong.get(way, {}))
    if way == "read back":
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda descriptor, view, at: write(descriptor, bytes(len(view)) if at == 6 * PAGE else view, at))
    if way == "marks":
        tree.restore()  # the sum is the stronger one
        return
    with pytest.raises(DamageError, match="read back after it was written.*byte 49152" if way == "read back" else "sum and marks"):
        tree.restore()


@pytest.mark.parametrize(("entries", "words"), [
    ([{"type": "dir", "path": "../out", "mode": 0o700}], "unsafe path"),
    ([{"type": "dir", "path": "/out", "mode": 0o700}], "unsafe path"),
    ([{"type": "dir", "path": "nowhere/in", "mode": 0o700}], "outside its directories"),
    ([{"type": "link", "path": "log", "target": "/etc"}, {"type": "dir", "path": "log/in", "mode": 0o700}], "outside its directories"),
    ([{"type": "link", "path": "pg_tblspc", "target": "/etc"}], ""),
    ([{"type": "span", "path": "base/1", "at": 0, "length": 1, "data": [], "marks": ""}], "without its file"),
    ([{"type": "oddity", "path": "base/x"}], "unknown kind"),
])
def test_hostile_trees_are_refused(tmp_path: Path, entries: list[Entry], words: str) -> None:
    if not words:
        Tree(tmp_path).restore(*entries)
        return
    with pytest.raises(DamageError, match=words):
        Tree(tmp_path).restore(*entries)
    assert not (tmp_path / "staged/global/pg_control").exists()


@pytest.mark.parametrize(("wrong", "words"), [
    ({"marks": "%%%"}, "cannot be decoded"),
    ({"marks": encode_marks(bytes(8))}, "not the one that was captured"),
    ({"sum": "%%%"}, "cannot be decoded"),
    ({"sum": encode_marks(bytes(8))}, "does not fit"),
    ({"length": 1 << 30}, "does not fit"),
    ({"at": -8192}, "does not fit"),
    ({"data": [[0, 0, 4, 100]]}, "beyond the end of a chunk"),
    ({"data": [[PAGE, 0, 0, 100]]}, "beyond the end of a span"),
])
def test_damaged_spans_are_refused(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    tree = Tree(tmp_path)
    tree.file("base/1", b"x" * 100, **wrong)
    with pytest.raises(DamageError, match=words):
        tree.restore()


def test_a_tree_without_pg_control_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="pg_control"):
        Tree(tmp_path).restore(control=False)


def make_cluster(top: Path, space: Path) -> None:
    (top / "pg_tblspc").mkdir(parents=True)
    (top / "PG_VERSION").write_text("15\n")
    (space / "PG_15_1").mkdir(parents=True)
    (top / "pg_tblspc" / "16400").symlink_to(space)


def test_a_displaced_cluster_keeps_its_tablespaces_to_itself(tmp_path: Path) -> None:
    live, space = tmp_path / "data", tmp_path / "space"
    make_cluster(live, space)
    places.move_out(str(live), str(tmp_path / "gone"), "7", "displaced")
    aside = space / ".lifeboat-7.displaced"
    assert os.readlink(tmp_path / "gone/pg_tblspc/16400") == str(aside) and (aside / "PG_15_1").is_dir()
    assert not (space / "PG_15_1").exists()
    (space / "PG_15_1").mkdir()
    with pytest.raises(ConflictError, match="taken"):
        places.move_in(str(tmp_path / "gone"), str(live), "7", "displaced")
    (space / "PG_15_1").rmdir()
    places.move_in(str(tmp_path / "gone"), str(live), "7", "displaced")
    assert os.readlink(live / "pg_tblspc/16400") == str(space) and (space / "PG_15_1").is_dir() and not aside.exists()


def test_only_what_carries_the_name_of_the_stage_is_deleted(tmp_path: Path) -> None:
    top, space = tmp_path / "x", tmp_path / "space"
    make_cluster(top, space)
    assert places.remove(str(top), "7", "displaced", {"tablespaces": []}, "displaced") > 0
    assert not top.exists() and (space / "PG_15_1").is_dir()
