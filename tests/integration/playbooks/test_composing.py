# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site playbook of docs/composing.md, as it stands there, on an ordinary inventory."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from ansible_collections.lifeboat.recovery.tests.lab.harbour import ROOT, Harbour

DOCUMENT = ROOT / "docs" / "composing.md"


def blocks() -> dict[str, str]:
    """File name -> YAML of each block of the document that begins with its file name."""
    found = re.findall(r"```yaml\n# (\S+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    return dict(found)


def site(harbour: Harbour, release: str) -> pathlib.Path:
    """A site of one's own: inventory, variables of the service, the documented playbook and a release."""
    folder = harbour.home / "site"
    folder.mkdir(exist_ok=True)
    written = yaml.safe_load(blocks()["orders.lifeboat.yml"])
    entry = harbour.entry("orders")
    assert set(written["lifeboat_entry"]) <= set(entry), "the document shows words that a catalog has"
    # what the document shows, with the places of this test
    variables = {
        **written,
        "lifeboat_entry": {**written["lifeboat_entry"], **{key: entry[key] for key in ("sources", "runtime", "health", "invariants")}},
        "lifeboat_repository": {"name": "local", "url": f"file://{harbour.repository}"},
        "lifeboat_keys": {"provider": "file", "path": str(harbour.home / "keys" / "host"), "private_path": str(harbour.private)},
        "lifeboat_state_dir": str(harbour.state),
        "lifeboat_runs": str(harbour.runs),
    }
    (folder / "orders.lifeboat.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    (folder / "hosts.ini").write_text(f"app1 ansible_connection=local ansible_python_interpreter={sys.executable}\n", encoding="utf-8")
    (folder / "deploy.yml").write_text(blocks()["deploy.yml"], encoding="utf-8")
    (folder / "release.yml").write_text(release, encoding="utf-8")
    (folder / "prepare.yml").write_text(
        "- hosts: app1\n  gather_facts: false\n  vars_files: [orders.lifeboat.yml]\n  roles: [lifeboat.recovery.repository]\n", encoding="utf-8")
    return folder


def play(harbour: Harbour, folder: pathlib.Path, playbook: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.ini", playbook], cwd=folder, env=harbour.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
    return done.returncode, done.stdout


def test_the_playbook_has_ten_lines_of_tasks() -> None:
    lines = blocks()["deploy.yml"].splitlines()
    assert len(lines) - [line.strip() for line in lines].index("tasks:") - 1 <= 10


@pytest.mark.parametrize("fails", [True, False], ids=["release fails", "release succeeds"])
def test_a_deployment_is_kept_or_undone(fails: bool) -> None:
    with Harbour({"orders": []}) as harbour:
        count = harbour.data("orders") / "count"
        release = [{"name": "Change the data", "ansible.builtin.copy": {"content": "4", "dest": str(count), "mode": "0644"}}]
        if fails:
            release.append({"name": "Notice that it went wrong", "ansible.builtin.fail": {"msg": "the release is broken"}})
        folder = site(harbour, yaml.safe_dump(release))
        code, text = play(harbour, folder, "prepare.yml")
        assert code == 0, text
        former, process = harbour.contents(), harbour.pid("orders")

        code, text = play(harbour, folder, "deploy.yml")

        if not fails:
            assert code == 0, text
            assert count.read_text(encoding="utf-8") == "4" and harbour.pid("orders") == process
            return
        assert code != 0 and "the deployment failed and orders is as it was before" in text, text
        assert harbour.contents() == former, text
        assert harbour.healthy("orders") and harbour.pid("orders") != process, "stopped for the swap, and started again"
        reports = sorted(path.parent.name for path in harbour.runs.glob("*/report.html"))
        assert [name.split("-")[1] for name in reports] == ["backup", "restore"]
