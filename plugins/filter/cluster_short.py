# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_short
short_description: What a replicated cluster lacks after its standbys were reseeded
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - One line, with its remedy, for each standby that was not reseeded, or that says it streams while the primary does not see it.
positional: _input, primary, service, inventory
options:
  _input:
    description: The results of P(lifeboat.recovery.service_member#module) with O(lifeboat.recovery.service_member#module:state=streaming), one per member.
    type: list
    elements: dict
    required: true
  primary:
    description: What the primary said afterwards.
    type: dict
    required: true
  service:
    description: Name of the service.
    type: str
    required: true
  inventory:
    description: What to print after C(-i) in the command.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Judge what both sides say
  ansible.builtin.set_fact:
    short: "{{ reseeded.results | lifeboat.recovery.cluster_short(primary, 'orders') }}"
"""

RETURN = r"""
_value:
  description: The lines; empty when every standby follows.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered, mapping_in


@filtered
def cluster_short(results: Any, primary: Any, service: str, inventory: str = "") -> list[str]:
    """See DOCUMENTATION."""
    seen = {one.get("slot"): one for one in mapping_in(primary, "the primary's answer").get("standbys") or []}
    asked = bool(mapping_in(primary, "the primary's answer").get("role"))
    lines = []
    for result in results or []:
        member, slot = str(result.get("item")), (result.get("proof") or {}).get("slot")
        if result.get("unreachable"):
            reason = "it does not answer"
        elif result.get("failed"):
            reason = str(result.get("msg") or "it failed")
        elif asked and slot and (seen.get(slot) or {}).get("state") != "streaming":
            reason = f"it says that it streams, and the primary does not see it (slot {slot}: {(seen.get(slot) or {}).get('state') or 'nobody'})"
        else:
            continue
        where = f" -i {inventory}" if inventory else ""
        lines.append(f"standby {member} does not follow: {reason}; "
                     f"ansible-playbook lifeboat.recovery.reseed{where} -e lifeboat_services={service} -e lifeboat_members={member}")
    return lines


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster_short": cluster_short}
