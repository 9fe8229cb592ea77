# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks: every kind of probe against something real on loopback, expectations, waiting, no secret in any answer."""

from __future__ import annotations

import decimal
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import checks
from ansible_collections.lifeboat.recovery.plugins.module_utils.checks import command, expect, sql
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import CheckError, ConfigError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec


def spec(**entry):
    return Spec.from_dict({
        "service": "orders", "entry": entry, "repository": {"url": "file:///nowhere"}, "keys": {"provider": "file"}, "state_dir": "/nowhere",
    })


def ask(phase="all", wait=0.0, **entry):
    return checks.run(spec(**entry), phase, wait)


def only(**entry):
    results = ask(**entry)["results"]
    assert len(results) == 1
    return results[0]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, headers, body = self.server.answers[self.path]
        if callable(body):
            body = body()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None  # a probe that gave up waiting
    server.answers = {
        "/health": (200, {}, b'{"ok": true, "orders": [{"n": 1}, {"n": 2}], "count": "7"}'),
        "/down": (503, {}, b"database is away"),
        "/login": (302, {"Location": "/health"}, b""),
        "/text": (200, {}, b"fine"),
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_service_without_checks_passes_and_says_that_it_declares_none():
    told = ask()
    assert told["ok"]
    assert told["declared"] == {"status": 0, "health": 0, "invariants": 0}


def test_http_health(web):
    result = only(health=[{"http": web.url + "/health"}])
    assert result["ok"]
    assert result["kind"] == "health"
    assert result["seconds"] >= 0
    assert only(health=[{"http": web.url + "/down", "expect_status": 503}])["ok"]


@pytest.mark.parametrize(("path", "message"), [("/down", "answered 503, expected 200 ('database is away')"), ("/login", "answered 302")])
def test_http_says_what_came_back(web, path, message):
    result = only(health=[{"http": web.url + path}])
    assert not result["ok"]
    assert message in result["detail"]


def test_http_ignores_proxies(web, monkeypatch, closed_port):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    assert only(health=[{"http": web.url + "/health"}])["ok"]


def test_http_time_out(web):
    release = threading.Event()
    web.answers["/slow"] = (200, {}, lambda: release.wait(60) and b"")
    try:
        result = only(health=[{"http": web.url + "/slow", "timeout": "300ms"}])
    finally:
        release.set()
    assert "no answer within 0.3 s" in result["detail"]


def test_http_nobody_there(closed_port):
    assert "refused" in only(health=[{"http": f"http://127.0.0.1:{closed_port}/"}])["detail"]


@pytest.mark.parametrize(("path", "equals", "ok"), [
    ("ok", True, True), ("length(orders)", 2, True), ("orders[0].n", 2, False), ("count", 7, True), ("missing", None, True), ("ok", False, False),
])
def test_http_json(web, path, equals, ok):
    assert only(invariants=[{"name": "x", "http": web.url + "/health", "json": path, "equals": equals}])["ok"] is ok


def test_http_json_errors(web):
    assert "not JSON" in only(invariants=[{"name": "x", "http": web.url + "/text", "json": "a", "equals": 1}])["detail"]
    assert "JMESPath" in only(invariants=[{"name": "x", "http": web.url + "/health", "json": "a[", "equals": 1}])["detail"]
    assert "not an http" in only(health=[{"http": "file:///etc/passwd"}])["detail"]


def test_no_password_of_a_url_is_shown(closed_port):
    result = only(health=[{"http": f"http://admin:hunter2@127.0.0.1:{closed_port}/"}])
    assert "hunter2" not in json.dumps(result)


def test_tcp(web, closed_port):
    assert only(health=[{"tcp": f"127.0.0.1:{web.server_port}"}])["ok"]
    assert "nobody listens" in only(health=[{"tcp": f"127.0.0.1:{closed_port}"}])["detail"]
    assert "host:port" in only(health=[{"tcp": "localhost"}])["detail"]


def test_command():
    assert only(health=[{"command": ["true"]}])["ok"]
    assert only(invariants=[{"name": "n", "command": ["printf", " 7\\n"], "equals": 7}])["ok"]
    assert "exit status 3 ('no')" in only(health=[{"command": ["sh", "-c", "echo no >&2; exit 3"]}])["detail"]
    assert "cannot run" in only(health=[{"command": ["/nowhere/x"]}])["detail"]
    assert only(invariants=[{"name": "n", "command": ["printf", "%s", "$HOME"], "equals": "$HOME"}])["ok"]  # no shell


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path):
    marker = tmp_path / "child"
    result = only(health=[{"command": ["sh", "-c", f"sleep 600 & echo $! > {marker}; wait"], "timeout": 5}])
    assert "did not end within 5 s" in result["detail"]
    child = int(marker.read_text())
    for _n in range(200):
        try:
            with open(f"/proc/{child}/stat", encoding="ascii") as handle:
                if handle.read().rpartition(")")[2].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        raise AssertionError("the child lives on")


def test_a_daemon_that_a_command_leaves_behind_does_not_hold_it(tmp_path):
    pid = tmp_path / "pid"
    program = f"import subprocess; open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"
    status, _output, _errors = command.run_argv([sys.executable, "-c", program], 60)
    assert status == 0
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_status_comes_from_the_runtime():
    told = ask("status", runtime={"status": ["false"]})
    assert [(result["kind"], result["ok"]) for result in told["results"]] == [("status", False)]
    assert ask("status", runtime={"status": {"tasks": "x.yml"}})["results"] == []


def test_invariants_are_not_asked_of_an_ill_service(tmp_path):
    told = ask(health=[{"command": ["false"]}], invariants=[{"name": "x", "command": ["touch", str(tmp_path / "asked")]}])
    assert [result["kind"] for result in told["results"]] == ["health"]
    assert not (tmp_path / "asked").exists()


def test_phases():
    entry = {"health": [{"command": ["true"]}], "invariants": [{"name": "x", "command": ["true"]}], "runtime": {"status": ["true"]}}
    for phase, kinds in (("status", ["status"]), ("health", ["health"]), ("invariants", ["invariant"]), ("all", ["status", "health", "invariant"])):
        assert [result["kind"] for result in ask(phase, **entry)["results"]] == kinds
    with pytest.raises(ConfigError, match="unknown phase"):
        ask("everything")


def test_waiting_ends_when_the_service_is_well(tmp_path):
    marker = tmp_path / "up"
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            marker.touch()

    told = checks.run(spec(health=[{"command": ["test", "-e", str(marker)]}]), "health", 60, sleep)
    assert told["ok"]
    assert len(naps) == 3
    assert all(0 < nap <= 1 for nap in naps)


def test_waiting_ends_in_time_with_the_last_reason():
    told = ask("health", 0.3, health=[{"command": ["true"]}, {"command": ["false"]}])
    assert [result["ok"] for result in told["results"]] == [True, False]
    assert "exit status 1: false (for 0.3 s)" in told["results"][1]["detail"]


def test_all_probes_must_pass_at_the_same_time(tmp_path):
    """A probe that passed in an early round only is not well."""
    counter = tmp_path / "n"
    flapping = ["sh", "-c", f"echo x >> {counter}; test $(wc -l < {counter}) -ne 2"]
    late = ["sh", "-c", f"test $(wc -l < {counter}) -ge 2"]
    told = checks.run(spec(health=[{"command": flapping}, {"command": late}]), "health", 60, lambda seconds: None)
    assert told["ok"]
    assert counter.read_text().count("x") >= 3


class _Store:
    type = "store"
    options = {"n": {"type": "int", "default": 0}}

    def query(self, config, statement, timeout):
        if statement == "boom":
            raise CheckError("server refused")
        return decimal.Decimal(config["n"])

    def command(self, config, words, timeout):
        return b"7" if words == ["GET", "x"] else None


class _Mute:
    type = "mute"
    options = {}


@pytest.fixture
def stores(monkeypatch):
    monkeypatch.setitem(registry.TYPES, "store", lambda: _Store)
    monkeypatch.setitem(registry.TYPES, "mute", lambda: _Mute)
    return {"db": {"type": "store", "n": 3}, "files": {"type": "mute"}}


def test_sql_and_redis_ask_the_source(stores):
    assert only(sources=stores, invariants=[{"name": "x", "sql": "select", "equals": 3}])["ok"]
    assert only(sources=stores, invariants=[{"name": "x", "sql": "select", "at_least": 3, "at_most": 3}])["ok"]
    assert only(sources=stores, invariants=[{"name": "x", "redis": ["GET", "x"], "source": "db", "equals": 7}])["ok"]
    assert "expected 4" in only(sources=stores, invariants=[{"name": "x", "sql": "select", "equals": 4}])["detail"]
    assert "server refused" in only(sources=stores, invariants=[{"name": "x", "sql": "boom", "equals": 4}])["detail"]


def test_sql_needs_to_know_whom_to_ask(stores):
    two = {**stores, "other": {"type": "store"}}
    assert "add source: db or other" in only(sources=two, invariants=[{"name": "x", "sql": "select", "equals": 3}])["detail"]
    assert "cannot answer" in only(sources=stores, invariants=[{"name": "x", "sql": "s", "source": "files", "equals": 3}])["detail"]
    assert "No such source" in only(sources=stores, invariants=[{"name": "x", "sql": "s", "source": "nope", "equals": 3}])["detail"]


@pytest.mark.parametrize(("value", "wanted", "same"), [
    (0, "0", True), (decimal.Decimal("0.0"), 0, True), (b"abc", "abc", True), ("t", True, False), (True, "true", True), (True, 1, False),
    (None, None, True), (None, 0, False), ("1e2", 100, True), ([1], [1], True), ("abc", "abd", False), (float("inf"), 1, False),
])
def test_equality(value, wanted, same):
    assert expect.equal(value, wanted) is same


def test_a_check_without_or_with_two_kinds_is_refused():
    with pytest.raises(ConfigError, match="exactly one kind"):
        ask(health=[{"http": "http://x", "tcp": "x:1"}])


@pytest.mark.parametrize(("text", "seconds"), [(5, 5), ("500ms", 0.5), ("90s", 90), ("2m", 120), (None, 0), ("1.5", 1.5)])
def test_durations(text, seconds):
    assert expect.seconds(text) == seconds


def test_bad_durations():
    with pytest.raises(ConfigError, match="not a duration"):
        expect.seconds("soon")


def test_the_time_of_the_invariants_is_their_own(tmp_path):
    wanted = spec(health=[{"command": ["true"]}], invariants=[{"name": "slow", "command": ["sleep", "0.3"]}])
    told = checks.run(wanted, "all")
    assert told["ok"] and told["judged"] >= 0.3 and told["judged"] >= told["results"][-1]["seconds"]
    assert checks.run(wanted, "health")["judged"] < told["judged"]


# -- data stores, schema version, warm-up


def test_a_database_that_does_not_answer_is_no_healthy_service_whatever_its_probes_say(closed_port):
    store = {"cache": {"type": "redis", "port": closed_port}, "db": {"type": "postgresql_database", "database": "shop", "port": closed_port}}
    told = ask("health", sources=store, health=[{"command": ["true"]}])
    assert [(row["kind"], row["name"], row["ok"]) for row in told["results"]] == [
        ("ready", "cache answers", False), ("ready", "db answers", False), ("health", "command true", True)]
    assert ask("status", sources=store)["results"] == [], "whether it runs is another question"


def test_a_store_that_a_probe_asks_is_not_asked_twice(closed_port):
    store = {"db": {"type": "postgresql_database", "database": "shop", "port": closed_port}}
    assert [row["kind"] for row in ask("health", sources=store, health=[{"sql": "select 1", "source": "db", "equals": 1}])["results"]] == ["health"]


@pytest.fixture
def versions(monkeypatch):
    """A kind of source that answers with what it is told to, or raises it."""
    answers = {}

    def answer(config, asked, timeout):
        value = answers[asked[1]].pop(0) if isinstance(answers[asked[1]], list) else answers[asked[1]]
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setitem(sql.ADAPTERS, "postgresql_database", answer)
    answers["select 1"] = 1
    return answers


DB = {"db": {"type": "postgresql_database", "database": "shop"}}


@pytest.mark.parametrize(("found", "wanted", "ok"), [(42, 42, True), (decimal.Decimal(42), "42", True), (41, 42, False), (None, 42, False)])
def test_the_schema_version_is_one_check_before_the_invariants(versions, found, wanted, ok):
    versions.update({"select v": found, "select i": 0})
    told = ask(sources=DB, schema=[{"query": "select v", "expect": wanted}], invariants=[{"name": "i", "sql": "select i", "equals": 0}])
    assert told["ok"] is ok
    assert [row["kind"] for row in told["results"]] == ["ready", "schema"] + (["invariant"] if ok else [])
    if not ok:
        assert f"the version is {found}, the service wants 42" in told["results"][1]["detail"]
        assert "run the migrations" in told["results"][1]["remedy"]


def test_an_invariant_whose_store_is_away_for_a_moment_is_asked_again_and_a_broken_one_is_not(versions):
    away = SourceError("the server does not answer", "db", "").passing()
    versions.update({"select a": [away, away, 0], "select b": 0})
    entry = {"sources": DB, "policy": {"invariants": {"retries": 2}},
             "invariants": [{"name": "a", "sql": "select a", "equals": 0}, {"name": "b", "sql": "select b", "equals": 0}]}
    pauses = []
    told = checks.run(spec(**entry), "invariants", 0, pauses.append)
    assert told["ok"] and len(pauses) == 2 and all("transient" not in row for row in told["results"])
    versions.update({"select a": [away, 0], "select b": 1})
    assert not checks.run(spec(**entry), "invariants", 0, pauses.append)["ok"]
    assert len(pauses) == 2, "broken is broken"


def test_warm_up_requests_are_made_before_health_counts(web):
    seen = []
    for path in ("/health", "/hot"):
        web.answers[path] = (200, {}, lambda path=path: seen.append(path) or b"{}")
    declared = {"timeout": 30, "http": [{"http": web.url + "/hot"}, {"http": web.url + "/down"}]}
    entry = {"health": [{"http": web.url + "/health"}], "prewarm": declared}
    told = checks.run(spec(**entry), "all", 0, warm=True)
    assert told["ok"] and seen == ["/health", "/hot", "/health"]
    assert [(row["kind"], row["ok"]) for row in told["results"]] == [("prewarm", True), ("prewarm", True), ("health", True)]
    assert len(told["warnings"]) == 1 and "orders was not warmed up: answered 503" in told["warnings"][0]
    assert seen and [row["kind"] for row in ask(**entry)["results"]] == ["health"], "only a restore warms up"
    declared["http"][1]["required"] = True
    assert [row["ok"] for row in checks.run(spec(**entry), "all", 0, warm=True)["results"]][:2] == [True, False]
    declared.update(timeout="0.001ms", http=[{"http": web.url + "/hot"}])
    late = checks.run(spec(**entry), "all", 0, warm=True)
    assert late["ok"] and "the time for warming up was over" in late["warnings"][0]
