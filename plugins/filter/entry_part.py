# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: entry_part
short_description: The checks of a service that belong to its data, or to where it runs
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - A service may run on other hosts than the one with its data. Checks that ask a source (C(sql), C(redis)) are made where the data is,
    its status and all other checks on each host that it runs on.
positional: _input, part
options:
  _input:
    description: The normalised catalog entry of the service.
    type: dict
    required: true
  part:
    description:
      - V(data) or V(runtime) keep the checks of that part, V(whole) keeps all.
      - V(hosts) gives the hosts that it runs on instead, none when that is the one with its data alone.
      - V(plain) tells whether it is started and stopped by no more than one command each, on the host of its entry.
    type: str
    choices: [data, runtime, whole, hosts, plain]
    required: true
"""

EXAMPLES = r"""
- name: Check a replica
  lifeboat.recovery.service_check:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry | lifeboat.recovery.entry_part('runtime') }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
  delegate_to: app2
"""

RETURN = r"""
_value:
  description: The entry with that part of its checks, a list of hosts, or a boolean.
  type: raw
"""

from typing import Any, Callable, Union

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import clusters
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered, mapping_in


@filtered
def entry_part(entry: Any, part: str) -> Union[dict[str, Any], list[str], bool]:
    """See DOCUMENTATION."""
    service = mapping_in(entry, "the entry")
    if part == "hosts":
        return clusters.runtime_hosts(service)
    if part == "plain":
        return clusters.plain(service)
    return dict(service) if part == "whole" else clusters.part(service, part)


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"entry_part": entry_part}
