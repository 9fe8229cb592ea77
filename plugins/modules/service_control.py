#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_control
short_description: Start or stop a service by what its catalog entry says
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Runs the command, or has systemd start or stop the unit, that C(runtime) of the service's entry names. What takes longer than the
    service's policy allows is ended, with all its processes.
  - A start that fails is tried again as often as C(policy.start.retries) says, each time after a longer pause.
  - A stop that fails is a success when the status command says that the service is down, and a failure when nobody knows.
options:
  service:
    description:
      - Name of the service.
    type: str
    required: true
  runtime:
    description:
      - What the entry says under C(runtime). C(start) and C(stop) are a list of words, or a mapping with C(unit); without one there is nothing to do.
    type: dict
    required: true
  policy:
    description:
      - What the entry says under C(policy), for the steps C(start) and C(stop).
    type: dict
    default: {}
  run:
    description:
      - The run as RV(lifeboat.recovery.run_state#module:run) returned it. With it the call is the phase C(start) or C(stop) of the service,
        and the phase ends with it, so leave it out where there are several hosts to start or stop the service on.
    type: dict
  state:
    description:
      - What is wanted.
    type: str
    choices: [started, stopped]
    default: started
extends_documentation_fragment:
  - lifeboat.recovery.service.gate
attributes:
  check_mode:
    description: In check mode nothing is run.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: A unit in the wanted state is left alone. Whether a command does anything is its own matter; it counts as a change.
    support: partial
"""

EXAMPLES = r"""
- name: Start orders
  lifeboat.recovery.service_control:
    service: orders
    runtime: {start: [/opt/orders/bin/start], status: [/opt/orders/bin/status]}
    policy: {start: {timeout: 30, retries: 3}}
"""

RETURN = r"""
tries:
  description: What each try that failed said, before the one that did not.
  type: list
  elements: str
  returned: success
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy).
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments, control
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec={
            "service": {"type": "str", "required": True},
            "runtime": {"type": "dict", "required": True},
            "policy": {"type": "dict", "default": {}},
            "run": {"type": "dict"},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            "gate": arguments.GATE,
        },
        supports_check_mode=True,
    )
    wanted = module.params
    verb = "start" if wanted["state"] == "started" else "stop"
    if module.check_mode:
        module.exit_json(changed=bool(wanted["runtime"].get(verb)), tries=[])
    try:
        told = (control.start if verb == "start" else control.stop)(wanted["service"], {"runtime": wanted["runtime"], "policy": wanted["policy"]})
    except LifeboatError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(**told)


if __name__ == "__main__":
    main()
