# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One conversation with a Vault (or OpenBao) server: options, login, renewal, retries, and errors in our words.

No token, secret-id or key ever enters a message: errors carry the path, the capability it needs and, of the
server's own text, only what it says about the request.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError, KeyAccessError, LifeboatError
from ..libraries import need
from . import vault_auth

#: connection options, named as in community.hashi_vault (those of auth methods are in vault_auth); ca_file is the catalog's word
OPTIONS = frozenset({"url", "auth_method", "namespace", "ca_cert", "ca_file", "validate_certs", "timeout", "retries"})

#: worth asking again: missing state of a replica, throttled, internal (also "no active node yet"), gateway, sealed, standby
_RETRIED = frozenset({412, 429, 472, 473, 500, 502, 503, 504})
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class Options:
    """How to reach the server. timeout: seconds per request; retries: further attempts after the first."""

    url: str
    namespace: str | None
    verify: bool | str
    timeout: float
    retries: int

    @classmethod
    def of(cls, config: dict[str, Any], where: str) -> Options:
        """Validate; ConfigError names the option. Plain http is for loopback, or for who also wrote validate_certs: false."""
        url = str(config.get("url") or os.environ.get("VAULT_ADDR") or "").rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError("keys.url is missing or no http(s) address", where, "for example url: https://vault.example.org:8200")
        validate = config.get("validate_certs", True)
        if not isinstance(validate, bool):
            raise ConfigError("keys.validate_certs is neither true nor false", where, "leave it out to have certificates checked")
        loopback = parts.hostname == "localhost" or parts.hostname == "::1" or parts.hostname.startswith("127.")
        if parts.scheme == "http" and not loopback and validate:
            raise ConfigError(
                "keys.url would send data keys over plain http", url, "use https; only for a closed test network: validate_certs: false",
            )
        ca_cert = config.get("ca_cert") or config.get("ca_file")
        if ca_cert and not os.path.exists(os.path.expanduser(str(ca_cert))):
            raise ConfigError(
                "the CA certificate for Vault does not exist on this host", str(ca_cert), "put the CA certificate there",
            )
        timeout, retries = config.get("timeout", 15), config.get("retries", 4)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 600:
            raise ConfigError("keys.timeout is no number of seconds up to 600", where, "the default is 15")
        if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 20:
            raise ConfigError("keys.retries is no whole number up to 20", where, "the default is 4")
        verify: bool | str = os.path.expanduser(str(ca_cert)) if ca_cert and validate else validate
        return cls(url, str(config["namespace"]) if config.get("namespace") else None, verify, float(timeout), retries)


class Session:
    """Requests with a token that is obtained, renewed and replaced as needed. Safe for several threads."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.options = Options.of(config, where)
        self._auth = vault_auth.method_for(config, where)
        self._lock = threading.RLock()
        self._adapter: Any = None
        self._login: vault_auth.Login | None = None
        self._fresh_until = 0.0  # monotonic seconds; 0: never asks for renewal

    def ready(self) -> bool:
        """Whether this host holds credentials for this session; asks nobody."""
        return bool(self._auth.ready())

    def request(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, capability: str, remedy: str = "", partial: bool = False,
    ) -> dict[str, Any] | None:
        """The ``data`` of an answer; {} when it has none; None for 404 on a read.

        capability, remedy: what to say when the server denies. partial: an error answer that carries results per item is an answer.
        """
        renewed = False
        while True:
            token = self._token()
            status, answer = self._send(method, path, body, token)
            if status == 403 and not renewed and self._replace(token):
                renewed = True
                continue
            break
        data = answer.get("data")
        if status < 400 or (partial and isinstance(data, dict) and data.get("batch_results")):
            return data if isinstance(data, dict) else {}
        said = _said(answer)
        if status == 404 and method == "GET" and not said:
            return None
        if status == 403:
            raise self._denied(path, capability, remedy, token)
        if status == 404 or "no handler for route" in said:
            raise KeyAccessError(
                "Vault has nothing at this path", f"{self.options.url}/v1/{path}",
                "mount the engine there, or correct keys.mount or namespace",
            )
        raise KeyAccessError(
            f"Vault refused ({status}: {said or 'no reason given'})", f"{self.options.url}/v1/{path}",
            "run bootstrap to create the service's keys; check keys.mount and namespace" if "not found" in said else "Vault's audit log has the request",
        )

    # ---- token ------------------------------------------------------------------------------------------------

    def _token(self) -> str:
        """The current token; renewed, or replaced, when two thirds of its life are over."""
        with self._lock:
            login = self._login
            if login is None:
                login = self._use(self._enter())
            elif self._fresh_until and time.monotonic() > self._fresh_until:
                login = self._refresh(login)
            return login.token

    def _enter(self) -> vault_auth.Login:
        login: vault_auth.Login = self._auth.login(self._call_unauthenticated)
        if login.ttl == 0 and self._auth.name == "token":
            # How long does a token from elsewhere live? Not being allowed to ask is no error; a dead one shows at its first use.
            status, answer = self._send("GET", "auth/token/lookup-self", None, login.token)
            data = answer.get("data")
            if status == 200 and isinstance(data, dict):
                return vault_auth.Login(login.token, int(data.get("ttl") or 0), bool(data.get("renewable")))
        return login

    def _use(self, login: vault_auth.Login) -> vault_auth.Login:
        self._login = login
        self._fresh_until = time.monotonic() + login.ttl * 2 / 3 if login.ttl else 0.0
        return login

    def _refresh(self, old: vault_auth.Login) -> vault_auth.Login:
        """Prolong the token, or log in again when it does not get its old life back. A failure here leaves the token in use:
        it is still valid, and its end is reported by the request that meets it."""
        try:
            if old.renewable:
                status, answer = self._send("POST", "auth/token/renew-self", {}, old.token)
                if status == 200:
                    renewed = vault_auth.login_of(answer, self.options.url)
                    if renewed.ttl * 2 > old.ttl or self._auth.name == "token":
                        return self._use(vault_auth.Login(old.token, renewed.ttl, renewed.renewable))
            return self._use(self._enter())
        except LifeboatError:
            self._fresh_until = time.monotonic() + max(1.0, old.ttl / 12)
            return old

    def _replace(self, refused: str) -> bool:
        """After a 403: True when there is now another token than the refused one. A token that is alive lacks a right instead."""
        with self._lock:
            if self._login is not None and self._login.token != refused:
                return True  # another thread was here first
            if self._alive(refused):
                return False
            login = self._enter()
            if login.token == refused:
                return False
            self._use(login)
            return True

    def _alive(self, token: str) -> bool:
        status, _answer = self._send("GET", "auth/token/lookup-self", None, token)
        return status == 200

    def _denied(self, path: str, capability: str, remedy: str, token: str) -> KeyAccessError:
        where = f"{self.options.url}/v1/{path}"
        if self._alive(token):
            return KeyAccessError(
                f"Vault denies this role {capability!r} on {path}", where, remedy or f"give the role a policy with capability {capability!r} on {path!r}",
            )
        return KeyAccessError(
            f"the Vault token is expired, revoked or unknown (needed: {capability!r} on {path})", where,
            "log in anew or give a fresh token or secret-id, then repeat the command",
        )

    # ---- wire -------------------------------------------------------------------------------------------------

    def _call_unauthenticated(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = self._send(method, path, body, "")
        if status >= 400:
            # its own text stays out: some servers repeat the secret-id in it
            raise KeyAccessError(
                f"Vault refused the login with status {status}", f"{self.options.url}/v1/{path}",
                "check role_id and secret_id (expired, used up or revoked?), mount_point and namespace",
            )
        return answer

    def _send(self, method: str, path: str, body: dict[str, Any] | None, token: str) -> tuple[int, dict[str, Any]]:
        """One request with its retries: (status, JSON answer). KeyAccessError when the server cannot be reached or stays down."""
        exceptions = need("requests.exceptions")
        hvac_exceptions = need("hvac.exceptions")
        trouble, attempts = "", self.options.retries + 1
        for attempt in range(attempts):
            if attempt:
                # full jitter: many hosts that lost the same server do not come back in step
                time.sleep(random.uniform(0.05, min(_LONGEST_PAUSE, 0.25 * 2 ** attempt)))
            try:
                response = self._http().request(
                    method, f"/v1/{path}", headers={"X-Vault-Token": token} if token else {}, raise_exception=False, json=body,
                )
            except exceptions.SSLError as error:
                raise KeyAccessError(
                    "Vault's TLS certificate is not trusted or does not fit", self.options.url,
                    "set keys.ca_file to the CA that signed it, and use the name in it",
                ) from error
            except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError) as error:
                trouble = "timed out" if isinstance(error, exceptions.Timeout) else "cannot be reached"
                continue
            except (exceptions.RequestException, hvac_exceptions.VaultError) as error:
                raise KeyAccessError(
                    f"Vault cannot be asked ({type(error).__name__})", self.options.url, "check keys.url and proxy settings",
                ) from error
            answer = _json(response)
            if response.status_code not in _RETRIED or _is_answer(answer):
                return int(response.status_code), answer
            said = _said(answer)
            trouble = "is sealed" if "sealed" in said else f"answers {response.status_code}" + (f" ({said})" if said else "")
        raise KeyAccessError(
            f"Vault {trouble}, asked {attempts} times", f"{self.options.url}/v1/{path}",
            "unseal or start it, or wait for its leader election, then repeat the command; nothing was changed",
        )

    def _http(self) -> Any:
        """hvac's adapter, without a token of its own: each request carries the one it was made for."""
        with self._lock:
            if self._adapter is None:
                adapters = need("hvac.adapters")
                self._adapter = adapters.RawAdapter(
                    base_uri=self.options.url, token=None, verify=self.options.verify, timeout=self.options.timeout, namespace=self.options.namespace,
                )
            return self._adapter


def _json(response: Any) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _is_answer(answer: dict[str, Any]) -> bool:
    """Results per item came with the error status: asking again would give the same."""
    data = answer.get("data")
    return isinstance(data, dict) and bool(data.get("batch_results"))


def _said(answer: dict[str, Any]) -> str:
    """The server's reasons, one line, bounded."""
    errors = answer.get("errors")
    if not isinstance(errors, list):
        return ""
    text = " ".join(" ".join(str(each) for each in errors).split())
    return "".join(letter for letter in text if letter.isprintable())[:200]
