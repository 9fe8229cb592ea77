#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: client_probe
author:
  - Lifeboat contributors (@lifeboat-recovery)
short_description: Watch what clients of a service see
version_added: 0.1.0
description:
  - Asks the http and tcp health probes of a service at a low rate, in a process of its own on the service's host, and tells latencies and errors.
  - The playbook C(restore) does this for services outside of its pick with C(lifeboat_probe_clients=true).
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
  idempotent:
    details:
      - To begin again is a change, since what was seen before is dropped.
    support: partial
options:
  state:
    description:
      - V(started) begins, and ends one that was begun before. V(stopped) ends it and returns what was seen.
    type: str
    choices: [started, stopped]
    default: started
  interval:
    description:
      - Seconds between two probes, at least 0.2.
    type: float
    default: 1.0
  limit:
    description:
      - Seconds after which it ends by itself.
    type: float
    default: 3600.0
"""

EXAMPLES = r"""
- name: Watch the shop while orders is restored
  lifeboat.recovery.client_probe:
    service: shop
    entry: "{{ hostvars.shop.lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    interval: 2
"""

RETURN = r"""
watching:
  description: How many probes are asked in turn; 0 for a service that declares none of these kinds, then nothing was begun.
  type: int
  returned: for O(state=started)
clients:
  description:
    - What was seen, C(probes), C(errors), and in seconds C(p50), C(p95) and C(max) of the latency and the C(seconds) that it watched.
    - V(null) when nothing was watched.
  type: dict
  returned: for O(state=stopped)
ledger:
  description: Empty; it is no work on the service.
  type: list
  elements: dict
  returned: success
run:
  description: The id of the run.
  type: str
  returned: success
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy).
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec=dict(
            arguments.COMMON,
            state={"type": "str", "choices": ["started", "stopped"], "default": "started"},
            interval={"type": "float", "default": 1.0},
            limit={"type": "float", "default": 3600.0},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "probe", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import client_probe

    if check:
        return {"changed": bool(client_probe.probes(spec)), "watching": len(client_probe.probes(spec))}
    if params["state"] == "stopped":
        return client_probe.stop(spec)
    return client_probe.start(spec, run, params["interval"], params["limit"])


if __name__ == "__main__":
    main()
