# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: catalog_hosts
short_description: The services of the inventory's catalog, for the hosts of a play
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - Gives the inventory hosts that P(lifeboat.recovery.catalog#inventory) made. When there are none, the whole command ends with one line
    per fault and exit code 4. To Ansible a play without hosts is a success, and what it could not read of an inventory is a warning.
  - With C(--syntax-check) it gives the name of the group, because there is no inventory to look at.
positional: _input, sources
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  sources:
    description: The variable C(ansible_inventory_sources); a catalog among them that Ansible could not read is read for its faults.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Something for all services, and never for none
  hosts: "{{ groups | lifeboat.recovery.catalog_hosts(ansible_inventory_sources | default([])) }}"
  gather_facts: false
  tasks:
    - name: Name the service
      ansible.builtin.debug:
        var: lifeboat_service
"""

RETURN = r"""
_value:
  description: Names of the hosts.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible import context
from ansible.utils.display import Display

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import hosts

display = Display()

#: The exit code that Ansible itself uses for what it cannot parse.
PARSER_ERROR = 4


def catalog_hosts(groups: Any, sources: Any = ()) -> Any:
    """See DOCUMENTATION."""
    if context.CLIARGS.get("syntax"):
        return hosts.GROUP
    try:
        return hosts.services(groups, list(sources or ()))
    except ConfigError as error:
        for line in str(error).splitlines():
            display.error(line, wrap_text=False)
        raise SystemExit(PARSER_ERROR) from None


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"catalog_hosts": catalog_hosts}
