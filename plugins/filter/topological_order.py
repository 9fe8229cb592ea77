# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: topological_order
short_description: Services in the order in which they come up
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - Sorts the whole graph of services, requirements first, and then keeps the picked ones. Sorting only the picked ones would lose
    what they require of each other through services that are not picked.
  - Among services that could come next the lowest priority number wins, then the name, so the order does not depend on the order of
    the input. A requirement is as urgent as the most urgent service that needs it.
  - A cycle is an error that prints the cycle.
positional: _input, pick
options:
  _input:
    description:
      - The services. A catalog (the variable P(lifeboat.recovery.catalog#inventory) sets as C(lifeboat_catalog)), a mapping of service
        name to entry, or hostvars of services.
    type: dict
    required: true
  pick:
    description: The services to keep, as a list or a comma list. All when left out.
    type: list
    elements: str
  reverse:
    description: Dependants first, the order in which services are stopped.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Order in which to start
  ansible.builtin.debug:
    msg: "{{ lifeboat_catalog | lifeboat.recovery.topological_order(['gateway', 'identity']) }}"
    # => ['identity', 'gateway']

- name: Fill a group in that order; never rely on the order of an inventory
  ansible.builtin.add_host:
    name: "{{ item }}"
    groups: restore_order
  loop: "{{ lifeboat_catalog | lifeboat.recovery.topological_order(ansible_play_hosts_all) }}"

- name: Order in which to stop
  ansible.builtin.debug:
    msg: "{{ lifeboat_catalog | lifeboat.recovery.topological_order(reverse=true) }}"
"""

RETURN = r"""
_value:
  description: Names of services.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import order
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered, services_of
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.pick import names_of


@filtered
def topological_order(services: Any, pick: Any = None, reverse: bool = False) -> list[str]:
    """See DOCUMENTATION."""
    result = order.topological_order(services_of(services), None if pick is None else names_of(pick))
    return result[::-1] if reverse else result


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"topological_order": topological_order}
