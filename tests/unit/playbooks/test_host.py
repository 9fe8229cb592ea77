# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bootstrap puts on a host: the specification of its services, and the host command as one file."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import zipfile
from typing import Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.lookup import host_command
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import host
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec

ENGINE = str(pathlib.Path(__file__).resolve().parents[3] / "plugins" / "module_utils")


def spec(home: pathlib.Path, name: str = "orders", **sources: dict[str, object]) -> Spec:
    return Spec.from_dict({
        "service": name, "entry": {"sources": sources or {"files": {"type": "files", "path": "/srv/orders"}}, "invariants": []},
        "repository": {"name": "local", "url": f"file://{home}/repository"}, "state_dir": str(home / "state"),
        "keys": {"provider": "file", "path": str(home / "keys"), "private_path": str(home / "private")}, "catalog": {"digest": "d", "ecosystem": "shop"},
    })


def test_the_specification_holds_nothing_that_opens_snapshots(tmp_path: pathlib.Path) -> None:
    specs = [spec(tmp_path), spec(tmp_path, "mill")]
    found = host.prepare(specs, str(tmp_path / "etc"), str(tmp_path / "bin" / "lifeboat"), False)
    assert found["changed"] and found["python"] == sys.executable
    for name in ("orders", "mill"):
        path = tmp_path / "etc" / "services" / f"{name}.json"
        written = json.loads(path.read_text(encoding="utf-8"))
        assert written["keys"] == {"provider": "file", "path": str(tmp_path / "keys")} and "private" not in path.read_text(encoding="utf-8")
        assert path.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "state" / "services" / name).stat().st_mode & 0o777 == 0o700
    assert not host.prepare(specs, str(tmp_path / "etc"), str(tmp_path / "bin" / "lifeboat"), False)["changed"]


def test_check_mode_makes_nothing(tmp_path: pathlib.Path) -> None:
    assert host.prepare([spec(tmp_path)], str(tmp_path / "etc"), str(tmp_path / "bin" / "lifeboat"), True)["changed"]
    assert not list(tmp_path.iterdir())


def test_everything_that_is_missing_is_named_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = spec(tmp_path, db={"type": "postgresql_database", "database": "orders"}, cache={"type": "redis"})
    with pytest.raises(ConfigError) as error:
        host.prepare([wanted], str(tmp_path / "etc"), "", False)
    text = str(error.value)
    assert "psycopg2-binary" in text and "redis" in text and "program pg_dump (package postgresql-client)" in text
    assert f"{sys.executable} -m pip install psycopg2-binary redis" in text
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("place", [host.config_dir, host.command_path])
def test_places_are_absolute(place: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match="absolute"):
        place("etc/lifeboat")


def test_the_host_command_is_the_same_bytes_every_time_and_runs_alone(tmp_path: pathlib.Path) -> None:
    content = host_command.build(sys.executable, ENGINE)
    assert content == host_command.build(sys.executable, ENGINE)
    path = tmp_path / "lifeboat"
    path.write_bytes(content)
    path.chmod(0o755)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert "__main__.py" in names and f"{host_command.PACKAGE}/cli/main.py" in names and not [name for name in names if "__pycache__" in name]
    (tmp_path / "etc" / "services").mkdir(parents=True)
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run([str(path), "--config", str(tmp_path / "etc"), "status", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=60, check=False)
    assert "Traceback" not in done.stderr and "ansible" not in done.stderr, done.stderr
    asked = subprocess.run([str(path), "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 0 and "restore" in asked.stdout


def test_the_specification_holds_the_catalog_without_secrets_and_says_production(tmp_path: pathlib.Path) -> None:
    catalog = {
        "ecosystem": "shop", "production": True, "keys": {"provider": "file", "path": "/k", "private_path": "/hidden"},
        "services": {"orders": {"sources": {"db": {"password": "canary-1", "password_file": "/etc/pw", "token": ["canary-2"]}},
                                "health": [{"http": "http://me:canary-3@localhost/health"}]}},
    }
    wanted = spec(tmp_path)
    wanted.catalog["document"] = catalog
    found = host.specification(wanted)["catalog"]
    text = json.dumps(found)
    assert found["production"] is True and found["document"]["services"]["orders"]["sources"]["db"]["password_file"] == "/etc/pw"
    assert "canary" not in text and "/hidden" not in text
    assert host.specification(spec(tmp_path))["catalog"] == {"digest": "d", "ecosystem": "shop", "production": False, "document": None}


def test_the_host_command_asks_for_a_confirmation_in_production(tmp_path: pathlib.Path) -> None:
    wanted = spec(tmp_path)
    wanted.catalog["document"] = {"ecosystem": "shop", "production": True}
    host.prepare([wanted], str(tmp_path / "etc"), str(tmp_path / "bin" / "lifeboat"), False)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "lifeboat").symlink_to(ENGINE)
    for verb in ("restore", "rollback", "commit"):
        done = subprocess.run(
            [sys.executable, "-m", "lifeboat.cli", "--config", str(tmp_path / "etc"), verb, "orders"], text=True, capture_output=True, check=False, timeout=60,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}, cwd="/",
        )
        assert done.returncode == 1 and done.stderr == "lifeboat: the catalog marks this ecosystem as production: shop; add --confirm shop\n", done.stderr
