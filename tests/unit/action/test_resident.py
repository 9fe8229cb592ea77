# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that waits on a host for the next call of a module, with real processes and a toy for the module."""

from __future__ import annotations

import base64
import io
import json
import marshal
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import resident
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import payload

#: In place of Ansible's loader and a module: does what its parameters say, and tells where.
LOADER = """
import json, os, subprocess, sys, time

def run_module(json_params, **given):
    from ansible_collections.lifeboat.recovery.plugins.module_utils import resident

    asked = json.loads(json_params)
    for name in asked.get("load", []):
        __import__(name)
    told = {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "folder": os.getcwd(), "word": os.environ.get("SSH_TTY"),
            "loaded": "this" not in sys.modules, "open": sorted(int(name) for name in os.listdir("/proc/self/fd")), "module": given["module_fqn"]}
    if "more" in asked:
        from ansible_collections.lifeboat.recovery.plugins.module_utils import more

        told["more"] = more.WORD
    told["had"] = [name for name in asked.get("had", []) if name in sys.modules]
    if "note" in asked:
        child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(asked["note"] + ".new", "w") as handle:
            json.dump({**told, "child": child.pid}, handle)
        os.rename(asked["note"] + ".new", asked["note"])
        time.sleep(1000)
    resident.learned()
    print(json.dumps(told))
    if "kill" in asked:
        sys.stdout.flush()
        os.kill(os.getpid(), asked["kill"])
    sys.exit(asked.get("exit", 0))
"""


def packed(params: dict[str, object], more: str = "") -> bytes:
    """A payload as AnsiballZ writes it, with the real code of the process that waits."""
    own = Path(str(resident.__file__)).read_text().replace("IDLE = 15.0", "IDLE = 600.0")
    parts = {"ansible/module_utils/_internal/_ansiballz/_loader.py": LOADER}
    where = "ansible_collections/lifeboat/recovery/plugins/module_utils"
    parts[f"{where}/resident.py"] = own
    if more:
        parts[f"{where}/more.py"] = f"WORD = {more!r}\n"
    for name in list(parts):
        while name := os.path.dirname(name):
            parts[f"{name}/__init__.py"] = ""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(parts):
            archive.writestr(zipfile.ZipInfo(name), parts[name])
    arguments = {
        "ansible_module": "toy", "module_fqn": "some.toy", "profile": "legacy", "rlimit_nofile": 0, "params": json.dumps(params), "extensions": {},
        "zip_data": base64.b64encode(out.getvalue()).decode(),
    }
    lines = "".join(f"{name}={value!r},\n" for name, value in arguments.items()) + "date_time=datetime.datetime(2030, 1, 1),\n"
    return payload.slim(
        f"#!{sys.executable}\nstart = 1\n\n\nif __name__ == \"__main__\":\n    _ansiballz_main(\n{lines}\n)\n".encode(), True, family="toys")


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for what must come."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process is no more, or only waits for somebody to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def memory(pid: int) -> bytes:
    """All that a process of our own can have written to."""
    found = []
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as content:
        for line in maps:
            place, rights = line.split()[:2]
            if rights.startswith("rw"):
                begin, end = (int(part, 16) for part in place.split("-"))
                content.seek(begin)
                while begin < end and (piece := content.read(min(end - begin, 1 << 24))):
                    found.append(piece)
                    begin += len(piece)
    return b"".join(found)


class Host:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / ".cache" / "lifeboat" / "code"
        self.servers: set[int] = set()

    def begin(self, params: dict[str, object], more: str = "", interrupt: Any = signal.SIG_DFL, **env: str) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
        call = subprocess.Popen(
            [sys.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**kept, "HOME": str(self.home), **env}, cwd="/",
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt))
        assert call.stdin is not None
        call.stdin.write(packed(params, more))
        call.stdin.close()
        call.stdin = None
        return call

    def run(self, params: dict[str, object], more: str = "", code: int = 0, **env: str) -> dict[str, Any]:
        call = self.begin(params, more, **env)
        out, err = call.communicate(timeout=120)
        assert call.returncode == code, err.decode()
        answer = json.loads(out)
        assert isinstance(answer, dict)
        answer["caller"] = call.pid
        return answer

    def warm(self, **env: str) -> int:
        """Calls until one is answered by a process that waits; that process."""
        found = 0

        def answered() -> bool:
            nonlocal found
            answer = self.run({}, **env)
            found = int(answer["parent"])
            return bool(answer["pid"] != answer["caller"])

        until(answered, "no process waits")
        self.servers.add(found)
        return found

    def remove(self) -> None:
        """The folder, in which a process that waits may write just now."""
        def removed() -> bool:
            shutil.rmtree(self.folder, ignore_errors=True)
            return not self.folder.exists()

        until(removed, "the folder stays")

    def noted(self, **env: str) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
        """A call that is at work, and what it told."""
        note = self.home / "note"
        note.unlink(missing_ok=True)
        call = self.begin({"note": str(note)}, **env)
        until(note.exists, "the call does not begin")
        return call, json.loads(note.read_text())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Its waiting processes end when their folder is gone."""
    made = Host(tmp_path)
    yield made
    made.remove()
    until(lambda: all(gone(pid) for pid in made.servers), "a process waits on, though its folder is gone")


def test_the_next_call_is_answered_by_a_fork_as_by_its_own_process(host: Host) -> None:
    server = host.warm()
    assert host.run({})["parent"] == server
    told = host.run({}, SSH_TTY="/dev/pts/7")
    assert told["parent"] == server and told["pid"] != told["caller"] and told["group"] == told["pid"]
    assert told["word"] == "/dev/pts/7" and told["folder"] == "/" and told["module"] == "some.toy"
    # its own listing, and what it says with what it had to load
    assert len(told["open"]) <= 3 + 2, f"files of the process that waits are open in its fork: {told['open']}"
    host.run({"exit": 3}, code=3)
    host.run({"kill": signal.SIGTERM}, code=-signal.SIGTERM)
    host.run({"kill": signal.SIGKILL}, code=-signal.SIGKILL)
    assert host.warm() == server, "it outlives all of them"


def test_what_one_call_had_to_load_the_next_finds_loaded(host: Host) -> None:
    server = host.warm()
    assert host.run({"had": ["wave"]})["had"] == []
    host.run({"load": ["wave"]})
    until(lambda: bool(host.run({"had": ["wave"]})["had"]), "nothing is learned")
    os.kill(server, signal.SIGTERM)
    until(lambda: gone(server), "it does not end when it is told to")
    assert host.warm() != server
    assert host.run({"had": ["wave"]})["had"] == ["wave"], "nor is it forgotten"


def test_another_environment_is_another_process(host: Host) -> None:
    assert host.warm() != host.warm(SOME_SETTING="1")


def test_a_module_that_only_the_second_copy_has_is_found_there(host: Host) -> None:
    server = host.warm()
    assert host.run({"more": 1}, more="here it is")["more"] == "here it is", "the call that brings a copy keeps it"
    told = host.run({"more": 1}, more="here it is")
    assert told["parent"] == server and told["more"] == "here it is"
    assert "more" not in host.run({}), "and calls of the first copy go on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_call_reaches_the_fork_and_all_that_it_started(host: Host, number: int) -> None:
    server = host.warm()
    call, told = host.noted()
    assert told["parent"] == server
    call.send_signal(number)
    call.communicate(timeout=120)
    assert call.returncode != 0
    until(lambda: gone(told["pid"]) and gone(told["child"]), "they work on")
    assert not gone(server)


@pytest.mark.parametrize("first", [signal.SIG_IGN, signal.SIG_DFL])
def test_whoever_left_the_process_behind_an_interrupt_is_what_it_is_to_the_call(host: Host, first: Any) -> None:
    """A shell starts what runs in its background with the signal ignored."""
    host.begin({}, interrupt=first).communicate(timeout=120)
    server = host.warm()
    call, told = host.noted()
    assert told["parent"] == server
    call.send_signal(signal.SIGINT)
    call.communicate(timeout=120)
    until(lambda: gone(told["pid"]) and gone(told["child"]), "they work on")
    note = host.home / "note"
    note.unlink()
    deaf = host.begin({"note": str(note)}, interrupt=signal.SIG_IGN)
    until(note.exists, "the call does not begin")
    deaf.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        deaf.communicate(timeout=1)
    deaf.kill()
    deaf.communicate(timeout=120)


def test_nothing_works_on_for_a_call_that_was_killed(host: Host) -> None:
    server = host.warm()
    call, told = host.noted()
    call.kill()
    call.communicate(timeout=120)
    until(lambda: gone(told["pid"]) and gone(told["child"]), "they work on")
    assert host.warm() == server


def test_a_call_whose_process_is_killed_says_so(host: Host) -> None:
    server = host.warm()
    call, told = host.noted()
    os.kill(server, signal.SIGKILL)
    _out, err = call.communicate(timeout=120)
    assert call.returncode == 1 and b"was killed" in err
    until(lambda: gone(told["pid"]), "the fork works on for nobody")
    os.kill(told["child"], signal.SIGKILL)
    assert host.warm() != server, "and the next calls have another one"


def test_of_a_call_nothing_stays_in_the_process_that_waits(host: Host) -> None:
    """The call that leaves it behind is the one to look for: all that it had was in memory when it did."""
    canary, mark = (base64.b32encode(os.urandom(20)).decode() for _number in range(2))
    parent = int(host.run({"word": canary}, SSH_TTY=mark)["parent"])
    assert host.warm() == parent, "it was not the first call that left it"
    host.run({"word": canary})
    try:
        seen = memory(parent)
    except PermissionError:
        pytest.skip("this kernel lets only root look into the memory of a process")
    assert mark.encode() in seen, "what it was started with is to be found there"
    assert canary.encode() not in seen and canary.encode() not in Path(f"/proc/{parent}/cmdline").read_bytes()


def test_nothing_begins_without_the_word_of_the_call(host: Host) -> None:
    server = host.warm()
    note, line = host.home / "note", socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (address,) = (name for name in host.folder.iterdir() if name.is_socket())
    (copy,) = host.folder.glob("*.zip")
    call = {"module_fqn": "some.toy", "profile": "legacy", "params": json.dumps({"note": str(note)}), "extensions": {}, "code": copy.name,
            "environment": dict(os.environ), "folder": "/"}
    data = marshal.dumps(call)
    here = os.open(host.folder, os.O_RDONLY)
    line.connect(f"/proc/self/fd/{here}/{address.name}")
    os.close(here)
    socket.send_fds(line, [struct.pack("=I", len(data)) + data], [0, 1, 2])
    assert line.recv(1), "it is not ready"
    children = Path(f"/proc/{server}/task/{server}/children")
    assert children.read_text(), "no fork waits for the word"
    line.close()
    until(lambda: not children.read_text(), "the fork waits on")
    assert not note.exists()


def test_it_takes_no_call_of_a_copy_that_is_not_there_and_ends_with_its_folder(host: Host) -> None:
    server = host.warm()
    for copy in host.folder.glob("*.zip"):
        copy.unlink()
    told = host.run({"more": 1}, more="other code")
    assert told["more"] == "other code" and told["parent"] == server, "a copy that was not there is brought by the call"
    host.remove()
    until(lambda: gone(server), "it waits on")
    assert host.run({})["pid"], "a call works without"
