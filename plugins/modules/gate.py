#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file documents the action plugin of the same name and holds nothing that runs on a host.

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
short_description: Wait until the services that a service depends on are ready
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Blocks until the gate of a service opens, or fails and names the service that is the root of the trouble.
  - Reads the run directory on the controller only; nothing runs on the host of the service.
  - M(lifeboat.recovery.service_control) and M(lifeboat.recovery.snapshot_restore) can wait at one themselves, which saves a task.
  - Use it in a play with C(strategy=ansible.builtin.host_pinned) over hosts in topological order.
    A gate may then wait for hosts that are earlier in the order with any number of forks.
    To wait for later ones (V(waits=dependants_stopped), and V(waits=island_staged) for whole islands)
    let what is waited for happen in a play before, or have forks for all hosts.
  - When the gate can never open, the service gets the verdict V(blocked) and the task fails.
    When it does not open in time, the service gets the verdict V(failed) and the task fails.
options:
  run:
    description:
      - The run as RV(lifeboat.recovery.run_state#module:run) returned it. Needed unless O(run_dir) is given.
    type: dict
  run_dir:
    description:
      - The run directory; an alternative to O(run).
    type: path
  service:
    description:
      - The service whose gate this is.
    type: str
    required: true
  waits:
    description:
      - What has to be true of every service that is waited for.
      - V(requirements) waits for a verdict in O(open_on) of every hard one, and for any verdict of every soft one.
        A soft one that ended badly opens the gate, and a later success of the service becomes V(degraded).
      - V(island_staged) waits for the end of phase C(stage), V(dependants_stopped) for the end of phase C(stop);
        a service that has a verdict in O(open_on) needs neither.
    type: str
    choices: [requirements, island_staged, dependants_stopped]
    default: requirements
  services:
    description:
      - The services to wait for, as names or as mappings C({service, kind}) with kind V(hard) (default) or V(soft).
      - Services that are not in the run are not waited for; they are returned in RV(not_picked).
      - Without it those that the run's plan tells of, what the service requires, its island, or what builds on it.
    type: list
    elements: raw
  open_on:
    description:
      - The verdicts of a service that make it good enough to build upon.
      - V(degraded) is among them because such a service is verified itself; the run as a whole still ends as degraded.
    type: list
    elements: str
    default: [verified, restored, degraded, captured, committed, rolled_back]
  begins:
    description:
      - The phase of the service that begins as soon as the gate is open. It saves a task of its own.
    type: str
  unless_untouched:
    description:
      - Whether to say in RV(untouched), once the gate is open, if anything is left to do for the service.
    type: bool
    default: false
  timeout:
    description:
      - Seconds after which a gate that did not open fails.
    type: float
    default: 3600.0
  poll:
    description:
      - Seconds between two looks at the run directory.
    type: float
    default: 0.1
attributes:
  check_mode:
    description: In check mode the gate is open.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Wait for the services this one requires
  lifeboat.recovery.gate:
    run: "{{ lifeboat_current_run }}"
    service: "{{ lifeboat_service }}"
    services: "{{ lifeboat_entry.requires }}"
    timeout: 1800
"""

RETURN = r"""
opened:
  description: Whether the gate opened.
  returned: always
  type: bool
waited:
  description: Seconds spent here.
  returned: always
  type: float
waited_for:
  description: Whom the gate waited for and how long, longest first.
  returned: always
  type: list
  elements: dict
  sample: [{service: orders, seconds: 4.21}]
degraded_by:
  description: Soft requirements that ended badly.
  returned: always
  type: list
  elements: str
not_picked:
  description: Services in O(services) that are not in this run.
  returned: always
  type: list
  elements: str
untouched:
  description: >-
    Whether nothing is left to do for the service: its data is the target of the run already and it is well, and so are all services of the run that it
    builds on.
  returned: when O(unless_untouched=true) and the gate is open
  type: bool
because_of:
  description: The services because of which something is left to do.
  returned: when O(unless_untouched=true) and the gate is open
  type: list
  elements: str
verdict:
  description: The verdict that the service got because the gate did not open.
  returned: on failure
  type: str
root:
  description: The first cause, with service, verdict, phase, message and remedy.
  returned: on failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments


def main() -> None:
    module = AnsibleModule(argument_spec={
        "run": {"type": "dict"},
        "run_dir": {"type": "path"},
        "service": {"type": "str", "required": True},
        "waits": {"type": "str", "choices": list(arguments.WAITS), "default": "requirements"},
        "services": {"type": "list", "elements": "raw"},
        "open_on": {
            "type": "list", "elements": "str", "default": ["verified", "restored", "degraded", "captured", "committed", "rolled_back"],
        },
        "begins": {"type": "str"},
        "unless_untouched": {"type": "bool", "default": False},
        "timeout": {"type": "float", "default": 3600.0},
        "poll": {"type": "float", "default": 0.1},
    }, supports_check_mode=True)
    module.fail_json(msg="lifeboat.recovery.gate is an action on the controller: call it as a task of a playbook")


if __name__ == "__main__":
    main()
