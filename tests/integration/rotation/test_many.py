# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository with many snapshots is rewrapped; the rewrap is killed five times; the old version is retired; oldest and newest restore."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.provider import KeyVersionError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, rotate
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import checked, datakeys, layout
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import ServiceStore
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.drills.scenes import run_killed
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site
from ansible_collections.lifeboat.recovery.tests.integration.rotation.conftest import World

KILLS = 5


def grow(store: ServiceStore, snapshots: int) -> None:
    """Put signed manifests behind the newest one, each with a data key of its own, as captures that found nothing new would leave them."""
    chain = store.chains()[0]
    newest = chain.manifests[-1]
    ids = [os.urandom(16).hex() for _number in range(snapshots)]

    def make(key_id: str) -> None:
        _plain, wrapped = store.provider.new_data_key(datakeys.context(store.repository.id, store.service, key_id))
        document = {"format": layout.FORMAT, "id": key_id, "service": store.service, "wrapped": wrapped.as_dict()}
        path = Path(store.repository.url[len("file://"):]) / layout.key(store.service, key_id)
        path.write_bytes(checked.dump(document))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(make, ids))
    previous = newest.digest
    for number, key_id in enumerate(ids, newest.data["sequence"] + 1):
        data = {**newest.data, "sequence": number, "previous": previous, "keys": [*newest.data["keys"], key_id]}
        data["point"] = {**data["point"], "id": f"p{number}"}
        data["id"] = f"{data['service']}.{data['source']}-{number:06d}-{data['tree']['id'][:8]}"
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        body = json.dumps({"manifest": text, "signature": store.provider.sign(text.encode())}, separators=(",", ":")).encode()
        path = Path(store.repository.url[len("file://"):]) / layout.manifest(store.service, data["source"], number)
        path.write_bytes(body)
        previous = hashlib.sha256(text.encode()).hexdigest()


def rewrapped(world: World) -> int:
    return sum(1 for name in world.key_objects() if name.endswith(".000001.json"))


def killed_and_resumed(docs: World, snapshots: int) -> dict[str, Any]:
    oldest = docs.capture("one")
    began = time.monotonic()
    grow(docs.spec("backup").store(), snapshots - 2)
    newest = docs.capture("two")
    made = time.monotonic()
    spec = docs.spec("rotate")
    done = []
    for kill in range(1, KILLS + 1):
        code, told = run_killed(lambda: operations.rotate(spec, docs.run("rotate_keys"), True, False), f"rotate.stored:{snapshots // (KILLS + 2)}")
        assert code == -signal.SIGKILL, told
        docs.run("rotate_keys")  # the child counted in its own memory
        done.append(rewrapped(docs))
        assert len(done) == kill and done == sorted(set(done)) and done[-1] < snapshots, "a resumed rewrap began anew"
    killed = time.monotonic()
    told = operations.rotate(spec, docs.run("rotate_keys"), True, False)
    ended = time.monotonic()
    assert (told["version"], told["data_keys"], rewrapped(docs)) == (2, snapshots, snapshots)
    assert told["rewrapped"] == snapshots - done[-1]
    retired = operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    assert retired["data_keys"] == snapshots
    print(f"{snapshots} snapshots made in {made - began:.1f} s; killed {KILLS} times with {done} rewrapped in {killed - made:.1f} s, "
          f"the last call did {told['rewrapped']} in {ended - killed:.1f} s; retired in {time.monotonic() - ended:.1f} s")
    assert "one" in docs.restore(oldest) and "two" in docs.restore(newest)
    return told


def test_killed_five_times(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotate, "BATCH", 5)
    killed_and_resumed(world(), 60)


@pytest.mark.soak
def test_ten_thousand_snapshots(site: Site, tmp_path: Path) -> None:
    killed_and_resumed(World(tmp_path, site), 10_000)


def test_a_stolen_key_with_the_old_token_opens_nothing(site: Site, tmp_path: Path) -> None:
    """What was stolen: a wrapped key out of the repository, and a token that may decrypt. After rotation and retirement it is worth nothing."""
    docs = World(tmp_path, site)
    docs.capture("one")
    thief = Spec.from_dict({**docs.files.document, "keys": site.config(site.token("restore", "docs"))})
    store = thief.store()
    key_id = docs.key_objects()[0].split(".")[0]
    stolen = datakeys.read_key(store.backend, "docs", key_id, "stolen")
    bound = datakeys.context(store.repository.id, "docs", key_id)
    assert len(thief.provider().open_data_keys([(bound, stolen)])[0]) == 32
    operations.rotate(docs.spec("rotate"), docs.run("rotate_keys"), True, False)
    operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    with pytest.raises(KeyVersionError, match="key version is retired: docs-data version 1"):
        thief.provider().open_data_keys([(bound, stolen)])
