# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""ed25519 keys in files, for whoever signs or checks outside of a service's key provider: one line of base64 of 32 bytes each."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from ..errors import ConfigError, ConflictError, DamageError, KeyAccessError, StorageError
from ..keys import envelope, signing

_LIMIT = 1 << 20


def parse_public(text: str, where: str) -> bytes:
    """The public key that a text is. ConfigError."""
    try:
        raw = envelope.from_text(text.strip())
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ConfigError("not a public ed25519 key", where, "it is one line: base64 of 32 bytes")
    return raw


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read(_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyAccessError(f"cannot read a key ({getattr(error, 'strerror', '') or 'not text'})", path, "check its name and permissions") from error


def load_publics(path: str) -> list[bytes]:
    """The public keys of a file (``sign.pub``, or ``vault-sign.json`` with those of a transit key), or of all such files below a directory."""
    if os.path.isdir(path):
        found = [os.path.join(folder, name) for folder, _folders, names in sorted(os.walk(path)) for name in sorted(names)
                 if name.endswith(".pub") and not name.startswith("data") or name == "vault-sign.json"]
        if not found:
            raise KeyAccessError("no public signing keys", path, "name a directory with sign.pub of services or vault-sign.json")
        return list(dict.fromkeys(key for name in found for key in load_publics(name)))
    text = _read(path)
    if path.endswith(".json"):
        with contextlib.suppress(ValueError, AttributeError):
            return [parse_public(str(value), path) for value in json.loads(text).values()]
        raise ConfigError("not a file of public keys", path, "it is {version: base64 of 32 bytes}, as bootstrap writes it for a Vault key")
    return [parse_public(text, path)]


def make_private(path: str) -> bytes:
    """Write a new signing key to ``path`` and its public half to ``path``.pub, overwriting nothing; the public half."""
    private = signing.new_private()
    public = signing.public_of(private)
    try:
        for name, raw, mode in ((path, private, 0o600), (path + ".pub", public, 0o644)):
            with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as handle:
                handle.write(envelope.to_text(raw) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
    except FileExistsError as error:
        raise ConflictError("there is a key already", str(error.filename), "choose another name; no key is ever overwritten") from error
    except OSError as error:
        raise StorageError(f"cannot write a key ({error.strerror})", str(error.filename), "choose a directory that you may write to") from error
    return public


def sign(private: bytes, name: str, text: str) -> dict[str, Any]:
    """A signature as seals and approvals carry it; its key is ``name@fingerprint``."""
    return signing.describe(f"{name}@{envelope.fingerprint(signing.public_of(private))}", 1, signing.sign(private, text.encode()))


def signer(text: str, signature: Any, publics: list[bytes]) -> bytes | None:
    """Which of the public keys made a signature over ``text``; None when none did, whatever it looks like."""
    if not isinstance(signature, dict):
        return None
    for public in publics:
        try:
            signing.check(text.encode(), signature, {(signature.get("key", ""), signature.get("version", 0)): public}, "signature")
        except (DamageError, TypeError):
            continue
        return public
    return None


def described(signature: Any) -> str:
    """A signature's key as it names itself, for a message."""
    if not isinstance(signature, dict):
        return "nobody"
    return f"{str(signature.get('key'))[:120]} version {str(signature.get('version'))[:12]}".encode("ascii", "replace").decode()
