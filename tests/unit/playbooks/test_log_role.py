# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role log writes units that name what the shipper needs and may write; a second time it changes nothing."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]


def play(folder: pathlib.Path, sources: dict[str, object]) -> dict[str, int]:
    (folder / "play.yml").write_text(json.dumps([{
        "hosts": "localhost", "gather_facts": False, "connection": "local",
        "vars": {
            "lifeboat_service": "orders", "lifeboat_entry": {"sources": sources}, "lifeboat_repository": {"url": "file:///srv/lifeboat"},
            "lifeboat_log": "installed", "lifeboat_log_unit_dir": str(folder / "units"), "ansible_python_interpreter": sys.executable,
        },
        "tasks": [{"import_role": {"name": "lifeboat.recovery.log"}}],
    }]))
    (folder / "units").mkdir(exist_ok=True)
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,", str(folder / "play.yml")], capture_output=True, text=True,
        timeout=120, check=False, cwd=folder, env={
            **os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev"), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "LC_ALL": "C.UTF-8",
        })
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", done.stdout[done.stdout.index("PLAY RECAP"):])}


def test_units(tmp_path: pathlib.Path) -> None:
    sources = {"db": {"type": "postgresql", "data_directory": "/d", "log": {"spool": "/spool"}}, "more": {"type": "postgresql", "log": {}},
               "tree": {"type": "files", "path": "/t"}}
    assert play(tmp_path, sources)["changed"] > 0
    assert play(tmp_path, sources)["changed"] == 0
    units = tmp_path / "units"
    assert sorted(path.name for path in units.iterdir()) == [
        "lifeboat-log@.service", "lifeboat-log@orders.db.service.d", "lifeboat-log@orders.more.service.d"]
    unit = (units / "lifeboat-log@.service").read_text()
    assert "ExecStart=/usr/local/bin/lifeboat --config /etc/lifeboat log run %i\n" in unit and "Restart=always\n" in unit
    assert "password" not in unit.lower()
    if shutil.which("systemd-analyze"):
        instance = tmp_path / "lifeboat-log@orders.db.service"
        instance.write_text(unit.replace("/usr/local/bin/lifeboat", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(instance)], capture_output=True, text=True, timeout=60, check=False)
        assert "lifeboat-log" not in done.stderr, done.stderr
    paths = (units / "lifeboat-log@orders.db.service.d" / "paths.conf").read_text()
    assert [line for line in paths.splitlines() if "=" in line] == [
        "ReadWritePaths=-/var/lib/lifeboat", "ReadWritePaths=-/spool", "ReadWritePaths=-/srv/lifeboat"]
    assert "/spool" not in (units / "lifeboat-log@orders.more.service.d" / "paths.conf").read_text()


def test_nothing_for_a_service_without_a_log(tmp_path: pathlib.Path) -> None:
    assert play(tmp_path, {"tree": {"type": "files", "path": "/t"}})["changed"] == 0
    assert not list((tmp_path / "units").iterdir())
