# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every place of a repository must keep: objects written once, whole or not at all, read as they were written."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import durable
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.backend import Backend
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.registry import backend_for

MIB = 1 << 20


def test_a_new_place_is_tried_and_holds_nothing(backend: Backend) -> None:
    assert backend.prepare() is False
    backend.probe()
    assert list(backend.list("")) == []
    for action in (lambda: backend.read("lifeboat.json", 10), lambda: backend.size("lifeboat.json"), lambda: backend.read_range("a/b", 0, 1)):
        with pytest.raises(FileNotFoundError):
            action()


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 8 * MIB, 8 * MIB + 1, 41 * MIB + 7])
def test_objects_come_back_as_they_were(backend: Backend, size: int) -> None:
    data = random.Random(size).randbytes(size)
    new = backend.new("services/a/one.pack", "pack")
    for start in range(0, size, 3 * MIB + 5):
        new.write(data[start:start + 3 * MIB + 5])
    assert list(backend.list("services/")) == []
    new.commit()
    assert backend.size("services/a/one.pack") == size and backend.read("services/a/one.pack", size + 1) == data
    assert list(backend.list("services/")) == list(backend.list("")) == [("services/a/one.pack", size)]
    assert list(backend.list("services/b/")) == []
    for offset, length in ((0, 10), (size // 2, MIB), (max(0, size - 3), 100), (size, 5), (size + 100, 5), (max(0, size - 9 * MIB), 9 * MIB)):
        assert backend.read_range("services/a/one.pack", offset, length) == data[offset:offset + length], (offset, length)
    again = backend.new("services/a/one.pack", "pack")
    again.write(data + b"x")
    with pytest.raises(ConflictError, match="exists already"):
        again.commit()
    again.abort()
    assert backend.read("services/a/one.pack", size + 1) == data


def test_too_long_an_object_is_refused(backend: Backend) -> None:
    backend.create("services/a/x.json", b"12345", "repository")
    with pytest.raises(StorageError, match="larger than the 4 bytes"):
        backend.read("services/a/x.json", 4)


def test_names_stay_inside(backend: Backend) -> None:
    for name in ("/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", ".."):
        actions: list[Callable[[], object]] = [
            partial(backend.new, name, "pack"), partial(backend.read, name, 1), partial(backend.read_range, name, 0, 1), partial(backend.size, name),
        ]
        for action in actions:
            with pytest.raises(StorageError, match="unsafe object name"):
                action()


def test_what_is_aborted_was_never_there(backend: Backend) -> None:
    new = backend.new("services/a/gone.pack", "pack")
    for _number in range(20):
        new.write(os.urandom(MIB))
    new.abort()
    assert list(backend.list("")) == []
    with pytest.raises(FileNotFoundError):
        backend.size("services/a/gone.pack")
    backend.create("services/a/gone.pack", b"another", "pack")


def test_of_many_writers_one_wins(config: dict[str, Any], backend: Backend) -> None:
    backends = [backend_for(config) for _number in range(8)]

    def write(number: int) -> int | None:
        try:
            backends[number].create("services/a/snapshots/db/000000000001.json", b"%d" % number, "manifest")
        except ConflictError:
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number in threads.map(write, range(8)) if number is not None]
    assert len(winners) == 1 and backend.read("services/a/snapshots/db/000000000001.json", 10) == b"%d" % winners[0]


def test_another_host_tries_the_place_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_for({"url": f"file://{tmp_path / 'new'}"})
    backend.prepare()
    make_dirs = durable.make_dirs

    def with_another(path: str, mode: int, subject: str) -> None:
        make_dirs(path, mode, subject)
        monkeypatch.setattr(durable, "make_dirs", make_dirs)
        backend.probe()  # the other one comes between our directory and our object, and clears up behind itself

    monkeypatch.setattr(durable, "make_dirs", with_another)
    backend.probe()
    assert list((tmp_path / "new").iterdir()) == []


def test_many_objects_are_listed(backend: Backend) -> None:
    names = {f"services/a/packs/{number:02x}/{number}.pack" for number in range(60)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: backend.create(name, name.encode(), "pack"), sorted(names)))
    assert {name for name, size in backend.list("services/a/packs/") if size == len(name)} == names


def test_many_readers_at_once(backend: Backend) -> None:
    data = os.urandom(30 * MIB)
    new = backend.new("services/a/one.pack", "pack")
    new.write(data)
    new.commit()

    def read(start: int) -> bool:
        return backend.read_range("services/a/one.pack", start, MIB) == data[start:start + MIB]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, [random.Random(1).randrange(29 * MIB) for _number in range(100)]))
