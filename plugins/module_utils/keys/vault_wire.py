# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Requests to a Vault (or OpenBao) server: how it is reached, what is asked again, and what it said in one line.

Status codes: https://developer.hashicorp.com/vault/api-docs#http-status-codes and …/api-docs/system/health.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import ConfigError, KeyAccessError
from ..libraries import need
from . import vault_auth

#: connection options, named as in community.hashi_vault (those of auth methods are in vault_auth); ca_file is the catalog's word
OPTIONS = frozenset({
    "url", "auth_method", "namespace", "ca_cert", "ca_file", "validate_certs", "timeout", "retries", "proxies", *vault_auth.CLIENT_CERTIFICATE,
})

#: worth asking again: missing state of a replica, throttled, internal (also "no active node yet"), gateway, sealed, standby
_RETRIED = frozenset({412, 429, 472, 473, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 307, 308})
_LONGEST_PAUSE = 5.0
#: A server that asks for more patience than this (Retry-After) gets this much.
_LONGEST_WISH = 30.0


@dataclass(frozen=True)
class Options:
    """How to reach the server. timeout: seconds per request; retries: further attempts after the first."""

    url: str
    namespace: str | None
    verify: bool | str
    timeout: float
    retries: int
    certificate: tuple[str, str] | None
    proxies: dict[str, str] | None

    @classmethod
    def of(cls, config: dict[str, Any], where: str) -> Options:
        """Validate; ConfigError names the option. Plain http is for loopback, or for who also wrote validate_certs: false.

        Without ``url`` the environment speaks, as it does to Vault's own command: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT.
        """
        if not config.get("url"):
            config = {**_from_environment(), **config}
        url = str(config.get("url") or "").rstrip("/")
        if not _is_address(url):
            raise ConfigError("keys.url is missing or no http(s) address", where, "for example url: https://vault.example.org:8200")
        validate = config.get("validate_certs", True)
        if not isinstance(validate, bool):
            raise ConfigError("keys.validate_certs is neither true nor false", where, "leave it out to have certificates checked")
        if validate and not _is_closed(url):
            raise ConfigError(
                "keys.url would send data keys over plain http", url, "use https; only for a closed test network: validate_certs: false",
            )
        ca_cert = os.path.expanduser(str(config.get("ca_cert") or config.get("ca_file") or ""))
        if ca_cert and not os.path.exists(ca_cert):
            raise ConfigError("the CA certificate for Vault does not exist on this host", ca_cert, "put the CA certificate there")
        timeout, retries = config.get("timeout", 15), config.get("retries", 4)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 600:
            raise ConfigError("keys.timeout is no number of seconds up to 600", where, "the default is 15")
        if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 20:
            raise ConfigError("keys.retries is no whole number up to 20", where, "the default is 4")
        return cls(
            url, str(config["namespace"]) if config.get("namespace") else None, ca_cert if ca_cert and validate else validate,
            float(timeout), retries, _certificate(config, where), _proxies(config.get("proxies"), where),
        )


def _from_environment() -> dict[str, Any]:
    found = {"url": os.environ.get("ANSIBLE_HASHI_VAULT_ADDR") or os.environ.get("VAULT_ADDR")}
    if found["url"]:
        found["namespace"] = os.environ.get("ANSIBLE_HASHI_VAULT_NAMESPACE") or os.environ.get("VAULT_NAMESPACE")
        found["ca_cert"] = os.environ.get("ANSIBLE_HASHI_VAULT_CA_CERT") or os.environ.get("VAULT_CACERT")
    return {name: value for name, value in found.items() if value}


def _is_address(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and not parts.query


def _is_closed(url: str) -> bool:
    """Whether nobody on the way can read: TLS, or no way at all."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "::1") or str(parts.hostname).startswith("127.")


def _certificate(config: dict[str, Any], where: str) -> tuple[str, str] | None:
    public, private = (os.path.expanduser(str(config.get(name) or "")) for name in vault_auth.CLIENT_CERTIFICATE)
    if bool(public) != bool(private):
        raise ConfigError("keys.cert_auth_public_key and keys.cert_auth_private_key belong together", where, "give both files or none")
    return (public, private) if public else None


def _proxies(value: Any, where: str) -> dict[str, str] | None:
    """One address for http and https, or one for each; a proxy's password would be stored with the catalog."""
    if value is None:
        return None
    proxies = value if isinstance(value, dict) else {"http": value, "https": value}
    if set(proxies) - {"http", "https"} or not all(isinstance(each, str) and _is_address(each) for each in proxies.values()):
        raise ConfigError("keys.proxies is no address of a proxy", where, "for example proxies: http://proxy.example.org:3128, without a password")
    return {str(scheme): str(address) for scheme, address in proxies.items()}


class Wire:
    """Sends one request at a time per thread. No token, secret-id or key ever enters a message."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._adapters: dict[str, Any] = {}

    def reset(self) -> None:
        """Close connections: the next request presents the client certificate as it is then in its file."""
        with self._lock:
            adapters, self._adapters = self._adapters, {}
        for each in adapters.values():
            each.close()

    def send(self, method: str, path: str, body: dict[str, Any] | None, token: str, once: bool = False) -> tuple[int, dict[str, Any]]:
        """(status, JSON answer) of a request with its retries; KeyAccessError when the server cannot be reached or stays down.

        once: what must not be done twice is not repeated when its answer did not arrive.
        """
        self._check_certificate()
        exceptions = need("requests.exceptions")
        hvac_exceptions = need("hvac.exceptions")
        trouble, wish, attempts = "", 0.0, 1 if once else self.options.retries + 1
        for attempt in range(attempts):
            if attempt:
                time.sleep(pause(attempt, wish))
            try:
                response = self._ask(method, path, body, token)
            except exceptions.SSLError as error:
                raise self._no_tls() from error
            except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError) as error:
                if "alert" in str(error):  # with TLS 1.3 a server's refusal of the client's certificate arrives with the first answer
                    raise self._no_tls() from error
                trouble, wish = "timed out" if isinstance(error, exceptions.Timeout) else "cannot be reached", 0.0
                continue
            except (exceptions.RequestException, hvac_exceptions.VaultError) as error:
                raise KeyAccessError(
                    f"Vault cannot be asked ({type(error).__name__})", self.options.url, "check keys.url and proxy settings",
                ) from error
            answer = _json(response)
            if response.status_code not in _RETRIED or _is_answer(answer):
                return int(response.status_code), answer
            told = said(answer)
            trouble = "is sealed" if "sealed" in told else f"answers {response.status_code}" + (f" ({told})" if told else "")
            wish = _wish(response)
        raise KeyAccessError(
            f"Vault {trouble}, asked {attempts} times" if attempts > 1 else f"Vault {trouble}", f"{self.options.url}/v1/{path}",
            "unseal or start it, or wait for its leader election, then repeat the command; nothing was changed",
        ).passing()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, token: str) -> Any:
        """One request; a standby node may send it on to the active one, never to somewhere less closed."""
        server = self.options.url
        for _hop in range(3):
            response = self._adapter(server).request(
                method, f"/v1/{path}", headers={"X-Vault-Token": token} if token else {}, raise_exception=False, json=body,
            )
            if response.status_code not in _REDIRECTS:
                return response
            place, ending = response.headers.get("Location") or "", f"/v1/{path}"
            target = urlsplit(urljoin(f"{server}{ending}", place))
            asked = target.path + (f"?{target.query}" if target.query else "")
            server = f"{target.scheme}://{target.netloc}{asked[:-len(ending)]}"
            downgrade = self.options.url.startswith("https:") and target.scheme != "https"
            if not place or not asked.endswith(ending) or not _is_address(server) or downgrade or (self.options.verify and not _is_closed(server)):
                break
        raise KeyAccessError(
            "Vault sends the request elsewhere, where it is not followed", f"{self.options.url}/v1/{path}", "set keys.url to the address of the active node",
        )

    def _adapter(self, server: str) -> Any:
        """hvac's adapter, without a token of its own: each request carries the one it was made for."""
        with self._lock:
            if server not in self._adapters:
                self._adapters[server] = need("hvac.adapters").RawAdapter(
                    base_uri=server, token=None, cert=self.options.certificate, verify=self.options.verify, timeout=self.options.timeout,
                    proxies=self.options.proxies, allow_redirects=False, namespace=self.options.namespace,
                )
            return self._adapters[server]

    def _check_certificate(self) -> None:
        for path in self.options.certificate or ():
            try:
                with open(path, "rb") as handle:
                    mode = os.fstat(handle.fileno()).st_mode
            except OSError as error:
                raise KeyAccessError(
                    f"cannot read the client certificate for Vault ({error.strerror})", path, "put it there, readable by the user that runs Lifeboat",
                ) from error
            if self.options.certificate and path == self.options.certificate[1]:
                vault_auth.check_private(path, mode)

    def _no_tls(self) -> KeyAccessError:
        if self.options.certificate:
            return KeyAccessError(
                "no TLS with Vault: its certificate, or the client's, is not accepted", self.options.url,
                "set keys.ca_file to the CA that signed Vault's, use the name in it, and renew the client certificate",
            )
        return KeyAccessError(
            "Vault's TLS certificate is not trusted or does not fit", self.options.url,
            "set keys.ca_file to the CA that signed it, and use the name in it; a server that asks for one needs keys.cert_auth_public_key",
        )


def pause(attempt: int, wish: float = 0.0) -> float:
    """Seconds before a further attempt. Full jitter: many hosts that lost the same server do not come back in step."""
    return wish + random.uniform(0.05, min(_LONGEST_PAUSE, 0.25 * 2 ** attempt))


def _wish(response: Any) -> float:
    """How long a throttling server asks to be left alone (Retry-After in seconds), bounded."""
    text = str(response.headers.get("Retry-After") or "")
    return min(float(text), _LONGEST_WISH) if text.isdigit() else 0.0


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


def said(answer: dict[str, Any]) -> str:
    """The server's reasons, one line, bounded."""
    errors = answer.get("errors")
    if not isinstance(errors, list):
        return ""
    text = " ".join(" ".join(str(each) for each in errors).split())
    return "".join(letter for letter in text if letter.isprintable())[:200]
