# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook on a catalog with Vault and a bucket: shown, applied, repeated; credentials by environment and file, and never shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.lifeboat.recovery.tests.integration.access.conftest import HOSTS, LOCK, PRINCIPAL, Store, Vault
from ansible_collections.lifeboat.recovery.tests.lab import quick
from ansible_collections.lifeboat.recovery.tests.lab.s3_attempts import Field

ROOT = Path(__file__).resolve().parents[3]


class Controller:
    """Where the playbook runs, with what an administrator has there."""

    def __init__(self, home: Path, vault: Vault, store: Store, ground: Field) -> None:
        self.home, self.vault, self.store, self.ground = home, vault, store, ground
        repository = {**store.repository(ground.bucket, ground.base), "object_lock": {"mode": LOCK["mode"], "for": "1d"}}
        del repository["name"]
        (home / "shop.catalog.yml").write_text(yaml.safe_dump(json.loads(json.dumps({
            "plugin": "lifeboat.recovery.catalog", "repositories": {"main": repository},
            "keys": {**vault.keys, "auth": self._auth(), "restore_auth": self._auth()},
            "services": {name: {"host": host, "sources": {"db": {"type": "files", "path": "/srv/data"}}} for name, host in HOSTS.items()},
        }))))

    def _auth(self) -> dict[str, str]:
        return {"method": "approle", "mount_point": self.vault.approle, "role_id_file": "/etc/lifeboat/role-id", "secret_id_file": "/etc/lifeboat/secret-id"}

    def play(self, *arguments: str) -> str:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "VAULT_", "AWS_"))}, "HOME": str(self.home),
            **quick.variables(ROOT / ".dev"), "ANSIBLE_INVENTORY_ENABLED": "lifeboat.recovery.catalog", "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "VAULT_TOKEN": self.vault.site.server.root_token,
        }
        owner = self.store.server.credentials_file("owner", *self.store.secrets["owner"])
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "lifeboat.recovery.access", "-i", str(self.home / "shop.catalog.yml"),
             "-e", json.dumps({"lifeboat_access_principal": PRINCIPAL, "lifeboat_access_s3_credentials_file": owner}), *arguments],
            env=environment, text=True, capture_output=True, timeout=600, check=False, cwd=self.home,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
        for secret in (self.vault.site.server.root_token, self.store.secrets["owner"][1]):
            assert secret not in told
        return told

    def outside(self) -> tuple[dict[str, Any], str]:
        """What there is in Vault and on the bucket."""
        return self.vault.state(), self.ground.owner.get_bucket_policy(Bucket=self.ground.bucket)["Policy"]


def changed(told: str) -> int:
    counts = re.findall(r"^\S+ +: ok=\d+ +changed=(\d+)", told, re.MULTILINE)
    assert counts
    return sum(map(int, counts))


def test_shown_applied_and_repeated(vault: Vault, store: Store, ground: Field, tmp_path: Path) -> None:
    controller = Controller(tmp_path, vault, store, ground)
    theirs = {"Sid": "Theirs", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{ground.bucket}/public/*"}
    ground.owner.put_bucket_policy(Bucket=ground.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}))
    before = controller.outside()
    shown = controller.play("--check", "--diff", "-v")
    assert controller.outside() == before
    assert changed(shown) == 1
    assert '+path "' + vault.site.mount + '/datakey/plaintext/orders-data" {' in shown
    assert re.search(r'^ +"Sid": "Theirs"', shown, re.MULTILINE), "what is not ours is shown unchanged"
    assert re.search(r'^\+ +"s3:prefix": \[', shown, re.MULTILINE)

    assert changed(controller.play()) == 1
    texts, policy = controller.outside()
    statements = json.loads(policy)["Statement"]
    assert "lifeboat-orders-backup" in texts and statements[0] == theirs and len(statements) > 10
    # the administrator's token as a variable this time: it is masked whatever is shown
    (tmp_path / "admin.yml").write_text(json.dumps({"lifeboat_access_vault_auth": {"method": "token", "token": vault.site.server.root_token}}))
    again = controller.play("--diff", "-vvv", "-e", f"@{tmp_path / 'admin.yml'}")
    assert changed(again) == 0 and "+++" not in again
