# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One service's keys destroyed: it is refused by name for ever, all others restore."""

from __future__ import annotations

import json
from typing import Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, DamageError, LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.tombstone import ShreddedError
from ansible_collections.lifeboat.recovery.tests.integration.rotation.conftest import World

Make = Callable[..., World]
SAID = "service docs was shredded on 20.*Z by test@.* in run .*-shred-"


def test_one_service_is_shredded_and_the_others_restore(world: Make) -> None:
    docs = world()
    shared = f"file://{docs.files.repository}"
    mill, yard = world("mill", repository=shared), world("yard", repository=shared)
    first, others = docs.capture("one"), {one: one.capture("one") for one in (mill, yard)}
    for confirm in ("", "docs", "lab/mill", "Lab/docs"):
        with pytest.raises(ConfigError, match="give confirm: lab/docs"):
            operations.shred(docs.spec("shred"), docs.run("shred"), confirm, "asked to", False)
    would = operations.shred(docs.spec("shred"), docs.run("shred"), "lab/docs", "asked to", True)
    assert would["changed"] and not (docs.files.repository / "services" / "docs" / "shredded.json").exists()
    assert "one" in docs.restore(first), "check mode destroyed something"
    told = operations.shred(docs.spec("shred"), docs.run("shred"), "lab/docs", "asked to", False)
    assert told["changed"] and told["destroyed"] and told["tried"] == told["data_keys"] == 1
    assert told["tombstone"]["reason"] == "asked to"
    again = operations.shred(docs.spec("shred"), docs.run("shred"), "lab/docs", "once more", False)
    assert not again["changed"] and again["tombstone"] == told["tombstone"]

    with pytest.raises(ShreddedError, match=SAID):
        docs.restore(first)
    found = operations.set_state(docs.spec("restore"), docs.run("restore"), "live", first, "last", {}, True)["findings"]
    assert [one["what"] for one in found if one["level"] == "error" and "was shredded on" in one["what"]]
    with pytest.raises(ShreddedError, match=SAID):
        docs.capture("two")
    with pytest.raises(ShreddedError, match=SAID):
        operations.prepare_repository(docs.spec("bootstrap"), check=False)
    for one, snapshot in others.items():
        assert "one" in one.restore(snapshot)
        assert operations.verify(one.spec("restore"), "all", "decode")["findings"] == []
        one.capture("two")
    events = [json.loads(line) for line in (docs.files.home / "state" / "services" / "docs" / "ledger.jsonl").read_text().splitlines()]
    done = next(entry["data"] for entry in events if entry["event"] == "shred.done")
    assert (done["opened"], done["tried"], done["destroyed"]) == (0, 1, told["destroyed"])


def test_a_forged_tombstone_is_no_reason(world: Make) -> None:
    docs = world()
    mill = world("mill", repository=f"file://{docs.files.repository}")
    first = docs.capture("one")
    mill.capture("one")
    operations.shred(mill.spec("shred"), mill.run("shred"), "lab/mill", "", False)
    genuine = docs.files.repository / "services" / "mill" / "shredded.json"
    placed = docs.files.repository / "services" / "docs" / "shredded.json"
    placed.write_bytes(genuine.read_bytes())
    assert "one" in docs.restore(first), "what opens is restored, whatever somebody wrote beside it"
    findings = operations.verify(docs.spec("restore"), "all", "exists")["findings"]
    assert any("tombstone" in str(finding) and "services/docs/shredded.json" in str(finding) for finding in findings)
    with pytest.raises(DamageError, match="tombstone .*services/docs/shredded.json; somebody else wrote"):
        docs.capture("two")
    told = json.loads(genuine.read_text())
    genuine.write_text(json.dumps({**told, "shredded": told["shredded"].replace("test@", "evil@")}, separators=(",", ":")))
    with pytest.raises(LifeboatError, match="signature that does not match"):
        mill.capture("two")
