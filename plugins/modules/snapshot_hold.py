#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_hold
short_description: Keep snapshots of a service until a legal hold is cleared
version_added: 0.1.0
description:
  - Sets or clears a legal hold on the snapshots of a point, in the repository and in every copy that has them. Nothing that a held snapshot
    needs is deleted, whatever retention and locks say.
  - The hold is a signed record. In a bucket with object lock everything the snapshot needs carries the store's own legal hold too.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  state:
    description:
      - V(present) sets the hold, V(absent) clears it.
    type: str
    choices: [present, absent]
    default: present
  target:
    description:
      - A snapshot id holds that snapshot; a point id, V(latest), V(proven) or an ISO 8601 time with zone holds every snapshot of the point.
    type: str
    required: true
  reason:
    description:
      - Why it is held, and by whose order. Required with O(state=present); it is kept with the hold.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Keep what stood on the day of the incident
  lifeboat.recovery.snapshot_hold:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    target: 20300131T120000Z-backup-ab12cd
    reason: case 4711, legal department
"""

RETURN = r"""
snapshots:
  description: The ids of the snapshots that are, or are no longer, held.
  type: list
  elements: str
  returned: success
repositories:
  description: The names of the repositories in which that was changed.
  type: list
  elements: str
  returned: success
ledger:
  description: The entries this call wrote to the ledger of the service on its host, hash-chained.
  type: list
  elements: dict
  returned: always
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
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            target={"type": "str", "required": True},
            reason={"type": "str", "default": ""},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "hold", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    return operations.hold(spec, run, params["target"], "set" if params["state"] == "present" else "clear", params["reason"], check)


if __name__ == "__main__":
    main()
