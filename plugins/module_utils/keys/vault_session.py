# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One conversation with a Vault (or OpenBao) server: login, renewal, replacement of a token, and errors in our words.

https://developer.hashicorp.com/vault/api-docs/auth/token #lookup-a-token-self, #renew-a-token-self. Errors carry the path, the
capability it needs and, of the server's own text, only what it says about the request.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from typing import Any

from ..errors import KeyAccessError, LifeboatError
from . import vault_auth, vault_wire

#: what a session takes besides the options of vault_auth
OPTIONS = vault_wire.OPTIONS
_NEVER = float("inf")


class Refused(KeyAccessError):
    """The server understood and said no. said: its reasons, one line; status: its status code."""

    def __init__(self, what: str, where: str, remedy: str, status: int, said: str) -> None:
        super().__init__(what, where, remedy)
        self.status = status
        self.said = said


class _LoginRefused(KeyAccessError):
    """The credentials themselves are no longer accepted."""


class Session:
    """Requests with a token that is obtained, renewed and replaced as needed. Safe for several threads."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.options = vault_wire.Options.of(config, where)
        self._wire = vault_wire.Wire(self.options)
        self._auth = vault_auth.method_for(config, where)
        self._turn = threading.Lock()  # one login or renewal at a time; requests go on with the token that is there
        self._login: vault_auth.Login | None = None
        self._fresh_until = _NEVER  # monotonic seconds
        self._keeper: _Keeper | None = None

    def ready(self) -> bool:
        """Whether this host holds credentials for this session; asks nobody."""
        return bool(self._auth.ready())

    def request(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, capability: str, remedy: str = "", partial: bool = False, once: bool = False,
    ) -> dict[str, Any] | None:
        """The ``data`` of an answer; {} when it has none; None for 404 on a read.

        capability, remedy: what to say when the server denies. partial: an error answer that carries results per item is an answer.
        once: not repeated when the answer did not arrive.
        """
        try:
            token = self._token()
            status, answer = self._wire.send(method, path, body, token, once)
            if status == 403 and self._replace(token, answer):
                token = self._token()
                status, answer = self._wire.send(method, path, body, token, once)
        except _LoginRefused as error:
            raise KeyAccessError(f"{error.what} (needed: {capability!r} on {path})", error.where, "; ".join(filter(None, (error.remedy, remedy)))) from None
        data = answer.get("data")
        if status < 400 or (partial and isinstance(data, dict) and data.get("batch_results")):
            return data if isinstance(data, dict) else {}
        told = vault_wire.said(answer)
        if status == 404 and method == "GET" and not told:
            return None
        if status == 403:
            raise self._denied(path, capability, remedy, token, answer)
        if status == 404 or "no handler for route" in told:
            raise KeyAccessError(
                "Vault has nothing at this path", f"{self.options.url}/v1/{path}",
                "mount the engine there, or correct keys.mount or namespace",
            )
        raise Refused(
            f"Vault refused ({status}: {told or 'no reason given'})", f"{self.options.url}/v1/{path}",
            "run bootstrap to create the service's keys; check keys.mount and namespace" if "not found" in told else "Vault's audit log has the request",
            status, told,
        )

    # ---- token ------------------------------------------------------------------------------------------------

    def _token(self) -> str:
        """The current token; renewed, or replaced, when two thirds of its life are over."""
        login = self._login
        if login is None:
            with self._turn:
                return (self._login or self._use(self._enter())).token
        if time.monotonic() > self._fresh_until and self._turn.acquire(blocking=False):
            try:
                self._refresh_if_due()
            finally:
                self._turn.release()
        return (self._login or login).token

    def _enter(self) -> vault_auth.Login:
        if self.options.certificate:
            self._wire.reset()  # a renewed one counts
        login: vault_auth.Login = self._auth.login(self._call_unauthenticated)
        if login.ttl == 0 and self._auth.name == "token":
            # How long does a token from elsewhere live? Not being allowed to ask is no error; a dead one shows at its first use.
            status, answer = self._wire.send("GET", "auth/token/lookup-self", None, login.token)
            data = answer.get("data")
            if status == 200 and isinstance(data, dict):
                return vault_auth.Login(login.token, int(data.get("ttl") or 0), bool(data.get("renewable")))
        return login

    def _use(self, login: vault_auth.Login) -> vault_auth.Login:
        self._login = login
        self._fresh_until = time.monotonic() + login.ttl * 2 / 3 if login.ttl else _NEVER
        if login.ttl and (self._keeper is None or not self._keeper.is_alive()):
            self._keeper = _Keeper(self)
            self._keeper.start()
        return login

    def due(self) -> float | None:
        """Seconds until the token should be renewed; None: never."""
        return None if self._fresh_until == _NEVER else max(0.1, self._fresh_until - time.monotonic())

    def keep(self) -> None:
        """Renew the token if it is time."""
        with self._turn:
            self._refresh_if_due()

    def _refresh_if_due(self) -> None:
        if self._login is not None and time.monotonic() > self._fresh_until:
            self._refresh(self._login)

    def _refresh(self, old: vault_auth.Login) -> None:
        """Prolong the token, or log in again when it does not get its old life back. A failure here leaves the token in use:
        it is still valid, and its end is reported by the request that meets it."""
        try:
            if old.renewable:
                status, answer = self._wire.send("POST", "auth/token/renew-self", {}, old.token)
                if status == 200:
                    renewed = vault_auth.login_of(answer, self.options.url)
                    if renewed.ttl * 2 > old.ttl or self._auth.name == "token":
                        self._use(vault_auth.Login(old.token, renewed.ttl, renewed.renewable))
                        return
            self._use(self._enter())
        except LifeboatError:
            self._fresh_until = time.monotonic() + max(1.0, old.ttl / 12)

    def _replace(self, refused: str, answer: dict[str, Any]) -> bool:
        """After a 403: True when there is now another token than the refused one. A token that is alive lacks a right instead."""
        with self._turn:
            if self._login is not None and self._login.token != refused:
                return True  # another thread was here first
            if not _is_dead(answer) and self._lives(refused):
                return False
            login = self._enter()
            if login.token == refused:
                return False
            self._use(login)
            return True

    def _lives(self, token: str) -> bool | None:
        """Whether the server knows the token; None: it does not say."""
        status, answer = self._wire.send("GET", "auth/token/lookup-self", None, token)
        return True if status == 200 else False if _is_dead(answer) else None

    def _denied(self, path: str, capability: str, remedy: str, token: str, answer: dict[str, Any]) -> KeyAccessError:
        where = f"{self.options.url}/v1/{path}"
        lives = False if _is_dead(answer) else self._lives(token)
        if lives:
            return KeyAccessError(
                f"Vault denies this role {capability!r} on {path}", where, remedy or f"give the role a policy with capability {capability!r} on {path!r}",
            )
        anew = "log in anew or give a fresh token or secret-id, then repeat the command"
        if lives is None:
            return KeyAccessError(
                f"the Vault token has ended or lacks {capability!r} on {path} (it may not read auth/token/lookup-self, which would tell)", where,
                "; ".join(filter(None, (anew, remedy))),
            )
        return KeyAccessError(
            f"the Vault token is expired, revoked or unknown (needed: {capability!r} on {path})", where, "; ".join(filter(None, (anew, remedy))),
        )

    def _call_unauthenticated(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = self._wire.send(method, path, body, "")
        if status >= 400:
            # its own text stays out: some servers repeat the secret-id in it
            raise _LoginRefused(
                f"Vault refused the login with status {status}", f"{self.options.url}/v1/{path}",
                f"check {self._auth.parts}, mount_point and namespace",
            )
        return answer


class _Keeper(threading.Thread):
    """Renews a session's token while the work asks Vault nothing for longer than the token lives.

    It knows its session weakly and ends with it; as a daemon it keeps no process alive.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(name="lifeboat-vault-token", daemon=True)
        # a SimpleQueue, because its put() is safe wherever the interpreter collects the session
        gone: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._gone = gone
        self._session = weakref.ref(session, lambda _reference: gone.put(None))

    def run(self) -> None:
        while True:
            session = self._session()
            if session is None:
                return
            wait = session.due()
            del session
            try:
                self._gone.get(timeout=wait)
                return
            except queue.Empty:
                pass
            session = self._session()
            if session is not None:
                session.keep()


def _is_dead(answer: dict[str, Any]) -> bool:
    """The server says so itself; older ones say "permission denied" for a dead token too."""
    told = vault_wire.said(answer)
    return "invalid token" in told or "bad token" in told
