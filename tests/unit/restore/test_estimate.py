# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight tells of the bytes a restore moves and of the way to the repository; nothing of it takes a second look at the data."""

from __future__ import annotations

import os
import threading

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import metered
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.directory import DirectoryBackend
from ansible_collections.lifeboat.recovery.tests.doubles.restore_world import new_run


def test_bytes_of_a_restore_and_of_one_that_has_nothing_to_do(world):
    (world.tree / "large").write_bytes(os.urandom(3 << 20))
    world.backup("second")
    world.write("lost")
    found = restore.preflight(world.spec(), "latest", new_run())["estimate"]
    assert 3 << 20 < found["written"] == found["bytes"] and found["reused"] == 0, found
    # random bytes are stored as they are; all of it crosses the link
    assert 3 << 20 < found["fetched"] < (3 << 20) + (64 << 10)
    assert {name: one["type"] for name, one in found["sources"].items()} == {"box": "box", "tree": "files"}
    assert found["link"]["bytes"] >= 3 << 20 and found["link"]["seconds"] > 0 and found["link"]["ended"] >= found["link"]["began"] > 1.7e9
    assert found["cores"] >= 1 and found["seconds"] > 0

    run = new_run()
    for state in ("staged", "live"):
        operations.set_state(world.spec(), run, state, "latest", "last", {}, False)
    restore.mark_verified(world.spec(), run, "verified")
    again = restore.preflight(world.spec(), "latest", new_run())
    assert again["data_current"] and {key: again["estimate"][key] for key in ("written", "fetched")} == {"written": 0, "fetched": 0}
    assert again["estimate"]["reused"] == again["estimate"]["bytes"] == found["bytes"]
    forced = restore.preflight(world.spec(), "latest", new_run(), force=True)["estimate"]
    assert forced["written"] == found["written"]


def test_what_an_unfinished_restore_has_staged_is_not_moved_again(world):
    world.write("lost")
    operations.set_state(world.spec(), new_run(), "staged", "latest", "last", {}, False)
    found = restore.preflight(world.spec(), "latest", new_run())["estimate"]
    assert found["bytes"] > 0 and found["written"] == found["fetched"] == 0, found


class Slow(DirectoryBackend):
    """Two reads of this place are always under way together."""

    meeting = threading.Barrier(2, timeout=60)

    def read_range(self, name, offset, length):
        if length >= metered.BULK:
            self.meeting.wait()
        return super().read_range(name, offset, length)


def test_the_meter_counts_time_once_where_reads_overlap(tmp_path, monkeypatch):
    backend = metered.MeteredBackend(Slow(f"file://{tmp_path}"))
    (tmp_path / "object").write_bytes(bytes(1 << 20))
    clock = iter([10.0, 12.5])  # one begin and one end, though two threads read
    monkeypatch.setattr(metered.time, "monotonic", lambda: next(clock))
    threads = [threading.Thread(target=backend.read_range, args=("object", 0, 1 << 20)) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    backend.read_range("object", 0, 100)  # small: tells of the delay only
    link = backend.link()
    assert link is not None and (link["bytes"], link["seconds"]) == (2 << 20, 2.5)
    with pytest.raises(StorageError, match="nothing is written"):
        backend.new("other", "pack")
