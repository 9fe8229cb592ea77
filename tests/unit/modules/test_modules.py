# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules as Ansible calls them: arguments, check mode, results, one-line failures, no secret anywhere."""

from __future__ import annotations

import importlib
import json

import pytest
import yaml

from ansible_collections.lifeboat.recovery.plugins.doc_fragments.service import ModuleDocFragment
from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments, lease, redact
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec

NAMES = ["repository", "snapshot", "snapshot_info", "snapshot_verify", "snapshot_restore", "service_check", "service_credential", "service_key",
         "service_state", "snapshot_extract", "snapshot_copy", "snapshot_hold", "journal"]
#: What they cannot do without.
NEEDED = {
    "snapshot_extract": {"database": "shop"}, "snapshot_hold": {"target": "latest", "reason": "case 4711"}, "journal": {"journal": "none"},
    "service_credential": {"kind": "password", "which": "db"},
}


class Exit(Exception):
    pass


def fake(params, check):
    class FakeModule:
        """Strict double of AnsibleModule: knows the argument spec, ends by raising."""

        def __init__(self, argument_spec, supports_check_mode):
            assert supports_check_mode
            unknown = set(params) - set(argument_spec)
            assert not unknown, unknown
            self.params = {name: params.get(name, option.get("default")) for name, option in argument_spec.items()}
            for name, option in argument_spec.items():
                assert not (option.get("required") and self.params[name] is None), name
                given = self.params[name] if isinstance(self.params[name], list) else [self.params[name]]
                assert not option.get("choices") or set(given) <= {None, *option["choices"]}, name
            self.check_mode = check
            self.no_log_values = set()
            self.warnings = []

        def warn(self, text):
            self.warnings.append(text)

        def exit_json(self, **result):
            self._end({**result, "failed": False})

        def fail_json(self, msg, **result):
            self._end({**result, "msg": msg, "failed": True})

        def _end(self, result):
            text = json.dumps(result)  # what leaves must be JSON
            for secret in self.no_log_values:
                text = text.replace(secret, "********")
            raise Exit({**json.loads(text), "warnings": self.warnings})

    return FakeModule


@pytest.fixture
def call(monkeypatch, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("captured")
    base = {
        "service": "orders", "entry": {"sources": {"tree": {"type": "files", "path": str(data)}}, "health": [{"command": ["true"]}]},
        "repository": {"url": f"file://{tmp_path}/repository"},
        "keys": {"provider": "file", "path": str(tmp_path / "keys"), "private_path": str(tmp_path / "private")}, "state_dir": str(tmp_path / "state"),
    }

    def do(name, check=False, **params):
        module = importlib.import_module(f"ansible_collections.lifeboat.recovery.plugins.modules.{name}")
        monkeypatch.setattr(module, "AnsibleModule", fake({**base, **params}, check))
        with pytest.raises(Exit) as caught:
            module.main()
        return caught.value.args[0]

    do.data, do.base, do.spec = data, base, Spec.from_dict(base)
    return do


def files(path):
    return {str(found): found.read_bytes() for found in path.rglob("*") if found.is_file()}


@pytest.fixture
def captured(call):
    assert call("repository")["changed"]
    assert call("snapshot")["changed"]
    return call


def test_repository(call, tmp_path):
    before = files(tmp_path)
    would = call("repository", check=True)
    assert (would["changed"], would["made"]) == (True, ["repository", "keys"])
    assert files(tmp_path) == before
    assert call("repository")["made"] == ["repository", "keys"]
    assert call("repository")["changed"] is False
    assert call("repository", check=True)["changed"] is False


def test_snapshot(call, tmp_path):
    call("repository")
    before = files(tmp_path)
    would = call("snapshot", check=True)
    assert (would["changed"], would["ok"]) == (True, True)
    assert files(tmp_path) == before
    run = {"id": "20300101T000000Z-backup-aaaaaa", "verb": "backup", "controller": "c", "pid": 1, "user": "u"}
    taken = call("snapshot", run=run)
    assert taken["changed"]
    assert [entry["event"] for entry in taken["ledger"]] == ["run.begin", "capture.begin", "capture.end", "measured", "run.end"]
    assert call("snapshot", run=run)["changed"] is False  # the same run takes one point
    assert lease.read(call.spec) is None


def test_snapshot_that_would_fail_says_so_in_check_mode(call):
    call("repository")
    told = call("snapshot", check=True, entry={"sources": {"tree": {"type": "files", "path": "/nowhere"}}})
    assert told["failed"]
    assert "does not exist" in told["msg"]
    assert told["findings"]


def test_failed_snapshot_frees_the_lease(call):
    call("repository")
    told = call("snapshot", entry={"sources": {"tree": {"type": "files", "path": "/nowhere"}}})
    assert told["failed"]
    assert told["error"]["code"] == "source"
    assert [entry["event"] for entry in told["ledger"]][-1] == "run.end"
    assert lease.read(call.spec) is None


def test_snapshot_info(captured):
    told = captured("snapshot_info", target="latest")
    assert told["changed"] is False
    assert told["resolved"]["id"] == told["points"][-1]["id"]
    assert told["mark"] is True
    missing = captured("snapshot_info", target="nonsense")
    assert (missing["failed"], missing["error"]["code"]) == (True, "target")


def test_snapshot_verify(captured, tmp_path):
    assert captured("snapshot_verify", depth="decode")["ok"]
    pack = next((tmp_path / "repository").rglob("packs/**/*.*"))
    pack.unlink()
    told = captured("snapshot_verify")
    assert told["failed"]
    assert pack.name in told["msg"]
    assert not captured("snapshot_verify", fail=False)["failed"]


def test_restore_there_and_back(captured, tmp_path):
    captured.data.joinpath("file").write_text("live")
    before = files(tmp_path)
    would = captured("snapshot_restore", check=True, state="staged")
    assert (would["changed"], would["ok"], would["findings"]) == (True, True, [])
    assert would["diff"]["before"]["point"] is None
    assert would["diff"]["after"]["point"] == would["point"]["id"]
    assert files(tmp_path) == before

    run = {**lease.new_run("restore"), "id": "20300101T000000Z-restore-aaaaaa"}
    staged = captured("snapshot_restore", state="staged", run=run)
    assert (staged["changed"], staged["noop"]) == (True, False)
    live = captured("snapshot_restore", state="live", run=run)
    assert live["changed"]
    assert live["diff"]["after"]["snapshots"] == {"tree": staged["sources"]["tree"]["snapshot"]}
    assert live["sources"]["tree"]["state"] == "live"
    recorded = captured("service_state", run=run, verdict="verified", ledger_run=run["id"])
    assert recorded["changed"] is False
    assert recorded["origin"]["verdict"] == "verified"
    assert recorded["uncommitted"] == [run["id"]]
    assert recorded["ledger"][-1]["event"] == "run.end"

    again = captured("snapshot_restore", state="staged")
    assert (again["changed"], again["noop"]) == (False, True)
    assert captured("snapshot_restore", check=True, state="staged")["changed"] is False
    captured("service_state", run=again["restore"] and {"id": again["run"]}, verdict="verified")

    assert captured("snapshot_restore", check=True, state="rolled_back")["changed"] is True
    back = captured("snapshot_restore", state="rolled_back")
    assert back["changed"]
    assert captured.data.joinpath("file").read_text() == "live"
    assert captured("snapshot_restore", state="rolled_back")["changed"] is False
    assert captured("snapshot_restore", check=True, state="rolled_back")["changed"] is False
    done = captured("snapshot_restore", state="committed")
    assert done["changed"]
    assert done["freed"] > 0
    refused = captured("snapshot_restore", state="rolled_back")
    assert refused["failed"]
    assert "was committed" in refused["msg"]
    assert "\n" not in refused["msg"]


def test_preflight_of_a_damaged_target_fails_with_all_findings(captured, tmp_path):
    next((tmp_path / "repository").rglob("packs/**/*.*")).unlink()
    told = captured("snapshot_restore", check=True, state="staged")
    assert told["failed"]
    assert "pack is missing" in told["msg"]
    assert told["findings"][0]["level"] == "error"
    reported = captured("snapshot_restore", check=True, state="staged", fail=False)
    assert (reported["failed"], reported["ok"]) == (False, False)


def test_service_check(call):
    told = call("service_check")
    assert (told["ok"], told["changed"], told["failed"]) == (True, False, False)
    ill = {"entry": {"health": [{"command": ["false"]}]}}
    failed = call("service_check", wait=0, **ill)
    assert failed["failed"]
    assert "health check failed" in failed["msg"]
    assert failed["results"][0]["ok"] is False
    assert not call("service_check", wait=0, fail=False, **ill)["failed"]


def test_service_state_knows_nothing_and_creates_nothing(call, tmp_path):
    before = files(tmp_path)
    told = call("service_state")
    assert (told["lease"], told["unfinished"], told["restores"], told["origin"], told["proof"]) == (None, None, [], None, None)
    assert files(tmp_path) == before
    assert call("service_state", check=True, verdict="verified")["verdict"] == "verified"
    assert files(tmp_path) == before


def test_service_key(captured, tmp_path):
    first = captured("service_key")
    assert (first["changed"], first["version"], first["data_keys"], first["tombstone"]) == (False, 1, 1, None)
    before = files(tmp_path)
    would = captured("service_key", check=True, state="rotated")
    assert (would["changed"], would["version"], would["rewrapped"]) == (True, 2, 1)
    assert files(tmp_path) == before
    done = captured("service_key", state="rotated")
    assert (done["changed"], done["version"], done["rewrapped"], done["data_keys"]) == (True, 2, 1, 1)
    assert [entry["event"] for entry in done["ledger"]][0] == "run.begin"
    assert captured("service_key", state="rewrapped")["changed"] is False
    for version in ("", "7", "2", "one"):
        refused = captured("service_key", state="retired", version=version)
        assert refused["error"]["code"] == "config", refused
    before = files(tmp_path)
    assert captured("service_key", check=True, state="retired", version="1")["changed"] is True
    assert files(tmp_path) == before
    assert captured("service_key", state="retired", version="1")["changed"] is True
    assert captured("service_key", state="retired", version="1")["changed"] is False
    told = captured("service_key")
    assert [(one["number"], one["state"], one["keys"]) for one in told["versions"]] == [(1, "retired", 0), (2, "current", 1)]
    refused = captured("service_key", state="shredded", catalog={"ecosystem": "shop"}, confirm="orders")
    assert refused["failed"]
    assert "give confirm: shop/orders" in refused["msg"]
    shredded = captured("service_key", state="shredded", catalog={"ecosystem": "shop"}, confirm="shop/orders", reason="asked to")
    assert shredded["changed"]
    assert captured("service_key")["tombstone"]["reason"] == "asked to"
    refused = captured("snapshot")
    assert refused["failed"]
    assert "was shredded on" in refused["msg"]
    assert "\n" not in refused["msg"]


def test_warnings_reach_the_operator(captured, tmp_path):
    captured("snapshot")
    newest = max((tmp_path / "repository").rglob("snapshots/tree/*.json"))
    newest.unlink()
    told = captured("snapshot_info")
    assert any("is missing" in text for text in told["warnings"])


@pytest.mark.parametrize("name", NAMES)
def test_secrets_never_come_back(call, name):
    canary = "canary-7f3a9c"
    told = call(name, **NEEDED.get(name, {}), entry={"sources": {"tree": {"type": "files", "path": str(call.data), "password": canary}}},
                keys={**call.base["keys"], "auth": {"secret_id": canary + "-2"}})
    assert canary not in json.dumps(told)


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments_are_one_line(call, name):
    told = call(name, **NEEDED.get(name, {}), service="../etc")
    assert told["failed"]
    assert told["error"]["code"] == "config"
    assert "\n" not in told["msg"]


@pytest.mark.parametrize("name", NAMES)
def test_documentation_and_arguments_are_twins(name):
    module = importlib.import_module(f"ansible_collections.lifeboat.recovery.plugins.modules.{name}")
    told = yaml.safe_load(module.DOCUMENTATION)
    fragments = [name.removeprefix("lifeboat.recovery.service").lstrip(".").upper() or "DOCUMENTATION" for name in told["extends_documentation_fragment"]]
    shared = [yaml.safe_load(getattr(ModuleDocFragment, name)).get("options") or {} for name in fragments]
    documented = {name: option for options in (*shared, told.get("options") or {}) for name, option in options.items()}
    seen = {}

    class Seen(Exception):
        pass

    class Recorder:
        def __init__(self, argument_spec, **options):
            seen.update(argument_spec)
            raise Seen

    module.AnsibleModule, real = Recorder, module.AnsibleModule
    try:
        with pytest.raises(Seen):
            module.main()
    finally:
        module.AnsibleModule = real
    assert set(documented) == set(seen)
    for option, argument in seen.items():
        for key in ("type", "default", "choices", "required"):
            assert documented[option].get(key) == argument.get(key), (option, key)
    assert yaml.safe_load(module.RETURN)
    assert all(set(task) - {"name", "register", "when"} == {f"lifeboat.recovery.{name}"} for task in yaml.safe_load(module.EXAMPLES))


def test_hidden_values_are_told_by_name():
    nested = {"auth": {"role_id": "r"}, "url": "u", "sources": [{"db": {"password": "p", "port": 1}}], "secret_id": "s", "password_file": "/path"}
    assert arguments.hidden_values(nested) == {"r", "p", "s"}
    keys = {
        "auth": {"method": "token", "token_file": "/where", "token": "t"},
        "restore_auth": {"method": "jwt", "role_id": "public", "jwt": "j", "cert_auth_private_key": "/where"},
    }
    assert arguments.hidden_values({"keys": keys}) == {"t", "j"}
    assert redact.without_secrets({"keys": keys}) == {"keys": {
        "auth": {"method": "token", "token_file": "/where", "token": redact.LEFT_OUT},
        "restore_auth": {"method": "jwt", "role_id": "public", "jwt": redact.LEFT_OUT, "cert_auth_private_key": "/where"},
    }}


def test_a_run_given_by_name_only_never_poses_as_this_process(call):
    call("snapshot_restore", check=True)
    run = arguments.run_of({"run": {"id": "x"}}, "restore")
    assert (run["id"], run["pid"], run["verb"]) == ("x", 0, "restore")
    own = arguments.run_of({"run": {}}, "restore")
    assert own["pid"] > 0


def test_ledger_of_a_failed_call_comes_along(captured):
    told = captured("snapshot_restore", state="rolled_back")
    assert told["failed"]
    assert [entry["event"] for entry in told["ledger"]] == ["run.begin", "measured", "run.end"]
    assert Ledger.for_spec(captured.spec).entries()[-1] == told["ledger"][-1]
