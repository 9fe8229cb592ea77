# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a cluster's capture, without a server."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.seal import keyed_hash
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_pages, cluster_spans
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_blocks import BLOCK
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_capture import ClusterCapture
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_pages import PAGE
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_parent import Parent, cut, join
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_spans import File, Part, Result, Spans, Suspect
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_walk import Item, Walk, order_key, relation_of
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Captured, Context
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import IndexOnly, MemoryReader, MemoryStore, MemoryWriter

KEY = bytes(range(32))


def reference_sum(page: bytes, block: int) -> int:
    """pg_checksum_page of src/include/storage/checksum_impl.h, word by word."""
    words = list(struct.unpack("=2048I", page[:8] + b"\0\0" + page[10:]))
    sums = list(cluster_pages._OFFSETS)
    for word_row in [words[at:at + 32] for at in range(0, 2048, 32)] + [[0] * 32] * 2:
        for column, word in enumerate(word_row):
            mixed = sums[column] ^ word
            sums[column] = (mixed * 16777619 & 0xFFFFFFFF) ^ (mixed >> 17)
    folded = 0
    for value in sums:
        folded ^= value
    return (folded ^ block) % 65535 + 1


def page(content: bytes, block: int, position: int = 5 << 32 | 7) -> bytes:
    """A page with a header and its right checksum."""
    body = struct.pack("=IIHHHHHHI", position >> 32, position & 0xFFFFFFFF, 0, 0, 24, 8192, 8192, 0x2004, 0) + content.ljust(PAGE - 24, b"\1")
    return body[:8] + struct.pack("=H", reference_sum(body, block)) + body[10:]


def test_sums_of_many_pages_at_once_are_those_of_the_server() -> None:
    random = numpy.random.default_rng(1)
    pages = random.integers(0, 256, (5, PAGE), dtype=numpy.uint8)
    blocks = numpy.array([0, 1, 131071, 131072, 4294967294], numpy.uint32)
    assert cluster_pages.page_sums(pages, blocks).tolist() == [reference_sum(pages[at].tobytes(), int(blocks[at])) for at in range(5)]


def test_bad_pages_are_those_a_server_would_refuse() -> None:
    good, wrong_place, empty = page(b"a", 0), page(b"b", 7), bytes(PAGE)
    never_made = bytes(100) + b"x" + bytes(PAGE - 101)
    pages = numpy.frombuffer(good + wrong_place + empty + never_made + page(b"c", 4), numpy.uint8).reshape(-1, PAGE)
    assert cluster_pages.bad_pages(pages, numpy.arange(5, dtype=numpy.uint32)).tolist() == [1, 3]
    assert cluster_pages.page_position(pages[0]) == 5 << 32 | 7


def test_marks_are_the_first_bytes_of_each_pages_hash() -> None:
    data = os.urandom(2 * PAGE + 100)
    pages = [data[:PAGE], data[PAGE:2 * PAGE], data[2 * PAGE:]]
    joined = cluster_pages.marks(KEY, bytearray(data))
    assert joined == b"".join(keyed_hash(KEY, one)[:8] for one in pages)
    assert cluster_pages.decode_marks(cluster_pages.encode_marks(joined)) == joined
    with pytest.raises(ValueError, match="base64"):
        cluster_pages.decode_marks("no marks!")


# -- what is left out


def touch(top: Path, *paths: str) -> None:
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(b"x")


def test_what_the_documentation_leaves_out_is_left_out(tmp_path: Path) -> None:
    kept = [
        "PG_VERSION", "base/5/16384", "base/5/16384.1", "base/5/16384_fsm", "base/5/16390_init", "base/5/pg_filenode.map", "global/1262",
        "pg_stat/keep", "pg_xact/0000", "postgresql.conf", "log/server.log",
    ]
    touch(tmp_path, *kept)
    touch(
        tmp_path, "base/5/16390", "base/5/16390.1", "base/5/16390_fsm", "base/5/t3_16400", "base/5/t12_16400_fsm.1", "base/5/pg_internal.init",
        "base/5/pg_internal.init.123", "base/pgsql_tmp/pgsql_tmp1.0", "backup_label", "backup_label.old", "tablespace_map", "backup_manifest",
        "postmaster.pid", "postmaster.opts", "global/pg_control", "global/pg_internal.init", "standby.signal", "recovery.signal",
        "pg_wal/000000010000000000000001", "pg_wal/archive_status/x.ready", "pg_replslot/s/state", "pg_subtrans/0000", "pg_notify/0000",
        "pg_serial/0000", "pg_snapshots/1", "pg_stat_tmp/x", "pg_dynshmem/x", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
    )
    walk = Walk(str(tmp_path), "PG_15_1")
    found = list(walk.run())
    assert [item.path for item in found if item.kind == "file"] == sorted(kept, key=order_key)
    empty = {item.path for item in found if item.kind == "dir"} - {"base", "base/5", "global", "log", "pg_stat", "pg_xact"}
    assert empty == {"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal", "pg_wal/archive_status"}
    assert walk.unlogged == 3
    assert [item.path for item in found] == sorted((item.path for item in found), key=order_key)


def test_tablespaces_and_links(tmp_path: Path) -> None:
    data, place, wal = tmp_path / "data", tmp_path / "space", tmp_path / "wal"
    touch(data, "PG_VERSION", "inner/PG_15_1/5/2")
    touch(place, "PG_15_1/5/16384", "PG_14_9/5/16384")
    touch(wal, "000000010000000000000001", "archive_status/x")
    (data / "pg_tblspc").mkdir()
    os.symlink(place, data / "pg_tblspc/16400")
    os.symlink(data / "inner", data / "pg_tblspc/16401")
    os.symlink(wal, data / "pg_wal")
    os.symlink("/etc/hostname", data / "server.crt")
    found = [(item.kind, item.path, item.target) for item in Walk(str(data), "PG_15_1").run()]
    assert found == [
        ("file", "PG_VERSION", ""), ("dir", "inner", ""), ("dir", "pg_tblspc", ""), ("link", "pg_tblspc/16400", str(place)),
        ("dir", "pg_tblspc/16400/PG_15_1", ""), ("dir", "pg_tblspc/16400/PG_15_1/5", ""), ("file", "pg_tblspc/16400/PG_15_1/5/16384", ""),
        ("link", "pg_tblspc/16401", str(data / "inner")), ("dir", "pg_tblspc/16401/PG_15_1", ""), ("dir", "pg_tblspc/16401/PG_15_1/5", ""),
        ("file", "pg_tblspc/16401/PG_15_1/5/2", ""), ("link", "pg_wal", str(wal)), ("dir", "pg_wal/archive_status", ""),
        ("link", "server.crt", "/etc/hostname"),
    ]


@pytest.mark.parametrize("name", ["base", "global", "pg_xact", "pg_tblspc/16400"])
def test_a_link_that_hides_data_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "data/PG_VERSION", "data/pg_tblspc/x", "elsewhere/y")
    os.symlink(tmp_path / ("nowhere" if "tblspc" in name else "elsewhere"), tmp_path / "data" / name)
    with pytest.raises(SourceError, match="a symbolic link stands where the cluster's own data belongs"):
        list(Walk(str(tmp_path / "data"), "PG_15_1").run())


def test_relations_by_their_file_names() -> None:
    found = relation_of("base/5/16384_fsm.2")
    assert found is not None and (found.filenode, found.fork, found.segment) == (16384, "fsm", 2)
    assert relation_of("pg_tblspc/16400/PG_15_1/5/2") is not None and relation_of("global/1262") is not None
    assert all(relation_of(path) is None for path in ("pg_xact/0000", "base/5/pg_filenode.map", "base/5/t3_16384", "global/pg_control", "12345"))


# -- reading


class Rig:
    """One file, captured again and again into a memory store."""

    def __init__(self, tmp_path: Path, path: str = "base/5/16384", checksums: bool = False, segment: int = 1 << 30) -> None:
        self.path, self.full = path, tmp_path / "file"
        self.context = Context("s", "db", {}, str(tmp_path), Progress("s", "test"), KEY, 2)
        self.store = MemoryStore(KEY)
        self.checksums, self.segment = checksums, segment
        self.found = Result()
        self.writer = MemoryWriter(self.store)

    def capture(self, previous: MemoryReader | None = None, unread: bool = False) -> MemoryReader:
        """As a capture does it, for this one file."""
        self.writer = writer = MemoryWriter(self.store, previous)
        facts = {"system_identifier": "1", "timeline": 1, "directory": 1, "position": 1, "checksums": True}
        parent = Parent(writer.previous, facts, 2)
        writer.entry({"type": "head", "path": "\0lifeboat", "started_ns": 1, **facts})
        item = Item("file", self.path, str(self.full), os.lstat(self.full), relation=relation_of(self.path))
        file = File(item)
        found = parent.find(self.path)
        starts = range(0, max(1, item.status.st_size), cluster_spans.SPAN)
        file.expect(len(starts))
        parts: list[Any] = [
            Part(file, at, min(cluster_spans.SPAN, item.status.st_size - at), parent.span(self.path, at) if found else None, unread, at == 0, len(starts) == 1)
            for at in starts
        ]
        self.found = Spans(self.context, writer, self.checksums, self.segment).job(parts)
        for entry in self.found.entries:
            writer.entry(entry)
        return writer.finish(Captured({}, "physical"))

    def content(self, reader: MemoryReader) -> bytes:
        """The file as the tree tells it, its marks checked."""
        content = bytearray()
        for entry in reader.entries():
            if entry["type"] == "file":
                content = bytearray(entry["size"])
            elif entry["type"] == "span":
                for at, number, offset, length in entry["data"]:
                    content[at:at + length] = reader.chunk(number)[offset:offset + length]
                assert cluster_pages.marks(KEY, content[entry["at"]:entry["at"] + entry["length"]], entry["unit"]) == cluster_pages.decode_marks(entry["marks"])
        return bytes(content)

    def change(self, *pages: int) -> None:
        """Give pages new content."""
        with open(self.full, "r+b") as handle:
            for number in pages:
                handle.seek(number * PAGE)
                handle.write(os.urandom(PAGE))


@pytest.mark.parametrize("size", [0, 1, PAGE, 100 * PAGE + 5, 1 << 20, (9 << 20) + 3 * PAGE])
def test_a_file_of_any_size(tmp_path: Path, size: int) -> None:
    rig = Rig(tmp_path)
    rig.full.write_bytes(os.urandom(size))
    reader = rig.capture()
    assert rig.content(reader) == rig.full.read_bytes()
    assert rig.writer.new_bytes == size
    assert [entry["length"] for entry in reader.entries() if entry["type"] == "span"] == [min(4 << 20, size - at) for at in range(0, size, 4 << 20)]


def test_only_changed_pages_are_stored_and_packed_together(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.full.write_bytes(os.urandom(10 << 20))
    first = rig.capture()
    rig.change(0, 3, 4, 130, 600, 1279)
    second = rig.capture(first)
    assert (rig.writer.new_chunks, rig.writer.new_bytes) == (1, 6 * PAGE)
    assert rig.content(second) == rig.full.read_bytes()
    rig.change(4, 700)
    third = rig.capture(second)
    assert rig.writer.new_bytes == 2 * PAGE and rig.content(third) == rig.full.read_bytes()
    assert rig.content(second) != rig.full.read_bytes()
    fourth = rig.capture(third)
    assert rig.writer.new_bytes == 0 and rig.content(fourth) == rig.full.read_bytes()


@pytest.mark.parametrize(("size", "unit"), [(1 << 20, 1), (16 << 20, 2), (96 << 20, 4)])
def test_in_large_files_several_pages_share_a_mark(tmp_path: Path, size: int, unit: int) -> None:
    rig = Rig(tmp_path)
    with open(rig.full, "wb") as handle:
        handle.truncate(size)
    rig.change(0, 5, 6, 100)
    first = rig.capture()
    assert {entry["unit"] for entry in first.entries() if entry["type"] == "span"} == {unit * PAGE}
    assert rig.writer.new_bytes == {1: 4, 2: 8, 4: 12}[unit] * PAGE and rig.content(first) == rig.full.read_bytes()
    rig.change(2)
    os.truncate(rig.full, 96 << 20)
    second = rig.capture(first)
    assert rig.writer.new_bytes == unit * PAGE and rig.content(second) == rig.full.read_bytes()
    assert next(entry["unit"] for entry in second.entries() if entry["type"] == "span") == unit * PAGE
    rig.change(2)
    os.truncate(rig.full, 1 << 20)
    third = rig.capture(second)
    assert rig.writer.new_bytes == unit * PAGE and rig.content(third) == rig.full.read_bytes()


def test_a_torn_page_in_a_unit_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, checksums=True)
    rig.full.write_bytes(relation(40))
    monkeypatch.setattr(cluster_spans, "unit_of", lambda _size: 4 * PAGE)
    real, torn = os.preadv, [1]

    def tearing(descriptor: int, views: Any, at: int) -> int:
        got = real(descriptor, views, at)
        if torn[0]:
            torn[0] -= 1
            views[0][6 * PAGE + 4096:7 * PAGE] = bytes(4096)
        return got

    monkeypatch.setattr(os, "preadv", tearing)
    reader = rig.capture()
    assert rig.found.suspects == [] and torn == [0] and rig.content(reader) == rig.full.read_bytes()


def test_pages_of_zeros_are_not_stored(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.full.write_bytes(bytes(200 * PAGE) + os.urandom(PAGE) + bytes(2 << 20))
    first = rig.capture()
    assert rig.writer.new_bytes == PAGE and rig.content(first) == rig.full.read_bytes()
    rig.full.write_bytes(bytes((2 << 20) + 201 * PAGE))
    second = rig.capture(first)
    assert rig.writer.new_chunks == 0 and rig.content(second) == rig.full.read_bytes()


def test_a_file_that_grows_or_shrinks_between_captures(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    whole = os.urandom(5 << 20)
    rig.full.write_bytes(whole[:3 * PAGE + 11])
    reader = rig.capture()
    for size in (200 * PAGE, 5 << 20, 130 * PAGE + 1, 0, 2 * PAGE):
        rig.full.write_bytes(whole[:size])
        reader = rig.capture(reader)
        assert rig.content(reader) == whole[:size]


def test_unread_takes_everything_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.full.write_bytes(os.urandom(5 << 20))
    first = rig.capture()
    before = rig.full.read_bytes()
    rig.change(9)
    second = rig.capture(first, unread=True)
    assert rig.found.read == 0 and rig.content(second) == before


def test_lost_chunks_of_the_parent_are_stored_anew(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.full.write_bytes(os.urandom(3 << 20))
    first = rig.capture()
    del rig.store.chunks[first._ids[1]]
    for unread in (True, False):
        assert rig.content(rig.capture(first, unread)) == rig.full.read_bytes()
    assert len(rig.store.chunks) == 3


def test_a_file_cut_while_it_is_read_ends_in_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.full.write_bytes(b"x" * (2 * BLOCK))
    real = os.preadv

    def shrinking(descriptor: int, views: Any, at: int) -> int:
        if at:
            os.truncate(rig.full, BLOCK)
        return real(descriptor, views, at)

    monkeypatch.setattr(os, "preadv", shrinking)
    assert rig.content(rig.capture()) == b"x" * BLOCK + bytes(BLOCK)


def test_a_vanished_file_is_left_out_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.full.write_bytes(b"x" * (9 << 20))

    def gone(*_arguments: object) -> int:
        raise FileNotFoundError(2, "gone")

    monkeypatch.setattr(cluster_spans.os, "open", gone)
    assert [entry["type"] for entry in rig.capture().entries()] == ["head"]


# -- checksums


def relation(pages: int, first: int = 0) -> bytes:
    return b"".join(page(b"%d" % number, first + number) for number in range(pages))


def test_a_torn_page_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, checksums=True)
    rig.full.write_bytes(relation(20))
    real, torn = os.preadv, [3]

    def tearing(descriptor: int, views: Any, at: int) -> int:
        got = real(descriptor, views, at)
        if torn[0]:
            torn[0] -= 1
            views[0][(5 * PAGE if at == 0 else 0) + 4096:(5 * PAGE if at == 0 else 0) + PAGE] = bytes(4096)
        return got

    monkeypatch.setattr(os, "preadv", tearing)
    reader = rig.capture()
    assert rig.found.suspects == [] and torn == [0]
    assert rig.content(reader) == rig.full.read_bytes()


def test_a_damaged_page_is_named_and_stays_named_in_an_incremental(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "base/5/16384.1", checksums=True, segment=400 * PAGE)
    content = bytearray(relation(300, 400))
    content[200 * PAGE + 1000] ^= 1
    rig.full.write_bytes(content)
    first = rig.capture()
    assert [(one.path, one.block, one.position) for one in rig.found.suspects] == [("base/5/16384.1", 600, 5 << 32 | 7)]
    second = rig.capture(first, unread=True)
    assert [one.block for one in rig.found.suspects] == [600]
    assert rig.writer.new_chunks == 0 and rig.content(second) == content
    content[200 * PAGE + 1000] ^= 1
    rig.full.write_bytes(content)
    third = rig.capture(second)
    assert rig.found.suspects == [] and rig.writer.new_bytes == PAGE
    assert not any("bad" in entry for entry in third.entries())


def test_small_files_are_verified_together_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checksums=True)
    damaged = bytearray(relation(3))
    damaged[PAGE + 5000] ^= 1
    contents = [relation(3), relation(30), damaged, bytes(PAGE), relation(2, 131072), os.urandom(100), relation(120)]
    names = ["base/5/1", "base/5/2", "base/5/3", "base/5/4", "base/5/5.1", "pg_xact/0000", "base/5/6"]
    parts: list[Any] = []
    for number, (name, content) in enumerate(zip(names, contents)):
        (tmp_path / str(number)).write_bytes(content)
        item = Item("file", name, str(tmp_path / str(number)), os.lstat(tmp_path / str(number)), relation=relation_of(name))
        file = File(item)
        file.expect(1)
        parts += [{"type": "dir", "path": f"before {name}", "mode": 0}, Part(file, 0, len(content), first=True, whole=True)]
    found = Spans(rig.context, rig.writer, True, 1 << 30).job(parts)
    assert [(one.path, one.block) for one in found.suspects] == [("base/5/3", 1)]
    for entry in found.entries:
        rig.writer.entry(entry)
    reader = rig.writer.finish(Captured({}, "physical"))
    assert [entry["path"] for entry in reader.entries() if entry["type"] == "file"] == names
    assert rig.writer.new_chunks <= 2
    for name, content in zip(names, contents):
        (span,) = [entry for entry in reader.entries() if entry["type"] == "span" and entry["path"] == name]
        stored = bytearray(span["length"])
        for at, number, offset, length in span["data"]:
            stored[at:at + length] = reader.chunk(number)[offset:offset + length]
        assert stored == content and cluster_pages.marks(KEY, content) == cluster_pages.decode_marks(span["marks"])


@pytest.mark.parametrize(("position", "mended"), [(99, 0), (100, 1), (199, 1), (200, 0)])
def test_the_log_mends_pages_changed_since_the_start_and_no_others(tmp_path: Path, position: int, mended: int) -> None:
    """A page that was changed during the backup stands in its log as a whole; any other page with a wrong checksum is damaged."""
    capture: Any = object.__new__(ClusterCapture)
    capture._context = Context("s", "db", {"bad_pages": "warn"}, str(tmp_path), Progress("s", "test"), KEY, 2)
    capture._backup, capture._data = Named(), "/data"
    suspects = [Suspect("base/5/16384_vm.1", 131075, position)]
    bad = [] if mended else [{"path": "base/5/16384_vm.1", "relation": "shop.public.orders (vm)", "block": 131075}]
    assert capture._judge(suspects, 100, 200) == (bad, mended)
    capture._context.config["bad_pages"] = "fail"
    if not mended:
        with pytest.raises(SourceError, match=r"7 pages are damaged on disk: shop\.public\.orders \(vm\) block 131075, .* and 2 more: /data; restore"):
            capture._judge(suspects * 7, 100, 200)


class Named:
    """A server that knows one relation."""

    def relation(self, path: str, filenode: int) -> str:
        assert (path, filenode) == ("base/5/16384_vm.1", 16384)
        return "shop.public.orders"


def test_only_relations_are_verified(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "pg_xact/0000", checksums=True)
    rig.full.write_bytes(os.urandom(PAGE))
    rig.capture()
    assert rig.found.suspects == []


# -- the parent


def test_pieces_are_cut_and_joined() -> None:
    pieces = [[0, 1, 100, 10], [20, 2, 0, 10]]
    assert cut(pieces, 5, 25) == [[5, 1, 105, 5], [20, 2, 0, 5]]
    assert cut(pieces, 10, 20) == []
    assert join([[20, 2, 5, 5], [0, 1, 0, 10], [10, 1, 10, 5], [15, 2, 0, 5]]) == [[0, 1, 0, 15], [15, 2, 0, 10]]


HEAD = {"system_identifier": "7", "timeline": 2, "directory": 11, "position": 100, "checksums": True}


@pytest.mark.parametrize(("changed", "why"), [
    ({}, ""),
    ({"position": 200}, ""),
    ({"timeline": 3}, "timeline"),
    ({"system_identifier": "8"}, "another cluster"),
    ({"directory": 12}, "data directory"),
    ({"position": 99}, "behind"),
    ({"checksums": False}, "checksums"),
])
def test_anything_odd_makes_everything_be_compared(changed: dict[str, Any], why: str) -> None:
    writer = MemoryWriter(MemoryStore(KEY))
    writer.entry({"type": "head", "path": "\0lifeboat", "started_ns": 10 ** 18, **HEAD})
    tree = IndexOnly(writer.finish(Captured({}, "physical")))
    distrust = Parent(tree, {**HEAD, **changed}, 2 * 10 ** 18).distrust
    assert why in distrust and bool(why) == bool(distrust)
    assert "clock" in Parent(tree, HEAD, 10 ** 17).distrust


def test_a_file_is_unchanged_only_by_every_evidence(tmp_path: Path) -> None:
    full = tmp_path / "file"
    full.write_bytes(b"x")
    status = os.lstat(full)
    started = status.st_ctime_ns + 10 ** 10
    entry = {"type": "file", "path": "a", "size": 1, "mtime_ns": status.st_mtime_ns, "seen": [status.st_ino, status.st_ctime_ns], "mode": 0}

    def asked(before: int = started, now: int = started + 1, **changed: Any) -> bool:
        writer = MemoryWriter(MemoryStore(KEY))
        writer.entry({"type": "head", "path": "\0lifeboat", "started_ns": before, **HEAD})
        tree = IndexOnly(writer.finish(Captured({}, "physical")))
        return Parent(tree, HEAD, now).unchanged({**entry, **changed}, Item("file", "a", str(full), status))

    assert asked()
    assert not asked(size=2) and not asked(mtime_ns=1) and not asked(seen=[1, status.st_ctime_ns]) and not asked(seen=[status.st_ino, 1])
    assert not asked(before=status.st_ctime_ns + 10 ** 9)
    assert not asked(now=started - 1)
    assert not asked(type="dir")
