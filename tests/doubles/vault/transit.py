# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: Vault's transit engine with real cryptography, for aes256-gcm96 and ed25519 keys.

Requests, answers and error texts as documented in https://developer.hashicorp.com/vault/api-docs/secret/transit:
"Create key", "Read key", "Delete key", "Update key configuration", "Rotate key", "Encrypt data", "Decrypt data",
"Rewrap data", "Generate data key", "Generate HMAC", "Sign data", "Verify signed data". Parameters outside of
what a call lists here are refused as unsupported, so that nobody relies on something the double ignores.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Callable

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from shared import Refused, Unsupported, answer, only

NAME = r"\w(?:[\w.-]*\w)?"


@dataclass
class Version:
    secret: bytes
    hmac: bytes
    created: float


@dataclass
class Key:
    name: str
    type: str
    derived: bool
    versions: dict[int, Version] = field(default_factory=dict)
    min_decryption_version: int = 1
    min_encryption_version: int = 0
    deletion_allowed: bool = False
    exportable: bool = False

    @property
    def latest(self) -> int:
        return max(self.versions)

    def rotate(self) -> None:
        self.versions[max(self.versions, default=0) + 1] = Version(os.urandom(32), os.urandom(32), time.time())


class Engine:
    """One mount of transit."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._lock = threading.RLock()
        self._warnings: list[str] = []
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., dict[str, Any] | None]]] = [
            (method, re.compile(pattern), action)
            for method, pattern, action in (
                ("LIST", "keys/?", self._list),
                ("POST", f"keys/({NAME})", self._create),
                ("GET", f"keys/({NAME})", self._read),
                ("DELETE", f"keys/({NAME})", self._delete),
                ("POST", f"keys/({NAME})/config", self._config),
                ("POST", f"keys/({NAME})/rotate", self._rotate),
                ("POST", f"encrypt/({NAME})", self._encrypt),
                ("POST", f"decrypt/({NAME})", self._decrypt),
                ("POST", f"rewrap/({NAME})", self._rewrap),
                ("POST", f"datakey/(plaintext|wrapped)/({NAME})", self._datakey),
                ("POST", f"hmac/({NAME})/sha2-256", self._hmac),
                ("POST", f"sign/({NAME})", self._sign),
                ("POST", f"verify/({NAME})", self._verify),
            )
        ]

    def handle(self, method: str, path: str, body: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str] | None]:
        """(``data``, ``warnings``) of the answer; no data means 404 for a read and 204 for a write."""
        for wanted, pattern, action in self._routes:
            match = pattern.fullmatch(path)
            if match and wanted == method:
                with self._lock:
                    self._warnings = []
                    return action(body, *match.groups()), self._warnings or None
        raise Unsupported(f"{method} transit {path}")

    def upserts(self, path: str) -> bool:
        """Encrypting with a key that does not exist would create it: the one call that asks for ``create``."""
        match = re.fullmatch(f"encrypt/({NAME})", path)
        return bool(match and match.group(1) not in self._keys)

    # ---- keys -------------------------------------------------------------------------------------------------

    def _list(self, body: dict[str, Any]) -> dict[str, Any] | None:
        only(body)
        return {"keys": sorted(self._keys)} if self._keys else None

    def _create(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "type", "derived", "exportable")
        kind = body.get("type", "aes256-gcm96")
        if kind not in ("aes256-gcm96", "ed25519"):
            raise Unsupported(f"key type {kind}")
        if kind == "ed25519" and body.get("derived"):
            raise Unsupported("derived ed25519")
        if name not in self._keys:
            key = Key(name, kind, bool(body.get("derived", False)), exportable=bool(body.get("exportable", False)))
            key.rotate()
            self._keys[name] = key
        else:
            self._warnings.append(f"key {name} already existed")
        return self._format(self._keys[name])

    def _read(self, body: dict[str, Any], name: str) -> dict[str, Any] | None:
        only(body)
        return self._format(self._keys[name]) if name in self._keys else None

    def _format(self, key: Key) -> dict[str, Any]:
        encrypts = key.type == "aes256-gcm96"
        shown = {number: each for number, each in key.versions.items() if number >= key.min_decryption_version}
        data: dict[str, Any] = {
            "name": key.name, "type": key.type, "derived": key.derived, "deletion_allowed": key.deletion_allowed,
            "min_available_version": 0, "min_decryption_version": key.min_decryption_version, "min_encryption_version": key.min_encryption_version,
            "latest_version": key.latest, "exportable": key.exportable, "allow_plaintext_backup": False, "supports_encryption": encrypts,
            "supports_decryption": encrypts, "supports_signing": not encrypts, "supports_derivation": True, "auto_rotate_period": 0, "imported_key": False,
        }
        if key.derived:
            data.update(kdf="hkdf_sha256", convergent_encryption=False)
        if encrypts:
            data["keys"] = {str(number): int(each.created) for number, each in shown.items()}
        else:
            data["keys"] = {
                str(number): {
                    "name": "ed25519", "public_key": _text(_ed25519(each).public_key().public_bytes_raw()),
                    "creation_time": datetime.fromtimestamp(each.created, timezone.utc).isoformat().replace("+00:00", "Z"),
                }
                for number, each in shown.items()
            }
        return data

    def _delete(self, body: dict[str, Any], name: str) -> None:
        only(body)
        if name not in self._keys:
            raise Refused(400, f"error deleting policy {name}: could not delete key; not found")
        if not self._keys[name].deletion_allowed:
            raise Refused(400, f"error deleting policy {name}: deletion is not allowed for this key")
        del self._keys[name]

    def _config(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "min_decryption_version", "min_encryption_version", "deletion_allowed")
        key = self._existing(name, f"no existing key named {name} could be found")
        decryption = int(body.get("min_decryption_version", key.min_decryption_version))
        if decryption == 0:
            decryption = 1
            self._warnings.append("since Vault 0.3, transit key numbering starts at 1; forcing minimum to 1")
        encryption = int(body.get("min_encryption_version", key.min_encryption_version))
        for word, number in (("decryption", decryption), ("encryption", encryption)):
            if number < 0:
                raise Refused(400, f"min {word} version cannot be negative")
            if number > key.latest and number != {"decryption": key.min_decryption_version, "encryption": key.min_encryption_version}[word]:
                raise Refused(400, f"cannot set min {word} version of {number}, latest key version is {key.latest}")
        if 0 < encryption < decryption:
            raise Refused(
                400, f"cannot set min encryption/decryption values; min encryption version of {encryption} must be greater than or equal to "
                f"min decryption version of {decryption}",
            )
        key.min_decryption_version, key.min_encryption_version = decryption, encryption
        key.deletion_allowed = bool(body.get("deletion_allowed", key.deletion_allowed))
        return self._format(key)

    def _rotate(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body)
        key = self._existing(name, "key not found")
        key.rotate()
        return self._format(key)

    def _existing(self, name: str, missing: str = "encryption key not found") -> Key:
        if name not in self._keys:
            raise Refused(400, missing)
        return self._keys[name]

    # ---- data -------------------------------------------------------------------------------------------------

    def _datakey(self, body: dict[str, Any], form: str, name: str) -> dict[str, Any]:
        only(body, "context", "bits")
        key = self._existing(name)
        bits = body.get("bits", 256)
        if bits not in (128, 256, 512):
            raise Refused(400, "invalid bit length")
        plain = os.urandom(bits // 8)
        data: dict[str, Any] = {"ciphertext": _seal(key, 0, _context(body), plain), "key_version": key.latest}
        if form == "plaintext":
            data["plaintext"] = _text(plain)
        return data

    def _encrypt(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "plaintext", "context", "key_version", "batch_input", "partial_failure_response_code")
        if name not in self._keys:
            self._create({}, name)
        key = self._keys[name]

        def one(item: dict[str, Any]) -> dict[str, Any]:
            if "plaintext" not in item:
                raise Refused(400, "missing plaintext to encrypt")
            return {
                "ciphertext": _seal(key, int(item.get("key_version", 0)), _context(item), _decoded(item["plaintext"], "failed to base64-decode plaintext")),
                "key_version": int(item.get("key_version", 0)) or key.latest,
            }

        return _each(body, one, {"plaintext", "context", "key_version"}, partial=True)

    def _decrypt(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "ciphertext", "context", "batch_input", "partial_failure_response_code")
        key = self._existing(name)
        return _each(body, lambda item: {"plaintext": _text(_open(key, _context(item), item))}, {"ciphertext", "context"}, partial=True)

    def _rewrap(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "ciphertext", "context", "batch_input")
        key = self._existing(name)

        def one(item: dict[str, Any]) -> dict[str, Any]:
            context = _context(item)
            return {"ciphertext": _seal(key, 0, context, _open(key, context, item)), "key_version": key.latest}

        return _each(body, one, {"ciphertext", "context"}, partial=False)

    def _hmac(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "input", "key_version")
        key = self._existing(name)
        if "input" not in body:
            raise Refused(400, "missing input for HMAC")
        number = int(body.get("key_version", 0)) or key.latest
        if number != key.latest and 0 < number < key.min_encryption_version:
            raise Refused(400, "cannot generate HMAC: version is too old (disallowed by policy)")
        if number > key.latest:
            raise Refused(400, f"key version does not exist; latest key version is {key.latest}")
        version = _available(key, number)
        digest = hmac.digest(version.hmac, _decoded(body["input"], "unable to decode input as base64"), "sha256")
        return {"hmac": f"vault:v{number}:{_text(digest)}"}

    def _sign(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "input")
        key = self._signing(name, "signing key not found")
        signature = _ed25519(key.versions[key.latest]).sign(_decoded(body.get("input", ""), "unable to decode input as base64"))
        return {"signature": f"vault:v{key.latest}:{_text(signature)}", "key_version": key.latest}

    def _verify(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        only(body, "input", "signature")
        key = self._signing(name, "signature verification key not found")
        number, raw = _parsed(key, str(body.get("signature", "")), "signature")
        try:
            _ed25519(_available(key, number)).public_key().verify(raw, _decoded(body.get("input", ""), "unable to decode input as base64"))
        except InvalidSignature:
            return {"valid": False}
        return {"valid": True}

    def _signing(self, name: str, missing: str) -> Key:
        key = self._existing(name, missing)
        if key.type != "ed25519":
            raise Refused(400, f"key type {key.type} does not support signing")
        return key


def _each(body: dict[str, Any], one: Callable[[dict[str, Any]], dict[str, Any]], fields: set[str], partial: bool) -> dict[str, Any]:
    """Single or batch. A batch with failed items answers 400 *and* the results, as encrypt and decrypt do; rewrap answers 200."""
    if "batch_input" not in body:
        return one(body)
    items = body["batch_input"]
    if not isinstance(items, list) or not items:
        raise Refused(400, "missing batch input to process")
    if len({bool(item.get("context")) for item in items}) > 1:
        raise Refused(400, "context should be set either in all the request blocks or in none")
    results, failed = [], False
    for item in items:
        only(item, *fields, "reference")
        try:
            result = one(item)
        except Refused as refused:
            result, failed = {"error": refused.errors[0]}, True
        results.append({**result, "reference": item.get("reference", "")})
    if failed and partial:
        # the whole answer with an error status and no "errors"; another status only when some items worked
        some = any("error" not in each for each in results)
        raise Refused(int(body.get("partial_failure_response_code", 400)) if some else 400, data=answer(data={"batch_results": results}))
    return {"batch_results": results}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: Any, trouble: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, trouble) from None


def _context(item: dict[str, Any]) -> bytes:
    return _decoded(item.get("context", ""), "failed to base64-decode context")


def _available(key: Key, number: int) -> Version:
    if number not in key.versions or number < key.min_decryption_version:
        raise Refused(400, "no such key version")
    return key.versions[number]


def _cipher(key: Key, number: int, context: bytes) -> AESGCM:
    if key.type != "aes256-gcm96":
        raise Refused(400, f"message encryption not supported for key type {key.type}")
    secret = _available(key, number).secret
    if not key.derived:
        return AESGCM(secret)
    if not context:
        raise Refused(
            400, "missing 'context' for key derivation; the key was created using a derived key, which means additional, per-request information "
            "must be included in order to perform operations with the key",
        )
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=context).derive(secret))


def _seal(key: Key, number: int, context: bytes, plain: bytes) -> str:
    if number > key.latest:
        raise Refused(400, "requested version for encryption is higher than the latest key version")
    if 0 < number < key.min_encryption_version:
        raise Refused(400, "requested version for encryption is less than the minimum encryption key version")
    number = number or key.latest
    nonce = os.urandom(12)
    return f"vault:v{number}:{_text(nonce + _cipher(key, number, context).encrypt(nonce, plain, None))}"


def _parsed(key: Key, text: str, what: str) -> tuple[int, bytes]:
    if not text.startswith("vault:v"):
        raise Refused(400, f"invalid {what}: no prefix")
    number, separator, encoded = text[len("vault:v"):].partition(":")
    if not separator:
        raise Refused(400, f"invalid {what}: wrong number of fields")
    if not re.fullmatch(r"[+-]?[0-9]+", number):
        raise Refused(400, f"invalid {what}: version number could not be decoded")
    version = int(number) or 1
    if version > key.latest:
        raise Refused(400, f"invalid {what}: version is too new")
    if version < key.min_decryption_version:
        raise Refused(400, "ciphertext or signature version is disallowed by policy (too old)")
    return version, _decoded(encoded, f"invalid {what}: could not decode base64")


def _open(key: Key, context: bytes, item: dict[str, Any]) -> bytes:
    if not item.get("ciphertext"):
        raise Refused(400, "missing ciphertext to decrypt")
    number, raw = _parsed(key, str(item["ciphertext"]), "ciphertext")
    if len(raw) < 12:
        raise Refused(400, "invalid ciphertext length")
    try:
        return _cipher(key, number, context).decrypt(raw[:12], raw[12:], None)
    except InvalidTag:
        raise Refused(400, "cipher: message authentication failed") from None


def _ed25519(version: Version) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(version.secret)
