# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrong or empty inventory, under our settings and under a site's own, is one line and not a success."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
VERBS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))

NOT_YAML = "plugin: lifeboat.recovery.catalog\nservices: {}\n  x: [\n"
GOOD = (
    "plugin: lifeboat.recovery.catalog\nrepositories: {local: {url: 'file:///nowhere'}}\nkeys: {provider: file, path: /nowhere}\n"
    "services:\n  lamp: {host: localhost}\n"
)
FAULTY = GOOD.replace("host:", "hots:")
HOSTS = "[web]\nlocalhost ansible_connection=local\n"


def play(folder: pathlib.Path, verb: str, *arguments: str, ours: bool = False, **settings: str) -> tuple[int, str]:
    config = folder / "ansible.cfg"
    config.write_text("[defaults]\nlocalhost_warning = false\n")
    words = [word for name in arguments for word in (("-i", name) if name[0] != "-" else (name,))]
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), f"lifeboat.recovery.{verb}", *words], check=False, text=True, cwd=folder, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env={
            "PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "ANSIBLE_HOME": str(folder / "home"), "NO_COLOR": "1",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg" if ours else config), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev"), **settings,
        },
    )
    return done.returncode, done.stdout


@pytest.fixture(autouse=True)
def inventories(tmp_path: pathlib.Path) -> None:
    for name, text in (("not_yaml", NOT_YAML), ("faulty", FAULTY), ("good", GOOD)):
        (tmp_path / f"{name}.catalog.yml").write_text(text)
    (tmp_path / "hosts.ini").write_text(HOSTS)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "shop.catalog.yml").write_text(NOT_YAML)


def refused(told: tuple[int, str], line: str, code: int = 4) -> None:
    assert told[0] == code, told
    errors = [one for one in told[1].splitlines() if one.startswith("[ERROR]")]
    assert errors == [f"[ERROR]: {line}"], told[1]
    assert "PLAY [" not in told[1] and "Traceback" not in told[1]


@pytest.mark.parametrize("verb", VERBS)
def test_no_services_is_an_error_for_every_verb(tmp_path: pathlib.Path, verb: str) -> None:
    refused(play(tmp_path, verb, "hosts.ini"), "no services in this inventory: hosts.ini; give the catalog with -i; its name ends in .catalog.yml")


@pytest.mark.parametrize("ours", [True, False])
def test_an_empty_inventory(tmp_path: pathlib.Path, ours: bool) -> None:
    told = play(tmp_path, "restore", "/dev/null", ours=ours)
    refused(told, "no services in this inventory: /dev/null; give the catalog with -i; its name ends in .catalog.yml")


def test_no_inventory_at_all(tmp_path: pathlib.Path) -> None:
    told = play(tmp_path, "restore")
    assert told[0] == 4 and "no services in this inventory" in told[1]


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(("name", "line"), [
    ("not_yaml.catalog.yml", "not valid YAML (expected <block end>, but found '<block mapping start>'): {}:3; check indentation, colons and quotes there"),
    ("folder", "not valid YAML (expected <block end>, but found '<block mapping start>'): {}:3; check indentation, colons and quotes there"),
])
def test_a_catalog_that_is_no_yaml_says_where(tmp_path: pathlib.Path, ours: bool, name: str, line: str) -> None:
    where = os.path.join("folder", "shop.catalog.yml") if name == "folder" else name
    refused(play(tmp_path, "backup", name, ours=ours), line.format(where))


def test_a_faulty_catalog_names_every_fault(tmp_path: pathlib.Path) -> None:
    code, text = play(tmp_path, "status", "faulty.catalog.yml")
    assert code == 4 and 'unknown key "hots" in services.lamp: faulty.catalog.yml:5; did you mean "host"?' in text


def test_a_catalog_beside_a_broken_one_is_no_whole_inventory(tmp_path: pathlib.Path) -> None:
    told = play(tmp_path, "status", "good.catalog.yml", "not_yaml.catalog.yml")
    assert told[0] == 4 and "[ERROR]: not valid YAML" in told[1] and "PLAY [" not in told[1]


def test_settings_that_keep_catalogs_from_being_read(tmp_path: pathlib.Path) -> None:
    told = play(tmp_path, "points", "good.catalog.yml", ANSIBLE_INVENTORY_ENABLED="host_list,ini")
    assert told[0] == 4 and "Ansible did not read the catalog: good.catalog.yml; put lifeboat.recovery.catalog" in told[1]


def test_a_syntax_check_needs_no_inventory(tmp_path: pathlib.Path) -> None:
    code, text = play(tmp_path, "restore", "--syntax-check")
    assert code == 0 and "playbook: " in text, text
