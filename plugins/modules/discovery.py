#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file documents the action plugin of the same name and holds nothing that runs on a host.

from __future__ import annotations

DOCUMENTATION = r"""
module: discovery
short_description: Compare what runs with the requirements of the catalog
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Says what each host is asked by M(lifeboat.recovery.service_discovery), and compares the answers with what the catalog declares.
    It reports undeclared and unused requirements, and peers that no service owns. It prints them and writes them as C(discovery.json).
  - Runs on the controller and changes nothing of the ecosystem. In check mode it only prints.
options:
  step:
    description: V(ask) tells whom to ask what, V(compare) what the answers come to.
    type: str
    required: true
    choices: [ask, compare]
  catalog:
    description: The whole catalog.
    type: dict
    required: true
  services:
    description: For V(ask), the services that were picked.
    type: list
    elements: str
    default: []
  answers:
    description: >-
      For V(compare), service to what a loop of M(lifeboat.recovery.service_discovery) over its RV(lookouts) registered.
    type: dict
  directory:
    description: For V(compare), where to write; made when it is missing. The former C(discovery.json) there tells when connections were seen last.
    type: path
  strict:
    description: Whether a warning is a failure.
    type: bool
    default: false
attributes:
  check_mode:
    description: It writes no file then.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Whom to ask
  lifeboat.recovery.discovery:
    step: ask
    catalog: "{{ lifeboat_catalog }}"
    services: [orders, shop]
  run_once: true
  register: lifeboat_ask
"""

RETURN = r"""
lookouts:
  description: Service to the hosts that it asks, C(machine) and the inventory host C(through) which it is reached. Each host is asked once.
  type: dict
  returned: for O(step=ask)
declared:
  description: Host to what is declared to be there, as M(lifeboat.recovery.service_discovery) takes it.
  type: dict
  returned: for O(step=ask)
discovery:
  description: The document, C(edges), C(findings), C(unknown_peers), C(unknown_clients), C(unlisted) and C(machines); docs/discovery.md describes it.
  type: dict
  returned: for O(step=compare)
json:
  description: The file with the document.
  type: str
  returned: for O(step=compare) outside check mode
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy).
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={
        "step": {"type": "str", "required": True, "choices": ["ask", "compare"]},
        "catalog": {"type": "dict", "required": True},
        "services": {"type": "list", "elements": "str", "default": []},
        "answers": {"type": "dict"},
        "directory": {"type": "path"},
        "strict": {"type": "bool", "default": False},
    }, supports_check_mode=True)
    module.fail_json(msg="lifeboat.recovery.discovery is an action on the controller: call it as a task of a playbook")


if __name__ == "__main__":
    main()
