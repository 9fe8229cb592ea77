# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Keys in files: hosts hold what seals, the private half lies only where a restore runs.

    path/<service>/data.pub      X25519 public key: data keys are sealed for it
    path/<service>/index.key     32 bytes, 0600: chunk ids, index, capture state
    path/<service>/sign.key      ed25519 seed, 0600
    path/<service>/sign.pub      its public half
    private_path/<service>/data.key            X25519 private key, 0600
    private_path/<service>/{index.key,sign.pub}  copies: what a restore needs, in one place
    private_path/<service>/data-<fingerprint>.key, sign-<fingerprint>.pub   retired halves, still honoured

Every file is one line of base64 of 32 raw bytes. Nothing is ever overwritten but by a rotation (file_rotation.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import replace
from typing import Any

from .. import durable
from ..errors import ConfigError, DamageError, KeyAccessError, StorageError
from . import envelope, key_files, signing
from .file_rotation import FileRotation
from .provider import KeyProvider, KeyVersionError, KeyVersions, WrappedKey

PROVIDER = "file"
_PURPOSE = b"data-key"
_FORMAT = "lbk1"
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}")


class FileProvider(KeyProvider):
    """config: {"provider": "file", "path": directory, "private_path": directory, absent where only captures run}."""

    def __init__(self, config: dict[str, Any], service: str) -> None:
        unknown = sorted(set(config) - {"provider", "path", "private_path"})
        if unknown:
            raise ConfigError(
                f"unknown option {unknown[0]!r} of the file key provider", f"keys of service {service}", "it takes: path, private_path",
            )
        if not isinstance(config.get("path"), str) or not config["path"]:
            raise ConfigError(
                "keys.path is missing", f"keys of service {service}", "name the directory that holds the keys of capturing hosts",
            )
        if not _SERVICE.fullmatch(service):
            raise ConfigError("service name cannot name a key directory", repr(service), "use letters, digits, '-', '_' and '.'")
        self._service = service
        self._public_dir = os.path.join(os.path.abspath(os.path.expanduser(config["path"])), service)
        private = config.get("private_path")
        self._private_dir = os.path.join(os.path.abspath(os.path.expanduser(str(private))), service) if private else None
        self._openers: dict[str, bytes] | None = None
        self._rotation = FileRotation(service, self._public_dir, self._private_dir)

    # ---- making keys ------------------------------------------------------------------------------------------

    def ensure(self) -> bool:
        """Create what is missing, in an order that a crash may cut anywhere: index, signing, private half, data.pub last.

        Once data.pub or data.key exists the service may have snapshots: from then on nothing that they
        depend on is made anew, only copied or derived; what is lost is named. Any number of processes may call it.
        """
        data_pub = self._at_path("data.pub")
        data_key = self._at_private("data.key")
        established = key_files.exists(data_pub) or key_files.exists(data_key)
        if not established and data_key is None:
            raise KeyAccessError(
                f"service {self._service} has no data key", data_pub,
                "run bootstrap once on the machine that keeps keys.private_path, then copy this directory to the capturing hosts",
            )
        directories = [each for each in (self._public_dir, self._private_dir) if each]
        made = sum(self._make_dir(each) for each in directories) > 0
        with contextlib.ExitStack() as locks:
            for each in directories:
                locks.enter_context(key_files.sole_writer(each))
            made = self._rotation.complete() or made
            made = self._ensure_index(established) or made
            made = self._ensure_signing(established) or made
            return self._ensure_data(data_pub, data_key) or made

    def _ensure_index(self, established: bool) -> bool:
        path, copy = self._at_path("index.key"), self._at_private("index.key")
        if not key_files.exists(path) and copy is not None and key_files.exists(copy):
            return key_files.place(path, key_files.read_private(copy))
        if not key_files.exists(path) and established:
            raise KeyAccessError(
                f"the index key of service {self._service} is lost", path,
                "put index.key back from the machine that restores or another capturing host; a new one would open no snapshot",
            )
        made = key_files.create(path, lambda: secrets.token_bytes(32))
        return key_files.place(copy, key_files.read_private(path)) or made

    def _ensure_signing(self, established: bool) -> bool:
        path = self._at_path("sign.key")
        publics = [each for each in (self._at_path("sign.pub"), self._at_private("sign.pub")) if each]
        made = False
        if not key_files.exists(path):
            if any(key_files.exists(each) for each in publics):
                # Whoever only restores or verifies has the public half alone. sign() says what is missing.
                known = next(each for each in publics if key_files.exists(each))
                for each in publics:
                    made = key_files.place(each, key_files.read_public(known)) or made
                return made
            if established and not self._retired(".pub"):
                raise KeyAccessError(
                    f"the signing key of service {self._service} is lost", path,
                    "put sign.key back; or, to start a new one, put its public half here as sign-<fingerprint>.pub and run bootstrap again",
                )
            made = key_files.create(path, signing.new_private)
        public = signing.public_of(key_files.read_private(path))
        for each in publics:
            made = key_files.place(each, public) or made
        return made

    def _ensure_data(self, data_pub: str, data_key: str | None) -> bool:
        if data_key is None:
            key_files.read_public(data_pub)
            return False
        if key_files.exists(data_pub) and not key_files.exists(data_key):
            return False  # the private half lives elsewhere; making one here would orphan every snapshot
        made = key_files.create(data_key, envelope.new_private)
        return key_files.place(data_pub, envelope.public_of(key_files.read_private(data_key))) or made

    # ---- using keys -------------------------------------------------------------------------------------------

    def new_data_key(self, context: bytes) -> tuple[bytes, WrappedKey]:
        """A fresh data key sealed for data.pub; the private half is not needed."""
        key = secrets.token_bytes(32)
        return key, self._sealed(context, key)

    def _sealed(self, context: bytes, key: bytes) -> WrappedKey:
        public = self._data_public()
        mark = envelope.fingerprint(public)
        try:
            sealed = envelope.seal(public, key, context, _PURPOSE)
        except ValueError as error:
            raise KeyAccessError("not a usable X25519 public key", self._at_path("data.pub"), "put the service's data.pub back") from error
        return WrappedKey(PROVIDER, f"{self._service}-data@{mark}", 1, f"{_FORMAT}.{mark}.{envelope.to_text(sealed)}")

    def open_data_keys(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[bytes]:
        """Open data keys with data.key or a retired data-<fingerprint>.key."""
        return [self._open(context, item) for context, item in wrapped]

    def _open(self, context: bytes, item: WrappedKey) -> bytes:
        # the context binds the key to its place and ends with the name of the key object
        where = f"service {self._service}, data key {context.decode('utf-8', 'replace').rpartition('/')[2]!r}"
        if item.provider != PROVIDER:
            raise KeyAccessError(
                f"data key is kept by provider {item.provider!r}", where, "set keys.provider in the catalog to that provider",
            )
        openers = self._private_keys()
        mark, sealed = self._parsed(item, where)
        if mark not in openers and mark in self._rotation.retired():
            raise KeyVersionError(
                f"key version is retired: {item.key}", where, "restore a newer snapshot, or one that was rewrapped (rotate_keys)",
            )
        if mark not in openers:
            have = " and ".join(sorted(openers))
            raise KeyVersionError(
                f"wrong key: sealed for data key {mark}, this is {have}", f"{self._private_dir}, {where}",
                f"put the private half of {mark} there as data-{mark}.key, or set keys.private_path to the directory that has it",
            )
        try:
            key = envelope.unseal(openers[mark], sealed, context, _PURPOSE)
        except DamageError as error:
            raise DamageError(error.what, where, error.remedy) from error
        if len(key) != 32:
            raise DamageError("sealed data key has a wrong length", where, "restore another snapshot")
        return key

    def _parsed(self, item: WrappedKey, where: str) -> tuple[str, bytes]:
        """(fingerprint, sealed key) of a stored form; DamageError unless it is one of this service."""
        try:
            form, mark, text = item.wrapped.split(".")
            sealed = envelope.from_text(text)
            if form != _FORMAT or item.version != 1 or not re.fullmatch("[0-9a-f]{16}", mark) or item.key != f"{self._service}-data@{mark}":
                raise ValueError("unknown form")
        except ValueError as error:
            raise DamageError(
                "wrapped data key is malformed", where, "restore another snapshot, or this object from a second repository",
            ) from error
        return mark, sealed

    # ---- the life of the data key -----------------------------------------------------------------------------

    def versions(self) -> KeyVersions:
        """A version is a pair of keys; see file_rotation.py."""
        return self._rotation.versions()

    def number_of(self, wrapped: WrappedKey) -> int:
        return self._rotation.number_of(self._parsed(wrapped, f"service {self._service}, key {wrapped.key[:120]}")[0])

    def rotate(self, after: int) -> int:
        self._openers = None
        return self._rotation.rotate(after)

    def rewrap(self, wrapped: list[tuple[bytes, WrappedKey]]) -> list[WrappedKey]:
        """Open with the old half, seal for the new one: without a server between, whoever rewraps here can also open."""
        return [replace(self._sealed(context, self._open(context, item)), escrow=item.escrow) for context, item in wrapped]

    def retire(self, through: int) -> None:
        self._openers = None
        self._rotation.retire(through)

    def destroy(self) -> list[str]:
        self._openers = {}
        return self._rotation.destroy()

    def index_key(self) -> bytes:
        """The index key from ``path``, or its copy where a restore runs."""
        for each in (self._at_path("index.key"), self._at_private("index.key")):
            if each is not None and key_files.exists(each):
                return key_files.read_private(each)
        raise KeyAccessError(
            f"no index key for service {self._service}", self._at_path("index.key"),
            "run bootstrap, or copy index.key from a capturing host",
        )

    def sign(self, data: bytes) -> dict[str, Any]:
        """Sign with sign.key."""
        path = self._at_path("sign.key")
        if not key_files.exists(path):
            raise KeyAccessError(
                f"no signing key for service {self._service}", path, "run bootstrap, or copy sign.key from another capturing host",
            )
        private = key_files.read_private(path)
        return signing.describe(self._sign_name(signing.public_of(private)), 1, signing.sign(private, data))

    def verify(self, data: bytes, signature: dict[str, Any]) -> None:
        """Check against sign.pub and retired sign-<fingerprint>.pub, in ``path`` and ``private_path``; needs no secret."""
        signing.check(data, signature, self.signing_publics(), f"{self._at_path('sign.pub')}")

    def signing_publics(self, ask: bool = True) -> dict[tuple[str, int], bytes]:
        """sign.pub and retired ones."""
        return {(self._sign_name(each), 1): each for each in self._sign_publics()}

    # ---- files ------------------------------------------------------------------------------------------------

    def _sign_name(self, public: bytes) -> str:
        return f"{self._service}-sign@{envelope.fingerprint(public)}"

    def _sign_publics(self) -> list[bytes]:
        current = [each for each in (self._at_path("sign.pub"), self._at_private("sign.pub")) if each is not None and key_files.exists(each)]
        return [key_files.read_public(each) for each in current + self._retired(".pub")]

    def _data_public(self) -> bytes:
        path = self._at_path("data.pub")
        if key_files.exists(path):
            return key_files.read_public(path)
        private = self._at_private("data.key")
        if private is not None and key_files.exists(private):
            return envelope.public_of(key_files.read_private(private))
        raise KeyAccessError(
            f"no data key to seal for: service {self._service}", path, "run bootstrap, or copy data.pub from the machine that restores",
        )

    def _private_keys(self) -> dict[str, bytes]:
        """{fingerprint: private key}, read once and kept in memory."""
        if self._openers is None:
            if self._private_dir is None:
                raise KeyAccessError(
                    f"this host can seal but not open data keys of service {self._service}", "keys.private_path is not set",
                    "run the restore where the private half is and set keys.private_path there",
                )
            current = os.path.join(self._private_dir, "data.key")
            paths = ([current] if key_files.exists(current) else []) + self._retired(".key")
            if not paths:
                raise KeyAccessError(
                    f"the private half of the data key of service {self._service} is missing", current,
                    "put data.key back from the safe place where its copy is kept; without it no snapshot can be opened",
                )
            keys = [key_files.read_private(each) for each in paths]
            retired = self._rotation.retired()
            found = {envelope.fingerprint(envelope.public_of(each)): each for each in keys}
            self._openers = {mark: key for mark, key in found.items() if mark not in retired}
        return self._openers

    def _retired(self, suffix: str) -> list[str]:
        """sign-<fingerprint>.pub of both directories, or data-<fingerprint>.key of the private one."""
        pattern = re.compile(("sign" if suffix == ".pub" else "data") + "-[0-9a-f]{16}" + re.escape(suffix))
        found = []
        for directory in (self._public_dir, self._private_dir):
            if directory is not None and os.path.isdir(directory):
                try:
                    found += [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if pattern.fullmatch(name)]
                except OSError as error:
                    raise KeyAccessError(
                        f"cannot list keys ({error.strerror})", directory, "give the user that runs Lifeboat access to it",
                    ) from error
        return found

    def _at_path(self, name: str) -> str:
        return os.path.join(self._public_dir, name)

    def _at_private(self, name: str) -> str | None:
        return os.path.join(self._private_dir, name) if self._private_dir else None

    def _make_dir(self, path: str) -> bool:
        if os.path.isdir(path):
            return False
        try:
            durable.make_dirs(path, 0o700, key_files.SUBJECT)
        except OSError as error:
            raise StorageError(
                f"cannot create the key directory ({error.strerror})", path, "give the user that runs Lifeboat write access there",
            ) from error
        return True
