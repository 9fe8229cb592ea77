#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_key
short_description: Rotate, retire or destroy the data key of a service
version_added: 0.2.0
description:
  - Makes a new version of the key that wraps the data keys of a service, wraps all stored data keys anew under it, and lets old versions open
    nothing any more. Only small key objects are written, each beside the old one; no data is rewritten.
  - A call that was killed is completed by the next one, which makes no second version.
  - Can also destroy the keys of a service for ever (crypto-shredding), which leaves all other services as they are.
  - Every state but V(described) needs the right to it, see C(docs/keys.md). Who rotates opens no data key.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: There is nothing to show but the counts in the result.
    support: none
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - O(state=rotated) makes a new version in each call that is not the completion of an interrupted one. Every other state is idempotent.
options:
  state:
    description:
      - V(described) only looks, and changes nothing.
      - V(rewrapped) wraps every stored data key under the newest version.
      - V(rotated) makes a new version first.
      - V(retired) lets O(version) and older versions open nothing any more. It is refused while a data key is still wrapped under one of them,
        and when it is not certain that all data keys are known.
      - V(shredded) destroys the keys of the service for ever. Nothing of the service can be restored from any repository then.
    type: str
    choices: [described, rewrapped, rotated, retired, shredded]
    default: described
  version:
    description:
      - The newest version to retire, as RV(versions) numbers them. Needed with O(state=retired).
    type: str
    default: ""
  confirm:
    description:
      - The name of the ecosystem and of the service, as C(ECOSYSTEM/SERVICE). Needed with O(state=shredded).
    type: str
    default: ""
  reason:
    description:
      - Why a service is shredded. It stands in the ledger and in the tombstone, readable without any key.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Make a new version and wrap all data keys under it
  lifeboat.recovery.service_key:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    state: rotated
  register: rotated

- name: Let the version before it open nothing any more
  lifeboat.recovery.service_key:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    state: retired
    version: "{{ rotated.version - 1 }}"

- name: Destroy the keys of a service that must be forgotten
  lifeboat.recovery.service_key:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    catalog: {ecosystem: shop}
    state: shredded
    confirm: shop/orders
    reason: erasure request of 2030-01-31
"""

RETURN = r"""
version:
  description: Number of the newest version, or of the one that was retired.
  type: int
  returned: for states described, rewrapped, rotated and retired
versions:
  description: The versions, C(number), C(name), C(state) (V(current), V(opens) or V(retired)) and C(keys), how many data keys are wrapped under it.
  type: list
  elements: dict
  returned: for state described
data_keys:
  description: How many data keys the service has.
  type: int
  returned: success
rewrapped:
  description: How many of them were, or would be, wrapped anew.
  type: int
  returned: for states rewrapped and rotated
retired:
  description: The names of the versions that this call retired, or would retire.
  type: list
  elements: str
  returned: for state retired
escrow_copies:
  description: How many data keys have an escrow copy, which the escrow key opens.
  type: int
  returned: for states described and shredded
tombstone:
  description: When, by whom and in which run the service was shredded, C(time), C(by), C(run), C(reason); null when it was not.
  type: dict
  returned: for states described and shredded
destroyed:
  description: What was destroyed.
  type: list
  elements: str
  returned: for state shredded
tried:
  description: How many data keys were tried afterwards. None opened, anything else fails.
  type: int
  returned: for state shredded
ledger:
  description: The entries this call wrote to the ledger of the service on its host, hash-chained.
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
            state={"type": "str", "choices": ["described", "rewrapped", "rotated", "retired", "shredded"], "default": "described"},
            version={"type": "str", "default": ""},
            confirm={"type": "str", "default": ""},
            reason={"type": "str", "default": ""},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "rotate_keys", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    state = params["state"]
    if state == "described":
        return operations.describe_keys(spec)
    if state == "retired":
        return operations.retire(spec, run, params["version"], check)
    if state == "shredded":
        return operations.shred(spec, run, params["confirm"], params["reason"], check)
    return operations.rotate(spec, run, state == "rotated", check)


if __name__ == "__main__":
    main()
