# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_hosts
short_description: The hosts of a service's replicated cluster
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - The members of the cluster, that from whose place the entry is written first; empty for a service without members.
positional: _input
options:
  _input:
    description: The normalised catalog entry of the service.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Ask every member
  lifeboat.recovery.service_member:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    member: "{{ item }}"
  delegate_to: "{{ item }}"
  loop: "{{ lifeboat_entry | lifeboat.recovery.cluster_hosts }}"
"""

RETURN = r"""
_value:
  description: Names of inventory hosts.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered, mapping_in


@filtered
def cluster_hosts(entry: Any) -> list[str]:
    """See DOCUMENTATION."""
    return cluster_members.hosts_of(mapping_in(entry, "the entry"))


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster_hosts": cluster_hosts}
