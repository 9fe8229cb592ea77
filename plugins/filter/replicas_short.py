# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: replicas_short
short_description: On which of its hosts a service is not well
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - One line for each host on which a check failed, or that does not answer.
options:
  _input:
    description: The results of P(lifeboat.recovery.service_check#module), one per host.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Say which are not well
  ansible.builtin.debug:
    msg: "{{ checked.results | lifeboat.recovery.replicas_short }}"
"""

RETURN = r"""
_value:
  description: The lines; empty when the service is well on all of them.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered


@filtered
def replicas_short(results: Any) -> list[str]:
    """See DOCUMENTATION."""
    lines = []
    for result in results or []:
        if result.get("unreachable"):
            lines.append(f"{result.get('item')}: it does not answer")
        elif not result.get("ok"):
            wrong = next((check for check in result.get("results") or [] if not check.get("ok")), {})
            said = f"{wrong['kind']} {wrong['name']}: {wrong['detail']}" if wrong else str(result.get("msg") or "it was not checked")
            lines.append(f"{result.get('item')}: {said}")
    return lines


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"replicas_short": replicas_short}
