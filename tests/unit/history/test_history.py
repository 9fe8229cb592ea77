# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's copy in the repository: complete, signed, append-only, and never in the way of a restore."""

from __future__ import annotations

import functools
import json
import os
import shutil

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults, ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import DamageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import history, operations, restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository import ledgers
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.drills.scenes import run_killed
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record


@pytest.fixture
def service(tmp_path):
    service = FilesService(tmp_path).bootstrap()
    (service.tree / "file").write_text("captured")
    return service


def backup(service, number=1, spec=None):
    return operations.capture(spec or service.spec, run_record(f"backup-{number}"), "auto")


def bring_back(service, number=1, verdict="verified"):
    run = run_record(f"restore-{number}", "restore")
    told = [restore.stage(service.spec, "latest", run), restore.go_live(service.spec, "latest", run), restore.mark_verified(service.spec, run, verdict)]
    return [warning for one in told for warning in one["warnings"]]


def objects(service):
    return sorted((service.repository / "services" / "docs" / "ledgers").rglob("*.json"))


def told(service, run="", spec=None):
    store = (spec or service.spec).store()
    return history.read(store.backend, store.provider, store.repository.id, "docs", run)


def stored(service):
    problems = []
    store = service.spec.store()
    found = [entry for data in ledgers.segments(store.backend, store.provider, store.repository.id, "docs", problems) for entry in data["entries"]]
    assert not problems, problems
    return found


def own(service):
    return ledger.Ledger.for_spec(service.spec).entries()


def test_every_entry_of_a_life_is_in_the_repository(service):
    assert backup(service)["warnings"] == []
    (service.tree / "file").write_text("live")
    assert bring_back(service) == []
    assert restore.commit(service.spec, run_record("commit-1", "commit"))["warnings"] == []
    assert stored(service) == own(service)
    found = told(service)
    assert [(run["run"], run["verdict"]) for run in found["runs"]] == [("backup-1", "captured"), ("restore-1", "verified"), ("commit-1", "committed")]
    assert found["signed"] and not found["warnings"]
    assert {entry["run"] for entry in told(service, "last")["entries"]} == {"commit-1"}


def test_segments_are_named_by_their_numbers_and_never_overlap(service):
    backup(service)
    backup(service, 2)
    spans = [tuple(map(int, path.stem.split("-"))) for path in objects(service)]
    assert spans[0][0] == 1 and all(one[1] + 1 == two[0] for one, two in zip(spans, spans[1:])) and spans[-1][1] == own(service)[-1]["seq"]


def test_nothing_new_writes_nothing(service):
    backup(service)
    before = objects(service)
    assert history.publish(service.spec, ledger.Ledger.for_spec(service.spec)) == [] and objects(service) == before


def test_a_large_ledger_is_cut_into_objects(service, monkeypatch):
    monkeypatch.setattr(ledgers, "SEGMENT_BYTES", 200)
    backup(service)
    assert len(objects(service)) > 2 and stored(service) == own(service)


def test_commit_and_rollback_work_without_repository_and_keys_and_are_caught_up(service, tmp_path):
    backup(service)
    (service.tree / "file").write_text("live")
    bring_back(service)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("repository", "keys"):
        shutil.move(tmp_path / name, hidden / name)
    found = restore.roll_back(service.spec, run_record("rollback-1", "rollback"))
    assert found["changed"] and "not copied to the repository" in found["warnings"][0]["what"] and "catches up" in found["warnings"][0]["remedy"]
    assert (service.tree / "file").read_text() == "live"
    found = restore.commit(service.spec, run_record("commit-1", "commit"))
    assert found["changed"] and len(found["warnings"]) == 1
    for name in ("repository", "keys"):
        shutil.move(hidden / name, tmp_path / name)
    assert backup(service, 2)["warnings"] == []
    assert stored(service) == own(service)


def test_a_role_that_may_not_sign_restores_all_the_same(service):
    backup(service)
    (service.tree / "file").write_text("live")
    sign = next(service.home.glob("keys/host/docs/sign.key"))
    sign.rename(service.home / "aside")
    warnings = bring_back(service)
    assert warnings and all("not copied" in warning["what"] for warning in warnings)
    assert (service.tree / "file").read_text() == "captured"


@pytest.mark.parametrize("action", ["error", "full"])
def test_a_disk_that_refuses_is_a_warning(service, action):
    backup(service)
    faults.configure(f"history.write.before:1:{action}")
    try:
        found = backup(service, 2)
    finally:
        faults.configure()
    assert found["changed"] and [warning["code"] for warning in found["warnings"]] == ["storage"]
    assert backup(service, 3)["warnings"] == [] and stored(service) == own(service)


@pytest.mark.parametrize("point", [name for name in faults.points() if name.startswith("history.")])
def test_killed_while_publishing(service, point):
    backup(service)
    for nth in (1, 2):
        code, _text = run_killed(functools.partial(backup, service, f"killed-{nth}"), f"{point}:{nth}")
        assert code == -9 or nth == 2
    assert backup(service, 9)["warnings"] == []
    assert stored(service) == own(service), "each entry once, in order"
    assert verify_service(service.spec, depth="hash")["findings"] == []


def test_a_lost_memory_publishes_again_and_history_shows_each_entry_once(service):
    backup(service)
    os.unlink(service.spec.path("history.json"))
    backup(service, 2)
    found = told(service)
    assert len({path.parent for path in objects(service)}) == 2 and not found["warnings"]
    assert [run["run"] for run in found["runs"]] == ["backup-1", "backup-2"]
    assert sum(run["entries"] for run in found["runs"]) == len(own(service))


def test_another_ledger_in_the_place_of_the_first_has_numbers_of_its_own(service):
    backup(service)
    os.unlink(service.spec.path("ledger.jsonl"))
    assert backup(service, 2)["warnings"] == []
    assert len({path.parent for path in objects(service)}) == 2
    assert {run["run"] for run in told(service)["runs"]} == {"backup-1", "backup-2"} and not told(service)["warnings"]


def flip(path):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_damage_is_named_as_a_warning_and_nothing_else_fails(service, damage, which):
    for number in (1, 2, 3):
        backup(service, number)
    path = objects(service)[which]
    path.chmod(0o600)
    damage(path)
    found = verify_service(service.spec, depth="exists")
    assert found["ok"] and [finding["level"] for finding in found["findings"]] == ["warning"], found
    finding = found["findings"][0]
    assert "ledger" in finding["what"] and "services/docs/ledgers/" in finding["where"]
    if damage is not os.unlink:
        assert finding["where"].endswith(path.name)
    (service.tree / "file").write_text("live")
    assert restore.preflight(service.spec, "latest", run_record("restore-1", "restore"))["ok"]
    bring_back(service)
    assert (service.tree / "file").read_text() == "captured"


def test_an_entry_put_in_by_another_hand_is_refused(service):
    backup(service)
    path = objects(service)[0]
    outer = json.loads(path.read_text())
    data = json.loads(outer["ledger"])
    data["entries"][-1]["data"]["verdict"] = "verified"
    data["entries"][-1]["hash"] = data["head"] = ledger.entry_hash(data["entries"][-1])
    outer["ledger"] = ledger.canonical(data).decode()
    path.chmod(0o600)
    path.write_text(json.dumps(outer, sort_keys=True, separators=(",", ":")))
    store = service.spec.store()
    with pytest.raises(DamageError, match="signature"):
        ledgers.read(store.backend, store.provider, store.repository.id, str(path.relative_to(service.repository)))


def test_nothing_secret_and_no_content_in_it(service):
    canary = "canary-93f1"
    document = {**service.document, "entry": {**service.document["entry"], "sources": {"tree": {**service.document["entry"]["sources"]["tree"]}}}}
    document["repository"] = {**document["repository"], "password": canary}
    spec = Spec.from_dict(document)
    book = ledger.Ledger.for_spec(spec)
    book.append(run_record("x"), "stage", "stage.failed", {"message": f"server said: password {canary} is wrong", canary: 1})
    book.append(run_record("x"), "rollback", "rollback.intent", {"writes": {"tree": {"known": True, "written": True, "differences": ["salaries.xls differs"]}}})
    assert history.publish(spec, book) == []
    text = "".join(path.read_text() for path in objects(service))
    assert canary not in text and "salaries" not in text and "server said" in text
    assert [entry.get("withheld", False) for entry in stored(service)] == [True, True]


def test_read_without_any_key(service):
    backup(service)
    store = service.spec.store()
    found = history.read(store.backend, None, None, "docs")
    assert found["runs"][0]["verdict"] == "captured" and not found["signed"]
    assert history.services(store.backend) == ["docs"]
