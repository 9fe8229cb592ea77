# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Vault for the tests of keys: the double, and every real server that this machine offers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import policies, registry, vault_wire
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.provider import KeyProvider
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.lab.tls import Authority


@dataclass
class Site:
    """A mount of its own on a server."""

    server: running.Server
    mount: str

    def config(self, token: str, **more: Any) -> dict[str, Any]:
        config = {"provider": "vault", "url": self.server.url, "mount": self.mount, "token": token, "retries": 2, "timeout": 60}
        reached = {"ca_cert": self.server.ca_cert, "namespace": self.server.namespace}
        return {**config, **{name: value for name, value in reached.items() if value}, **more}

    def anonymous(self, **options: Any) -> dict[str, Any]:
        """keys options without a token."""
        config = self.config("", **options)
        del config["token"]
        return config

    def granted(self, role: str, service: str = "orders", **settings: Any) -> dict[str, Any]:
        """What a role of an auth method gives: the generated policy of ``role`` and nothing else."""
        name = self.server.policy(policies.policy(service, role, self.mount))
        return {"token_policies": [name], "token_no_default_policy": True, **settings}

    def approle(self, role: str, service: str = "orders", **settings: Any) -> dict[str, Any]:
        """keys options of a fresh AppRole."""
        mount = self.server.mount("approle")
        self.server.must("POST", f"auth/{mount}/role/app", self.granted(role, service, **settings))
        options = {"auth_method": "approle", "mount_point": mount, "role_id": self.server.must("GET", f"auth/{mount}/role/app/role-id")["data"]["role_id"]}
        return self.anonymous(**options, secret_id=self.server.must("POST", f"auth/{mount}/role/app/secret-id", {})["data"]["secret_id"])

    def token(self, role: str, service: str = "orders", **options: Any) -> str:
        return self.server.token(policies.policy(service, role, self.mount), **options)

    def provider(self, role: str, service: str = "orders", **more: Any) -> KeyProvider:
        """A provider whose token has the generated policy of one role, and nothing else."""
        return registry.provider_for(self.config(self.token(role, service), **more), service)

    def bootstrapped(self, service: str = "orders") -> None:
        assert self.provider("bootstrap", service).ensure()

    def transit(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, dict[str, Any]]:
        return self.server.ask(method, f"{self.mount}/{path}", body, token)


@pytest.fixture(scope="session", params=running.kinds())
def any_server(request: pytest.FixtureRequest) -> Iterator[running.Server]:
    """Each server there is: the contract."""
    with running.start(request.param) as server:
        yield server


@pytest.fixture
def site(any_server: running.Server) -> Iterator[Site]:
    yield Site(any_server, any_server.mount("transit"))
    any_server.clean()


@pytest.fixture(params=running.own_kinds())
def own_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A server of this test's own: it may be sealed."""
    with running.start(request.param) as server:
        yield Site(server, server.mount("transit"))


@pytest.fixture
def double() -> Iterator[Site]:
    """The double alone, with its controls, for faults that a real server does not have at hand."""
    with running.start("double") as server:
        yield Site(server, server.mount("transit"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the certificates of doubles, and of clients."""
    return Authority(str(tmp_path_factory.mktemp("authority")))


@pytest.fixture(params=running.own_kinds())
def tls_site(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Site]:
    """A server with https."""
    with running.start(request.param, running.Tls(*authority.issue("127.0.0.1"), authority.ca_file, authority.ca_file)) as server:
        yield Site(server, server.mount("transit"))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_wire, "_LONGEST_PAUSE", 0.1)
    for name in list(os.environ):
        if name.startswith(("VAULT_", "ANSIBLE_HASHI_VAULT_")):
            monkeypatch.delenv(name)
