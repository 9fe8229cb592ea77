# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An approval is of one plan, by one of the approvers, for a while; the catalog's rules about it are checked with their lines."""

from __future__ import annotations

import copy
import datetime
import json
import pathlib
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.audit import approval, publics
from ansible_collections.lifeboat.recovery.plugins.module_utils.cli.main import main
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import envelope, signing
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.key_files import read_private
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import model
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog.problems import CatalogError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import approvals

NOW = datetime.datetime(2030, 1, 31, 12, 0, tzinfo=datetime.timezone.utc)
BERTA, CARL = bytes(range(32)), bytes(range(1, 33))
PUBLIC = {name: envelope.to_text(signing.public_of(key)) for name, key in (("berta", BERTA), ("carl", CARL))}
RULES: dict[str, Any] = {
    "required": ["restore"], "persons": 1, "valid": 86400,
    "keys": {"berta": {"key": PUBLIC["berta"], "users": ["bb"]}, "carl": {"key": PUBLIC["carl"], "users": []}},
}
PLAN: dict[str, Any] = {
    "verb": "restore", "ecosystem": "shop", "production": True, "catalog": "ab" * 32, "target": "latest", "order": ["db", "app"], "forecast": {"seconds": 3},
    "flags": {"until": "", "force": False}, "dependants": [{"service": "web", "action": "stop", "chain": ["web", "app"]}], "left_out": {},
    "services": {
        name: {
            "host": "h1", "sources": ["files"], "waits_for": [], "bytes": 7, "forecast": {},
            "resolution": {"point": "P1", "at": "P1", "snapshots": {"files": f"{name}.files-000001-aa"}, "age_seconds": 4.5, "next": None, "proven": False},
        } for name in ("db", "app")
    },
}


def given(key: bytes = BERTA, plan: dict[str, Any] | None = None, seconds: float = 3600, when: datetime.datetime = NOW) -> list[tuple[str, str]]:
    return [("approval.json", approval.make(plan or PLAN, key, seconds, when))]


def check(texts: list[tuple[str, str]], operator: tuple[str, ...] = ("anna",), rules: dict[str, Any] | None = None, **more: Any) -> list[str]:
    return [one["approver"] for one in approval.check(texts, rules or RULES, more.pop("plan", PLAN), operator, more.pop("now", NOW))]


def changed(path: str, value: Any) -> dict[str, Any]:
    plan = copy.deepcopy(PLAN)
    place = plan
    *way, last = path.split("/")
    for key in way:
        place = place[key]
    place[last] = value
    return plan


def test_the_approval_of_a_plan_counts() -> None:
    assert check(given()) == ["berta"]
    assert check(given() + given(CARL)) == ["berta", "carl"]


@pytest.mark.parametrize(("path", "value"), [
    ("verb", "rollback"), ("ecosystem", "other"), ("catalog", "cd" * 32), ("order", ["app", "db"]), ("production", False), ("flags/force", True),
    ("flags/until", "staged"), ("dependants", []), ("left_out", {"app": {}}), ("services/db/host", "h2"),
    ("services/db/resolution/point", "P0"), ("services/db/resolution/at", "P1@time:2030-01-31T11:00:00Z"), ("services/db/sources", []),
    ("services/db/resolution/snapshots", {"files": "db.files-000001-bb"}), ("services/app/waits_for", [{"service": "db", "kind": "hard"}]),
])
def test_it_is_void_when_the_plan_changes(path: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="berta approved another plan"):
        check(given(), plan=changed(path, value))


@pytest.mark.parametrize(("path", "value"), [
    ("forecast", None), ("services/db/bytes", 9), ("services/db/resolution/age_seconds", 99), ("services/db/resolution/next", {"point": "P0"}),
    ("services/db/resolution/proven", True), ("warnings", ["new"]), ("run", {"id": "another"}), ("target", "P1"),
])
def test_what_changes_between_two_looks_at_the_same_plan_is_no_change(path: str, value: Any) -> None:
    assert check(given(), plan=changed(path, value)) == ["berta"]


def test_every_refusal_says_why() -> None:
    with pytest.raises(ConfigError, match=r"restore needs an approval of its plan: plan [0-9a-f]{64}; let one of berta, carl approve it"):
        check([])
    with pytest.raises(ConfigError, match="the approval of berta ended at 2030-01-31T13:00:00Z: approval.json; have this plan approved"):
        check(given(), now=NOW + datetime.timedelta(hours=2))
    with pytest.raises(ConfigError, match="for longer than the 86400 s that the catalog allows"):
        check(given(seconds=86401))
    with pytest.raises(ConfigError, match="from the future"):
        check(given(when=NOW + datetime.timedelta(hours=1)))
    with pytest.raises(ConfigError, match="by nobody whom the catalog lists, or was altered: signed by approval@"):
        check(given(bytes(32)))
    text = given()[0][1]
    for broken in (text.replace("shop", "shep"), text.replace("13:00", "23:00")):
        with pytest.raises(ConfigError, match="or was altered"):
            check([("f", broken)])
    for broken in ("", "{}", "[]", "null", '{"approval": 1}', text[:-9], '{"approval": "{}", "signature": {}}'):
        with pytest.raises(ConfigError, match="not an approval: f; give the file that lifeboat audit approve wrote"):
            check([("f", broken)])


def test_a_seal_is_no_approval() -> None:
    said = json.loads(json.loads(given()[0][1])["approval"])
    text = json.dumps({**said, "kind": "journal"})
    with pytest.raises(ConfigError, match="not an approval"):
        check([("f", json.dumps({"approval": text, "signature": publics.sign(BERTA, "audit", text)}))])


def test_two_persons() -> None:
    two = {**RULES, "persons": 2}
    assert check(given(), rules=two) == ["berta"]  # anna runs it
    for operator in (("berta",), ("bb",), ("root", "bb")):
        with pytest.raises(ConfigError, match="2 persons have to stand behind it, here are 1: approved by berta, run by"):
            check(given(), operator, two)
        assert check(given() + given(CARL), operator, two) == ["berta", "carl"]
    with pytest.raises(ConfigError, match="here are 2"):
        check(given(), rules={**RULES, "persons": 3})
    with pytest.raises(ConfigError, match="here are 2"):
        check(given() + given(), rules={**RULES, "persons": 3})  # twice by the same is once
    assert check(given() + given(CARL), rules={**RULES, "persons": 3}) == ["berta", "carl"]


def test_what_stands_in_the_plan(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "approval.json"
    path.write_text(approval.make(PLAN, BERTA, 3600))
    told = approvals.standing(RULES, PLAN, str(path), ["anna"])
    assert told["required"] and told["missing"] is None and [one["approver"] for one in told["given"]] == ["berta"]
    assert approvals.standing(RULES, PLAN, path.read_text(), ["anna"])["missing"] is None  # as a survey hands it over
    assert approvals.standing(RULES, PLAN, json.loads(path.read_text()), ["anna"])["missing"] is None
    assert "cannot read an approval" in approvals.standing(RULES, PLAN, f"{path},{path}.not", ["anna"])["missing"]["what"]
    assert approvals.standing(RULES, PLAN, "", ["anna"])["missing"]["what"] == "restore needs an approval of its plan"
    free = approvals.standing(RULES, {**PLAN, "verb": "backup"}, "", ["anna"])
    assert not free["required"] and free["missing"] is None
    assert "lists nobody" in approvals.standing(None, PLAN, str(path), ["anna"])["missing"]["what"]


def test_the_command_approves_what_the_plan_says_and_not_what_it_claims(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, plan = tmp_path / "berta", tmp_path / "plan.json"
    assert main(["audit", "key", str(key)]) == 0
    public = capsys.readouterr().out.strip()
    plan.write_text(json.dumps({**PLAN, "approval": {"digest": "00" * 32}}))
    assert main(["audit", "approve", "--plan", str(plan), "--key", str(key), "--valid", "90m"]) == 0
    told = capsys.readouterr()
    rules = {**RULES, "keys": {"berta": {"key": public, "users": []}}}
    assert approval.check([("f", told.out)], rules, PLAN, ["anna"])[0]["approver"] == "berta"
    assert "restore of shop, marked production" in told.err and "db on h1 to P1" in told.err and approval.digest(PLAN) in told.err
    assert key.read_text().strip() not in told.err + told.out
    for name, text in ((f"{key}.pub", "may be used by others"), ("nowhere", "cannot read")):
        assert main(["audit", "approve", "--plan", str(plan), "--key", name]) == 1 and text in capsys.readouterr().err
    assert main(["audit", "approve", "--plan", str(plan), "--key", str(key), "--valid", "soon"]) == 1 and "not a time" in capsys.readouterr().err
    plan.write_text("{}")
    assert main(["audit", "approve", "--plan", str(plan), "--key", str(key)]) == 1 and "not a plan" in capsys.readouterr().err
    assert main(["audit", "key", str(key)]) == 1 and "there is a key already" in capsys.readouterr().err


def test_a_key_that_others_may_read_is_refused_and_never_shown(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key"
    path.write_text("canary\n")
    path.chmod(0o600)
    with pytest.raises(KeyAccessError) as caught:
        read_private(str(path))
    assert "canary" not in str(caught.value)


# -- the catalog ---------------------------------------------------------------------------------------------------------------------

HEAD = """plugin: lifeboat.recovery.catalog
repositories: {local: {url: file:///srv/backup}}
keys: {provider: file, path: /etc/lifeboat/keys}
services: {orders: {host: db1}}
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Callable[[str], model.Catalog]:
    monkeypatch.chdir(tmp_path)
    return lambda text: model.loads(HEAD + text, "shop.catalog.yml", {})


def test_what_a_catalog_says_of_approvals_and_copies(load: Callable[[str], model.Catalog]) -> None:
    assert load("").document["approvals"] is None and load("").document["audit"] == {"copies": []}
    document = load(f"""approvals:
  {{required: restore, persons: 2, valid: 4h, keys: {{berta: {PUBLIC['berta']}, carl: {{key: {PUBLIC['carl']}, users: [cc]}}}}}}
audit:
  key: ~/.lifeboat/audit.key
  copies: [{{file: /var/log/audit.jsonl}}, {{syslog: "logs:6514", required: true}}, {{syslog: /dev/log}}, {{url: s3://second/place, endpoint: "https://s3"}}]
""").document
    assert document["approvals"] == {"required": ["restore"], "persons": 2, "valid": 14400, "keys": {
        "berta": {"key": PUBLIC["berta"], "users": []}, "carl": {"key": PUBLIC["carl"], "users": ["cc"]}}}
    assert document["audit"]["copies"] == [
        {"file": "/var/log/audit.jsonl", "required": False}, {"syslog": "logs:6514", "protocol": "tcp", "required": True},
        {"syslog": "/dev/log", "protocol": "tcp", "required": False}, {"url": "s3://second/place", "endpoint": "https://s3", "required": False}]


@pytest.mark.parametrize(("text", "fault"), [
    ("approvals: {required: restor, keys: {b: KEY}}", 'approvals.required is unknown ("restor"): shop.catalog.yml:5; did you mean "restore"?'),
    ("approvals: {required: restore, keys: {}}", "approvals.keys names nobody: shop.catalog.yml:5; list at least one approver and his public key"),
    ("approvals:\n  required: restore", "missing key keys in approvals: shop.catalog.yml:6; add keys:"),
    ("approvals:\n  required: restore\n  keys:\n    b: AAAA", 'approvals.keys.b is not a public ed25519 key ("AAAA"): shop.catalog.yml:8; '
     "put the one line of the approver's .pub file here: base64 of 32 bytes"),
    ("approvals:\n  required: restore\n  keys:\n    b: KEY\n    c: {key: KEY}",
     "approvals.keys.c has the key of b: shop.catalog.yml:9; each person has a key of his own"),
    ("approvals:\n  required: restore\n  keys: {b: KEY}\n  persons: 3", "approvals.persons cannot be met: 1 approvers and the operator are fewer than 3: "
     "shop.catalog.yml:8; list more approvers, or ask for fewer persons"),
    ("approvals: {required: restore, keys: {b: KEY}, person: 2}", 'unknown key "person" in approvals: shop.catalog.yml:5; did you mean "persons"?'),
    ("audit:\n  copies:\n    - {required: true}", "audit.copies[0] must have one of file, syslog and url: shop.catalog.yml:7; write one place per item"),
    ("audit:\n  copies: [{file: /a, url: s3://b/c}]", "audit.copies[0] has both file and url: shop.catalog.yml:6; write one place per item"),
    ("audit:\n  copies: [{file: a}]", 'audit.copies[0].file is not an absolute path ("a"): shop.catalog.yml:6; begin it with /'),
    ("audit:\n  copies: [{syslog: logs}]", 'audit.copies[0].syslog is not host:port ("logs"): shop.catalog.yml:6; write for example "127.0.0.1:8081"'),
    ("audit:\n  copies: [{syslog: 'logs:514', endpoint: x}]",
     'unknown key "endpoint" in audit.copies[0]: shop.catalog.yml:6; known are protocol, required, syslog'),
])
def test_every_fault_has_its_line(load: Callable[[str], model.Catalog], text: str, fault: str) -> None:
    with pytest.raises(CatalogError) as caught:
        load(text.replace("KEY", PUBLIC["berta"]))
    assert str(caught.value).splitlines() == [fault]
