# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the run directory to the outside: sealing, what a host signs and what it refuses, the second places."""

from __future__ import annotations

import json
import os
import pathlib
import socket
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.audit import publics, seal, verify
from ansible_collections.lifeboat.recovery.plugins.module_utils.cli.main import main
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, ConflictError, DamageError, KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import signing
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger, canonical, entry_hash
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import audit, controls, copies, journal, lifecycle, who
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService

PLAN: dict[str, Any] = {"order": ["docs"], "services": {"docs": {"sources": ["tree"]}}}


@pytest.fixture
def service(tmp_path: pathlib.Path) -> FilesService:
    made = FilesService(tmp_path).bootstrap()
    (made.tree / "file").write_text("captured")
    return made


def begin(root: pathlib.Path, verb: str = "backup", pid: int | None = None, **plan: Any) -> RunDirectory:
    return lifecycle.begin(verb, "shop", {**PLAN, **plan}, ["docs"], root=str(root), pid=pid or os.getppid(), operator=who.of({"awx_job_id": 7}, "deploy"))


def own(service: FilesService) -> list[dict[str, Any]]:
    """The ledger on the host."""
    return Ledger.for_spec(service.spec).entries()


def captured(root: pathlib.Path, service: FilesService, **plan: Any) -> RunDirectory:
    """A backup as the playbook does it, sealed and not yet signed."""
    run = begin(root, **plan)
    told = operations.capture(service.spec, dict(run.run), "auto")
    run.collect("docs", own(service))
    run.keep("docs", "snapshot", {key: value for key, value in told.items() if key != "ledger"})
    run.verdict("docs", "captured")
    lifecycle.finish(run)
    return run


def text(run: RunDirectory) -> str:
    return pathlib.Path(run.file("journal.jsonl")).read_text()


def test_a_host_signs_and_stores_the_journal_of_a_run_once(tmp_path: pathlib.Path, service: FilesService) -> None:
    run = captured(tmp_path / "runs", service)
    told = operations.publish_journal(service.spec, dict(run.run), text(run), False)
    run.journal().sign(told["signature"])
    again = operations.publish_journal(service.spec, dict(run.run), text(run), False)
    assert (told["changed"], again["changed"], again["signature"]) == (True, False, told["signature"])
    stored = service.repository / told["object"]
    assert stored.read_text() == text(run) and told["object"] == f"services/docs/journals/{run.run['id']}.jsonl"
    keys = publics.load_publics(str(pathlib.Path(service.spec.keys["path"])))
    assert verify.verify(stored.read_bytes(), keys)[0].vouched
    assert verify_service(service.spec, "all", "exists")["findings"] == []
    last = json.loads(text(run).splitlines()[-2])
    assert last["event"] == "sealed" and "AWX job 7" in last["who"] and "Ansible as deploy" in last["who"]
    told_of = last["data"]["services"]["docs"]
    assert told_of["ledger"]["head"] == own(service)[-1]["hash"] and told_of["controls"]["encrypted"]["ok"] and told_of["controls"]["signed"]["ok"]


def test_a_journal_of_another_run_in_its_place_is_named_by_verify(tmp_path: pathlib.Path, service: FilesService) -> None:
    names = []
    for _number in range(2):
        run = captured(tmp_path / "runs", service)
        names.append(operations.publish_journal(service.spec, dict(run.run), text(run), False)["object"])
    one, two = (service.repository / name for name in names)
    two.chmod(0o600)
    two.write_bytes(one.read_bytes())
    (found,) = verify_service(service.spec, "all", "exists")["findings"]
    assert found["where"] == names[1] and "moved or replayed" in found["what"] and found["level"] == "warning"
    two.write_bytes(one.read_bytes()[:-300])
    (found,) = verify_service(service.spec, "all", "exists")["findings"]
    assert "journal was altered" in found["what"]


def test_a_host_refuses_what_it_cannot_stand_for(tmp_path: pathlib.Path, service: FilesService) -> None:
    run = captured(tmp_path / "runs", service)
    whole = text(run)
    lines = whole.splitlines(keepends=True)
    with pytest.raises(DamageError, match=r"the journal was altered \(entry 1 altered"):
        operations.publish_journal(service.spec, dict(run.run), "".join([lines[0], lines[1].replace("captured", "verified"), *lines[2:]]), False)
    with pytest.raises(DamageError, match="no seal"):
        operations.publish_journal(service.spec, dict(run.run), "".join(lines[:-1]), False)
    with pytest.raises(DamageError, match="this is not the journal of run other"):
        operations.publish_journal(service.spec, {**run.run, "id": "other"}, whole, False)
    # a controller that tells of another ledger than the host's, in a journal that is whole
    (entries := [json.loads(line) for line in lines[:-1]])[-1]["data"]["services"]["docs"]["ledger"]["head"] = "f" * 64
    entries[-1]["hash"] = entry_hash(entries[-1])
    lying = "".join(canonical(entry).decode() + "\n" for entry in entries) + seal.line_of(seal.text_of(entries, "shop"), None).decode()
    with pytest.raises(DamageError, match="names another ledger than the one of this host"):
        operations.publish_journal(service.spec, dict(run.run), lying, False)
    alone = lifecycle.begin("backup", "shop", {"order": ["else"], "services": {"else": {}}}, ["else"], root=str(tmp_path / "alone"), pid=os.getppid())
    alone.verdict("else", "captured")
    lifecycle.finish(alone)
    with pytest.raises(ConfigError, match="no end that speaks of this service"):
        operations.publish_journal(service.spec, dict(alone.run), text(alone), False)


def test_nothing_is_appended_after_the_seal_and_the_seal_stays(tmp_path: pathlib.Path, service: FilesService) -> None:
    run = captured(tmp_path / "runs", service)
    before = text(run)
    with pytest.raises(ConflictError, match="the run has its end, its journal is sealed"):
        run.journal().append("note")
    assert run.journal().close("shop") is not None
    assert text(run) == before and journal.read(run.file("journal.jsonl")).whole
    with open(run.file("journal.jsonl"), "a") as handle:
        handle.write(before.splitlines()[0] + "\n")
    assert journal.read(run.file("journal.jsonl")).problem == f"line {len(before.splitlines()) + 1} stands after the seal"


def test_an_interrupted_run_is_sealed_by_the_next_with_its_verdicts(tmp_path: pathlib.Path) -> None:
    former = begin(tmp_path, "restore", pid=2**22 + 1)
    run = begin(tmp_path, "restore")
    (report,) = verify.verify(text(former).encode(), [])
    entries = [json.loads(line) for line in text(former).splitlines()[:-1]]
    assert report.whole and report.sealed and [entry["event"] for entry in entries] == ["begun", "verdict", "sealed"]
    assert entries[-1]["data"]["outcome"] == "interrupted" and entries[-1]["data"]["by"] == run.run["id"]
    assert lifecycle.write_documents(former)["outcome"] == "interrupted"  # rebuilt at any time


def test_a_run_that_was_killed_after_its_seal_had_come_to_its_end(tmp_path: pathlib.Path) -> None:
    former = begin(tmp_path, "backup", pid=2**22 + 1)
    former.verdict("docs", "captured")
    lifecycle.finish(former)
    before = text(former)
    os.unlink(former.file("run.json"))
    begin(tmp_path, "backup")
    assert text(former) == before and json.loads(pathlib.Path(former.file("run.json")).read_text())["outcome"] == "success"
    os.unlink(former.file("run.json"))
    assert lifecycle.finish(former)["audit"]["problems"] == [] and text(former) == before


def test_an_altered_journal_is_evidence_and_neither_hides_the_end_of_a_run_nor_keeps_the_next_from_beginning(tmp_path: pathlib.Path) -> None:
    def tampered(verb: str, pid: int, verdict: bool) -> RunDirectory:
        run = begin(tmp_path / verb, verb, pid)
        if verdict:
            run.verdict("docs", "captured")
        path = pathlib.Path(run.file("journal.jsonl"))
        path.write_text(path.read_text().replace(f'"verb":"{verb}"', '"verb":"another"'))
        return run

    document = lifecycle.finish(tampered("backup", os.getppid(), True))
    assert document["outcome"] == "success" and not document["audit"]["sealed"] and "was altered" in document["audit"]["problems"][0]
    former = tampered("restore", 2**22 + 1, False)
    following = begin(tmp_path / "restore", "restore")
    assert "cannot be given one: the journal was altered" in following.plan["warnings"][0] and not former.sealed()


def answer(service: FilesService, run: RunDirectory) -> Any:
    def ask(journal_text: str) -> dict[str, Any]:
        try:
            return operations.publish_journal(service.spec, dict(run.run), journal_text, False)
        except (DamageError, KeyAccessError) as error:
            return {"failed": True, "msg": str(error)}
    return ask


def test_the_controllers_own_key_signs_first_and_one_that_cannot_be_read_is_told(tmp_path: pathlib.Path, service: FilesService) -> None:
    public = publics.make_private(str(tmp_path / "own"))
    run = captured(tmp_path / "runs", service, audit={"key": str(tmp_path / "own"), "copies": []})
    assert verify.verify(text(run).encode(), [public])[0].vouched
    assert audit.publish(run, "docs", answer(service, run)) and audit.state(run)["done"] and not audit.publish(run, "docs", answer(service, run))
    assert verify.verify((service.repository / audit.state(run)["published"]["object"]).read_bytes(), [public])[0].vouched
    (tmp_path / "own").chmod(0o644)
    loose = captured(tmp_path / "loose", service, audit={"key": str(tmp_path / "own"), "copies": []})
    told = lifecycle.write_documents(loose)
    assert told["audit"]["signed_by"] is None and "may be used by others" in told["warnings"][0]


def test_a_journal_that_no_host_saw_is_copied_when_somebody_signed_it(tmp_path: pathlib.Path, service: FilesService) -> None:
    publics.make_private(str(tmp_path / "own"))
    place = tmp_path / "copies"
    unsigned = captured(tmp_path / "one", service, audit={"copies": [{"file": str(place)}]})
    assert not audit.send(unsigned, unsigned=False) and not place.exists()
    signed = captured(tmp_path / "two", service, audit={"key": str(tmp_path / "own"), "copies": [{"file": str(place)}]})
    assert audit.send(signed, unsigned=False) and not audit.send(signed) and place.read_text() == text(signed)
    # the next run's host publishes both, and sends what was not sent
    assert [former.path for former in audit.pending(begin(tmp_path / "two"), "docs")] == [signed.path]
    for run in (unsigned, signed):
        assert audit.publish(run, "docs", answer(service, run), later=True) and audit.state(run)["done"]
    assert place.read_text() == text(signed) + text(unsigned) and '"signature":null' not in place.read_text()


def test_no_more_is_tried_than_makes_sense(tmp_path: pathlib.Path, service: FilesService, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"s{number}" for number in range(9)]
    run = lifecycle.begin("backup", "shop", {"order": names, "services": {name: {} for name in names}, "audit": {"copies": [{"syslog": "127.0.0.1:1"}]}}, names,
                          root=str(tmp_path), pid=os.getppid())
    lifecycle.finish(run)
    sent, asked = [], []
    real = copies.send
    monkeypatch.setattr(copies, "send", lambda *given: (sent.append(1), real(*given))[1])

    def refuse(_text: str) -> dict[str, Any]:
        asked.append(1)
        return {"failed": True, "msg": "no right"}

    def agree(_text: str) -> dict[str, Any]:
        asked.append(1)
        return {"signature": publics.sign(bytes(32), "s1-sign", "x"), "object": "o"}

    for name in names:
        audit.publish(run, name, refuse)
    assert (len(asked), len(sent)) == (audit.TRIES, 1)  # three hosts are asked, and a place that is silent costs its time once
    assert audit.publish(run, "s1", agree, later=True) and (len(asked), len(sent)) == (4, 2)
    assert not audit.publish(run, "s2", agree) and audit.publish(run, "s2", agree, later=True) and (len(asked), len(sent)) == (4, 3)


def test_a_whole_journal_that_is_missing_is_named_by_the_later_ones(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for _number in range(7):
        runs.append(begin(tmp_path))
        runs[-1].verdict("docs", "captured")
        lifecycle.finish(runs[-1])
    files = sorted((run.file("journal.jsonl") for run in runs), key=lambda name: name.split("/")[-2])
    ids = [name.split("/")[-2] for name in files]
    named = json.loads(pathlib.Path(runs[-1].file("journal.jsonl")).read_text().splitlines()[0])["data"]["before"]
    assert len(named) == audit.NAMED and {one["run"] for one in named} < set(ids)
    assert main(["audit", "verify", "--complete", *files]) == 4 and "missing" not in capsys.readouterr().out
    # they began within a second, so their order is that of chance: take one away that a later one names, and that is not the oldest
    gone = sorted(one["run"] for one in named)[1]
    rest = [name for name in files if gone not in name]
    assert main(["audit", "verify", *rest]) == 4 and gone not in capsys.readouterr().out
    assert main(["audit", "verify", "--complete", *rest]) == 3 and f"the journal of run {gone} is missing" in capsys.readouterr().out
    other = tmp_path / "other.jsonl"
    entries = [json.loads(line) for line in pathlib.Path(next(name for name in files if gone in name)).read_text().splitlines()[:-1]]
    entries[-1]["time"] = "2030-01-31T12:00:00Z"
    entries[-1]["hash"] = entry_hash(entries[-1])
    other.write_bytes(b"".join(canonical(entry) + b"\n" for entry in entries) + seal.line_of(seal.text_of(entries, "shop"), None))
    assert main(["audit", "verify", "--complete", str(other), *rest]) == 3 and f"the journal of run {gone} is not the one that" in capsys.readouterr().out


def test_every_kind_of_second_place(tmp_path: pathlib.Path) -> None:
    lines = b'{"a":1}\n{"b":2}\n'
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"torn")
    told = [copies.send({"file": str(file)}, "run", lines) for _number in range(2)]
    assert [one["ok"] for one in told] == [True, True] and file.read_bytes() == b"torn\n" + lines * 2 and file.stat().st_mode & 0o111 == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as remote:
        local.bind(str(tmp_path / "log"))
        remote.bind(("127.0.0.1", 0))
        for receiver, place in ((local, {"syslog": str(tmp_path / "log")}), (remote, {"syslog": f"127.0.0.1:{remote.getsockname()[1]}", "protocol": "udp"})):
            receiver.settimeout(20)
            assert copies.send(place, "run", lines)["ok"]
            got = [receiver.recv(1 << 16) for _line in range(2)]
            assert all(one.startswith(b"<109>1 20") and b" lifeboat " in one for one in got) and got[1].endswith(b' journal - {"b":2}')
        too_long = copies.send({"syslog": f"127.0.0.1:{remote.getsockname()[1]}", "protocol": "udp"}, "run", b"x" * 70000 + b"\n")
        assert "use protocol: tcp" in too_long["problem"]
    place = {"url": f"file://{tmp_path}/store", "required": True}
    assert [copies.send(place, "run", lines)["ok"] for _number in range(2)] == [True, True]
    other = copies.send(place, "run", lines[:8])
    assert not other["ok"] and other["required"] and other["where"] == place["url"]
    for broken in ({"file": str(tmp_path / "no" / "file")}, {"syslog": "127.0.0.1:1"}, {"syslog": str(tmp_path / "nowhere")}):
        told_of = copies.send(broken, "run", lines)
        assert not told_of["ok"] and told_of["problem"] and "\n" not in told_of["problem"]


def test_only_what_was_seen_is_a_satisfied_control() -> None:
    seen = {"keys": [{"provider": "vault", "key": "docs-data", "version": 2}], "signed_by": {"key": "docs-sign", "version": 1}, "locked_until": None}
    blind = {"signed_by": {"key": "docs-sign", "version": 1}}
    nothing = controls.of_service({}, {}, {})
    assert {name: one["ok"] for name, one in nothing.items()} == dict.fromkeys(controls.NAMES)
    unapproved = {"approval": {"required": True, "given": []}}
    one = controls.of_service({"staged": {"controls": {"tree": seen}}}, {"tree": {"equal": True, "proof": "physical"}}, unapproved)
    assert one["encrypted"] == {"ok": True, "keys": seen["keys"]} and one["immutable"] == {"ok": False, "until": None}
    assert one["verified"] == {"ok": True, "how": "physical"} and one["approved"]["ok"] is False
    half = controls.of_service({"staged": {"controls": {"tree": seen, "db": blind}}}, {"tree": {"equal": True}, "db": {}}, {})
    assert half["encrypted"]["ok"] is False and half["signed"]["ok"] is True and half["verified"]["ok"] is False
    assert half["immutable"]["ok"] is False
    locked = controls.of_service({"snapshot": {"controls": {"a": {**seen, "locked_until": "2031"}, "b": {**seen, "locked_until": "2030"}}}}, {}, {})
    assert locked["immutable"] == {"ok": True, "until": "2030"} and len(locked["encrypted"]["keys"]) == 1
    assert controls.of_service({"verify": {"ok": False, "depth": "hash"}}, {}, {})["verified"] == {"ok": False, "how": "depth hash"}


def test_who_is_the_account_and_what_awx_says() -> None:
    told = who.of({"tower_user_name": "anna", "awx_job_id": 12, "awx_job_template_name": "Restore\nshop"})
    assert told["uid"] == os.getuid() and told["awx"] == {"user": "anna", "job": "12", "template": "Restore\\nshop"} and told["ansible_user"] is None
    assert who.names({"who": told, "user": "shell"})[0] == "anna" and "shell" in who.names({"who": told, "user": "shell"})
    assert who.text({"user": "u", "controller": "c"}) == "u@c"


def test_keys_of_a_directory_and_of_vault(tmp_path: pathlib.Path) -> None:
    first, second = signing.public_of(bytes(32)), signing.public_of(bytes(range(32)))
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "vault-sign.json").write_text(json.dumps({"1": publics.envelope.to_text(first), "2": publics.envelope.to_text(second)}))
    (tmp_path / "orders" / "sign.pub").write_text(publics.envelope.to_text(second) + "\n")
    (tmp_path / "orders" / "data.pub").write_text("another kind of key")
    assert sorted(publics.load_publics(str(tmp_path))) == sorted([first, second])
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyAccessError, match="no public signing keys"):
        publics.load_publics(str(tmp_path / "empty"))
