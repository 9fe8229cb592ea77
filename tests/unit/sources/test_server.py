# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control of a source's server: commands, errors, the lock of the host; and the registry of types."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, ConflictError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry, server
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Source


def _server(**commands) -> server.Server:
    provision = commands.pop("provision", None)
    return server.Server({"server": commands, "provision": provision}, "shop.db", f"test:{os.getpid()}")


def test_commands_run_without_a_shell(tmp_path) -> None:
    target = tmp_path / "a b; $HOME"
    _server(start=["touch", str(target)]).start()
    assert target.exists()


def test_a_daemon_that_keeps_its_output_open_does_not_hold_us(tmp_path) -> None:
    pid_file = tmp_path / "pid"
    code = f"import subprocess; open({str(pid_file)!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid))"
    began = time.monotonic()
    _server(start=[sys.executable, "-c", code]).start()
    assert time.monotonic() - began < 30
    os.kill(int(pid_file.read_text()), 9)


def test_failures_name_the_command_and_its_last_words() -> None:
    with pytest.raises(SourceError) as caught:
        _server(start=["sh", "-c", "echo first; echo the reason >&2; exit 7"]).start()
    assert "exit code 7 (the reason)" in str(caught.value)
    with pytest.raises(SourceError, match="cannot be run"):
        _server(stop=["/no/such/program"]).stop()
    with pytest.raises(ConfigError, match="set server.start"):
        _server().start()
    with pytest.raises(ConfigError, match="set provision"):
        _server().provision()


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(SourceError, match="did not end"):
        _server(start=["sleep", "60"]).start()


@pytest.mark.parametrize("command", ["systemctl start x", [], [1], {"unit": "x", "other": 1}, {"tasks": "x.yml"}])
def test_other_forms_are_refused(command) -> None:
    with pytest.raises(ConfigError, match="list of words"):
        _server(start=command)


def test_units_become_systemctl() -> None:
    made = _server(start={"unit": "redis.service"}, stop={"unit": "redis.service"}, status={"unit": "redis.service"})
    assert made._start == ["systemctl", "start", "redis.service"]
    assert made._stop == ["systemctl", "stop", "redis.service"]
    assert made._status == ["systemctl", "is-active", "--quiet", "redis.service"]


def test_status() -> None:
    assert _server(status=["true"]).running() is True
    assert _server(status=["false"]).running() is False
    assert _server().running() is None


def test_one_holder_of_the_lock_per_host_and_it_dies_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = f"test-lock:{os.getpid()}"
    code = (
        "import sys, time; from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.server import host_lock\n"
        "with host_lock(sys.argv[1]):\n print('held', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    holder = subprocess.Popen([sys.executable, "-c", code, identity], stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ConflictError, match="another process"), server.host_lock(identity, 0.2):
            pass
        got = threading.Event()

        def wait() -> None:
            with server.host_lock(identity, 30):
                got.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not got.is_set()
        holder.kill()
        waiter.join(30)
        assert got.is_set()
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_directory_of_somebody_else_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(ConflictError, match="somebody else"):
        server.lock_dir()


def test_registry_knows_its_types_and_the_nearest() -> None:
    for name in registry.types():
        kind = registry.get(name)
        assert issubclass(kind, Source) and kind.type == name
        for option in kind.options.values():
            assert option["type"] in ("str", "int", "bool", "list", "dict", "path") and option["help"]
    with pytest.raises(ConfigError, match="did you mean 'redis'"):
        registry.get("rediss")
