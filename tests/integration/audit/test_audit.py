# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journals and approvals as operators, approvers and auditors meet them: playbooks, files, the command."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
import sys
import threading
from typing import Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, Outcome, differences

COMMAND = [sys.executable, "-m", "ansible_collections.lifeboat.recovery.plugins.module_utils.cli", "audit"]


def audit(harbour: Harbour, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env={**harbour.environment(), "PYTHONPATH": str(harbour.collections)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )


class Collector(threading.Thread):
    """A syslog server for TCP with octet counting (RFC 6587), as much of one as a sender can see."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.messages: list[bytes] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                peer, _address = self.listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as stream:
                while True:
                    length = b""
                    while (byte := stream.read(1)) not in (b" ", b""):
                        length += byte
                    if not length:
                        break
                    self.messages.append(stream.read(int(length)))

    def journal(self) -> bytes:
        """The lines behind the header of each message."""
        return b"".join(message.split(b" ", 7)[7] + b"\n" for message in self.messages)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.listener.close()


@pytest.fixture(scope="module")
def harbour(collector: Collector) -> Iterator[Harbour]:
    with Harbour({"rock": [], "mill": ["rock"]}) as made:
        made.catalog["audit"] = {"copies": [{"file": str(made.home / "audit.jsonl")}, {"syslog": f"127.0.0.1:{collector.port}"},
                                            {"url": f"file://{made.home}/second"}]}
        made.write_catalog()
        made.succeed("bootstrap")
        yield made


def keys(harbour: Harbour) -> list[object]:
    return ["--keys", harbour.home / "keys" / "host"]


def test_a_run_ends_sealed_signed_published_and_copied(harbour: Harbour, collector: Collector) -> None:
    taken = harbour.succeed("backup", "-e", "awx_job_id=77", "-e", "awx_user_name=anna")
    trail = taken.document["audit"]
    assert trail["sealed"] and trail["problems"] == [] and [copy["ok"] for copy in trail["copies"]] == [True] * 3, taken.text
    signer = trail["published"]["service"]  # whichever host came first
    assert signer in harbour.ports and trail["signed_by"]["key"].startswith(f"{signer}-sign@")
    assert taken.document["run"]["who"]["awx"] == {"user": "anna", "job": "77"}
    run = str(taken.document["run"]["id"])
    assert trail["published"]["object"] == f"services/{signer}/journals/{run}.jsonl"
    assert taken.directory is not None
    second = harbour.home / "second" / "journals" / f"{run}.jsonl"
    places = [taken.directory, harbour.repository / trail["published"]["object"], harbour.home / "audit.jsonl", second]
    shipped = harbour.home / "from-syslog.jsonl"
    shipped.write_bytes(collector.journal())
    done = audit(harbour, "verify", *places, shipped, *keys(harbour), "--run", run)
    assert done.returncode == 0 and done.stdout.count(": sound, ") == 5, done.stdout + done.stderr
    entries = [json.loads(line) for line in (taken.directory / "journal.jsonl").read_text().splitlines()[:-1]]
    assert all("AWX user anna job 77" in entry["who"] and entry["who"].startswith(getpass.getuser()) for entry in entries)
    ledger = [json.loads(line) for line in (harbour.state / "services" / "mill" / "ledger.jsonl").read_text().splitlines()]
    assert ledger[0]["event"] == "run.begin" and ledger[0]["data"]["who"]["awx"]["user"] == "anna"
    controls = next(entry["data"]["controls"] for entry in entries if entry["event"] == "verdict" and entry["service"] == "mill")
    assert controls == entries[-1]["data"]["services"]["mill"]["controls"]
    assert controls["encrypted"]["ok"] and controls["encrypted"]["keys"][0]["key"].startswith("mill-data@") and controls["signed"]["ok"]
    assert controls["immutable"] == {"ok": False, "until": None} and controls["approved"]["ok"] is None

    # what is done to it is named
    stored = harbour.repository / trail["published"]["object"]
    whole = stored.read_bytes()
    lines = whole.splitlines(keepends=True)
    stored.chmod(0o600)
    stored.write_bytes(b"".join([*lines[:2], lines[2].replace(b"captured", b"verified"), *lines[3:]]))
    done = audit(harbour, "verify", stored, *keys(harbour))
    assert done.returncode == 3 and "entry 2 altered" in done.stdout, done.stdout
    stored.write_bytes(whole)
    assert audit(harbour, "verify", stored).returncode == 4  # nothing is wrong, and no key was given
    other = harbour.home / "other"
    assert audit(harbour, "key", other).returncode == 0 and other.stat().st_mode & 0o077 == 0
    done = audit(harbour, "verify", stored, "--key", f"{other}.pub")
    assert done.returncode == 3 and "sealed with another key" in done.stdout


def refused(outcome: Outcome, text: str) -> None:
    assert outcome.code != 0 and outcome.directory is None and text in outcome.text, outcome.text


def test_a_restore_waits_for_its_approval_and_a_journal_for_somebody_who_can_sign(harbour: Harbour) -> None:
    approver = harbour.home / "berta"
    public = audit(harbour, "key", approver).stdout.strip()
    catalog = {**harbour.catalog, "production": True, "approvals": {"required": "restore", "persons": 2, "keys": {"berta": {"key": public}}}}
    strict = harbour.write_catalog(harbour.home / "strict.catalog.yml", catalog)
    for name in harbour.ports:
        harbour.wreck(name)
    before = harbour.everything()
    restore = ["-e", "lifeboat_confirm=harbour"]
    refused(harbour.play("restore", *restore, catalog=strict), "restore needs an approval of its plan")
    seen = harbour.play("restore", "--check", catalog=strict)
    assert seen.code == 0 and "approval needed from one of berta, 2 persons" in seen.text and seen.directory is not None, seen.text
    plan, out = seen.directory / "plan.json", harbour.home / "approval.json"
    assert f"lifeboat audit approve --plan {plan} --key" in seen.text and seen.plan["approval"]["digest"] in seen.text
    done = audit(harbour, "approve", "--plan", plan, "--key", approver, "--out", out)
    assert done.returncode == 0 and f"plan {seen.plan['approval']['digest']}" in done.stderr and "rock on localhost to" in done.stderr, done.stderr
    restore += ["-e", f"lifeboat_approval={out}"]
    refused(harbour.play("restore", *restore, "-e", "lifeboat_until=cutover", catalog=strict), "berta approved another plan")
    assert differences(before, harbour.everything()) == []

    # the hosts cannot sign now: the restore works, its journal says that nobody vouches for it
    kept = {path: path.read_bytes() for path in (harbour.home / "keys" / "host").rglob("sign.key")}
    for path in kept:
        path.unlink()
    first = harbour.succeed("restore", *restore, catalog=strict)
    assert first.directory is not None
    for item in first.document["services"].values():
        assert item["controls"]["approved"]["by"] == ["berta"] and item["controls"]["verified"] == {"ok": True, "how": "content"}
    begun = json.loads((first.directory / "journal.jsonl").read_text().splitlines()[0])
    assert begun["data"]["approval"]["given"][0]["approver"] == "berta" and "berta" in (first.directory / "report.html").read_text()
    assert first.document["audit"]["signed_by"] is None and len(first.document["audit"]["problems"]) == 2
    assert "no signing key for service" in first.document["audit"]["problems"][0]
    assert audit(harbour, "verify", first.directory, *keys(harbour)).returncode == 4

    # the next run signs it; its own journal is signed by the controller, and does not reach a place that is required
    for path, data in kept.items():
        path.touch(0o600)
        path.write_bytes(data)
    own = harbour.home / "controller"
    assert audit(harbour, "key", own).returncode == 0
    gone = {"syslog": "127.0.0.1:1", "required": True}
    tight = harbour.write_catalog(harbour.home / "tight.catalog.yml", {**catalog, "audit": {"key": str(own), "copies": [gone]}})
    lost = harbour.play("backup", "-e", "lifeboat_confirm=harbour", catalog=tight)
    assert lost.code == 3 and lost.document["exit"]["code"] == 3, lost.text
    assert "the journal did not reach syslog 127.0.0.1:1" in lost.document["exit"]["reason"]
    assert lost.verdicts() == dict.fromkeys(harbour.ports, "captured") and any("127.0.0.1:1" in text for text in lost.document["warnings"])
    assert lost.document["audit"]["signed_by"]["key"].startswith("audit@")
    assert audit(harbour, "verify", lost.directory, "--key", f"{own}.pub").returncode == 0
    done = audit(harbour, "verify", first.directory, *keys(harbour))
    assert done.returncode == 0, done.stdout
    mended = json.loads((first.directory / "run.json").read_text())
    assert mended["audit"]["published"] and mended["audit"]["problems"] == [] and mended["outcome"] == "success"
