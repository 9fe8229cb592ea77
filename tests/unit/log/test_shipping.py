# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a spool into the repository, without a server: what may fail in between, and that nothing counts too early."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import state
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.log import config, proven
from ansible_collections.lifeboat.recovery.plugins.module_utils.log.shipping import Divergence, Shipping
from ansible_collections.lifeboat.recovery.plugins.module_utils.log.spool import Spool
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.directory import DirectoryBackend
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_index import load
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_reader import SourceLog
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.log_writer import LogWriter
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles import wal_segments
from ansible_collections.lifeboat.recovery.tests.doubles.wal_segments import SIZE, SYSTEM, segment
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService


class Host:
    """A spool that a test fills, and shippers that come and go."""

    def __init__(self, home: pathlib.Path) -> None:
        self.service = FilesService(home).bootstrap()
        self.spool = home / "spool"
        self.wal = self.spool / "wal"
        self.wal.mkdir(parents=True)
        self.place = str(home / "proven.json")
        self.position: tuple[int | None, int] | None = None
        self.store = self.service.without_private_keys().store()

    def start(self, keep: Any = None) -> Shipping:
        mark = proven.read(self.place, "here")
        mark.system, mark.segment_size = SYSTEM, SIZE
        return Shipping(Spool(str(self.spool)), LogWriter(self.store, "tree"),
                        lambda: load(self.store.backend, self.store.provider, self.store.repository.id, "docs", "tree"), mark,
                        keep or (lambda kept: proven.write(self.place, "here", kept)), lambda timeline: wal_segments.HISTORY, lambda: self.position)

    def ship(self) -> Shipping:
        one = self.start()
        one.ship()
        one.close()
        return one

    def receive(self, start: int, end: int = 0, timeline: int = 1, system: str = SYSTEM) -> pathlib.Path:
        name = f"{timeline:08X}00000000{start // SIZE:08X}"
        if not end or end >= start + SIZE:
            (self.wal / f"{name}.partial").unlink(missing_ok=True)
            path = self.wal / name
        else:
            path = self.wal / f"{name}.partial"
        path.write_bytes(segment(timeline, start, end, system))
        return path

    def kept(self) -> proven.Proven:
        return proven.read(self.place, "here")

    def log(self) -> SourceLog:
        return SourceLog(self.service.spec.store(), "tree", SYSTEM)

    def ranges(self) -> list[tuple[int, int, int]]:
        return [(one.timeline, one.start, one.end) for one in self.log().coverage()]


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


def test_a_tail_grows_and_becomes_one_object(host: Host) -> None:
    shipping = host.start()
    for end in (2 * SIZE + 1000, 2 * SIZE + 30_000, 2 * SIZE + 30_000, 3 * SIZE - 9000, 3 * SIZE - 16, 3 * SIZE - 8):
        host.receive(2 * SIZE, end)
        shipping.ship()
        assert end - 8 <= host.kept().position <= end, "an idle server's last commit is not left out, wherever in its segment it is"
    assert host.kept().position < 3 * SIZE, "the end of a segment is told only when it is there whole"
    host.receive(2 * SIZE)
    shipping.ship()
    assert host.kept().position == 3 * SIZE and not list(host.wal.iterdir())
    pieces = host.log().index().pieces(SYSTEM)[1]
    assert [(piece.start, piece.end) for piece in pieces][:2] == [(2 * SIZE, 3 * SIZE), (2 * SIZE, 2 * SIZE + 1000)]
    assert host.log().read(1, 2 * SIZE, 3 * SIZE) == segment(1, 2 * SIZE)


def test_what_is_not_durable_on_the_host_does_not_count(host: Host) -> None:
    """The host's disk is full: the segment stays in the spool, the position where it was, and nothing is a gap later."""
    full = True

    def keep(mark: proven.Proven) -> None:
        if full and mark.position > 2 * SIZE:
            raise StorageError("Failed to write a state file (No space left on device)", host.place)
        proven.write(host.place, "here", mark)

    path = host.receive(2 * SIZE)
    shipping = host.start(keep)
    for _try in range(2):
        with pytest.raises(StorageError):
            shipping.ship()
        assert path.exists() and shipping.mark.position == host.kept().position == 2 * SIZE
    full = False
    shipping.ship()
    assert not path.exists() and host.kept().position == 3 * SIZE and not host.kept().gaps


def test_the_repository_fails_and_comes_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    shipping = host.start()
    host.receive(2 * SIZE)
    host.receive(3 * SIZE)
    path = host.receive(4 * SIZE)
    real = DirectoryBackend.new
    broken = f"{4 * SIZE:016X}"

    def new(self: DirectoryBackend, name: str, subject: str) -> Any:
        if broken in name:
            raise StorageError("cannot write in the repository (Input/output error)", name, "")
        return real(self, name, subject)

    monkeypatch.setattr(DirectoryBackend, "new", new)
    with pytest.raises(StorageError):
        shipping.ship()
    assert host.kept().position == (4 if path.exists() else 0) * SIZE - SIZE or host.kept().position == 3 * SIZE
    monkeypatch.undo()
    shipping.ship()
    assert host.ranges() == [(1, 2 * SIZE, 5 * SIZE)] and host.kept().position == 5 * SIZE


def test_a_name_of_unknown_fate_is_written_anew(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository gave the object its name and then failed: nobody knows whether that lasts, so it is not acknowledged."""
    from ansible_collections.lifeboat.recovery.plugins.module_utils import durable

    host.receive(2 * SIZE, 2 * SIZE + 1000)
    shipping = host.start()
    shipping.ship()
    host.receive(2 * SIZE, 2 * SIZE + 2000)
    real = durable.fsync_dir

    def fsync_dir(path: str, subject: str) -> None:
        if subject == "log":
            raise OSError(5, "Input/output error")
        real(path, subject)

    monkeypatch.setattr(durable, "fsync_dir", fsync_dir)
    with pytest.raises(StorageError):
        shipping.ship()
    assert host.kept().position == 2 * SIZE + 1000
    monkeypatch.undo()
    with pytest.raises(LifeboatError, match="new epoch"):
        shipping.ship()
    shipping.ship()
    assert host.kept().position == 2 * SIZE + 2000 and len(host.log().index().epochs) == 2


def test_a_gap_is_told_once_and_signed(host: Host) -> None:
    host.receive(2 * SIZE)
    shipping = host.start()
    shipping.ship()
    host.receive(5 * SIZE)
    shipping.ship()
    host.receive(6 * SIZE)
    host.ship()
    ((gap),) = host.kept().gaps
    assert (gap["from"], gap["to"]) == ("0/300000", "0/500000") and host.kept().begin == 5 * SIZE
    assert host.ranges() == [(1, 2 * SIZE, 3 * SIZE), (1, 5 * SIZE, 7 * SIZE)]
    assert [len(epoch.record["gaps"]) for _number, epoch in sorted(host.log().index().epochs.items())] == [0, 1, 0]


@pytest.mark.parametrize("forget", ["everything", "the last segments"])
def test_a_host_that_forgot(host: Host, forget: str) -> None:
    """What the repository holds is no gap, whatever the host remembers."""
    host.receive(2 * SIZE)
    host.ship()
    before = pathlib.Path(host.place).read_bytes()
    for number in (3, 4):
        host.receive(number * SIZE)
        host.ship()
    if forget == "everything":
        os.unlink(host.place)
    else:
        pathlib.Path(host.place).write_bytes(before)
    host.receive(5 * SIZE)
    host.ship()
    assert not host.kept().gaps and host.kept().position == 6 * SIZE and host.kept().begin == 2 * SIZE
    assert host.ranges() == [(1, 2 * SIZE, 6 * SIZE)]


def test_a_timeline_that_was_left_before_it_was_received(host: Host) -> None:
    host.receive(2 * SIZE)
    host.ship()
    (host.wal / "00000002.history").write_bytes(wal_segments.HISTORY)
    host.receive(4 * SIZE, timeline=2)
    host.ship()
    ((gap),) = host.kept().gaps
    assert (gap["timeline"], gap["from"], gap["to"]) == (1, "0/300000", "0/400000")


def test_what_is_no_segment_is_refused(host: Host) -> None:
    path = host.receive(2 * SIZE)
    data = bytearray(path.read_bytes())
    data[SIZE // 2:SIZE // 2 + 8192] = bytes(8192)
    path.write_bytes(bytes(data))
    with pytest.raises(StorageError, match="not what was received"):
        host.ship()
    path.write_bytes(segment(1, 3 * SIZE))
    with pytest.raises(StorageError, match="not what was received"):
        host.ship()
    host.receive(2 * SIZE, system="7000000000000000009")
    with pytest.raises(Divergence, match="another cluster"):
        host.ship()
    assert not list(host.service.repository.rglob("*.log"))


def test_a_server_behind_the_repository(host: Host) -> None:
    host.receive(2 * SIZE)
    host.ship()
    os.unlink(host.place)
    host.position = (1, 2 * SIZE + 100)
    host.receive(2 * SIZE, 2 * SIZE + 50)
    with pytest.raises(Divergence, match="set back"):
        host.ship()


def test_another_history_of_the_same_timeline(host: Host) -> None:
    (host.wal / "00000002.history").write_bytes(wal_segments.HISTORY)
    host.receive(4 * SIZE, timeline=2)
    host.ship()
    (host.wal / "00000002.history").write_bytes(wal_segments.HISTORY.replace(b"no recovery", b"another"))
    host.receive(5 * SIZE, timeline=2)
    with pytest.raises(Divergence, match="two copies"):
        host.ship()


def test_spool_measures_and_leads_the_receiver(host: Host) -> None:
    spool = Spool(str(host.spool))
    spool.begin_at(1, 7 * SIZE, SIZE)
    assert os.listdir(host.wal) == ["000000010000000000000007.partial"] and not spool.files(SIZE) and spool.used() == 0
    host.receive(6 * SIZE, 6 * SIZE + 100000)
    spool.begin_at(1, 6 * SIZE, SIZE)  # what was received stays; what was only made for another beginning goes
    assert [(one.start, one.complete) for one in spool.files(SIZE)] == [(6 * SIZE, False)] and spool.used() >= SIZE
    assert len(os.listdir(host.wal)) == 1


def test_only_what_is_the_spool_s_own_is_removed(host: Host, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "000000010000000000000007"
    other.touch()
    with pytest.raises(ValueError, match="not in the spool"):
        Spool(str(host.spool)).remove(str(other))
    assert other.exists()


def settings(**log: Any) -> config.LogConfig:
    entry = {"sources": {"db": {"type": "postgresql", "log": log}, "t": {"type": "files", "path": "/x"}}}
    return config.read(Spec.from_dict({"service": "My-Shop", "entry": entry, "repository": {"url": "file:///r"}, "keys": {}, "state_dir": "/s"}), "db")


def test_options() -> None:
    one = settings()
    assert (one.slot, one.spool, one.spool_limit, one.interval) == ("lifeboat_my_shop_db", "/s/services/My-Shop/log/db/spool", 4 << 30, 1.0)
    assert settings(spool_limit="2G").spool_limit == settings(spool_limit=2 << 30).spool_limit == settings(spool_limit="2 GiB").spool_limit == 2 << 30
    for wrong in ({"spool_limit": "1M"}, {"spool_limit": "x"}, {"interval": 0}, {"interval": "x"}, {"spool": "relative"}, {"pool": "/x"}):
        with pytest.raises(ConfigError):
            settings(**wrong)
    with pytest.raises(ConfigError, match="has no log"):
        config.read(Spec.from_dict({"service": "s", "entry": {"sources": {"t": {"type": "files"}}}, "repository": {"url": "file:///r"}, "keys": {}}), "t")


def test_state_survives_a_damaged_file(host: Host) -> None:
    host.receive(2 * SIZE)
    host.ship()
    state.write_json(host.place, {"here": {"position": 5, "what": 1}}, "logmark")
    with pytest.raises(LifeboatError, match="proven position"):
        host.kept()
