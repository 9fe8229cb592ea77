# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo with two lines of its catalog changed: keys in Vault, repository in S3."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import OWNER, Seaweed

ROOT = Path(__file__).resolve().parents[3]


def changed(text: str, begins: str, line: str) -> str:
    """The text with the one line that begins so replaced."""
    found = [each for each in text.splitlines() if each.startswith(begins)]
    assert len(found) == 1, found
    return text.replace(found[0], line)


@pytest.mark.soak
@pytest.mark.parametrize("kind", running.kinds())
def test_the_demo_with_two_lines_changed(kind: str, tmp_path: Path) -> None:
    with running.start(kind) as vault, Seaweed() as store:
        os.chmod(store.home, 0o755)  # the services' own user reads the CA and its credentials
        token = tmp_path / "token"
        token.write_text(vault.root_token)
        token.chmod(0o600)
        catalog = tmp_path / "demo"
        shutil.copytree(ROOT / "inventories" / "demo", catalog)
        file = catalog / "shop.catalog.yml"
        text = changed(file.read_text(), "  local: {url: 'file:", (
            f"  local: {{url: 's3://shop/demo', endpoint: '{store.endpoint}', ca_file: '{store.ca_file}', path_style: true, object_lock: 1d,"
            f" credentials_file: '{store.credentials_file('demo', *OWNER[:2])}'}}"))
        file.write_text(changed(text, "keys: {provider: file", (
            f"keys: {{provider: vault, url: '{vault.url}', mount: '{vault.mount('transit')}', auth: {{method: token, token_file: '{token}'}}}}")))
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "demo" / "run.py"), "--home", str(tmp_path / "home"), "--catalog", str(catalog)],
            capture_output=True, text=True, timeout=600, check=False, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert "equal" in done.stdout and not (tmp_path / "home" / "shop" / "repository").exists()
        vault.clean()
