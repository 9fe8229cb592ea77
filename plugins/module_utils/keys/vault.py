# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Keys in Vault's (or OpenBao's) transit engine: they never leave it.

    <service>-data    aes256-gcm96, derived   data keys; the context (snapshot id) is part of the key derivation
    <service>-index   aes256-gcm96            the index key is its HMAC (version 1) of a fixed text: nothing to store or to lose
    <service>-sign    ed25519                 manifests and journals

Whoever captures may call ``datakey/plaintext`` and not ``decrypt``: a data key can be had when it is made and never
again. Requests and answers: https://developer.hashicorp.com/vault/api-docs/secret/transit #create-key, #read-key,
#generate-data-key, #decrypt-data (batch_input; some failed items answer 400 with batch_results), #generate-hmac, #sign-data.
"""

from __future__ import annotations

import json
import os
from typing import Any

from .. import durable
from ..errors import ConfigError, DamageError, KeyAccessError, StorageError
from . import envelope, policies, signing, vault_auth, vault_session
from .provider import KeyVersionError, WrappedKey
from .vault_rotation import BATCH, CIPHERTEXT, PROVIDER, VaultRotation

_CONTEXT = b"lifeboat/data-key/1\0"
_INDEX_INPUT = b"lifeboat/index-key/1"
_OTHER = "restore another snapshot, or this object from a second repository"


class VaultProvider(VaultRotation):
    """config: {"provider": "vault", "url", "mount": transit mount (default "transit"), "prefix": before the names of keys,
    options of vault_session, and those of vault_auth beside them or in "auth": {"method", …}; "restore_auth": {"method", …}: the
    credentials that may open data keys, where they are others; "rotate_auth": those that rotate, retire and destroy; "path":
    optional directory that keeps the public signing keys, so that manifests can be verified without Vault}.

    Everything opened stays in memory for the life of the provider: an outage does not stop what has its keys.
    """

    def __init__(self, config: dict[str, Any], service: str) -> None:
        where = f"keys of service {service}"
        config = {name: value for name, value in config.items() if value is not None}
        restore_auth, rotate_auth = config.pop("restore_auth", None), config.pop("rotate_auth", None)
        flat = flattened(config, config.pop("auth", None), where)
        known = {"provider", "mount", "prefix", "path"} | vault_session.OPTIONS | vault_auth.OPTIONS
        unknown = sorted(set(flat) - known)
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r} of the vault key provider", where, f"it takes: {', '.join(sorted(known))}")
        self._mount = str(config.get("mount") or "transit").strip("/")
        self._service = service
        self._full = str(config.get("prefix") or "") + service
        policies.check_names(service, self._mount)
        policies.check_names(self._full, self._mount)
        self._session = vault_session.Session(flat, where)
        plain = {name: value for name, value in config.items() if name not in LOGIN}
        self._opener, self._rotator = (
            self._session if auth is None else vault_session.Session(flattened(plain, auth, where), where) for auth in (restore_auth, rotate_auth)
        )
        path = config.get("path")
        self._public_file = os.path.join(os.path.abspath(os.path.expanduser(str(path))), service, "vault-sign.json") if path else None
        self._opened: dict[tuple[bytes, str], bytes] = {}
        self._index: bytes | None = None
        self._publics: dict[int, bytes] | None = None

    # ---- making keys ------------------------------------------------------------------------------------------

    def ensure(self) -> bool:
        """Create the three keys where they are missing, the data key last; refuse those of a wrong kind.

        Once the data key exists the service may have snapshots; a lost index or signing key is then named, not made anew.
        """
        found = {kind: self._read(kind) for kind in policies.KINDS}
        lost = [kind for kind in policies.KINDS if found["data"] is not None and found[kind] is None]
        if lost:
            raise KeyAccessError(
                f"the {lost[0]} key of service {self._service} is lost", self._where(lost[0]),
                "restore it from Vault's own backup; a new one would fit no existing snapshot",
            )
        made = False
        for kind in ("index", "sign", "data"):
            if found[kind] is None:
                self._write(f"keys/{self._name(kind)}", dict(_KINDS[kind]), "update", f"bootstrap needs {self._policy('bootstrap')}")
                found[kind] = self._read(kind)
                made = True
            self._check_kind(kind, found[kind])
        if self._public_file is not None:
            made = self._keep_publics(self._public_file) or made
        return made

    def _read(self, kind: str) -> dict[str, Any] | None:
        path = f"{self._mount}/keys/{self._name(kind)}"
        who = f"{self._policy('auditor')} and every other of the service has it" if kind == "sign" else f"bootstrap needs {self._policy('bootstrap')}"
        return self._any().request("GET", path, capability="read", remedy=f"grant 'read' on {path!r}: {who}")

    def _check_kind(self, kind: str, found: dict[str, Any] | None) -> None:
        wanted = _KINDS[kind]
        problem = "it is not there" if found is None else ""
        for name, value in wanted.items():
            if found is not None and not problem and found.get(name) != value:
                problem = f"{name} is {found.get(name)!r} instead of {value!r}"
        if problem:
            raise KeyAccessError(
                f"transit key {self._name(kind)} is not usable: {problem}", self._where(kind),
                "let bootstrap create it; an existing one of another kind must be moved out of the way deliberately",
            )

    # ---- using keys -------------------------------------------------------------------------------------------

    def new_data_key(self, context: bytes) -> tuple[bytes, WrappedKey]:
        """POST datakey/plaintext: the key in clear, once, and its wrapped form."""
        name = self._name("data")
        data = self._write(
            f"datakey/plaintext/{name}", {"context": _context(context), "bits": 256}, "update", f"capturing needs {self._policy('backup')}",
        )
        wrapped = data.get("ciphertext")
        match = CIPHERTEXT.fullmatch(wrapped) if isinstance(wrapped, str) else None
        key = _bytes(data.get("plaintext"))
        if match is None or key is None or len(key) != 32:
            raise KeyAccessError(
                "Vault's answer holds no data key", self._where("data"), "is keys.url a Vault server with the transit engine?",
            )
        return key, WrappedKey(PROVIDER, name, int(match.group(1)), match.group(0))

    def open_data_keys(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[bytes]:
        """POST decrypt in batches; what was opened before is not asked again."""
        pending: dict[tuple[bytes, str], WrappedKey] = {}
        for context, item in wrapped:
            self._check_wrapped(context, item)
            if (context, item.wrapped) not in self._opened:
                pending[context, item.wrapped] = item
        todo = [(context, item) for (context, _text), item in pending.items()]
        for start in range(0, len(todo), BATCH):
            self._open(todo[start:start + BATCH])
        return [self._opened[context, item.wrapped] for context, item in wrapped]

    def _open(self, items: list[tuple[bytes, WrappedKey]]) -> None:
        body = {"batch_input": [self._body(context, item) for context, item in items]}
        data = self._write(
            f"decrypt/{self._name('data')}", body, "update", f"opening needs {self._policy('restore')}; the backup role must not have it",
            self._opener, partial=True,
        )
        results = data.get("batch_results")
        if not isinstance(results, list) or len(results) != len(items):
            raise KeyAccessError(
                "Vault's answer does not fit the request", self._where("data"), "is keys.url a Vault server with the transit engine?",
            )
        for (context, item), result in zip(items, results):
            if result.get("error"):
                raise self._not_opened(context, item, str(result["error"]))
            key = _bytes(result.get("plaintext"))
            if key is None or len(key) != 32:
                raise DamageError("wrapped data key opens to something else than a key", self._about(context), _OTHER)
            self._opened[context, item.wrapped] = key

    def _check_wrapped(self, context: bytes, item: WrappedKey) -> None:
        where = self._about(context)
        if item.provider != PROVIDER:
            raise KeyAccessError(
                f"data key is kept by provider {item.provider!r}", where, "set keys.provider in the catalog to that provider",
            )
        if item.key != self._name("data"):
            raise KeyAccessError(
                f"wrong key: wrapped under transit key {item.key[:120]!r}, this service has {self._name('data')}", where,
                "is this another service's snapshot, or was the service renamed?",
            )
        match = CIPHERTEXT.fullmatch(item.wrapped)
        if match is None or int(match.group(1)) != item.version or _bytes(match.group(2)) is None:
            raise DamageError("wrapped data key is malformed", where, _OTHER)

    def _not_opened(self, context: bytes, item: WrappedKey, said: str) -> KeyAccessError | DamageError:
        where, label = self._about(context), f"{item.key} version {item.version}"
        if "too old" in said:
            return KeyVersionError(
                f"key version is retired: {label}", where, f"lower min_decryption_version of {item.key} to {item.version}, or restore a newer snapshot",
            )
        if "too new" in said or "no such key version" in said:
            return KeyVersionError(f"wrong key: Vault has no {label}", where, "is this the Vault that made it, or one restored from an older backup?")
        return DamageError(
            f"wrapped data key does not open with {label}: it was altered, belongs to another snapshot, or the transit key was replaced", where, _OTHER,
        )

    def index_key(self) -> bytes:
        """POST hmac with version 1, whatever version is current: chunk ids must not change when the key is rotated."""
        if self._index is None:
            try:
                data = self._write(
                    f"hmac/{self._name('index')}/sha2-256", {"input": envelope.to_text(_INDEX_INPUT), "key_version": 1}, "update",
                    f"capturing and restoring need it: {self._policy('backup')}, {self._policy('restore')}", self._any(),
                )
            except vault_session.Refused as refused:
                raise self._no_index(refused) from None
            text = str(data.get("hmac") or "")
            key = _bytes(text[len("vault:v1:"):]) if text.startswith("vault:v1:") else None
            if key is None or len(key) != 32:
                raise KeyAccessError(
                    "Vault's answer holds no index key", self._where("index"), "is keys.url a Vault server with the transit engine?",
                )
            self._index = key
        return self._index

    def _no_index(self, refused: vault_session.Refused) -> KeyAccessError:
        """Version 1 is below min_decryption_version (the server keeps it elsewhere then) or min_encryption_version, or was trimmed."""
        if "no such key version" not in refused.said and "too old" not in refused.said:
            return refused
        name = self._name("index")
        return KeyAccessError(
            f"key version is retired: {name} version 1, which is the index key", self._where("index"),
            f"set min_decryption_version to 1 and min_encryption_version to 0 on {name}; if the version was trimmed, restore Vault's own backup",
        )

    def sign(self, data: bytes) -> dict[str, Any]:
        """POST sign with the current version of the signing key."""
        name = self._name("sign")
        session = self._session if self._session.ready() or not self._rotator.ready() else self._rotator
        answer = self._write(f"sign/{name}", {"input": envelope.to_text(data)}, "update", f"capturing needs {self._policy('backup')}", session)
        text = answer.get("signature")
        match = CIPHERTEXT.fullmatch(text) if isinstance(text, str) else None
        value = _bytes(match.group(2)) if match else None
        if match is None or value is None or len(value) != 64:
            raise KeyAccessError("Vault's answer holds no signature", self._where("sign"), f"{name} must be an ed25519 key")
        return signing.describe(name, int(match.group(1)), value)

    def verify(self, data: bytes, signature: dict[str, Any]) -> None:
        """Check here, with public keys kept in memory and in ``path``; asks Vault only for a version not yet known."""
        version = signature.get("version") if isinstance(signature, dict) else None
        if self._publics is None:
            self._publics = self._kept_publics()
        known = isinstance(version, int) and version in self._publics
        if not self._publics or (not known and signature.get("key") == self._name("sign")):
            self._publics = self._merged(self._publics, self._fetch_publics())
        signing.check(data, signature, {(self._name("sign"), number): public for number, public in self._publics.items()}, self._where("sign"))

    # ---- public signing keys ----------------------------------------------------------------------------------

    def signing_publics(self, ask: bool = True) -> dict[tuple[str, int], bytes]:
        """Every version that ``path`` knows, and with ``ask`` those that Vault knows."""
        known = self._kept_publics()
        if ask:
            known = self._publics = self._merged(known, self._fetch_publics())
        return {(self._name("sign"), number): public for number, public in known.items()}

    def _fetch_publics(self) -> dict[int, bytes]:
        found = self._read("sign")
        self._check_kind("sign", found)
        publics = {}
        for number, entry in ((found or {}).get("keys") or {}).items():
            public = _bytes(entry.get("public_key")) if isinstance(entry, dict) else None
            if public is None or len(public) != 32 or not str(number).isdigit():
                raise KeyAccessError(
                    "Vault's answer holds no public key", self._where("sign"), f"{self._name('sign')} must be an ed25519 key",
                )
            publics[int(number)] = public
        return publics

    def _kept_publics(self) -> dict[int, bytes]:
        if self._public_file is None:
            return {}
        try:
            with open(self._public_file, encoding="ascii") as handle:
                return {int(number): envelope.from_text(text) for number, text in json.loads(handle.read(1 << 20)).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise KeyAccessError(
                f"cannot use the kept public keys ({type(error).__name__})", self._public_file, "remove the file; bootstrap writes it again from Vault",
            ) from error

    def _merged(self, kept: dict[int, bytes], fetched: dict[int, bytes]) -> dict[int, bytes]:
        """A version keeps the key it was first seen with: another one under its number is somebody's replacement."""
        changed = sorted(number for number in kept if number in fetched and kept[number] != fetched[number])
        if changed:
            raise KeyAccessError(
                f"Vault's signing key {self._name('sign')} version {changed[0]} is not the one that is kept here", str(self._public_file),
                "the transit key was replaced; find out by whom before the kept file is removed",
            )
        return {**kept, **fetched}

    def _keep_publics(self, path: str) -> bool:
        kept = self._kept_publics()
        merged = self._publics = self._merged(kept, self._fetch_publics())
        if merged == kept:
            return False
        text = json.dumps({str(number): envelope.to_text(public) for number, public in sorted(merged.items())}, indent=1) + "\n"
        try:
            durable.make_dirs(os.path.dirname(path), 0o700, "key")
            durable.replace_file(path, text.encode("ascii"), "mark", 0o644)
        except OSError as error:
            raise StorageError(
                f"cannot keep the public signing keys ({error.strerror})", path, "make room or give write access",
            ) from error
        return True

    # ---- words ------------------------------------------------------------------------------------------------

    def _any(self) -> vault_session.Session:
        """For what both roles may: the one whose credentials are on this host."""
        return self._session if self._session.ready() or not self._opener.ready() else self._opener

    def _write(
        self, path: str, body: dict[str, Any], capability: str, remedy: str, session: vault_session.Session | None = None, partial: bool = False,
    ) -> dict[str, Any]:
        full = f"{self._mount}/{path}"
        hint = f"grant {capability!r} on {full!r}: {remedy}"
        return (session or self._session).request("POST", full, body, capability=capability, remedy=hint, partial=partial) or {}

    def _body(self, context: bytes, item: WrappedKey) -> dict[str, str]:
        return {"ciphertext": item.wrapped, "context": _context(context)}

    def _name(self, kind: str) -> str:
        return f"{self._full}-{kind}"

    def _policy(self, role: str) -> str:
        return f"the {role} policy ({policies.policy_name(self._full, role)})"

    def _where(self, kind: str) -> str:
        return f"{self._session.options.url}/v1/{self._mount}/keys/{self._name(kind)}"

    def _about(self, context: bytes) -> str:
        return f"service {self._service}, snapshot {context.decode('utf-8', 'replace')!r}"


#: kind -> how the key is created and must be found
_KINDS: dict[str, dict[str, Any]] = {
    "data": {"type": "aes256-gcm96", "derived": True},
    "index": {"type": "aes256-gcm96", "derived": False},
    "sign": {"type": "ed25519", "derived": False},
}


#: What belongs to a login alone. A client certificate may be asked of every connection; a login may bring one of its own.
LOGIN = (vault_auth.OPTIONS | {"auth_method"}) - set(vault_auth.CLIENT_CERTIFICATE)


def flattened(config: dict[str, Any], auth: Any, where: str) -> dict[str, Any]:
    """Options of an ``auth: {method: …}`` block beside the others."""
    if auth is None:
        return config
    if not isinstance(auth, dict):
        raise ConfigError("keys.auth is no mapping", where, "for example auth: {method: approle, role_id: …, secret_id_file: …}")
    inner = {("auth_method" if name == "method" else name): value for name, value in auth.items() if value is not None}
    foreign = sorted(set(inner) - vault_auth.OPTIONS - {"auth_method"})
    if foreign:
        raise ConfigError(f"unknown option {foreign[0]!r} in keys.auth", where, f"it takes: method, {', '.join(sorted(vault_auth.OPTIONS))}")
    doubled = sorted(set(inner) & set(config) & LOGIN)
    if doubled:
        raise ConfigError(f"option {doubled[0]!r} is given twice", where, "write it in keys.auth or in keys, not in both")
    return {**config, **inner}


def _context(context: bytes) -> str:
    return envelope.to_text(_CONTEXT + context)


def _bytes(text: Any) -> bytes | None:
    try:
        return envelope.from_text(text) if isinstance(text, str) else None
    except ValueError:
        return None
