#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file documents the action plugin of the same name and holds nothing that runs on a host.

from __future__ import annotations

DOCUMENTATION = r"""
module: show
short_description: Print what hosts answered as a table
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Prints the tables of the playbooks C(status) and C(points), and for C(bootstrap) what must be kept running where no unit does it.
  - Runs on the controller and changes nothing.
options:
  what:
    description: The table.
    type: str
    required: true
    choices: [status, points, logs]
  answers:
    description:
      - Service to what M(lifeboat.recovery.service_state) (for V(status)) or M(lifeboat.recovery.snapshot_info) (for V(points)) answered.
      - For V(logs), service to the names of its sources with a log.
    type: dict
    required: true
  clusters:
    description: For V(status), service to what P(lifeboat.recovery.cluster_choice#filter) says of its members, where it has any.
    type: dict
    default: {}
  inventory:
    description: What commands name after C(-i).
    type: str
    default: ""
  newest:
    description: How many points to show per service.
    type: int
    default: 10
  root:
    description: The folder of run directories, for V(status).
    type: path
    default: ""
attributes:
  check_mode:
    description: It changes nothing in any mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Show the points of orders
  lifeboat.recovery.show:
    what: points
    answers: {orders: "{{ lifeboat_listed }}"}
"""

RETURN = r"""
lines:
  description: The lines printed.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={
        "what": {"type": "str", "required": True, "choices": ["status", "points", "logs"]},
        "answers": {"type": "dict", "required": True},
        "clusters": {"type": "dict", "default": {}},
        "inventory": {"type": "str", "default": ""},
        "newest": {"type": "int", "default": 10},
        "root": {"type": "path", "default": ""},
    }, supports_check_mode=True)
    module.fail_json(msg="lifeboat.recovery.show is an action on the controller: call it as a task of a playbook")


if __name__ == "__main__":
    main()
