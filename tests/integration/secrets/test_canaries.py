# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret in argument lists, environments, output at -vvv, run directories, ledgers, the host's state, temporary files or the repository."""

from __future__ import annotations

import base64
import json
import pathlib
import resource
import secrets
import subprocess
import sys
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import policies, registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.file import FileProvider
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.verify import verify_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.registry import backend_for
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.lab import postgres, processes, redis_server
from ansible_collections.lifeboat.recovery.tests.lab.canaries import Canaries, Watch
from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour, Outcome
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import OWNER, Seaweed
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record

#: libpq has no other way to be given a password but a file of its own; an environment is for its owner and root.
ALLOWED = dict.fromkeys(("PostgreSQL password", "wrong PostgreSQL password"), ("pg_dump", "psql"))


class Site:
    """One service with a database, a cache and files; keys in Vault, the repository in S3, and every secret of theirs a canary."""

    def __init__(self, harbour: Harbour, vault: running.Server, store: Seaweed) -> None:
        self.harbour, self.vault = harbour, vault
        self.kept = harbour.home / "secrets"  # where an operator keeps credentials: the only place that may hold them
        self.kept.mkdir(mode=0o700)
        # of their own: tests that run at the same time have servers too
        self.cluster = postgres.Postgres(password="canary-" + secrets.token_hex(8))
        self.cache = redis_server.RedisServer(password="canary-" + secrets.token_hex(8))
        self.mount = vault.mount("transit")
        assert self.provider("bootstrap").ensure()
        login = self._approle()
        restorer = vault.token(policies.policy("till", "restore", self.mount))
        self.canaries = Canaries({
            "PostgreSQL password": self.cluster.password, "Redis password": self.cache.password, "S3 secret key": OWNER[1],
            "Vault secret-id": login["secret_id"], "Vault token": restorer, "root token": vault.root_token,
            **{f"wrong {name}": "canary-" + secrets.token_hex(8) for name in ("PostgreSQL password", "Redis password", "S3 secret key", "Vault secret-id")},
        })
        secret_id = self.file("secret-id", login["secret_id"])
        self.login = {"method": "approle", "mount_point": login["mount"], "role_id": login["role_id"], "secret_id_file": secret_id}
        self.restorer = {"method": "token", "token_file": self.file("token", restorer)}
        self.repository = {name: value for name, value in store.config("canaries", "right").items() if name != "name"}
        backend_for(self.repository).prepare()

    def _approle(self) -> dict[str, str]:
        mount = self.vault.mount("approle")
        name = self.vault.policy(policies.policy("till", "backup", self.mount))
        self.vault.must("POST", f"auth/{mount}/role/app", {"token_policies": [name], "token_no_default_policy": True})
        role_id = self.vault.must("GET", f"auth/{mount}/role/app/role-id")["data"]["role_id"]
        return {"mount": mount, "role_id": role_id, "secret_id": self.vault.must("POST", f"auth/{mount}/role/app/secret-id", {})["data"]["secret_id"]}

    def provider(self, role: str) -> Any:
        token = self.vault.token(policies.policy("till", role, self.mount))
        return registry.provider_for({"provider": "vault", "url": self.vault.url, "mount": self.mount, "token": token}, "till")

    def file(self, name: str, secret: str) -> str:
        """A credential file; its path."""
        path = self.kept / name
        path.write_text(secret + "\n")
        path.chmod(0o600)
        return str(path)

    def write(self, wrong: tuple[str, ...] = ()) -> None:
        """The catalog, perhaps with credentials that are wrong."""
        secret = self.canaries.secrets

        def credential(name: str, right: str) -> str:
            return self.file(f"wrong {name}", secret[f"wrong {name}"]) if name in wrong else right

        repository = dict(self.repository)
        if "S3 secret key" in wrong:
            pathlib.Path(self.file("wrong.credentials", f"[default]\naws_access_key_id = {OWNER[0]}\naws_secret_access_key = {secret['wrong S3 secret key']}"))
            repository["credentials_file"] = str(self.kept / "wrong.credentials")
        self.harbour.catalog["repositories"] = {"local": repository}
        self.harbour.catalog["keys"] = {
            "provider": "vault", "url": self.vault.url, "mount": self.mount, "restore_auth": self.restorer,
            "auth": {**self.login, "secret_id_file": credential("Vault secret-id", self.login["secret_id_file"])},
        }
        entry = self.harbour.catalog["services"]["till"]
        entry["sources"].update({
            "db": {"type": "postgresql_database", "database": "shop", "port": self.cluster.port,
                   "password_file": credential("PostgreSQL password", self.cluster.password_file)},
            "cache": {"type": "redis", "port": self.cache.port, "password_file": credential("Redis password", self.cache.password_file),
                      "server": {verb: self.cache.argv(verb) for verb in ("start", "stop", "status")}},
        })
        self.harbour.write_catalog()

    def play(self, verb: str, *words: str) -> Outcome:
        return self.harbour.play(verb, "-vvv", "--diff", *words, env={"ANSIBLE_KEEP_REMOTE_FILES": "1", "TMPDIR": str(self.harbour.home / "tmp")})

    def command(self, wrong: str, *words: str) -> Outcome:
        """The host command, with what bootstrap configured but for a credential that is wrong."""
        self.write((wrong,))
        file = self.harbour.home / "etc" / "services" / "till.json"
        document = json.loads(file.read_text())
        document["repository"] = self.harbour.catalog["repositories"]["local"]
        file.write_text(json.dumps(document))
        done = subprocess.run(
            [str(self.harbour.home / "bin" / "lifeboat"), "--config", str(self.harbour.home / "etc"), *words], env=self.harbour.environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        return Outcome(done.returncode, done.stdout + done.stderr)

    def searched(self) -> list[str]:
        """What the runs left: run directories, state, the host command's configuration, modules as they were shipped, temporary files."""
        return self.canaries.below(self.harbour.home, but=[self.kept])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Harbour({"till": []}) as harbour, running.start("double") as vault, Seaweed() as store:
        (harbour.home / "tmp").mkdir()
        made = Site(harbour, vault, store)
        try:
            made.cluster.init().start()
            made.cache.init().start()
            made.cluster.sql("CREATE DATABASE shop")
            made.cluster.sql("CREATE TABLE sold AS SELECT generate_series(1, 100) AS number", "shop")
            with made.cache.client() as client:
                client.set("basket", "full")
            yield made
        finally:
            made.cluster.destroy()
            made.cache.destroy()


def test_a_life_through_the_playbooks(site: Site) -> None:
    """Bootstrap, backup and restore at full verbosity, then a backup in which every login fails: none of them shows a secret anywhere."""
    said = []
    with Watch(site.canaries, ALLOWED, site.harbour.home / "tmp", site.harbour.state) as watch:
        site.write()
        for verb in ("bootstrap", "backup"):
            outcome = site.play(verb)
            assert outcome.code == 0, outcome.text[-3000:]
            said.append(outcome)
        site.harbour.wreck("till")
        restored = site.play("restore")
        assert restored.verdicts() == {"till": "verified"}, restored.text[-3000:]
        said.append(restored)
        site.write(("PostgreSQL password", "Redis password", "Vault secret-id"))
        said.append(site.play("backup", "--check"))
        assert said[-1].code not in (0, 2) and all(word in said[-1].text for word in ("till.db at", "till.cache at", "login")), said[-1].text[-3000:]
        said.append(site.command("S3 secret key", "points", "till"))
        assert said[-1].code not in (0, 2) and "SignatureDoesNotMatch" in said[-1].text, said[-1].text
    for outcome in said:
        assert site.canaries.inside(outcome.text.encode()) == []
    assert watch.leaks == set()
    assert site.searched() == []
    backend = backend_for(site.repository)
    objects = [name for name, _size in backend.list("")]
    assert len(objects) > 10 and [(name, found) for name in objects if (found := site.canaries.inside(backend.read(name, 1 << 26)))] == []


def test_keys_of_files_and_data_keys_stay_where_they_are(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the repository, not even opened and unpacked, not in what the host remembers, not in what is restored; as text and as bytes."""
    service = FilesService(tmp_path).bootstrap()
    service.fill(5)
    made: list[bytes] = []
    new = FileProvider.new_data_key

    def remember(self: FileProvider, context: bytes) -> Any:
        plain, wrapped = new(self, context)
        made.append(plain)
        return plain, wrapped

    monkeypatch.setattr(FileProvider, "new_data_key", remember)
    service.capture("p1")
    (service.tree / "large").unlink()
    run = run_record("r1", "restore")
    assert verify_service(service.spec)["ok"]
    restore.stage(service.spec, "latest", run)
    restore.go_live(service.spec, "latest", run)
    keys = {path.name: path.read_text().strip() for path in (tmp_path / "keys").rglob("*.key")}
    assert len(made) == 1 and set(keys) == {"data.key", "index.key", "sign.key"}
    raw = {**{name: base64.b64decode(text) for name, text in keys.items()}, "a data key": made[0]}
    for name, secret in raw.items():
        for form in (secret, base64.b64encode(secret), base64.urlsafe_b64encode(secret).rstrip(b"="), secret.hex().encode()):
            holders = [str(path) for path in tmp_path.rglob("*") if path.is_file() and form in path.read_bytes()]
            assert all(holder.startswith(str(tmp_path / "keys")) for holder in holders), f"{name}: {holders}"
    store = service.spec.store()
    (chain,) = store.chains()
    reader = store.reader(chain.manifests[0])
    opened = b"".join(json.dumps(entry).encode() for entry in reader.entries()) + b"".join(reader.chunk(number) for number in range(reader.count()))
    assert not [name for name, secret in raw.items() if secret in opened or base64.b64encode(secret) in opened or secret.hex().encode() in opened]


def test_no_core_holds_a_key() -> None:
    """Whoever opens keys leaves no core file when it crashes, nor one through a pipe, for which the limit is 1."""
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    done = subprocess.run(
        [sys.executable, "-c", f"import resource; resource.setrlimit(resource.RLIMIT_CORE, ({most}, {most}));"
         "from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import registry;"
         "registry.provider_for({'provider': 'file', 'path': '/nowhere'}, 'till'); print(resource.getrlimit(resource.RLIMIT_CORE)[0])"],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)}, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == (0 if most == 0 else 1)


def test_the_search_finds_what_leaks(tmp_path: pathlib.Path) -> None:
    """The negative control: an argument, an environment, a temporary file and a token are each found, and an allowed environment is not."""
    canaries = Canaries({"argument": "canary-in-an-argument", "variable": "canary-in-a-variable", "file": "canary-in-a-file"})
    with Watch(canaries, {"variable": ("sleep",)}, tmp_path) as watch:
        (tmp_path / "x").write_text("canary-in-a-file hvs.AAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        leaking = subprocess.Popen(["sleep", "60"], env={"A": "canary-in-a-variable"})
        shown = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "canary-in-an-argument"], env={"A": "canary-in-a-variable"})
        try:
            processes.wait_for(lambda: len(watch.leaks) >= 4, "the leaks to be found")
        finally:
            for process in (leaking, shown):
                process.kill()
                process.wait()
    program = pathlib.Path(sys.executable).name
    assert watch.leaks == {
        f"argument: argument of {program}", f"variable: environment of {program}", f"temporary file: file: {tmp_path}/x",
        f"temporary file: a Vault token: {tmp_path}/x",
    }
