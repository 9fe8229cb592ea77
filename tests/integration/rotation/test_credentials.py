# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that the collection itself uses are exchanged: the new one works, the old one does not, a kill loses neither."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, KeyAccessError, LifeboatError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import policies, registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.drills.scenes import run_killed
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site
from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record

KILLS = [f"{point}:{nth}" for point in ("key.fsync.before", "key.rename.before", "key.rename.after", "key.unlink.before") for nth in (1, 2, 3)]


class Login:
    """A service whose hosts log in by AppRole, with a secret-id in a file."""

    def __init__(self, site: Site, home: Path) -> None:
        home.mkdir(exist_ok=True)
        server = site.server
        self.site, self.file, self.mount = site, home / "secret-id", server.mount("approle")
        site.provider("bootstrap", "docs").ensure()
        role = server.policy(policies.policy("docs", "backup", site.mount))
        server.must("POST", f"auth/{self.mount}/role/docs-backup", {"token_policies": [role], "token_no_default_policy": True})
        path = f"auth/{self.mount}/role/docs-backup/secret-id"
        own = 'path "auth/token/lookup-self" { capabilities = ["read"] }\n'
        ruler = server.token(own + "".join(f'path "{each}" {{ capabilities = ["update"] }}\n' for each in (path, f"{path}/destroy")))
        (home / "ruler").write_text(ruler)
        (home / "ruler").chmod(0o600)
        self.file.write_text(self.secret())
        self.file.chmod(0o600)
        role_id = server.must("GET", f"auth/{self.mount}/role/docs-backup/role-id")["data"]["role_id"]
        self.keys = {
            **site.anonymous(), "auth": {"method": "approle", "role_id": role_id, "secret_id_file": str(self.file), "mount_point": self.mount},
            "rotate_auth": {"method": "token", "token_file": "ruler", "token_path": str(home)},
        }
        self.spec = Spec.from_dict({**FilesService(home / "docs").document, "keys": self.keys})

    def secret(self) -> str:
        return str(self.site.server.must("POST", f"auth/{self.mount}/role/docs-backup/secret-id", {})["data"]["secret_id"])

    def logs_in(self, secret: str) -> bool:
        body = {"role_id": self.keys["auth"]["role_id"], "secret_id": secret}
        return self.site.server.ask("POST", f"auth/{self.mount}/login", body)[0] == 200

    def exchange(self, check: bool = False) -> dict[str, Any]:
        return operations.exchange_credential(self.spec, run_record("20260101T000000Z-rotate_keys-00000a"), "secret_id", "auth", "docs-backup", check)


def test_secret_id(site: Site, tmp_path: Path) -> None:
    login = Login(site, tmp_path / "login")
    old = login.file.read_text().strip()
    assert login.exchange(check=True)["changed"] and login.file.read_text().strip() == old
    login.exchange()
    new = login.file.read_text().strip()
    assert new != old and login.logs_in(new) and not login.logs_in(old)
    assert login.file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in login.file.parent.glob("secret-id*")) == ["secret-id"]
    assert len(registry.provider_for(login.keys, "docs").new_data_key(b"s")[0]) == 32
    ledger = (tmp_path / "login" / "docs" / "state" / "services" / "docs" / "ledger.jsonl").read_text()
    assert "credential.done" in ledger and old not in ledger and new not in ledger


def test_secret_id_without_the_right_names_the_capability(site: Site, tmp_path: Path) -> None:
    login = Login(site, tmp_path / "login")
    old = login.file.read_text().strip()
    login.spec.keys["rotate_auth"] = None
    with pytest.raises(KeyAccessError, match="denies this role 'update' on auth/.*/role/docs-backup/secret-id.*rotate_auth"):
        login.exchange()
    assert login.logs_in(old) and login.file.read_text().strip() == old
    for which, name in (("restore_auth", "docs-backup"), ("auth", "../docs"), ("auth", "")):
        with pytest.raises(ConfigError):
            operations.exchange_credential(login.spec, run_record("20260101T000100Z-rotate_keys-00000b"), "secret_id", which, name, False)


def test_killed_anywhere_a_working_secret_id_is_in_the_file(double: Site, tmp_path: Path) -> None:
    reached = 0
    for number, fault in enumerate(KILLS):
        login = Login(double, tmp_path / str(number))
        old = login.file.read_text().strip()
        code, told = run_killed(login.exchange, fault)
        reached += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), told
        assert login.logs_in(login.file.read_text().strip()), f"{fault}: the host is locked out"
        login.exchange()
        new = login.file.read_text().strip()
        assert login.logs_in(new) and not login.logs_in(old), fault
        assert sorted(path.name for path in login.file.parent.glob("secret-id*")) == ["secret-id"], fault
    assert reached >= 6, "the faults were not where the exchange passes"
    assert all(fault.rpartition(":")[0] in faults.points() for fault in KILLS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    server = Postgres().init().start()
    try:
        yield server
    finally:
        server.destroy()


def password_spec(server: Postgres, home: Path, password: str) -> tuple[Spec, Path]:
    home.mkdir(exist_ok=True)
    file = home / "password"
    file.write_text(password + "\n")
    file.chmod(0o600)
    source = {"type": "postgresql_database", "database": "postgres", "port": server.port, "user": "shop", "password_file": str(file)}
    return FilesService(home / "docs", sources={"db": source}).spec, file


def exchange_password(spec: Spec, check: bool = False) -> dict[str, Any]:
    return operations.exchange_credential(spec, run_record("20260101T000000Z-rotate_keys-00000c"), "password", "db", "", check)


def accepted(server: Postgres, password: str) -> bool:
    try:
        server.connect(user="shop", password=password).close()
    except Exception:
        return False
    return True


def test_database_password(cluster: Postgres, tmp_path: Path) -> None:
    cluster.sql("drop role if exists shop")
    cluster.sql("create role shop login password 'it''s old'")
    cluster.sql("alter role shop set log_statement = 'all'")
    cluster.sql("alter role shop set log_min_messages = 'log'")
    spec, file = password_spec(cluster, tmp_path, "it's old")
    assert exchange_password(spec, check=True)["changed"] and accepted(cluster, "it's old")
    exchange_password(spec)
    new = file.read_text().strip()
    assert accepted(cluster, new) and not accepted(cluster, "it's old") and len(new) >= 40
    assert cluster.sql("select rolpassword like 'SCRAM-SHA-256$%' from pg_authid where rolname = 'shop'") == [(True,)]
    logged = "".join(path.read_text(errors="replace") for path in Path(cluster.home).rglob("*log*") if path.is_file())
    assert "ALTER ROLE" in logged and new not in logged, "the server's log shows the statement, and must not show the password"
    assert new not in json.dumps([path.read_text() for path in (tmp_path / "docs" / "state").rglob("ledger.jsonl")])
    file.write_text("wrong\n")
    with pytest.raises(SourceError, match="refused the login"):
        exchange_password(spec)
    assert accepted(cluster, new)


@pytest.mark.parametrize("fault", KILLS)
def test_killed_anywhere_the_password_in_a_file_is_the_servers(cluster: Postgres, tmp_path: Path, fault: str) -> None:
    cluster.sql("drop role if exists shop")
    cluster.sql("create role shop login password 'old'")
    spec, file = password_spec(cluster, tmp_path, "old")
    code, told = run_killed(lambda: exchange_password(spec), fault)
    assert code in (0, -signal.SIGKILL), told
    held = {path.name: path.read_text().strip() for path in tmp_path.glob("password*")}
    assert any(accepted(cluster, one) for one in held.values()), f"nobody has the password: {sorted(held)}"
    exchange_password(spec)
    assert accepted(cluster, file.read_text().strip()) and not accepted(cluster, "old")
    assert sorted(path.name for path in tmp_path.glob("password*")) == ["password"]


def test_a_password_that_is_refused_is_taken_back(cluster: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.lifeboat.recovery.plugins.module_utils.credentials import postgresql_password

    cluster.sql("drop role if exists shop")
    cluster.sql("create role shop login password 'old'")
    spec, file = password_spec(cluster, tmp_path, "old")
    real = postgresql_password.Client.connect

    def refusing(self: Any, database: str, settings: Any = None, password: str | None = None) -> Any:
        if password != "old":
            raise SourceError("the server refused user 'shop'", "a test", "")
        return real(self, database, settings, password)

    monkeypatch.setattr(postgresql_password.Client, "connect", refusing)
    with pytest.raises(LifeboatError, match="refused user"):
        exchange_password(spec)
    assert accepted(cluster, "old") and file.read_text().strip() == "old"
