# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ecosystem of two services on two hosts: its catalog, a real object store with an identity per host and role, and a Vault."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config

from ansible_collections.lifeboat.recovery.plugins.module_utils.access import plan
from ansible_collections.lifeboat.recovery.plugins.module_utils.access.site import ROLES, Site
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site as VaultSite
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import any_server, short_pauses, site
from ansible_collections.lifeboat.recovery.tests.lab.s3_attempts import Field
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import OWNER, Seaweed

#: The fixtures that are used from elsewhere: a mount of its own on each Vault there is.
__all__ = ["any_server", "short_pauses", "site"]

#: As SeaweedFS names its users.
PRINCIPAL = "arn:aws:iam::000000000000:user/{identity}"
LOCK = {"mode": "governance", "for": 86400.0}
HOSTS = {"orders": "db1", "payments": "db2"}


def catalog(repository: dict[str, Any], keys: dict[str, Any] | None = None, **services: str) -> dict[str, Any]:
    """A normalised catalog: service=host."""
    entries = {name: {"host": host, "repository": "main", "sources": {"db": {"type": "files", "path": "/srv"}}} for name, host in (services or HOSTS).items()}
    return {
        "ecosystem": "shop", "repositories": {"main": {"name": "main", **repository}}, "default_repository": "main",
        "keys": keys or {"provider": "file", "path": "/nowhere"}, "services": entries,
    }


def names(document: dict[str, Any], role: str, service: str = "orders") -> tuple[str, ...]:
    site = Site(document, ROLES, {}, tuple(document["services"]))
    return site.identities(next(each for each in site.services if each.name == service), role)


@dataclass
class Store:
    """A server with credentials for every identity of the catalog above, none of which has a right of its own."""

    server: Seaweed
    secrets: dict[str, tuple[str, str]]

    def client(self, name: str) -> Any:
        access, secret = self.secrets[name]
        return boto3.client(
            "s3", endpoint_url=self.server.endpoint, verify=self.server.ca_file, aws_access_key_id=access, aws_secret_access_key=secret,
            region_name="us-east-1", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, request_checksum_calculation="when_required"),
        )

    def repository(self, bucket: str, base: str, name: str = "owner", **more: Any) -> dict[str, Any]:
        return {**self.server.config(bucket, base), "credentials_file": self.server.credentials_file(name, *self.secrets[name]), **more}

    def apply(self, document: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        """The access of a catalog, as the bucket's owner gives it."""
        login = {"credentials_file": self.server.credentials_file("owner", *self.secrets["owner"])}
        return plan.perform(document, {"principal": PRINCIPAL, "s3_login": login, "drill": list(document["services"]), **options}, check)


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    known = {"owner": OWNER[:2]}
    server = Seaweed()
    for role in ROLES:
        for name in {each for service in HOSTS for each in names(catalog({"url": "s3://bucket/base"}), role, service)}:
            known[name] = (f"access{secrets.token_hex(8)}", f"secret{secrets.token_hex(8)}")
            access, secret = known[name]
            server.identities.append({"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": []})
    with server:
        yield Store(server, known)


@pytest.fixture
def ground(store: Store) -> Field:
    """A repository with objects of both services, all locked, in a bucket of its own."""
    owner, bucket = store.client("owner"), f"shop-{secrets.token_hex(4)}"
    owner.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return Field(owner, bucket, "eu/shop", tuple(HOSTS))


@pytest.fixture
def document(store: Store, ground: Field) -> dict[str, Any]:
    return catalog(store.repository(ground.bucket, ground.base, object_lock=LOCK))


@dataclass
class Vault:
    """A Vault in which an administrator keeps AppRoles for a catalog."""

    site: VaultSite
    approle: str

    @property
    def keys(self) -> dict[str, Any]:
        """Keys of the catalog; who logs in is not in it."""
        config = {name: value for name, value in self.site.config("").items() if name not in ("token", "ca_cert")}
        auth = {"method": "approle", "mount_point": self.approle}
        return {**config, **({"ca_file": self.site.server.ca_cert} if self.site.server.ca_cert else {}), "auth": auth, "restore_auth": auth}

    def apply(self, document: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        auth = {"method": "token", "token": self.site.server.root_token}
        return plan.perform(document, {"vault_auth": auth, "drill": list(document["services"]), **options}, check)

    def login(self, name: str) -> dict[str, Any]:
        """The auth options with which an AppRole logs in."""
        path, server = f"auth/{self.approle}/role/{name}", self.site.server
        role_id = server.must("GET", f"{path}/role-id")["data"]["role_id"]
        return {"role_id": role_id, "secret_id": server.must("POST", f"{path}/secret-id", {})["data"]["secret_id"]}

    def token(self, name: str) -> str:
        return str(self.site.server.must("POST", f"auth/{self.approle}/login", self.login(name))["auth"]["client_token"])

    def state(self) -> dict[str, Any]:
        """Every policy and AppRole there is."""
        server = self.site.server
        texts = {name: server.must("GET", f"sys/policies/acl/{name}")["data"]["policy"] for name in server.must("LIST", "sys/policies/acl")["data"]["keys"]
                 if name != "root"}
        listed = server.ask("LIST", f"auth/{self.approle}/role")[1].get("data") or {"keys": []}
        return {**texts, **{f"role {name}": server.must("GET", f"auth/{self.approle}/role/{name}")["data"] for name in listed["keys"]}}

    def forget(self) -> None:
        """Remove what was applied here: a server may be used again."""
        for name in self.state():
            if name.startswith("lifeboat-") and not name.startswith("lifeboat-test-"):
                self.site.server.must("DELETE", f"sys/policies/acl/{name}")


@pytest.fixture
def vault(site: VaultSite) -> Iterator[Vault]:
    made = Vault(site, site.server.mount("approle"))
    yield made
    made.forget()
