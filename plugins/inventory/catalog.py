# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: catalog
short_description: One inventory host per service of a Lifeboat catalog
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - Reads a catalog, the YAML file that declares the services of an ecosystem, and makes one inventory host of each service.
  - The file name must end in C(.catalog.yml) or C(.catalog.yaml). Every key of a catalog is described in C(docs/catalog.md) of the
    collection; the schema is closed, and all faults are reported at once, each with file, line and remedy.
  - A catalog is not a template. Jinja expressions in it stay text; C(${name}) and C(${env:NAME}) are replaced.
  - Groups are V(lifeboat_services) for all services, C(tier_TIER), C(domain_DOMAIN), C(group_CONSISTENCY_GROUP) and C(on_HOST).
    Characters that group names cannot hold become C(_).
  - How to connect to a service is inherited, when it is needed, from the inventory host that the catalog's C(host) key names. Its
    variables may come from any inventory source, host_vars or group_vars. C(localhost) is the controller itself.
  - There is one catalog per inventory. Put it into an inventory directory together with the machines, or use it alone.
notes:
  - Ansible turns the failure of an inventory source into a warning and goes on without its hosts, so that a play over services would
    end in success with nothing done. A faulty catalog therefore ends the whole command, with one line per fault and exit code 4.
  - A file that is no YAML at all is refused by Ansible's P(ansible.builtin.auto#inventory) before this plugin sees it, with warnings only.
    List this plugin first in C(enable_plugins) of the C([inventory]) section of F(ansible.cfg) to get its errors there too. The playbooks
    of this collection refuse to run without services in any case, and say what is wrong with the catalog; let your own plays do so with
    P(lifeboat.recovery.catalog_hosts#filter).
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [lifeboat.recovery.catalog]
  ecosystem:
    description: Name of the ecosystem; the file name before its suffix when left out.
    type: str
  production:
    description: Whether acting on it needs a confirmation.
    type: bool
    default: false
  never_restore_into:
    description: Hosts, machines, clusters and directories that preflight refuses to restore into.
    type: dict
  variables:
    description: Values for C(${name}); V(file) names a flat YAML file with more of them.
    type: dict
  state_dir:
    description: Where hosts keep what they know of runs.
    type: str
  repositories:
    description: Where snapshots live. The first one is the default.
    type: dict
    required: true
  keys:
    description: Where data keys come from.
    type: dict
    required: true
  approvals:
    description: Which verbs need a signed approval of their plan, and whose.
    type: dict
  audit:
    description: Where sealed journals are copied to, and with which key the controller seals them.
    type: dict
  tiers:
    description: Named policies for objectives, schedule and retention.
    type: dict
  consistency_groups:
    description: Names of the consistency groups; when given, only these may be used.
    type: dict
  services:
    description: The services.
    type: dict
    required: true
  reconcile:
    description: Checks between services.
    type: list
    elements: dict
"""

EXAMPLES = r"""
# shop.catalog.yml
plugin: lifeboat.recovery.catalog
repositories:
  local: {url: file:///var/lib/lifeboat-repository}
keys: {provider: file, path: /etc/lifeboat/keys}
services:
  identity:
    host: db1
    sources:
      db: {type: postgresql_database, database: identity}
    health: [{http: 'http://127.0.0.1:8080/health'}]
  orders:
    host: app1
    requires: [identity]
    sources:
      invoices: {type: files, path: /srv/orders/invoices}
    invariants:
      - {name: the archive answers, http: 'http://127.0.0.1:8081/archive', json: state, equals: ready}

# ansible-inventory -i shop.catalog.yml --graph
# ansible-inventory -i inventory/ --host orders
"""

import json
import os
import re
from typing import Any, Iterable

from ansible import constants
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.template import trust_as_template

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import clusters, machines, model

ALL = "lifeboat_services"

#: The exit code that Ansible itself uses for what it cannot parse.
PARSER_ERROR = 4

#: What every service takes over. An undefined variable becomes none, which these options treat as not given.
INHERITED = (
    "ansible_user", "ansible_port", "ansible_password", "ansible_ssh_private_key_file", "ansible_ssh_common_args", "ansible_ssh_extra_args",
    "ansible_become_user", "ansible_become_password",
)

#: Variables that Ansible computes; never inherited.
OWN = ("ansible_host", "ansible_connection", "ansible_python_interpreter", "ansible_facts", "ansible_local", "ansible_inventory_sources",
       "ansible_playbook_python", "ansible_version")


_VARIABLE = re.compile(r"ansible_[a-z0-9_]+\Z")


def safe_group(prefix: str, name: str) -> str:
    """A group name that Ansible accepts without a warning."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def connection_of(host: str, defined: Iterable[str] = (), moves: bool = False) -> dict[str, Any]:
    """Variables that connect to a service as to its host. They are templates, so that host_vars and group_vars of the host count.

    moves: the service is a replicated cluster, and a playbook may say with lifeboat_data_host which of its hosts it is about.
    ``host`` is a checked name without quotes or braces, so it can be written into a template. ``defined``: further connection
    variables that the host is known to have. Ansible reads some, such as ansible_become, whenever they are defined, whatever they
    evaluate to, so these must not be defined on a service whose host lacks them.
    """
    if host == "localhost" and not moves:
        return {"ansible_host": "localhost", "ansible_connection": "local",
                "ansible_python_interpreter": trust_as_template("{{ ansible_playbook_python }}")}
    at = "lifeboat_data_host" if moves else f"'{host}'"
    found = f"(hostvars[{at}] | default({{}}))"
    defaults = {
        "ansible_host": at,
        "ansible_connection": "'ssh'",
        # what this controller is configured to use, resolved now: a lookup inside the template would find the template itself
        "ansible_python_interpreter": json.dumps(str(constants.config.get_config_value("INTERPRETER_PYTHON"))),
        **dict.fromkeys(INHERITED, "none"),
        **{name: "none" for name in defined if _VARIABLE.match(name) and name not in OWN and name not in INHERITED},
    }
    return {name: trust_as_template(f"{{{{ {found}.{name} | default({default}) }}}}") for name, default in defaults.items()}


class InventoryModule(BaseInventoryPlugin):
    """Makes inventory hosts of services; all knowledge of catalogs is in plugin_utils/catalog."""

    NAME = "lifeboat.recovery.catalog"

    def verify_file(self, path: str) -> bool:
        """Only files that end in .catalog.yml or .catalog.yaml."""
        return bool(super().verify_file(path)) and path.endswith(model.SUFFIXES)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Read the catalog whole before anything is added, so that a faulty one adds nothing."""
        super().parse(inventory, loader, path, cache)
        try:
            catalog = model.load(str(path))
            self._refuse_clashes(catalog)
        except ConfigError as error:
            # An AnsibleParserError would become a page of warnings of several plugins, exit code 0 and an empty inventory.
            for line in str(error).splitlines():
                self.display.error(line, wrap_text=False)
            raise SystemExit(PARSER_ERROR) from None
        for warning in catalog.warnings:
            self.display.warning(warning)
        self._add(catalog)

    def _refuse_clashes(self, catalog: model.Catalog) -> None:
        present = self.inventory.groups.get(ALL)
        if present is not None:
            other = present.get_vars().get("lifeboat_catalog_path", "another source")
            if other != catalog.path:
                raise ConfigError("two catalogs in one inventory", f"{catalog.path} and {other}", "use one inventory per ecosystem")
            return  # the same file read twice gives the same hosts
        for service in catalog.services:
            if service in self.inventory.hosts:
                raise ConfigError(f"service {service} has the name of an inventory host", catalog.path,
                                  "rename one of them; their variables would mix")

    def _add(self, catalog: model.Catalog) -> None:
        self.inventory.add_group(ALL)
        for name, value in {
            "lifeboat_catalog": catalog.document,
            "lifeboat_catalog_path": catalog.path,
            "lifeboat_catalog_dir": os.path.dirname(catalog.path),
        }.items():
            self.inventory.set_variable(ALL, name, value)
        known = machines.Machines(self.inventory, self.loader, catalog.path)
        for service, entry in catalog.services.items():
            self.inventory.add_host(service, group=ALL)
            host, members = clusters.data_host(entry), cluster_members.hosts_of(entry)
            defined = set().union(*(known.defined(one) for one in members or [host]))
            for name, value in {**catalog.hostvars(service), **connection_of(host, defined, bool(members))}.items():
                self.inventory.set_variable(service, name, value)
            for prefix, key in (("tier", "tier"), ("domain", "domain"), ("group", "consistency_group"), ("on", "host")):
                if entry[key]:
                    self.inventory.add_child(self.inventory.add_group(safe_group(prefix, entry[key])), service)
