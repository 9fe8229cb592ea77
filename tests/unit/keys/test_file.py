# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file provider: seal-only hosts, wrong and lost keys, tampering, modes, two bootstraps at once."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.recovery.plugins.module_utils import durable, faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, DamageError, KeyAccessError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import envelope, registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.file import FileProvider
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.provider import KeyProvider, WrappedKey


def config(root: Path, private: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {"provider": "file", "path": str(root / "host")}
    if private:
        found["private_path"] = str(root / "safe")
    return found


def provider(root: Path, private: bool = True, service: str = "orders") -> KeyProvider:
    return registry.provider_for(config(root, private), service)


def ready(root: Path, service: str = "orders") -> KeyProvider:
    found = provider(root, service=service)
    assert found.ensure()
    return found


def files(root: Path) -> dict[str, bytes]:
    return {str(each.relative_to(root)): each.read_bytes() for each in sorted(root.rglob("*")) if each.is_file()}


def test_bootstrap_makes_the_documented_files_once(tmp_path: Path) -> None:
    keys = ready(tmp_path)
    before = files(tmp_path)
    assert sorted(before) == [
        "host/orders/data.pub", "host/orders/index.key", "host/orders/sign.key", "host/orders/sign.pub",
        "safe/orders/data.key", "safe/orders/index.key", "safe/orders/sign.pub",
    ]
    assert all(len(base64.b64decode(text)) == 32 for text in before.values())
    for each in tmp_path.rglob("*.key"):
        assert each.stat().st_mode & 0o777 == 0o600
    assert not keys.ensure()
    assert not provider(tmp_path, private=False).ensure()
    assert files(tmp_path) == before


def test_seal_only_host_captures_signs_and_verifies_but_opens_nothing(tmp_path: Path) -> None:
    ready(tmp_path)
    host = provider(tmp_path, private=False)
    key, wrapped = host.new_data_key(b"orders.db-000001")
    assert len(host.index_key()) == 32
    host.verify(b"manifest", host.sign(b"manifest"))
    with pytest.raises(KeyAccessError, match="can seal but not open.*private_path"):
        host.open_data_keys([(b"orders.db-000001", wrapped)])
    assert provider(tmp_path).open_data_keys([(b"orders.db-000001", wrapped)]) == [key]


def test_restore_machine_needs_only_the_private_directory(tmp_path: Path) -> None:
    host = ready(tmp_path)
    key, wrapped = host.new_data_key(b"s")
    index, signature = host.index_key(), host.sign(b"m")
    shutil.rmtree(tmp_path / "host")
    rescue = provider(tmp_path)
    assert rescue.open_data_keys([(b"s", wrapped)]) == [key]
    assert rescue.index_key() == index
    rescue.verify(b"m", signature)


def test_verifier_needs_only_sign_pub(tmp_path: Path) -> None:
    signature = ready(tmp_path).sign(b"m")
    for each in tmp_path.rglob("*"):
        if each.is_file() and each != tmp_path / "host/orders/sign.pub":
            each.unlink()
    auditor = provider(tmp_path, private=False)
    auditor.verify(b"m", signature)
    with pytest.raises(DamageError, match="does not fit the content"):
        auditor.verify(b"n", signature)
    (tmp_path / "host/orders/sign.pub").unlink()
    with pytest.raises(KeyAccessError, match="sign.pub"):
        auditor.verify(b"m", signature)


def test_many_keys_open_in_order(tmp_path: Path) -> None:
    keys = ready(tmp_path)
    made = [(f"s{number}".encode(), *keys.new_data_key(f"s{number}".encode())) for number in range(50)]
    assert len({key for _context, key, _wrapped in made}) == 50
    assert keys.open_data_keys([(context, wrapped) for context, _key, wrapped in made]) == [key for _context, key, _wrapped in made]


def test_wrong_private_half_is_named_with_both_fingerprints(tmp_path: Path) -> None:
    _key, wrapped = ready(tmp_path / "a").new_data_key(b"s")
    ready(tmp_path / "b")
    theirs = base64.b64decode((tmp_path / "a/host/orders/data.pub").read_bytes())
    ours = base64.b64decode((tmp_path / "b/host/orders/data.pub").read_bytes())
    with pytest.raises(KeyAccessError) as caught:
        provider(tmp_path / "b").open_data_keys([(b"s", wrapped)])
    assert f"wrong key: sealed for data key {envelope.fingerprint(theirs)}, this is {envelope.fingerprint(ours)}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_retired_private_half_still_opens(tmp_path: Path) -> None:
    key, wrapped = ready(tmp_path / "a").new_data_key(b"s")
    ready(tmp_path / "b")
    mark = wrapped.key.partition("@")[2]
    shutil.copy(tmp_path / "a/safe/orders/data.key", tmp_path / f"b/safe/orders/data-{mark}.key")
    assert provider(tmp_path / "b").open_data_keys([(b"s", wrapped)]) == [key]


def test_another_context_or_service_does_not_open(tmp_path: Path) -> None:
    keys = ready(tmp_path)
    _key, wrapped = keys.new_data_key(b"orders.db-000001")
    with pytest.raises(DamageError, match="belongs to another snapshot.*orders.db-000002"):
        keys.open_data_keys([(b"orders.db-000002", wrapped)])
    with pytest.raises((KeyAccessError, DamageError)):
        ready(tmp_path, "payments").open_data_keys([(b"orders.db-000001", wrapped)])


def test_signature_of_another_service_or_key_is_refused_by_name(tmp_path: Path) -> None:
    mine, other = ready(tmp_path), ready(tmp_path, "payments")
    with pytest.raises(DamageError, match="wrong signing key: signed by 'payments-sign@"):
        mine.verify(b"m", other.sign(b"m"))
    forged = dict(other.sign(b"m"), key=mine.sign(b"m")["key"])
    with pytest.raises(DamageError, match="does not fit the content"):
        mine.verify(b"m", forged)
    for broken in ({}, {"algorithm": "none"}, dict(mine.sign(b"m"), value="!"), dict(mine.sign(b"m"), version="1"), dict(mine.sign(b"m"), value=None)):
        with pytest.raises(DamageError):
            mine.verify(b"m", broken)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyProvider, bytes, WrappedKey]:
    keys = ready(tmp_path_factory.mktemp("keys"))
    key, wrapped = keys.new_data_key(b"context")
    return keys, key, wrapped


def test_every_changed_character_of_a_wrapped_key_is_refused(shared: tuple[KeyProvider, bytes, WrappedKey]) -> None:
    keys, _key, wrapped = shared
    for position, old in enumerate(wrapped.wrapped):
        for new in {chr(ord(old) ^ 1), chr(ord(old) ^ 2), "A", "/", "=", "é"} - {old}:
            text = wrapped.wrapped[:position] + new + wrapped.wrapped[position + 1:]
            with pytest.raises((KeyAccessError, DamageError)):
                keys.open_data_keys([(b"context", WrappedKey(wrapped.provider, wrapped.key, wrapped.version, text))])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=200), st.binary(max_size=120).map(lambda raw: base64.b64encode(raw).decode())), data=st.data())
def test_arbitrary_wrapped_text_is_refused(shared: tuple[KeyProvider, bytes, WrappedKey], text: str, data: st.DataObject) -> None:
    keys, _key, wrapped = shared
    mark = wrapped.key.partition("@")[2]
    candidate = data.draw(st.sampled_from([text, f"lbk1.{mark}.{text}", wrapped.wrapped + text, wrapped.wrapped[: len(text)]]))
    if candidate == wrapped.wrapped:
        return
    with pytest.raises((KeyAccessError, DamageError)):
        keys.open_data_keys([(b"context", WrappedKey("file", wrapped.key, 1, candidate))])


@pytest.mark.parametrize(
    "change", [{"provider": "vault"}, {"version": 2}, {"key": "orders-data@0000000000000000"}, {"key": "payments-data"}],
)
def test_changed_key_record_is_refused(shared: tuple[KeyProvider, bytes, WrappedKey], change: dict[str, Any]) -> None:
    keys, _key, wrapped = shared
    with pytest.raises((KeyAccessError, DamageError)):
        keys.open_data_keys([(b"context", WrappedKey.from_dict({**wrapped.as_dict(), **change}))])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_secret_readable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    keys = ready(tmp_path)
    for name, use in (("host/orders/index.key", keys.index_key), ("host/orders/sign.key", lambda: keys.sign(b"m"))):
        (tmp_path / name).chmod(mode)
        with pytest.raises(KeyAccessError, match="chmod 600"):
            use()
        with pytest.raises(KeyAccessError, match="chmod 600"):
            keys.ensure()
        (tmp_path / name).chmod(0o600)


@pytest.mark.parametrize("content", [b"", b"AAAA\n", b"not base64 at all\n", b"\xff\xfe", base64.b64encode(bytes(33))])
def test_mangled_key_files_are_named(tmp_path: Path, content: bytes) -> None:
    keys = ready(tmp_path)
    for name, use in (
        ("host/orders/index.key", keys.index_key), ("host/orders/data.pub", lambda: keys.new_data_key(b"c")),
        ("host/orders/sign.key", lambda: keys.sign(b"m")),
    ):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(KeyAccessError, match=name):
            use()
        (tmp_path / name).write_bytes(good)


def test_low_order_public_key_is_refused(tmp_path: Path) -> None:
    keys = ready(tmp_path)
    (tmp_path / "host/orders/data.pub").write_bytes(base64.b64encode(bytes(32)))
    with pytest.raises(KeyAccessError, match="usable X25519"):
        keys.new_data_key(b"c")


def test_no_second_key_pair_beside_an_existing_public_half(tmp_path: Path) -> None:
    ready(tmp_path)
    (tmp_path / "safe/orders/data.key").unlink()
    before = files(tmp_path)
    keys = provider(tmp_path)
    assert not keys.ensure()
    assert files(tmp_path) == before
    _key, wrapped = keys.new_data_key(b"c")
    with pytest.raises(KeyAccessError, match="private half.*missing.*put data.key back"):
        keys.open_data_keys([(b"c", wrapped)])


def test_capturing_host_without_keys_makes_none_and_says_how(tmp_path: Path) -> None:
    with pytest.raises(KeyAccessError, match="run bootstrap once on the machine that keeps keys.private_path"):
        provider(tmp_path, private=False).ensure()
    assert files(tmp_path) == {}


@pytest.mark.parametrize("lost", ["index.key", "sign.key"])
def test_lost_key_of_an_established_service_is_never_made_anew(tmp_path: Path, lost: str) -> None:
    ready(tmp_path)
    for each in tmp_path.rglob(lost):
        each.unlink()
    if lost == "sign.key":
        for each in tmp_path.rglob("sign.pub"):
            each.unlink()
    before = files(tmp_path)
    with pytest.raises(KeyAccessError, match=f"is lost.*{lost}.*put"):
        provider(tmp_path).ensure()
    assert files(tmp_path) == before


def test_new_signing_key_after_the_old_one_was_retired_by_name(tmp_path: Path) -> None:
    keys = ready(tmp_path)
    old = keys.sign(b"m")
    mark = old["key"].partition("@")[2]
    (tmp_path / "host/orders/sign.key").unlink()
    (tmp_path / "safe/orders/sign.pub").unlink()
    (tmp_path / "host/orders/sign.pub").rename(tmp_path / f"host/orders/sign-{mark}.pub")
    assert keys.ensure()
    new = keys.sign(b"m")
    assert new["key"] != old["key"]
    keys.verify(b"m", old)
    keys.verify(b"m", new)


def test_copies_are_completed_from_the_other_directory(tmp_path: Path) -> None:
    ready(tmp_path)
    before = files(tmp_path)
    for name in ("host/orders/index.key", "host/orders/data.pub", "safe/orders/sign.pub"):
        (tmp_path / name).unlink()
    assert provider(tmp_path).ensure()
    assert files(tmp_path) == before


def test_foreign_half_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    ready(tmp_path / "a")
    ready(tmp_path / "b")
    shutil.copy(tmp_path / "b/host/orders/data.pub", tmp_path / "a/host/orders/data.pub")
    before = files(tmp_path)
    with pytest.raises(KeyAccessError, match="does not belong to the others"):
        provider(tmp_path / "a").ensure()
    assert files(tmp_path) == before


def test_bootstrap_cut_at_any_write_completes_with_the_same_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at the n-th published file, for every n: the next call completes, and files once there stay as they were."""
    publish, reached = durable.publish_file, []
    for number in range(20):
        root = tmp_path / str(number)
        calls = 0

        def failing(temporary: str, path: str, subject: str, number: int = number) -> None:
            nonlocal calls
            calls += 1
            if calls > number:
                os.unlink(temporary)
                raise OSError(28, "No space left on device")
            publish(temporary, path, subject)

        monkeypatch.setattr(durable, "publish_file", failing)
        try:
            provider(root).ensure()
        except StorageError as error:
            assert "make room" in str(error)
        else:
            reached.append(number)
        kept = files(root)
        monkeypatch.setattr(durable, "publish_file", publish)
        keys = provider(root)
        keys.ensure()
        assert {name: files(root)[name] for name in kept} == kept
        key, wrapped = keys.new_data_key(b"c")
        assert keys.open_data_keys([(b"c", wrapped)]) == [key]
        keys.verify(b"m", keys.sign(b"m"))
        if reached:
            break
    assert reached == [7]


def test_bootstrap_killed_at_any_point_completes(tmp_path: Path) -> None:
    """kill -9 at every fault point of a key file, at each of its passes; nothing half made stays, nothing whole is lost."""
    killed: dict[str, int] = {}
    for name in [each for each in faults.points() if each.startswith("key.") and "rename" not in each]:
        for number in range(1, 40):
            root = tmp_path / f"{name}-{number}"
            child = os.fork()
            if child == 0:
                faults.configure(f"{name}:{number}")
                try:
                    provider(root).ensure()
                finally:
                    os._exit(0)
            if os.waitpid(child, 0)[1] != 9:
                break
            killed[name] = number
            kept = {path: data for path, data in files(root).items() if "/.tmp-" not in path}
            keys = provider(root)
            keys.ensure()
            after = files(root)
            assert not [path for path in after if "/.tmp-" in path]
            assert {path: after[path] for path in kept} == kept
            key, wrapped = keys.new_data_key(b"c")
            assert keys.open_data_keys([(b"c", wrapped)]) == [key]
            keys.verify(b"m", keys.sign(b"m"))
            assert not keys.ensure()
            shutil.rmtree(root)
    assert {name.partition(".")[2].partition(".")[0] for name in killed} == {"write", "fsync", "link", "dirsync", "unlink"}
    assert all(count >= 7 for count in killed.values()), killed


def test_two_bootstraps_at_once_agree(tmp_path: Path) -> None:
    """Separate processes race for every file; afterwards there is one consistent set."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import registry\n"
        "sys.stdin.read(1)\n"
        "keys = registry.provider_for({'provider': 'file', 'path': sys.argv[2], 'private_path': sys.argv[3]}, 'orders')\n"
        "keys.ensure(); print(keys.index_key().hex(), keys.sign(b'')['key'], keys.new_data_key(b'c')[1].key)\n"
    )
    dev = next(each for each in sys.path if each.endswith(".dev"))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, dev, str(tmp_path / "host"), str(tmp_path / "safe")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _number in range(4)
    ]
    for each in running:
        assert each.stdin
        each.stdin.write("x")
        each.stdin.flush()
    results = [each.communicate(timeout=60) for each in running]
    assert [each.returncode for each in running] == [0] * 4, results
    assert len({out for out, _err in results}) == 1
    assert not provider(tmp_path).ensure()


@pytest.mark.parametrize("service", ["", "..", "a/b", "../orders", "-x", "a\nb", "x" * 200])
def test_service_name_cannot_leave_the_directory(tmp_path: Path, service: str) -> None:
    with pytest.raises(ConfigError):
        provider(tmp_path, service=service)


def test_registry_is_closed_and_names_what_it_knows() -> None:
    with pytest.raises(ConfigError, match="keys.provider is one of: file, vault"):
        registry.provider_for({"provider": "fiel"}, "orders")
    with pytest.raises(ConfigError, match="path is missing"):
        registry.provider_for({"provider": "file"}, "orders")
    with pytest.raises(ConfigError, match="unknown option 'pth'"):
        registry.provider_for({"provider": "file", "path": "/x", "pth": 1}, "orders")


def test_toy_provider_is_one_line_of_registration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(registry.PROVIDERS, "toy", lambda: FileProvider)
    assert isinstance(registry.provider_for({"provider": "toy", "path": str(tmp_path)}, "orders"), FileProvider)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(min_size=1, max_size=16), st.integers(min_value=0))
def test_envelope_opens_only_what_was_sealed(secret: bytes, context: bytes, purpose: bytes, flip: int) -> None:
    private = envelope.new_private()
    sealed = envelope.seal(envelope.public_of(private), secret, context, purpose)
    assert len(sealed) == len(secret) + envelope.OVERHEAD
    assert envelope.unseal(private, sealed, context, purpose) == secret
    bit = flip % (len(sealed) * 8)
    damaged = bytearray(sealed)
    damaged[bit // 8] ^= 1 << bit % 8
    for arguments in (
        (private, bytes(damaged), context, purpose), (private, sealed, context + b"x", purpose), (private, sealed, purpose, context + b"."),
        (envelope.new_private(), sealed, context, purpose), (private, sealed[:-1], context, purpose),
        (private, sealed + b"\0", context, purpose),
    ):
        with pytest.raises(DamageError):
            envelope.unseal(*arguments)


@settings(deadline=None)
@given(text=st.text(alphabet="ABab01+/=-_ \n", max_size=12))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        data = envelope.from_text(text)
    except ValueError:
        return
    assert envelope.to_text(data) == text
