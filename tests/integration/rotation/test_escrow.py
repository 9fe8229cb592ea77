# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key server is gone: what was captured with an escrow key in the catalog is restored with that key alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.cli.main import main
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, DamageError, KeyAccessError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import escrow, policies
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import host, operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.tombstone import ShreddedError
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site
from ansible_collections.lifeboat.recovery.tests.integration.rotation.conftest import World

Make = Callable[..., World]


def events(world: World, event: str) -> list[dict[str, Any]]:
    path = world.files.home / "state" / "services" / world.service / "ledger.jsonl"
    return [entry["data"] for entry in map(json.loads, path.read_text().splitlines()) if entry["event"] == event]


def test_everything_is_gone_but_repository_and_escrow_key(world: Make, tmp_path: Path) -> None:
    safe = tmp_path / "safe.key"
    docs = world(escrow=escrow.new_key(str(safe)))
    assert safe.stat().st_mode & 0o777 == 0o600 and escrow.new_key(str(safe)) == docs.escrow["escrow"]
    first = docs.capture("one")
    operations.rotate(docs.spec("rotate"), docs.run("rotate_keys"), True, False)
    second = docs.capture("two")
    operations.retire(docs.spec("retire"), docs.run("retire"), "1", False)
    if docs.vault is None:
        shutil.rmtree(docs.files.home / "keys")
        keys = {**docs.files.document["keys"]}
    else:
        for kind in policies.KINDS:
            docs.vault.server.must("POST", f"{docs.vault.mount}/keys/docs-{kind}/config", {"deletion_allowed": True})
            docs.vault.server.must("DELETE", f"{docs.vault.mount}/keys/docs-{kind}")
        keys = {"provider": "vault", "url": "http://127.0.0.1:9", "mount": docs.vault.mount, "retries": 0, "token": "gone"}
    without = Spec.from_dict({**docs.files.document, "keys": {**keys, **docs.escrow}})
    with pytest.raises((KeyAccessError, DamageError)):
        docs.restore(first, without)
    assert events(docs, "escrow.used") == []
    with_key = Spec.from_dict({**docs.files.document, "keys": {**keys, **docs.escrow, "escrow_key": str(safe)}})
    assert "one" in docs.restore(first, with_key) and {"one", "two"} <= docs.restore(second, with_key)
    assert operations.verify(with_key, "all", "decode")["ok"]
    used = events(docs, "escrow.used")
    assert len(used) == 2 and used[0]["self_signed"] and used[0]["recipient"] in used[0]["record"]
    with pytest.raises(KeyAccessError, match="escrow, which only opens"):
        operations.capture(with_key, docs.run("backup"), "auto")
    text = (docs.files.home / "state" / "services" / "docs" / "ledger.jsonl").read_text()
    assert safe.read_text().strip() not in text


def test_wrong_and_missing_escrow_say_so(world: Make, tmp_path: Path) -> None:
    right, wrong = (escrow.new_key(str(tmp_path / name)) for name in ("right.key", "wrong.key"))
    docs = world()
    first = docs.capture("one")
    assert not (docs.files.repository / "services" / "docs" / "escrow").exists(), "nothing may change without the option"
    assert all(b"escrow" not in path.read_bytes() for path in docs.files.objects() if path.parent.name == "keys")
    with pytest.raises(KeyAccessError, match="nothing of service docs is sealed for escrow key"):
        docs.restore(first, docs.spec("restore", escrow_key=str(tmp_path / "right.key")))
    docs.escrow = {"escrow": right}
    docs.capture("two")
    docs.files.tree.joinpath("large").write_bytes(b"so that the next one needs no older pack")
    for path in sorted(docs.files.tree.rglob("*"), reverse=True):
        if path.is_file() or path.is_symlink():
            path.unlink()
    third = docs.capture("three")
    with pytest.raises(KeyAccessError, match="nothing of service docs is sealed for escrow key"):
        docs.restore(third, docs.spec("restore", escrow_key=str(tmp_path / "wrong.key")))
    with pytest.raises(KeyAccessError, match="this data key has no escrow copy.*before keys.escrow was set"):
        docs.restore(first, docs.spec("restore", escrow_key=str(tmp_path / "right.key")))
    assert "three" in docs.restore(third, docs.spec("restore", escrow_key=str(tmp_path / "right.key")))
    for text in ("", "AAAA", "not base64 at all", right[:-2]):
        if text:
            with pytest.raises(ConfigError, match="keys.escrow is no X25519 public key"):
                docs.spec("backup", escrow=text).provider()
    (tmp_path / "right.key").chmod(0o644)
    with pytest.raises(KeyAccessError, match="secret key file may be used by others"):
        docs.spec("restore", escrow_key=str(tmp_path / "right.key")).provider()
    assert wrong != right


def test_known_signing_keys_rule_over_those_of_the_record(world: Make, tmp_path: Path) -> None:
    """Somebody who replaces the whole record cannot vouch for himself where the public signing keys are at hand."""
    safe = tmp_path / "safe.key"
    docs, mill = world(escrow=escrow.new_key(str(safe))), world("mill", escrow=escrow.new_key(str(safe)))
    kept = str(tmp_path / "kept")
    first = docs.capture("one")
    mill.capture("one")
    if docs.vault is not None:
        assert docs.spec("bootstrap", path=kept).provider().ensure()
    more = {"path": kept} if docs.vault is not None else {}
    used = docs.spec("restore", escrow_key=str(safe), **more)
    docs.restore(first, used)
    assert not events(docs, "escrow.used")[-1]["self_signed"]
    record = next(path for path in docs.files.objects() if path.parent.name == "escrow")
    alien = next(path for path in mill.files.objects() if path.parent.name == "escrow")
    genuine = record.read_bytes()
    record.write_bytes(alien.read_bytes())
    with pytest.raises(DamageError, match="escrow record belongs to another place"):
        docs.restore(first, docs.spec("restore", escrow_key=str(safe), **more))
    told = json.loads(genuine)
    record.write_text(json.dumps({**told, "escrow": told["escrow"].replace('"format":1', '"format":1,"more":1')}, separators=(",", ":")))
    assert any(record.name in str(finding) for finding in operations.verify(docs.spec("restore", **more), "all", "exists")["findings"])
    with pytest.raises(DamageError, match="signature .* does not fit"):
        docs.restore(first, docs.spec("restore", escrow_key=str(safe), **more))


def test_the_host_command_makes_and_takes_an_escrow_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safe, config = tmp_path / "safe.key", tmp_path / "etc"
    assert main(["escrow-key", str(safe)]) == 0
    docs = World(tmp_path / "docs", escrow=capsys.readouterr().out.strip())
    first = docs.capture("one")
    host.prepare([docs.spec("backup")], str(config), str(tmp_path / "bin" / "lifeboat"), False)
    shutil.rmtree(docs.files.home / "keys")
    shutil.rmtree(docs.files.tree)
    assert main(["--config", str(config), "restore", "docs", "--no-runtime"]) == 1
    assert main(["--config", str(config), "verify", "docs", "--depth", "decode", "--escrow-key", str(safe)]) == 0
    assert main(["--config", str(config), "restore", "docs", "--target", first, "--no-runtime", "--escrow-key", str(safe)]) == 0
    told = capsys.readouterr()
    assert "the keys come from escrow" in told.err and safe.read_text().strip() not in told.out + told.err
    assert (docs.files.tree / "one").exists()
    assert events(docs, "escrow.used")


def test_a_full_restore_with_vault_down(tmp_path: Path) -> None:
    safe = tmp_path / "safe.key"
    with running.start("double") as server:
        docs = World(tmp_path / "docs", Site(server, server.mount("transit")), escrow=escrow.new_key(str(safe)))
        first = docs.capture("one")
        spec = docs.spec("restore", escrow_key=str(safe), retries=0)
        server.state("sealed")
        seen = len(server.seen())
        assert "one" in docs.restore(first, spec)
        asked = [path for _method, path, _status in server.seen()[seen:]]
        assert not [path for path in asked if "decrypt" in path or "hmac" in path], asked
        server.state("active")


def test_shredding_names_the_copies_that_escrow_holds(world: Make, tmp_path: Path) -> None:
    safe = tmp_path / "safe.key"
    docs = world(escrow=escrow.new_key(str(safe)))
    first = docs.capture("one")
    told = operations.shred(docs.spec("shred"), docs.run("shred"), "lab/docs", "", False)
    assert told["escrow_copies"] == 1 and any("escrow key still opens" in str(warning) for warning in told["warnings"])
    with pytest.raises(ShreddedError):
        docs.restore(first, docs.spec("restore", escrow_key=str(safe)))
