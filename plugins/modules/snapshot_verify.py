#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_verify
short_description: Verify stored snapshots of a service
version_added: 0.1.0
description:
  - Checks that stored snapshots can be restored, as deep as asked, and names every damaged object and the snapshots that need it.
  - Fails when a snapshot that was checked is damaged or one is missing, unless O(fail=false).
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.reads
options:
  target:
    description:
      - V(all) snapshots, or a target as M(lifeboat.recovery.snapshot_restore) takes it.
    type: str
    default: all
  depth:
    description:
      - V(exists) looks for every object and its size, V(hash) reads every object, V(decode) opens every chunk as a restore would.
      - V(decode) needs the keys of a restore.
    type: str
    choices: [exists, hash, decode]
    default: hash
  fail:
    description:
      - Fail when something that is needed is damaged. V(false) only reports it.
    type: bool
    default: true
  origin:
    description:
      - Name of the repository that is verified. Empty means the one that the service writes to, otherwise a copy.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Could everything be restored
  lifeboat.recovery.snapshot_verify:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    depth: decode
"""

RETURN = r"""
ok:
  description: Whether nothing that is needed is damaged.
  type: bool
  returned: always
findings:
  description: What was found, C(level), C(snapshots), C(code), C(what), C(where) and C(remedy).
  type: list
  elements: dict
  returned: always
checked:
  description: How much was checked, C(snapshots), C(objects) and C(bytes).
  type: dict
  returned: always
depth:
  description: The depth.
  type: str
  returned: always
mark:
  description: Whether this host has a high-water mark by which a missing newest snapshot would be noticed.
  type: bool
  returned: always
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
            target={"type": "str", "default": "all"},
            depth={"type": "str", "choices": ["exists", "hash", "decode"], "default": "hash"},
            fail={"type": "bool", "default": True},
            origin={"type": "str", "default": ""},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "verify", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    told = operations.verify(spec, params["target"], params["depth"], params["origin"])
    return arguments.refuse_findings(told) if params["fail"] else told


if __name__ == "__main__":
    main()
