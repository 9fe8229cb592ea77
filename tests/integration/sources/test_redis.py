# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a Redis can do wrong: expiry, saves that fail, servers that come back by themselves, damaged dumps."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConflictError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import redis_swap
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader, MemoryWriter
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.bench import STAGE_ID, Bench
from ansible_collections.lifeboat.recovery.tests.lab.redis_server import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    made = RedisServer()
    try:
        yield made.init().start()
    finally:
        made.destroy()


@pytest.fixture
def bench(server: RedisServer, tmp_path: Path) -> Bench:
    return Bench({
        "type": "redis", "port": server.port, "password_file": server.password_file,
        "server": {verb: server.argv(verb) for verb in ("start", "stop", "status")},
    }, tmp_path)


def _set(server: RedisServer, **values: Any) -> None:
    with server.client() as client:
        client.mset(values)


def _info(server: RedisServer) -> dict[str, Any]:
    with server.client() as client:
        return dict(client.info())


def _restore(bench: Bench, reader: MemoryReader, stage_id: str = STAGE_ID) -> dict[str, Any]:
    record = bench.stage(reader, stage_id)
    comparison = bench.source.verify_staged(bench.context, reader, record)
    assert comparison.equal, comparison.differences
    bench.source.cutover(bench.context, record)
    return record


def test_keys_expire_between_capture_and_restore(server: RedisServer, bench: Bench) -> None:
    with server.client() as client:
        client.set("permanent", "1")
        client.set("soon", "2", px=1500)
        client.set("later", "3", ex=5000)
        expiry = client.execute_command("PEXPIRETIME", "later")
    reader, _writer = bench.capture()
    assert reader.manifest["digest"]["volatile"] == 2
    assert bench.live_equals(reader)
    with server.client() as client:
        processes.wait_for(lambda: not client.exists("soon"), "the expiry")
    assert bench.live_equals(reader), "a key whose time has come may be gone"
    _restore(bench, reader)
    with server.client() as client:
        assert client.get("later") == b"3"
        assert client.execute_command("PEXPIRETIME", "later") == expiry, "the expiry is absolute"
        assert not client.exists("soon")
        assert bench.live_equals(reader)
        client.expire("later", 6000)
        assert not bench.live_equals(reader)
        client.delete("later")
    assert bench.live(reader).differences == ["database 0: 1 expiring keys are missing before their time"]


def test_an_unchanged_server_is_not_asked_to_save_again(server: RedisServer, bench: Bench) -> None:
    _set(server, a=1)
    first, _writer = bench.capture()
    saves = _info(server)["rdb_saves"]
    second, writer = bench.capture(first)
    assert _info(server)["rdb_saves"] == saves
    assert (writer.new_chunks, second.manifest["digest"]) == (0, first.manifest["digest"])
    third, writer = bench.capture(second)
    assert (_info(server)["rdb_saves"], writer.new_chunks) == (saves, 0)
    assert bench.live_equals(third)
    _set(server, a=2)
    fourth, writer = bench.capture(third)
    assert _info(server)["rdb_saves"] == saves + 1
    assert writer.new_chunks == 1
    assert bench.live_equals(fourth)


@pytest.mark.parametrize("oddity", ["restart", "touched", "copied", "pack"])
def test_any_doubt_leads_to_a_full_look(server: RedisServer, bench: Bench, oddity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(server, a=1)
    first, _writer = bench.capture()
    dump = os.path.join(server.data, "dump.rdb")
    saves = _info(server)["rdb_saves"]
    if oddity == "restart":
        server.stop()
        server.start()
        saves = 0
    elif oddity == "touched":
        os.utime(dump)
    elif oddity == "copied":
        subprocess.run(["cp", "-p", dump, f"{dump}.new"], check=True)
        os.rename(f"{dump}.new", dump)
    else:
        monkeypatch.setattr(MemoryWriter, "reuse", lambda self, number: (never for never in ()).throw(KeyError(number)))
    second, writer = bench.capture(first)
    assert _info(server)["rdb_saves"] == saves + 1
    assert second.manifest["digest"] == first.manifest["digest"]
    assert writer.new_chunks == 0


def test_a_save_that_fails_gives_no_snapshot(server: RedisServer, bench: Bench) -> None:
    _set(server, a=1)
    os.rename(server.data, server.data + ".gone")
    os.mkdir(server.data + ".gone/dump.rdb")  # what stands in the way of the rename at the end of the save
    try:
        writer = MemoryWriter(bench.store)
        with pytest.raises(SourceError, match="save failed") as caught:
            bench.source.capture(bench.context, writer)
        assert writer._lines == []
        assert "; " in str(caught.value)
    finally:
        os.rmdir(server.data + ".gone/dump.rdb")
        os.rename(server.data + ".gone", server.data)


def test_staged_dump_that_is_torn_is_refused(server: RedisServer, bench: Bench) -> None:
    _set(server, **{f"key{number}": "x" * 100 for number in range(100)})
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    path = os.path.join(record["staged"], "dump.rdb")
    data = Path(path).read_bytes()
    for damaged in (data[:-40], data[:500] + bytes([data[500] ^ 1]) + data[501:]):
        Path(path).write_bytes(damaged)
        with pytest.raises(SourceError, match="refused to load"):
            bench.source.verify_staged(bench.context, reader, record)
    assert bench.live_equals(reader)


def test_the_latest_writes_are_in_what_was_displaced(server: RedisServer, bench: Bench) -> None:
    _set(server, a=1)
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    _set(server, a=2, b="never saved by the server itself")
    bench.source.cutover(bench.context, record)
    with server.client() as client:
        assert client.mget("a", "b") == [b"1", None]
        client.set("c", "written after the cutover")
    facts = bench.source.rollback(bench.context, record)
    with server.client() as client:
        assert client.mget("a", "b", "c") == [b"2", b"never saved by the server itself", None]
    assert os.path.exists(os.path.join(facts["set_aside"], "dump.rdb"))
    assert bench.source.commit(bench.context, record)["freed"] > 0


def test_without_a_stop_command_the_server_is_told_to_shut_down(server: RedisServer, bench: Bench) -> None:
    bench.config["server"] = {"start": server.argv("start")}
    _set(server, a=1)
    reader, _writer = bench.capture()
    _set(server, a=2)
    pid = server.pid()
    record = _restore(bench, reader)
    assert server.pid() not in (pid, None)
    assert bench.live_equals(reader)
    bench.source.rollback(bench.context, record)
    with server.client() as client:
        assert client.get("a") == b"2"


def test_a_dead_server_and_an_absent_directory_without_provision(server: RedisServer, bench: Bench) -> None:
    _set(server, a=1)
    reader, _writer = bench.capture()
    before = os.stat(server.data)
    server.wipe()
    assert not bench.live_equals(reader)
    record = bench.source.plan_stage(bench.context, reader.manifest, STAGE_ID)
    assert bench.source.prepare(bench.context, record) is True
    assert bench.source.prepare(bench.context, record) is False
    after = os.stat(server.data)
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    bench.source.stage(bench.context, reader, record)
    assert server.pid() is None, "an empty server is not shown to clients"
    assert bench.source.verify_staged(bench.context, reader, record).equal
    assert bench.source.cutover(bench.context, record)["displaced"] is False
    assert bench.live_equals(reader)
    bench.source.rollback(bench.context, record)
    assert server.pid() is None
    assert not os.path.exists(os.path.join(server.data, "dump.rdb"))


@pytest.mark.parametrize("moment", ["after the live files went", "before the staged files came"])
def test_a_server_that_something_started_in_between(server: RedisServer, bench: Bench, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed within the swap, then a supervisor starts the server on what it finds; nothing of the old data is lost."""
    _set(server, a=1)
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    _set(server, a=2)
    fault = "swap.rename.after:1" if moment.startswith("after") else "restore.cutover.displaced"
    assert bench.step("cutover", reader, record, fault) == -9
    server.start()
    _set(server, stray=1)
    with server.client() as client:
        client.save()
    bench.source.cutover(bench.context, record)
    assert bench.live_equals(reader)
    bench.source.rollback(bench.context, record)
    with server.client() as client:
        assert client.mget("a", "stray") == [b"2", None]
    strays = [name for _directory, _names, files in os.walk(record["set_aside"]) for name in files if name[0].isdigit()]
    assert strays, "what the stray server wrote is kept until commit"


def test_a_server_that_does_not_stay_down(server: RedisServer, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(server, a=1)
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    monkeypatch.setattr(redis_swap, "ANSWER_TIMEOUT", 3)
    bench.config["server"]["stop"] = ["true"]
    with pytest.raises(SourceError, match="does not stop"):
        bench.source.cutover(bench.context, record)
    _set(server, b=2)  # it takes writes again
    bench.config["server"]["stop"] = server.argv("stop")
    monkeypatch.undo()
    bench.source.cutover(bench.context, record)
    assert bench.live_equals(reader)


def test_rollback_of_an_intent_and_of_a_half_made_swap(server: RedisServer, bench: Bench) -> None:
    _set(server, a=1)
    reader, _writer = bench.capture()
    _set(server, a=2)
    record = bench.stage(reader, "one")
    bench.source.rollback(bench.context, record)
    bench.source.rollback(bench.context, record)
    with server.client() as client:
        assert client.get("a") == b"2"
    bench.source.commit(bench.context, record)
    for fault in ("swap.rename.after:1", "restore.cutover.displaced", "restore.cutover.swapped"):
        record = bench.stage(reader, fault.replace(".", "_").replace(":", "_"))
        assert bench.step("cutover", reader, record, fault) == -9
        if fault != "restore.cutover.swapped":
            with pytest.raises(ConflictError, match="not finished"):
                bench.source.commit(bench.context, record)
        bench.source.rollback(bench.context, record)
        with server.client() as client:
            assert client.get("a") == b"2", fault
        bench.source.commit(bench.context, record)
    assert [name for name in os.listdir(server.data) if "lifeboat" in name] == []


def _private_servers() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as handle:
                program = handle.read().split(b"\0")[0]
            if b"redis-server" in program and "/private-" in os.readlink(f"/proc/{name}/cwd"):
                found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("verb", ["capture", "verify_staged"])
def test_kill_9_leaves_no_private_server_behind(server: RedisServer, bench: Bench, verb: str) -> None:
    with server.client() as client:
        client.eval("for i = 1, 40000 do redis.call('HSET', 'key:' .. i, 'f', i) end", 0)
    reader, _writer = bench.capture()
    record = bench.stage(reader)
    process = bench.spawn(verb, reader, record)
    processes.wait_for(lambda: bool(_private_servers()) or process.poll() is not None, "a private server")
    pids = _private_servers()
    assert pids
    process.send_signal(signal.SIGKILL)
    process.communicate()
    processes.wait_for(lambda: not any(processes.alive(pid) for pid in pids), "the end of the private server", 10)
    assert bench.source.verify_staged(bench.context, reader, record).equal
    assert bench.capture()[0].manifest["digest"] == reader.manifest["digest"]
    assert [name for name in os.listdir(bench.context.work_dir) if name.startswith("private-")] == []


def test_large_values_and_many_elements(server: RedisServer, bench: Bench) -> None:
    with server.client() as client:
        client.set("blob", os.urandom(1 << 20) * 9)
        pipe = client.pipeline(transaction=False)
        for start in range(0, 5000, 100):
            numbers = range(start, start + 100)
            pipe.sadd("set", *numbers, *(f"text {number}" for number in numbers))
            pipe.hset("hash", mapping={str(number): "v" * (number % 70) for number in numbers})
            pipe.zadd("zset", {str(number): number % 17 for number in numbers})
            pipe.rpush("list", *numbers)
            for number in numbers:
                pipe.xadd("stream", {"n": number}, id=f"{number + 1}-0")
        pipe.execute()
    reader, _writer = bench.capture()
    record = _restore(bench, reader)
    assert bench.live_equals(reader)
    changes: list[tuple[str, ...]] = [
        ("SETRANGE", "blob", str((1 << 20) * 8 + 7), "!"), ("SREM", "set", "4321"), ("HSET", "hash", "4321", "w"), ("ZINCRBY", "zset", "1", "4321"),
        ("LSET", "list", "4321", "x"), ("XDEL", "stream", "4321-0"),
    ]
    with server.client() as client:
        for change in changes:
            client.execute_command(*change)
            assert not bench.live_equals(reader), change
            saved = client.dump(change[1])
            assert saved
            bench.source.rollback(bench.context, record)
            bench.source.commit(bench.context, record)
            record = _restore(bench, reader, f"after_{change[0].lower()}")


def test_preflight_says_what_is_wrong_and_what_to_do(server: RedisServer, bench: Bench, tmp_path: Path) -> None:
    _set(server, a=1)
    reader, _writer = bench.capture()

    def capture(**changes: Any) -> str:
        other = Bench({**bench.config, **changes}, tmp_path)
        found = other.errors(other.source.preflight_capture(other.context))
        assert len(found) == 1 and "; " in found[0] and "\n" not in found[0], found
        return found[0]

    wrong = tmp_path / "wrong"
    wrong.write_text("wrong-canary")
    message = capture(password_file=str(wrong))
    assert "refused the login" in message and "canary" not in message
    assert "refused the login" in capture(password_file=None)
    assert "does not answer" in capture(port=processes.free_port())
    assert "not on this host" in capture(directory=str(tmp_path / "none"))
    assert "redis-server" in capture(program="/no/such/program")

    def restore(facts: dict[str, Any], **changes: Any) -> list[str]:
        other = Bench({**bench.config, **changes}, tmp_path)
        return other.errors(other.source.preflight_restore(other.context, {**reader.manifest, "facts": {**reader.manifest["facts"], **facts}}))

    assert restore({}) == []
    assert bench.off_by(0, reader.manifest) == []
    (clock,) = bench.off_by(100, reader.manifest)
    assert "the clock of the server" in clock and "100 s ahead of that of this host" in clock
    assert bench.lacking(reader.manifest) == []
    huge = bench.lacking({**reader.manifest, "facts": {**reader.manifest["facts"], "bytes": 1 << 60, "memory": 1 << 60}})
    assert len(huge) == 2 and "not enough space to stage beside the live data" in huge[0] and "not enough memory" in huge[1]
    everything = restore({"version": [99, 0], "memory": 1 << 60, "bytes": 1 << 60, "highest_database": 99}, server=None)
    for part in ("older than the captured 99.0", "program is older", "uses number 99", "how to start"):
        assert any(part in text for text in everything), (part, everything)
    with server.client() as client:
        client.config_set("maxmemory", "10mb")
        assert any("must not evict" in text for text in restore({"memory": 20 << 20}))
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", processes.free_port())
        assert any("replica" in text for text in restore({}))
        client.replicaof("NO", "ONE")
    assert restore({}, port=processes.free_port()) == [], "a dead server is started by the cutover"


def test_hostile_names_in_a_manifest_are_refused(server: RedisServer, bench: Bench) -> None:
    _set(server, a=1)
    reader, _writer = bench.capture()
    server.stop()
    settings = {**reader.manifest["facts"]["settings"], "dbfilename": "../../etc/passwd"}
    manifest = {**reader.manifest, "facts": {**reader.manifest["facts"], "settings": settings}}
    assert any("unusable file name" in text for text in bench.errors(bench.source.preflight_restore(bench.context, manifest)))
