# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin: what it puts into an inventory, and what people and playbooks see when it cannot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader

from ansible_collections.lifeboat.recovery.plugins.inventory.catalog import InventoryModule, connection_of, safe_group

ROOT = Path(__file__).resolve().parents[3]
HEAD = "plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: file:///srv/repository}}\nkeys: {provider: file, path: /srv/keys}\n"
SHOP = HEAD + """
tiers: {gold: {rto: 5m}}
consistency_groups: {check-out: {}}
services:
  orders: {host: db1, tier: gold, domain: commerce, consistency_group: check-out, owner: "{{ lookup('pipe', 'touch stolen') }}",
           sources: {invoices: {type: files, path: /srv/orders}}}
  payments: {host: db-2.example.com, requires: [orders]}
  gateway: {host: localhost, requires: [payments]}
"""


def parsed(tmp_path: Path, text: str = SHOP, inventory: InventoryData | None = None, name: str = "shop.catalog.yml") -> InventoryData:
    path = tmp_path / name
    path.write_text(text)
    data = inventory or InventoryData()
    plugin = InventoryModule()
    assert plugin.verify_file(str(path))
    plugin.parse(data, DataLoader(), str(path))
    data.reconcile_inventory()
    return data


def run(tmp_path: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """An Ansible command with nobody's configuration."""
    (tmp_path / "empty.cfg").touch()
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    clean = {"PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8",
             "ANSIBLE_CONFIG": str(tmp_path / "empty.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev")}
    return subprocess.run(command, cwd=tmp_path, env={**clean, **environment}, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name, wanted", [
    ("shop.catalog.yml", True), ("shop.catalog.yaml", True), ("shop.yml", False), ("catalog.yml", False), ("shop.catalog.json", False),
])
def test_only_files_of_its_name(tmp_path: Path, name: str, wanted: bool) -> None:
    (tmp_path / name).write_text("a: 1")
    assert InventoryModule().verify_file(str(tmp_path / name)) is wanted
    assert InventoryModule().verify_file(str(tmp_path / "absent.catalog.yml")) is False


def test_groups(tmp_path: Path) -> None:
    groups = {name: [host.name for host in group.hosts] for name, group in parsed(tmp_path).groups.items() if name not in ("all", "ungrouped")}
    assert groups == {
        "lifeboat_services": ["orders", "payments", "gateway"], "tier_gold": ["orders"], "domain_commerce": ["orders"], "group_check_out": ["orders"],
        "on_db1": ["orders"], "on_db_2_example_com": ["payments"], "on_localhost": ["gateway"],
    }
    assert safe_group("on", "a.b-c") == "on_a_b_c"


def test_hostvars_and_the_catalog(tmp_path: Path) -> None:
    data = parsed(tmp_path)
    orders = data.hosts["orders"].get_vars()
    assert (orders["lifeboat_service"], orders["lifeboat_ecosystem"]) == ("orders", "shop")
    assert (orders["lifeboat_production"], orders["lifeboat_state_dir"]) == (False, "")
    assert orders["lifeboat_repository"] == {"name": "l", "url": "file:///srv/repository"}
    assert orders["lifeboat_keys"] == {"provider": "file", "path": "/srv/keys"}
    assert orders["lifeboat_entry"]["sources"]["invoices"]["path"] == "/srv/orders"
    shared = data.groups["lifeboat_services"].get_vars()
    assert list(shared["lifeboat_catalog"]["services"]) == ["orders", "payments", "gateway"]
    assert (shared["lifeboat_catalog_path"], shared["lifeboat_catalog_dir"]) == (str(tmp_path / "shop.catalog.yml"), str(tmp_path))
    assert len(orders["lifeboat_catalog_digest"]) == 64


def test_connection_is_inherited_by_template(tmp_path: Path) -> None:
    data = parsed(tmp_path)
    assert data.hosts["gateway"].get_vars()["ansible_connection"] == "local"
    orders = connection_of("db1")
    assert orders["ansible_host"] == "{{ (hostvars['db1'] | default({})).ansible_host | default('db1') }}"
    assert "ansible_become" not in orders  # Ansible reads it whenever it is defined, and none is no boolean
    assert "ansible_become" in connection_of("db1", ["ansible_become", "ansible_facts", "ansible_x }} {{ y", "other"])
    assert not {"ansible_facts", "other", "ansible_x }} {{ y"} & set(connection_of("db1", ["ansible_facts", "ansible_x }} {{ y", "other"]))


def test_the_same_file_twice_is_one_inventory_two_files_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = parsed(tmp_path)
    assert len(parsed(tmp_path, inventory=data).groups["lifeboat_services"].hosts) == 3
    with pytest.raises(SystemExit) as caught:
        parsed(tmp_path, HEAD + "services: {mail: {host: h}}", data, "other.catalog.yml")
    assert caught.value.code == 4 and "mail" not in data.hosts
    assert (f"two catalogs in one inventory: {tmp_path}/other.catalog.yml and {tmp_path}/shop.catalog.yml; use one inventory per ecosystem"
            in capfd.readouterr().err)


def test_a_service_with_the_name_of_a_machine_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = InventoryData()
    data.add_host("orders")
    with pytest.raises(SystemExit):
        parsed(tmp_path, inventory=data)
    assert f"service orders has the name of an inventory host: {tmp_path}/shop.catalog.yml; rename one of them" in capfd.readouterr().err
    assert "lifeboat_services" not in data.groups


# -- with the real commands --------------------------------------------------------------------------------------------------------

PLAY = """
- name: Services
  hosts: lifeboat_services
  gather_facts: false
  tasks:
    - name: Show
      ansible.builtin.debug:
        msg: "{{ lifeboat_service }} {{ lifeboat_entry.owner }} {{ ansible_host }} {{ user }} {{ port }}"
      vars:
        user: "{{ ansible_user | default('nobody', true) }}"
        port: "{{ ansible_port | default('-', true) }}"
"""


def test_connection_variables_come_from_the_machine_wherever_they_are_written(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    for folder in ("host_vars", "group_vars"):
        (inventory / folder).mkdir(parents=True)
    # the machines are read after the catalog, and most of their variables come from files beside it
    (inventory / "zoo.yml").write_text("databases: {hosts: {db1: {ansible_connection: local}}}\n")
    (inventory / "host_vars" / "db1.yml").write_text("ansible_host: 10.9.9.9\nansible_port: 2222\n")
    (inventory / "group_vars" / "databases.yml").write_text("ansible_user: backup\n")
    (inventory / "shop.catalog.yml").write_text(SHOP)
    (tmp_path / "play.yml").write_text(PLAY)
    result = run(tmp_path, "ansible-playbook", "-i", "inventory", "play.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    shown = [line.split('"msg": ')[1].strip() for line in result.stdout.splitlines() if '"msg": ' in line]
    assert sorted(shown) == [
        '"gateway  localhost nobody -"',
        """"orders {{ lookup('pipe', 'touch stolen') }} 10.9.9.9 backup 2222\"""",
        '"payments  db-2.example.com nobody -"',
    ]
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize("hosts, catalog", [("inventory/zoo.yml", "inventory/shop.catalog.yml"), ("a/hosts.yml", "b/shop.catalog.yml")])
def test_what_only_some_machines_have_comes_too_in_whatever_order_the_sources_are_read(tmp_path: Path, hosts: str, catalog: str) -> None:
    """Such as ansible_become, which is in effect as soon as it is defined: the catalog must know the names before it makes its hosts."""
    for name in (hosts, catalog):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / hosts).write_text("databases: {hosts: {db1: {ansible_become: true}}}\nothers: {hosts: {db-2.example.com: {}}}\n")
    (tmp_path / hosts).parent.joinpath("group_vars").mkdir()
    (tmp_path / hosts).parent.joinpath("group_vars", "databases.yml").write_text("ansible_become_method: su\n")
    (tmp_path / catalog).write_text(SHOP)
    folders = sorted({str(Path(name).parent) for name in (hosts, catalog)}, reverse=True)  # the machines last
    sources = [word for folder in folders for word in ("-i", folder)]
    result = run(tmp_path, "ansible", *sources, "orders:payments", "-m", "ansible.builtin.debug", "-a",
                 "msg={{ ansible_become | default('no') }}-{{ ansible_become_method | default('none') }}")
    assert result.returncode == 0, result.stdout + result.stderr
    shown = dict(re.findall(r'(\w+) \| SUCCESS => \{\s+"msg": "([^"]*)"', result.stdout))
    assert shown == {"orders": "True-su", "payments": "no-none"}


@pytest.mark.parametrize("machine, user", [("ansible_become: true\nansible_become_user: nobody\n", "65534"), ("ansible_become: false\n", str(os.getuid()))])
def test_modules_run_on_the_machine_of_a_service(tmp_path: Path, machine: str, user: str) -> None:
    if user == "65534" and os.getuid() != 0:
        machine, user = "ansible_become: false\n", str(os.getuid())  # an ordinary user becomes nobody else
    inventory = tmp_path / "inventory"
    (inventory / "host_vars").mkdir(parents=True)
    (inventory / "hosts.yml").write_text("all: {hosts: {db1: {ansible_connection: local, ansible_python_interpreter: /usr/bin/python3}}}\n")
    (inventory / "host_vars" / "db1.yml").write_text(machine + "ansible_remote_tmp: /tmp/.lifeboat-test\n")
    (inventory / "shop.catalog.yml").write_text(HEAD + "services: {orders: {host: db1}, gateway: {host: localhost}}")
    result = run(tmp_path, "ansible", "-i", "inventory", "orders", "-m", "ansible.builtin.command", "-a", "id -u")
    assert result.returncode == 0 and result.stdout.split()[-1] == user, result.stdout + result.stderr
    result = run(tmp_path, "ansible", "-i", "inventory", "gateway", "-m", "ansible.builtin.ping")
    assert result.returncode == 0 and '"ping": "pong"' in result.stdout, result.stdout + result.stderr


BAD = HEAD + "services:\n  orders: {host: db1, requirs: [x]}\n  payments: {hosst: db1}\n"
LINES = [
    '[ERROR]: unknown key "requirs" in services.orders: shop.catalog.yml:5; did you mean "requires"?',
    '[ERROR]: unknown key "hosst" in services.payments: shop.catalog.yml:6; did you mean "host"?',
    "[ERROR]: missing key host in services.payments: shop.catalog.yml:6; add host:",
]


@pytest.mark.parametrize("command", [
    ["ansible-playbook", "-i", "shop.catalog.yml", "play.yml"],
    ["ansible-playbook", "-i", "shop.catalog.yml", "play.yml", "--limit", "orders", "--check"],
    ["ansible-inventory", "-i", "shop.catalog.yml", "--list"],
    ["ansible", "-i", "shop.catalog.yml", "all", "-m", "ansible.builtin.ping"],
])
def test_a_faulty_catalog_ends_every_command_with_one_line_per_fault(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "shop.catalog.yml").write_text(BAD)
    result = run(tmp_path, *command)
    assert result.returncode == 4
    assert result.stderr.splitlines() == LINES and result.stdout == ""


def test_a_faulty_catalog_in_a_directory_of_sound_machines(tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "hosts.yml").write_text("all: {hosts: {db1: {}}}\n")
    (tmp_path / "inventory" / "shop.catalog.yml").write_text(BAD)
    result = run(tmp_path, "ansible-inventory", "-i", "inventory", "--list")
    assert result.returncode == 4 and [line.replace("inventory/", "") for line in result.stderr.splitlines()] == LINES


def test_what_is_no_yaml_is_named_where_the_plugin_is_enabled_first(tmp_path: Path) -> None:
    (tmp_path / "shop.catalog.yml").write_text(HEAD + "services: [a\n")
    result = run(tmp_path, "ansible-inventory", "-i", "shop.catalog.yml", "--list", ANSIBLE_INVENTORY_ENABLED="lifeboat.recovery.catalog,auto,yaml")
    assert result.returncode == 4
    assert result.stderr.splitlines() == [
        "[ERROR]: not valid YAML (expected ',' or ']', but got '<stream end>'): shop.catalog.yml:5; check indentation, colons and quotes there"]


def test_a_play_that_asks_for_services_never_passes_without_them(tmp_path: Path) -> None:
    (tmp_path / "shop.catalog.yml").write_text(HEAD + "services: [a\n")  # Ansible's own loader refuses it, with warnings only
    (tmp_path / "play.yml").write_text(PLAY.replace("hosts: lifeboat_services",
                                                    "hosts: \"{{ groups['lifeboat_services'] | mandatory('no catalog in this inventory') }}\""))
    result = run(tmp_path, "ansible-playbook", "-i", "shop.catalog.yml", "play.yml")
    assert result.returncode == 4 and "no catalog in this inventory" in result.stderr


def test_the_catalog_survives_an_export(tmp_path: Path) -> None:
    (tmp_path / "shop.catalog.yml").write_text(SHOP)
    result = run(tmp_path, "ansible-inventory", "-i", "shop.catalog.yml", "--list", "--export")
    assert result.returncode == 0 and result.stderr == ""
    exported: Any = json.loads(result.stdout)
    assert "lifeboat_catalog" not in exported["_meta"]["hostvars"]["orders"]
    # AWX imports it so; the order of mappings is lost on the way, and nothing may depend on it
    assert sorted(exported["lifeboat_services"]["vars"]["lifeboat_catalog"]["services"]) == ["gateway", "orders", "payments"]


def test_the_example_inventory(tmp_path: Path) -> None:
    result = run(tmp_path, "ansible-inventory", "-i", str(ROOT / "inventories" / "example"), "--list", "--export")
    assert result.returncode == 0 and "Failed to parse" not in result.stderr, result.stderr
    groups: Any = json.loads(result.stdout)
    assert groups["lifeboat_services"]["hosts"] == ["identity", "inventory", "orders", "invoices", "payments", "sessions", "mail", "gateway"]
    (tmp_path / "play.yml").write_text(PLAY.replace("lifeboat_services", "orders"))
    result = run(tmp_path, "ansible-playbook", "-i", str(ROOT / "inventories" / "example"), "play.yml")
    assert result.returncode == 0 and '"msg": "orders team-checkout 10.20.0.12 lifeboat -"' in result.stdout, result.stdout + result.stderr
